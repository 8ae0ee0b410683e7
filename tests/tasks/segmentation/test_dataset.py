"""Cutting of clips, the transforms that move picture and mask together, and the data set."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikevideoformer.data.frame_cache import FrameCache
from spikevideoformer.data.problems import DatasetError, Problem
from spikevideoformer.data.specs import Augmentation
from spikevideoformer.data.transforms import to_pictures
from spikevideoformer.synth.moving_shapes import write_scenes
from spikevideoformer.tasks.segmentation.dataset import (
    SegmentationDataset,
    collate_segmentation,
    evaluation_cuts,
    train_crop,
)
from spikevideoformer.tasks.segmentation.index import read_sequences
from spikevideoformer.tasks.segmentation.sequence import (
    IGNORED,
    FrameSequence,
    MaskCode,
    SequenceFrame,
    SequenceIndex,
)
from spikevideoformer.tasks.segmentation.spec import MaskAugmentation, SegmentationSpec


def sequence(length: int, labelled: set[int] | None = None, name: str = "s") -> FrameSequence:
    return FrameSequence(
        name=name,
        split="train",
        frames=tuple(
            SequenceFrame(
                image=Path(f"{name}{i}.png"),
                label=Path(f"{name}{i}.mask.png") if labelled is None or i in labelled else None,
                number=i,
            )
            for i in range(length)
        ),
    )


def index_of(*sequences: FrameSequence) -> SequenceIndex:
    return SequenceIndex(
        root=Path("root"),
        layout="folders",
        classes=("a", "b"),
        palette=((0, 0, 0), (255, 0, 0)),
        code=MaskCode(values={0: 0, 1: 1, 255: IGNORED}),
        sequences=sequences,
    )


def spec(frames: int = 4, step: int = 1, short_side: int | None = 16) -> SegmentationSpec:
    return SegmentationSpec(frames=frames, short_side=short_side, crop=(16, 16), step=step)


class TestCuts:
    def test_side_by_side_where_every_frame_is_labelled(self):
        cuts = evaluation_cuts(index_of(sequence(8)), spec())
        assert [cut.positions for cut in cuts] == [(0, 1, 2, 3), (4, 5, 6, 7)]
        assert all(all(cut.fresh) for cut in cuts)

    def test_what_is_left_at_the_end_gets_a_whole_clip_that_overlaps(self):
        first, second = evaluation_cuts(index_of(sequence(6)), spec())
        assert first.positions == (0, 1, 2, 3)
        assert second.positions == (2, 3, 4, 5)
        assert second.fresh == (False, False, True, True)

    def test_few_labels_get_all_the_frames_before_them(self):
        (cut,) = evaluation_cuts(index_of(sequence(30, {19})), spec())
        assert cut.positions == (16, 17, 18, 19)
        assert cut.fresh == (False, False, False, True)

    def test_a_label_near_the_beginning(self):
        (cut,) = evaluation_cuts(index_of(sequence(30, {1})), spec())
        assert cut.positions == (0, 1, 2, 3)
        assert cut.fresh == (False, True, False, False)

    def test_a_sequence_that_is_too_short_repeats_its_last_frame(self):
        (cut,) = evaluation_cuts(index_of(sequence(2)), spec())
        assert cut.positions == (0, 1, 1, 1)
        assert cut.fresh == (True, True, False, False)

    def test_never_across_two_sequences(self):
        cuts = evaluation_cuts(index_of(sequence(3, name="a"), sequence(5, name="b")), spec())
        assert [cut.sequence for cut in cuts] == [0, 1, 1]
        assert max(cuts[0].positions) == 2

    @pytest.mark.parametrize("step", [1, 2, 3])
    @pytest.mark.parametrize("frames", [1, 2, 4])
    @pytest.mark.parametrize("length", [1, 2, 5, 12, 13])
    def test_every_labelled_frame_is_fresh_once(self, length, frames, step):
        labelled = {p for p in range(length) if p % 3 != 1}
        cuts = evaluation_cuts(index_of(sequence(length, labelled)), spec(frames, step))
        fresh = [p for cut in cuts for p, new in zip(cut.positions, cut.fresh, strict=True) if new]
        assert sorted(fresh) == sorted(labelled)
        for cut in cuts:
            gaps = np.diff(cut.positions)
            assert set(gaps) <= {0, step}
            assert min(cut.positions) >= 0 and max(cut.positions) < length


def ramp(T: int = 2, H: int = 32, W: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture whose red channel is its mask, so that the two can be compared afterwards."""
    labels = (torch.arange(H)[:, None] // 8 * 8 + torch.arange(W)[None] // 8).to(torch.uint8)
    labels = labels.expand(T, H, W).contiguous()
    pictures = torch.zeros(T, H, W, 3, dtype=torch.uint8)
    pictures[..., 0] = labels * 4
    return pictures, labels


class TestTrainCrop:
    def crop(self, seed: int, masks: MaskAugmentation, **augmentation: float):
        pictures, labels = ramp()
        plain = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "flip": 0.0}
        one = SegmentationSpec(frames=2, short_side=32, crop=(32, 48))
        video, labels = train_crop(
            pictures,
            labels,
            one,
            Augmentation(**{**plain, **augmentation}),
            masks,
            torch.Generator().manual_seed(seed),
        )
        return to_pictures(video, one), labels

    def test_nothing_varied_gives_the_picture_back(self):
        pictures, labels = ramp()
        got_pictures, got_labels = self.crop(0, MaskAugmentation.off())
        assert torch.equal(got_pictures, pictures)
        assert torch.equal(got_labels, labels)

    def test_masks_follow_pictures(self):
        for seed in range(6):
            masks = MaskAugmentation(scale=(0.5, 2.0), one_class=1.0)
            pictures, labels = self.crop(seed, masks, flip=0.5)
            known = labels != IGNORED
            error = (pictures[..., 0].float() / 4 - labels.float()).abs()[known]
            # pixels that the resizing mixes lie at the borders of the fields of 8 x 8
            assert (error < 0.6).float().mean() > 0.6
            assert error.median() < 0.3

    def test_a_flip_moves_both(self):
        pictures, labels = ramp()
        got_pictures, got_labels = self.crop(0, MaskAugmentation.off(), flip=1.0)
        assert torch.equal(got_pictures, pictures.flip(2))
        assert torch.equal(got_labels, labels.flip(2))

    def test_all_frames_are_treated_alike(self):
        masks = MaskAugmentation(scale=(0.5, 2.0))
        pictures, labels = self.crop(3, masks, flip=0.5, brightness=0.4)
        assert torch.equal(pictures[0], pictures[1])
        assert torch.equal(labels[0], labels[1])

    def test_what_is_smaller_than_the_crop_is_filled_up_and_ignored(self):
        masks = MaskAugmentation(scale=(0.5, 0.5), one_class=1.0)
        _, labels = self.crop(0, masks)
        assert labels.shape == (2, 32, 48)
        assert (labels[:, :16, :24] != IGNORED).all()
        assert (labels[:, 16:] == IGNORED).all()
        assert (labels[:, :, 24:] == IGNORED).all()

    def test_colours_do_not_touch_masks(self):
        _, plain = self.crop(1, MaskAugmentation.off())
        pictures, labels = self.crop(1, MaskAugmentation.off(), brightness=0.5, contrast=0.5)
        assert torch.equal(labels, plain)
        assert not torch.equal(pictures, ramp()[0])

    def test_crops_of_one_class_are_drawn_again(self):
        labels = torch.zeros(1, 16, 256, dtype=torch.uint8)
        labels[..., 240:] = 1
        one = SegmentationSpec(frames=1, short_side=16, crop=(16, 32))
        shares = {}
        for limit in (1.0, 0.6):
            shows_both = 0
            for seed in range(200):
                _, crop = train_crop(
                    torch.zeros(1, 16, 256, 3, dtype=torch.uint8),
                    labels,
                    one,
                    Augmentation.off(),
                    MaskAugmentation(scale=(1.0, 1.0), one_class=limit),
                    torch.Generator().manual_seed(seed),
                )
                shows_both += int((crop == 1).any())
            shares[limit] = shows_both / 200
        assert shares[0.6] > 2 * shares[1.0]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"scale": (2.0, 1.0)}, "scale must be two numbers 0 < low <= high"),
            ({"scale": (0.0, 1.0)}, "scale must be"),
            ({"one_class": 0.0}, r"one_class must be a share in \(0, 1\]"),
        ],
    )
    def test_bad_settings(self, options, message):
        with pytest.raises(ValueError, match=message):
            MaskAugmentation(**options)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, train=3, val=2)
    return root


