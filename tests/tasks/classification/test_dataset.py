"""The torch data set: a pure function of seed, epoch and position, cached or not."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from spikevideoformer.data.frame_cache import FrameCache
from spikevideoformer.data.problems import DatasetError
from spikevideoformer.data.specs import Augmentation
from spikevideoformer.data.transforms import eval_transform
from spikevideoformer.tasks.classification.dataset import ClipDataset
from spikevideoformer.tasks.classification.index import read_index
from spikevideoformer.tasks.classification.sample import ClipIndex, ClipSample
from spikevideoformer.video.clip import ClipBatch, collate_clips
from spikevideoformer.video.frames import VideoError, read_clip, write_video
from spikevideoformer.video.spec import ClipSpec

MakeVideo = Callable[..., Path]

SPEC = ClipSpec(frames=4, size=16)
AUGMENTATION = Augmentation(flip=0.5)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, make_video: MakeVideo) -> ClipIndex:
    root = tmp_path_factory.mktemp("data")
    for label in ("bow", "wave"):
        for i in range(3):
            make_video(root / f"{label}/{i}.mp4", frames=10 + i, size=48)
    return read_index(root, split="train")


def test_an_item(index: ClipIndex) -> None:
    item = ClipDataset(index, SPEC)[4]
    assert item.video.shape == (4, 3, 16, 16)
    assert item.video.dtype == torch.float32
    assert (item.label, item.index, item.path) == (1, 4, index.samples[4].path)


def test_evaluation_sees_what_prediction_sees(index: ClipIndex) -> None:
    for spec in (SPEC, replace(SPEC, frame_rate_hz=8.0)):
        path = index.samples[0].path
        frames = read_clip(path, spec, resize_short=spec.size).frames
        assert torch.equal(ClipDataset(index, spec)[0].video, eval_transform(frames, spec))


def test_training_without_augmentation_is_evaluation(index: ClipIndex) -> None:
    training = ClipDataset(index, SPEC, augmentation=Augmentation.off())
    assert torch.equal(training[7, 2].video, ClipDataset(index, SPEC)[2].video)


class TestPureFunction:
    def test_of_seed_epoch_and_position(self, index: ClipIndex) -> None:
        def item(key: int | tuple[int, int], seed: int = 0) -> torch.Tensor:
            return ClipDataset(index, SPEC, augmentation=AUGMENTATION, seed=seed)[key].video

        assert torch.equal(item((2, 1)), item((2, 1)))
        assert torch.equal(item(1), item((0, 1)))
        assert not torch.equal(item((2, 1)), item((3, 1)))
        assert not torch.equal(item((2, 1)), item((2, 1), seed=1))
        assert not torch.equal(item((2, 1)), item((2, 2)))

    def test_not_of_what_was_read_before(self, index: ClipIndex) -> None:
        one = ClipDataset(index, SPEC, augmentation=AUGMENTATION, cache=FrameCache(2**26))
        for i in range(len(one)):
            one[5, i]
        other = ClipDataset(index, SPEC, augmentation=AUGMENTATION)
        assert torch.equal(one[1, 3].video, other[1, 3].video)

    def test_leaves_global_generators_alone(self, index: ClipIndex) -> None:
        # Python's own generator is left out: the type checker of the tests draws from it.
        def states() -> tuple[list[int], list[int]]:
            numpy_state = np.random.get_state()[1].tolist()  # noqa: NPY002
            return numpy_state, torch.get_rng_state().tolist()

        before = states()
        ClipDataset(index, SPEC, augmentation=AUGMENTATION)[0]
        assert states() == before

    def test_not_of_the_number_of_workers(self, index: ClipIndex) -> None:
        keys = [[(epoch, i), (epoch, (i + 1) % 6)] for epoch in range(3) for i in range(0, 6, 2)]

        def batches(workers: int, cache: FrameCache | None = None) -> list[ClipBatch]:
            return list(
                DataLoader(
                    ClipDataset(index, SPEC, augmentation=AUGMENTATION, cache=cache),
                    batch_sampler=keys,
                    num_workers=workers,
                    collate_fn=collate_clips,
                )
            )

        alone = batches(0)
        caches = (None, FrameCache(2**26), FrameCache(30_000))  # one of them is soon full
        for together in (batches(2, cache) for cache in caches):
            for a, b in zip(alone, together, strict=True):
                assert torch.equal(a.video, b.video)
                assert torch.equal(a.labels, b.labels)
                assert a.paths == b.paths


class TestCache:
    @pytest.mark.parametrize("augmentation", [None, AUGMENTATION])
    @pytest.mark.parametrize("rate", [None, 7.0, 40.0])
    def test_is_bitwise_the_same(
        self, index: ClipIndex, augmentation: Augmentation | None, rate: float | None
    ) -> None:
        spec = replace(SPEC, frame_rate_hz=rate)
        plain = ClipDataset(index, spec, augmentation=augmentation)
        cached = ClipDataset(index, spec, augmentation=augmentation, cache=FrameCache(2**26))
        for epoch in range(3):
            for i in range(len(index)):
                assert torch.equal(plain[epoch, i].video, cached[epoch, i].video)

    def test_with_parts_of_files(self, index: ClipIndex) -> None:
        sample = index.samples[2]
        parts = tuple(
            replace(sample, start_s=start_s, end_s=end_s)
            for start_s, end_s in [(0.0, 0.5), (0.55, None), (None, 0.35), (0.31, 7.0)]
        )
        index = replace(index, samples=parts)
        plain, cached = (
            ClipDataset(index, SPEC, augmentation=AUGMENTATION, cache=cache)
            for cache in (None, FrameCache(2**26))
        )
        for i in range(len(parts)):
            assert torch.equal(plain[1, i].video, cached[1, i].video)

    def test_reads_each_file_once(self, index: ClipIndex, tmp_path: Path) -> None:
        path = shutil.copy(index.samples[0].path, tmp_path / "1.mp4")
        one = replace(index, samples=(replace(index.samples[0], path=path),))
        dataset = ClipDataset(one, SPEC, augmentation=AUGMENTATION, cache=FrameCache(2**26))
        dataset[0, 0]
        path.unlink()
        dataset[1, 0]

    def test_of_several_clips(self, index: ClipIndex) -> None:
        for rate in (None, 15.0):
            spec = replace(SPEC, frame_rate_hz=rate)
            plain, cached = (
                ClipDataset(index, spec, clips_per_video=3, cache=cache)
                for cache in (None, FrameCache(2**26))
            )
            for i in range(len(plain)):
                assert torch.equal(plain[i].video, cached[i].video)

    @pytest.mark.parametrize("budget", [100, 20_000, 70_000])
    def test_with_little_room(self, index: ClipIndex, budget: int) -> None:
        cache = FrameCache(budget)
        plain = ClipDataset(index, SPEC, augmentation=AUGMENTATION)
        cached = ClipDataset(index, SPEC, augmentation=AUGMENTATION, cache=cache)
        for epoch in range(2):
            for i in range(len(index)):
                assert torch.equal(plain[epoch, i].video, cached[epoch, i].video)
        assert cache.used_bytes <= budget

    def test_is_shared_by_data_sets_that_keep_the_same(self, index: ClipIndex) -> None:
        cache = FrameCache(2**26)
        datasets = [ClipDataset(index, SPEC, cache=cache, clips_per_video=n) for n in (1, 2)]
        for dataset in datasets:
            for i in range(len(dataset)):
                dataset[i]
        assert cache.kept == len(index)

    def test_the_whole_part_of_a_damaged_file(self, index: ClipIndex, tmp_path: Path) -> None:
        torn = tmp_path / "torn.ts"
        images = np.random.default_rng(0).integers(0, 256, (60, 48, 48, 3)).astype(np.uint8)
        write_video(torn, images, 10.0, options={"g": "5"})
        data = bytearray(torn.read_bytes())
        data[-2000:-1000] = bytes(1000)
        torn.write_bytes(data)
        part = replace(index.samples[0], path=torn, start_s=0.0, end_s=1.0)
        one = replace(index, samples=(part,))
        cache = FrameCache(2**26)
        assert torch.equal(
            ClipDataset(one, SPEC)[0].video, ClipDataset(one, SPEC, cache=cache)[0].video
        )
        assert (cache.kept, cache.refused) == (0, 1)

    def test_of_real_clips(self, shared_data: Path) -> None:
        index = read_index(shared_data / "action", split="val")
        index = replace(index, samples=index.samples[:2])
        spec = ClipSpec(frames=12, size=64)
        plain = ClipDataset(index, spec, augmentation=AUGMENTATION)
        cached = ClipDataset(index, spec, augmentation=AUGMENTATION, cache=FrameCache(2**26))
        assert torch.equal(plain[0, 1].video, cached[0, 1].video)


@pytest.fixture
def ramp(tmp_path: Path) -> ClipIndex:
    """One video of 40 frames at 10 Hz whose grey level tells the frame."""
    path = tmp_path / "ramp.mkv"
    images = (np.full((16, 16, 3), 6 * t, np.uint8) for t in range(40))
    write_video(path, images, 10.0, codec="ffv1")
    sample = ClipSample(path=path, label=0, split="val", source="here:1")
    return ClipIndex(root=tmp_path, layout="splits", classes=("a",), samples=(sample,))


def frames_seen(dataset: ClipDataset, i: int) -> list[int]:
    mean, std = dataset.spec.mean[0], dataset.spec.std[0]
    grey = dataset[i].video[:, 0].mean((1, 2)) * std + mean
    return [round(level * 255 / 6) for level in grey.tolist()]


class TestSeveralClips:
    def test_over_the_whole_video(self, ramp: ClipIndex) -> None:
        spec = replace(SPEC, frame_rate_hz=5.0)  # a clip lasts 0.8 s of 4 s
        dataset = ClipDataset(ramp, spec, clips_per_video=4)
        assert len(dataset) == 4
        clips = [frames_seen(dataset, i) for i in range(4)]
        assert clips == [[5, 7, 9, 11], [13, 15, 17, 19], [21, 23, 25, 27], [29, 31, 33, 35]]
        assert [dataset[i].index for i in range(4)] == [0] * 4

    def test_at_shifted_moments_without_a_rate(self, ramp: ClipIndex) -> None:
        dataset = ClipDataset(ramp, SPEC, clips_per_video=2)
        assert [frames_seen(dataset, i) for i in range(2)] == [[2, 12, 22, 32], [7, 17, 27, 37]]

    def test_one_clip_is_in_the_middle(self, ramp: ClipIndex) -> None:
        spec = replace(SPEC, frame_rate_hz=10.0)
        middle = frames_seen(ClipDataset(ramp, spec), 0)
        assert frames_seen(ClipDataset(ramp, spec, clips_per_video=3), 1) == middle

    def test_are_for_evaluation(self, ramp: ClipIndex) -> None:
        with pytest.raises(ValueError, match="exactly 1 with augmentation"):
            ClipDataset(ramp, SPEC, augmentation=AUGMENTATION, clips_per_video=2)
        with pytest.raises(ValueError, match="at least 1"):
            ClipDataset(ramp, SPEC, clips_per_video=0)
        with pytest.raises(ValueError, match="crops is 3; give at least 1, and exactly 1 with"):
            ClipDataset(ramp, SPEC, augmentation=AUGMENTATION, crops=3)

    def test_crops_of_a_clip_follow_each_other(self, tmp_path: Path) -> None:
        """A wide video, darker to the right, lighter from frame to frame."""
        path = tmp_path / "wide.mkv"
        images = [np.full((16, 48, 3), 3 * t + 100, np.uint8) for t in range(40)]
        for image in images:
            image[:, 16:32] -= 50
            image[:, 32:] -= 100
        write_video(path, images, 10.0, codec="ffv1")
        sample = ClipSample(path=path, label=0, split="val", source="here:1")
        index = ClipIndex(root=tmp_path, layout="splits", classes=("a",), samples=(sample,))
        dataset = ClipDataset(index, SPEC, clips_per_video=2, crops=3)
        assert len(dataset) == dataset.views == 6
        levels = [dataset[i].video[0, 0].mean().item() for i in range(6)]
        assert levels[0] > levels[1] > levels[2]
        assert levels[3] > levels[4] > levels[5]
        assert levels[3] > levels[0]  # the second clip begins later
        alone = ClipDataset(index, SPEC, clips_per_video=2)
        assert [torch.equal(alone[i].video, dataset[3 * i + 1].video) for i in (0, 1)] == [True] * 2


class TestRefuses:
    def test_an_index_with_problems(self, tmp_path: Path) -> None:
        (tmp_path / "splits.csv").write_text("path,label,split\nhalf\n1.mp4,a,train\n")
        with pytest.raises(DatasetError, match=r"splits\.csv:2"):
            ClipDataset(read_index(tmp_path), SPEC)

    def test_an_empty_index(self, index: ClipIndex) -> None:
        with pytest.raises(DatasetError, match="no clip"):
            ClipDataset(replace(index, samples=()), SPEC)

    def test_a_position_outside(self, index: ClipIndex) -> None:
        for i in (-1, 6):
            with pytest.raises(IndexError):
                ClipDataset(index, SPEC)[i]

    @pytest.mark.parametrize("budget", [0, 2**20])
    def test_a_file_that_went_away(self, index: ClipIndex, tmp_path: Path, budget: int) -> None:
        gone = replace(index.samples[0], path=tmp_path / "gone.mp4")
        dataset = ClipDataset(replace(index, samples=(gone,)), SPEC, cache=FrameCache(budget))
        with pytest.raises(VideoError, match=r"gone\.mp4: "):
            dataset[0]

    def test_a_file_that_went_away_in_a_worker(self, index: ClipIndex, tmp_path: Path) -> None:
        gone = replace(index.samples[0], path=tmp_path / "gone.mp4")
        dataset = ClipDataset(replace(index, samples=(gone,)), SPEC)
        with pytest.raises(VideoError, match=r"gone\.mp4"):
            list(DataLoader(dataset, num_workers=1, collate_fn=collate_clips))

    def test_a_part_past_the_end(self, ramp: ClipIndex) -> None:
        late = replace(ramp, samples=(replace(ramp.samples[0], start_s=4.5),))
        with pytest.raises(VideoError, match="past the end"):
            ClipDataset(late, SPEC)[0]