class TestDataset:
    def test_evaluation_shows_whole_pictures_and_masks_as_they_are(self, scenes):
        index = read_sequences(scenes, split="val")
        dataset = SegmentationDataset(index, spec(frames=8, short_side=32))
        assert len(dataset) == 4  # two scenes of 16 frames
        clip = dataset[1]
        assert clip.video.shape == (8, 3, 32, 32)
        frames = index.sequences[0].frames[8:]
        on_disk = np.stack([np.asarray(Image.open(frame.label)) for frame in frames])
        assert np.array_equal(clip.labels.numpy(), on_disk)

    def test_items_depend_on_seed_epoch_and_number_only(self, scenes):
        index = read_sequences(scenes, split="train")

        def dataset(budget: int = 0, seed: int = 0) -> SegmentationDataset:
            return SegmentationDataset(
                index,
                spec(),
                augmentation=Augmentation(),
                seed=seed,
                cache=FrameCache(budget),
            )

        once, again, cached, partly = dataset(), dataset(), dataset(2**26), dataset(50_000)
        _ = again[(7, 3)], cached[(7, 3)], partly[(7, 3)]
        for key in ((0, 0), (1, 0), (1, 5)):
            for other in (again, cached, partly):
                assert torch.equal(once[key].video, other[key].video)
                assert torch.equal(once[key].labels, other[key].labels)
        assert not torch.equal(once[(0, 0)].video, once[(1, 0)].video)
        assert not torch.equal(once[(0, 0)].video, dataset(seed=1)[(0, 0)].video)

    def test_evaluation_is_the_same_from_the_cache(self, scenes):
        cache = FrameCache(2**26)
        index = read_sequences(scenes, split="train")
        training = SegmentationDataset(index, spec(), augmentation=Augmentation(), cache=cache)
        plain, cached = (SegmentationDataset(index, spec(), cache=c) for c in (None, cache))
        for i in 2 * [*range(len(plain))]:
            _ = training[i]  # whose pictures are smaller
            assert torch.equal(plain[i].video, cached[i].video)
            assert torch.equal(plain[i].labels, cached[i].labels)

    def test_passes_lengthen_an_epoch_with_other_crops(self, scenes):
        index = read_sequences(scenes, split="train")
        once = SegmentationDataset(index, spec(), augmentation=Augmentation())
        twice = SegmentationDataset(index, spec(), augmentation=Augmentation(), passes=2)
        assert len(twice) == 2 * len(once)
        assert torch.equal(twice[0].video, once[0].video)
        assert not torch.equal(twice[len(once)].video, once[0].video)

    def test_training_clips_hold_their_labelled_frame_and_begin_at_random(self, scenes, tmp_path):
        write_scenes(tmp_path, train=1, val=1, label_every=8)
        index = read_sequences(tmp_path, split="train")
        dataset = SegmentationDataset(index, spec(), augmentation=Augmentation())
        assert len(dataset) == 2
        starts = set()
        for epoch in range(40):
            clip = dataset[(epoch, 1)]
            assert 8 in clip.cut.positions
            assert list(np.diff(clip.cut.positions)) == [1, 1, 1]
            labelled = (clip.labels != IGNORED).flatten(1).any(1)
            assert labelled.tolist() == [p % 8 == 0 for p in clip.cut.positions]
            starts.add(clip.cut.positions[0])
        assert starts == {5, 6, 7, 8}

    def test_the_repeated_frame_of_a_short_sequence_counts_once(self, scenes, tmp_path):
        write_scenes(tmp_path, train=1, val=1)
        for folder in ("images", "labels"):
            for path in sorted((tmp_path / "train").glob(f"*/{folder}/*"))[2:]:
                path.unlink()
        index = read_sequences(tmp_path, split="train")
        for augmentation in (None, Augmentation()):
            clip = SegmentationDataset(index, spec(), augmentation=augmentation)[0]
            assert (clip.labels != IGNORED).flatten(1).any(1).tolist() == [True, True, False, False]

    def test_batches(self, scenes):
        index = read_sequences(scenes, split="train")
        dataset = SegmentationDataset(index, spec(), augmentation=Augmentation())
        batch = collate_segmentation([dataset[i] for i in range(3)])
        assert len(batch) == 3
        assert batch.video.shape == (3, 4, 3, 16, 16)
        assert batch.labels.shape == (3, 4, 16, 16)
        assert "B=3, T=4" in repr(batch.to("cpu"))

    def test_an_index_with_problems_is_refused(self, scenes):
        index = read_sequences(scenes, split="train")
        problem = Problem(kind="k", source="here", reason="bad", remedy="mend it")
        broken = SequenceIndex(**{**vars(index), "problems": (problem,)})
        with pytest.raises(DatasetError, match="1 problems that check_sequences reports"):
            SegmentationDataset(broken, spec())

    def test_no_label_at_all(self):
        with pytest.raises(DatasetError, match="no labelled frame of root is left"):
            SegmentationDataset(index_of(sequence(4, set())), spec())

    def test_a_mask_of_another_size_than_its_picture(self, tmp_path):
        write_scenes(tmp_path, train=1, val=1)
        mask = next((tmp_path / "train").glob("*/labels/000002.png"))
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(mask)
        index = read_sequences(tmp_path, split="train")
        with pytest.raises(DatasetError, match=r"000002.png is 8x8 and its picture 64x64"):
            SegmentationDataset(index, spec())[0]

    def test_pictures_of_different_size_in_a_sequence(self, tmp_path):
        write_scenes(tmp_path, train=1, val=1)
        picture = next((tmp_path / "train").glob("*/images/000002.png"))
        for path in (picture, picture.parent.parent / "labels" / picture.name):
            with Image.open(path) as image:
                image.crop((0, 0, 32, 48)).save(path)
        index = read_sequences(tmp_path, split="train")
        with pytest.raises(DatasetError, match=r"000002.png is 48x32 and other frames .* 64x64"):
            SegmentationDataset(index, spec())[0]
