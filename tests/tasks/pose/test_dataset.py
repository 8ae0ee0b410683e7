"""Clips of bodies: the square that is cut out, the truth that goes with it, and the data set.

In the pictures here the root joint is a bright dot, so that truth and picture can be compared.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from spikevideoformer.body.skeleton import Skeleton
from spikevideoformer.data.frame_cache import FrameCache
from spikevideoformer.data.problems import DatasetError, Problem
from spikevideoformer.data.specs import Augmentation
from spikevideoformer.events.camera import EventSimulator
from spikevideoformer.events.spec import EventCamera, EventChannels
from spikevideoformer.events.stream import EventStream, joined
from spikevideoformer.tasks.pose.check import check_poses
from spikevideoformer.tasks.pose.dataset import (
    PoseClip,
    PoseDataset,
    collate_poses,
    event_input,
    picture_input,
    recorded_event_input,
)
from spikevideoformer.tasks.pose.sequence import (
    PoseIndex,
    PoseSequence,
    PoseTruth,
    fit_skeleton,
    shape_values,
)
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.tasks.pose.square import MOST_SIDE, PERSON_MARGIN, Square
from spikevideoformer.video.frames import write_video

from ..segmentation.frames import save
from .poses import CAMERA, NAMES, PARENTS, body

HEIGHT, WIDTH = 48, 64
USUAL = PoseSpec(frames=4, size=32)
SPEC = replace(USUAL, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # its margins are black as well
STILL = Augmentation.off()
Dotted, Filmed = Callable[..., PoseIndex], Callable[..., PoseSequence]


def truth(frames: int, seed: int = 0) -> PoseTruth:
    """A body whose root walks over the middle of the picture, in steps of whole pixels."""
    rng = np.random.default_rng(seed)
    own = body(PARENTS, frames, seed)
    at = rng.integers((20, 16), (44, 32), (frames, 2)) + 0.5
    place = (at - CAMERA.centre_px) * 5 / CAMERA.focal_px
    root = np.concatenate((place, np.full((frames, 1), 5.0)), 1)[:, None]
    joints = own.joints - own.joints[:, :1] + root
    return PoseTruth(
        joints=joints.astype(np.float32),
        points=CAMERA.project(joints),
        rotations=own.rotations.astype(np.float32),
        focal_px=CAMERA.focal_px,
        centre_px=CAMERA.centre_px,
    )


def pictures_of(points: np.ndarray) -> np.ndarray:
    """A white dot of 3 x 3 pixels around the root on black, [F, H, W, 3]."""
    pictures = np.zeros((len(points), HEIGHT, WIDTH, 3), np.uint8)
    for picture, (x, y) in zip(pictures, np.floor(points[:, 0]).astype(int), strict=True):
        picture[y - 1 : y + 2, x - 1 : x + 2] = 255
    return pictures


@pytest.fixture
def dotted(tmp_path: Path) -> Dotted:
    """``dotted(frames, ...)``: an index of a sequence of each length, its pictures in files."""

    def make(*lengths: int, **changes: Any) -> PoseIndex:
        sequences = []
        for number, frames in enumerate(lengths):
            known = truth(frames, seed=number)
            files = tuple(
                save(tmp_path / f"{number}-{i}.png", picture)
                for i, picture in enumerate(pictures_of(known.points))
            )
            sequences.append(
                PoseSequence(
                    name=f"s{number}",
                    action="walk",
                    split="train",
                    pictures=files,
                    frame_rate_hz=10.0,
                    truth=known,
                )
            )
        return index_of(*(replace(s, **changes) for s in sequences))

    return make


def index_of(*sequences: PoseSequence) -> PoseIndex:
    return PoseIndex(
        root=Path("root"),
        layout="rendered",
        joint_names=NAMES,
        parents=PARENTS,
        sequences=sequences,
    )


def dataset_of(index: PoseIndex, spec: PoseSpec = SPEC, **options: Any) -> PoseDataset:
    return PoseDataset(index, spec, fit_skeleton(index), **options)


def items(dataset: PoseDataset, epoch: int = 0) -> list[PoseClip]:
    return [dataset[epoch, i] for i in range(len(dataset))]


def brightest(frame: torch.Tensor) -> np.ndarray:
    """The middle of what is brighter than the rest (x, y), in pixels."""
    light = frame.mean(0)
    light = (light - light.median()).clamp_min(0)
    middles = torch.arange(len(light)) + 0.5
    x, y = (light * middles).sum() / light.sum(), (light * middles[:, None]).sum() / light.sum()
    return np.array([x, y])


def same(a: PoseClip, b: PoseClip) -> bool:
    """Bit for bit."""
    return all(
        torch.equal(x.nan_to_num(), y.nan_to_num()) if isinstance(x, torch.Tensor) else x == y
        for x, y in zip(vars(a).values(), vars(b).values(), strict=True)
    )


# --- Pictures as input ----------------------------------------------------------------------------


def test_margins_are_zero_after_normalisation() -> None:
    pictures = torch.zeros(1, 16, 32, 3, dtype=torch.uint8)
    video = picture_input(pictures, Square.of_picture(16, 32), USUAL)
    assert video[:, :, :8].abs().max() < 0.01  # the mean as a byte
    assert (video[:, :, 8:24] < -1).all()


def test_grey_is_the_luma_in_three_channels() -> None:
    pictures = torch.randint(256, (2, 32, 32, 3), dtype=torch.uint8)
    spec = replace(USUAL, input="grey")
    square = Square.of_picture(32, 32)
    video = picture_input(pictures, square, spec, (1.1, 0.9, 0.0))
    assert torch.allclose(
        video, picture_input(pictures, square, USUAL, (1.1, 0.9, 0.0)), atol=1e-5
    )  # without saturation a picture is grey
    plain = picture_input(pictures, square, spec)
    values = plain * torch.tensor(spec.std).view(3, 1, 1) + torch.tensor(spec.mean).view(3, 1, 1)
    luma = pictures.float() @ torch.tensor([0.299, 0.587, 0.114]) / 255
    for channel in range(3):
        torch.testing.assert_close(values[:, channel], luma)


# --- Picture and truth together -------------------------------------------------------------------

MOVES: dict[str, dict[str, Any]] = {
    "evaluation": {},
    "training": {"augmentation": STILL},
    "zoom": {"augmentation": STILL, "zoom": (0.5, 1.6)},
    "shift": {"augmentation": STILL, "shift": 0.3},
    "both": {"augmentation": Augmentation(), "zoom": (0.6, 1.3), "shift": 0.2},
}


@pytest.mark.parametrize("crop", ["picture", "person"])
@pytest.mark.parametrize("name", MOVES)
def test_the_dot_is_where_the_root_is(dotted: Dotted, crop: str, name: str) -> None:
    """And joints in space are seen at their points by the camera of the item."""
    dataset = dataset_of(dotted(9, 5), replace(SPEC, crop=crop), **MOVES[name])
    seen, places = 0, set()
    for epoch in range(5):
        for item in items(dataset, epoch):
            joints, points = item.joints.double(), item.points.double()
            projected = item.focal_px * joints[..., :2] / joints[..., 2:] + item.centre_px
            torch.testing.assert_close(projected, points, atol=1e-3, rtol=0)
            places.add(tuple(item.points[0, 0].tolist()))
            for frame, point in zip(item.video, points[:, 0].numpy(), strict=True):
                if (point > 4).all() and (point < 28).all():
                    seen += 1
                    np.testing.assert_allclose(brightest(frame), point, atol=0.6)
    assert seen >= 20
    assert (len(places) > 5) == (name != "evaluation")


def test_zoom_and_shift_have_their_ranges(dotted: Dotted) -> None:
    index = dotted(4)
    (plain,) = items(dataset_of(index))
    options = {"augmentation": STILL, "zoom": (0.5, 2.0), "shift": 0.25}
    scales, moves = [], []
    for epoch in range(60):
        item = dataset_of(index, **options)[epoch, 0]
        scales.append(float(item.focal_px[0] / plain.focal_px[0]))
        middle = item.centre_px - (item.focal_px / plain.focal_px) * plain.centre_px
        # where the middle of the usual square is now, in its sides, from the middle of this one
        moves.append(((16 - middle) / (32 * scales[-1]) - 0.5).tolist())
    assert 0.5 <= min(scales) < 0.6 and 1.7 < max(scales) <= 2.0
    moved = np.abs(moves)
    assert moved.max() <= 0.25 + 1 / 64
    assert (np.min(moves, 0) < -0.2).all() and (np.max(moves, 0) > 0.2).all()


def test_the_person_fills_the_square(dotted: Dotted) -> None:
    dataset = dataset_of(dotted(9), replace(SPEC, crop="person"))
    for item in items(dataset):
        low, high = item.points.amin((0, 1)), item.points.amax((0, 1))
        assert float((high - low).max()) == pytest.approx(32 / PERSON_MARGIN, rel=0.03)
        torch.testing.assert_close((low + high) / 2, torch.full((2,), 16.0), atol=0.8, rtol=0)


def test_a_person_who_is_nowhere_gets_the_picture(dotted: Dotted) -> None:
    index = dotted(8)
    (sequence,) = index.sequences
    points = sequence.truth.points.copy()
    points[4:] = np.nan
    unknown = replace(sequence, truth=replace(sequence.truth, points=points))
    dataset = dataset_of(index_of(unknown), replace(SPEC, crop="person"))
    assert torch.equal(dataset[1].video, dataset_of(index)[1].video)
    assert dataset[1].points.isnan().all()
    assert not torch.equal(dataset[0].video, dataset_of(index)[0].video)


def test_what_is_not_known_is_nan(dotted: Dotted) -> None:
    index = dotted(4)
    (sequence,) = index.sequences
    bare = replace(sequence, truth=replace(sequence.truth, rotations=None))
    (item,) = items(dataset_of(index_of(bare)))
    assert item.rotations.shape == (4, 4, 3, 3) and item.rotations.isnan().all()
    other = Skeleton(NAMES, PARENTS, fit_skeleton(index).offsets * 2)
    item = PoseDataset(index, SPEC, other)[0]
    assert item.shape.tolist() == pytest.approx([0.0, *[-np.log(2)] * 3], abs=1e-5)
    assert torch.equal(item.shape, shape_values(sequence, other))
    assert np.array_equal(item.rotations.numpy(), sequence.truth.rotations)


# --- Windows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [None, 5.0, 3.0])
@pytest.mark.parametrize("lengths", [(8,), (9, 4, 1), (3, 11, 2), (5, 21)])
def test_windows_show_each_frame_once(
    dotted: Dotted, lengths: tuple[int, ...], rate_hz: float | None
) -> None:
    spec = replace(SPEC, frame_rate_hz=rate_hz)
    index = dotted(*lengths)
    dataset = dataset_of(index, spec)
    shown: dict[int, list[torch.Tensor]] = {}
    for item in items(dataset):
        assert item.video.shape == (4, 3, 32, 32)
        assert item.fresh.any()
        shown.setdefault(item.sequence, []).append(item.joints[item.fresh])
    step = {None: 1, 5.0: 2, 3.0: 3}[rate_hz]
    for number, sequence in enumerate(index.sequences):
        found = torch.cat(shown[number]).numpy()
        np.testing.assert_array_equal(found, sequence.truth.joints[::step])


def test_training_windows_begin_anywhere(dotted: Dotted) -> None:
    index = dotted(12)
    joints = index.sequences[0].truth.joints
    dataset = dataset_of(index, replace(SPEC, frame_rate_hz=5.0), augmentation=STILL)
    begins = set()
    for epoch in range(60):
        for item in items(dataset, epoch):
            assert item.fresh.all()
            at = [int(np.flatnonzero((joints == j).all((1, 2)))[0]) for j in item.joints.numpy()]
            assert all(b - a == 2 for a, b in pairwise(at))
            begins.add(at[0])
    assert begins == set(range(6))  # the last one ends with the sequence


def test_short_sequences_repeat_their_last_frame(dotted: Dotted) -> None:
    index = dotted(2)
    for options in ({}, {"augmentation": STILL}):
        (item,) = items(dataset_of(index, **options))
        assert item.fresh.tolist() == [True, True, False, False]
        for i in (2, 3):
            assert torch.equal(item.video[i], item.video[1])
            assert torch.equal(item.joints[i], item.joints[1])


# --- Files ----------------------------------------------------------------------------------------


@pytest.fixture
def filmed(tmp_path: Path, dotted: Dotted) -> Filmed:
    """``filmed(frames, pictures)``: the same as a video, without loss."""

    def make(frames: int, pictures: int | None = None, rate_hz: float = 29.97) -> PoseSequence:
        (sequence,) = dotted(frames).sequences
        path = tmp_path / f"{frames}.mkv"
        shown = pictures_of(sequence.truth.points)
        write_video(path, shown[:pictures], rate_hz, codec="ffv1")
        return replace(sequence, pictures=path, frame_rate_hz=rate_hz)

    return make


@pytest.mark.parametrize("input_", ["rgb", "events"])
@pytest.mark.parametrize("frames", [3, 4, 11])
def test_frames_of_videos_are_those_of_picture_files(
    dotted: Dotted,
    filmed: Filmed,
    frames: int,
    input_: str,
) -> None:
    """All of them at once, a part, and from the cache."""
    spec = replace(SPEC, input=input_)
    expected = dataset_of(dotted(frames, frame_rate_hz=29.97), spec)
    sequence = filmed(frames)
    for budget in (0, 3000, 2**26):
        for options in ({}, {"augmentation": Augmentation(), "zoom": (0.8, 1.2), "seed": 3}):
            dataset = dataset_of(index_of(sequence), spec, cache=FrameCache(budget), **options)
            wanted = dataset_of(expected.index, spec, **options)
            pairs = zip(items(dataset), items(wanted), strict=True)
            # ffv1 keeps 8-bit YUV: black, white and nothing between
            assert all(torch.allclose(a.video, b.video, atol=0.02) for a, b in pairs)
            assert all(same(a, b) for a, b in zip(items(dataset), items(dataset), strict=True))


def test_too_few_pictures_are_named(filmed: Filmed) -> None:
    sequence = filmed(4, pictures=3)
    with pytest.raises(DatasetError, match=r"4\.mkv has 3 pictures and 4 poses; give"):
        dataset_of(index_of(sequence))[0]
    sequence = filmed(9, pictures=6)
    with pytest.raises(DatasetError, match=r"9\.mkv has 6 pictures and 9 poses"):
        dataset_of(index_of(sequence), cache=FrameCache(2**26))[0]


def test_an_index_with_problems(dotted: Dotted) -> None:
    index = dotted(4)
    problem = Problem(kind="bad file", source="s7", reason="is torn", remedy="mend it")
    with pytest.raises(
        DatasetError, match=r"has 1 problems that check_poses reports .*torn.*settle"
    ):
        dataset_of(replace(index, problems=(problem,)))
    with pytest.raises(DatasetError, match=r"no sequence of .* is left"):
        PoseDataset(replace(index, sequences=()), SPEC, fit_skeleton(index))
    with pytest.raises(IndexError, match="item 1 of 1"):
        dataset_of(index)[1]


# --- Augmentation ---------------------------------------------------------------------------------

LIVELY: dict[str, Any] = {"augmentation": Augmentation(), "zoom": (0.7, 1.3), "shift": 0.2}


def test_augmentation_follows_from_seed_epoch_and_item(dotted: Dotted) -> None:
    index = dotted(12)
    first = dataset_of(index, **LIVELY)
    again = dataset_of(index, **LIVELY, cache=FrameCache(2**26))
    keys = [(epoch, i) for epoch in range(3) for i in range(3)]
    found = {key: first[key] for key in keys}
    for key in reversed(keys):  # whatever came before
        assert same(again[key], found[key])
    assert same(first[2], found[0, 2])
    other = dataset_of(index, **LIVELY, seed=1)
    videos = [*found.values(), *(other[key] for key in keys)]
    assert len({str(item.points.tolist()) for item in videos}) == len(videos)


def test_workers_give_the_same_items(dotted: Dotted) -> None:
    dataset = dataset_of(dotted(12), **LIVELY)
    loader = DataLoader(dataset, batch_size=3, num_workers=2, collate_fn=collate_poses)
    (batch,) = loader
    expected = collate_poses(items(dataset))
    for name, values in vars(batch).items():
        assert torch.equal(values, getattr(expected, name)), name


def test_parts_of_the_augmentation_do_not_disturb_each_other(dotted: Dotted) -> None:
    """The same window and square with colours or without, and the same window without zoom."""
    index = dotted(12)
    full = dataset_of(index, **LIVELY)
    plain = dataset_of(index, **(LIVELY | {"augmentation": STILL}))
    unmoved = dataset_of(index, augmentation=Augmentation())
    for a, b, c in zip(items(full), items(plain), items(unmoved), strict=True):
        assert torch.equal(a.points, b.points)
        assert torch.equal(a.joints, c.joints)
        assert not torch.equal(a.video, b.video)
        assert not torch.equal(a.points, c.points)


# --- Events ---------------------------------------------------------------------------------------

EVENTS = replace(SPEC, input="events", camera=EventCamera(threshold=0.2, threshold_noise=0.0))


def test_simulated_events_are_at_the_dot(dotted: Dotted) -> None:
    """Light comes where the dot goes and leaves where it was; before the first picture is none."""
    index = dotted(8)
    dataset = dataset_of(index, EVENTS)
    video = torch.cat([item.video for item in items(dataset)])
    points = torch.cat([item.points[:, 0] for item in items(dataset)]).numpy()
    assert video.shape == (8, 2, 32, 32)
    assert (video[0] == 0).all()
    for i in range(1, 8):  # 4 is the first of a window, and has what came since the one before
        came, left = video[i]
        assert came.sum() > 0 and left.sum() > 0
        np.testing.assert_allclose(brightest(came[None]), points[i], atol=0.6)
        np.testing.assert_allclose(brightest(left[None]), points[i - 1], atol=0.6)


def test_simulated_events_of_windows_are_those_of_the_whole(dotted: Dotted) -> None:
    index = dotted(12)
    pictures = torch.from_numpy(pictures_of(index.sequences[0].truth.points))
    spec = replace(EVENTS, frame_rate_hz=5.0, frames=3, channels=EventChannels(mode="binary"))
    times = [i / 10 for i in range(12)]
    borders = [-0.2, *times[::2]]
    whole = event_input(pictures, times, borders, Square.of_picture(HEIGHT, WIDTH), spec)
    found = torch.cat([item.video for item in items(dataset_of(index, spec))])
    assert found.shape == whole.shape == (6, 2, 32, 32)
    # A window's camera is switched on a frame before it, which decides where light rounds to.
    assert (found != whole).float().mean() < 0.01
    assert whole.mean() > 0.01


def test_nothing_happens_in_repeated_frames(dotted: Dotted) -> None:
    (item,) = items(dataset_of(dotted(2), EVENTS))
    assert item.video[1].sum() > 0
    assert (item.video[[0, 2, 3]] == 0).all()


@pytest.mark.parametrize(
    ("channels", "count"),
    [
        (EventChannels(), 2),
        (EventChannels(polarity="signed"), 1),
        (EventChannels(polarity="merged", mode="voxel", bins=3), 3),
    ],
)
def test_channels_of_events(dotted: Dotted, channels: EventChannels, count: int) -> None:
    spec = replace(EVENTS, channels=channels)
    item = dataset_of(dotted(4), spec)[0]
    assert item.video.shape == (4, count, 32, 32) == (4, spec.in_channels, 32, 32)
    assert (item.video[1:].abs().sum((1, 2, 3)) > 0).all()
    assert bool((item.video < 0).any()) == (channels.polarity == "signed")


def with_events(index: PoseIndex, folder: Path, frames_in_each: int = 1) -> PoseSequence:
    """Event frames of yes and no, in which the pixels of the dot fired."""
    (sequence,) = index.sequences
    paths = []
    for i, picture in enumerate(pictures_of(sequence.truth.points)):
        frame = np.stack((picture[..., 0] > 0, np.zeros((HEIGHT, WIDTH))), -1).astype(np.uint8)
        packed = np.packbits(frame)
        path = folder / f"event{i}.npy"
        np.save(path, packed if frames_in_each == 1 else np.stack([packed] * frames_in_each))
        paths.append(path)
    return replace(sequence, events=tuple(paths))


def pixels(video: torch.Tensor) -> np.ndarray:
    """The whole picture of 64 x 48 without its margins, from an input of 64 x 64, [T, H, W]."""
    return video[:, 0, 8:56].numpy()


@pytest.mark.parametrize("mode", ["count", "binary"])
def test_stored_events_between_frames_are_summed(dotted: Dotted, tmp_path: Path, mode: str) -> None:
    """Every second frame is an input frame, with the events since the one before it."""
    sequence = with_events(dotted(7), tmp_path)
    order = [0, 1, 1, 3, 4, 5, 6]  # at the same pixels twice
    sequence = replace(sequence, events=tuple(sequence.events[i] for i in order))
    channels = EventChannels(mode=mode)
    spec = replace(EVENTS, size=64, frames=2, frame_rate_hz=5.0, channels=channels)
    dots = pictures_of(sequence.truth.points)[order, ..., 0] // 255
    sums = np.stack([dots[0], dots[1] + dots[2], dots[3] + dots[4], dots[5] + dots[6]])
    assert sums.max() == 2
    expected = sums.clip(max=1) if mode == "binary" else sums
    dataset = dataset_of(index_of(sequence), spec)
    found = np.concatenate([pixels(item.video) for item in items(dataset)])
    np.testing.assert_array_equal(found, expected)
    trained = dataset_of(index_of(sequence), spec, augmentation=STILL)
    for epoch in range(5):  # from any frame on
        item = trained[epoch, 0]
        at = [np.flatnonzero((sequence.truth.joints == j).all((1, 2)))[0] for j in item.joints]
        sums = np.stack([dots[max(0, p - 1) : p + 1].sum(0) for p in at])
        expected = sums.clip(max=1) if mode == "binary" else sums
        np.testing.assert_array_equal(pixels(item.video), expected)


def test_nothing_happens_in_repeated_frames_of_stored_events(
    dotted: Dotted, tmp_path: Path
) -> None:
    (item,) = items(dataset_of(index_of(with_events(dotted(2), tmp_path)), EVENTS))
    assert (item.video.sum((1, 2, 3)) > 0).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    "channels",
    [
        EventChannels(polarity="positive"),
        EventChannels(polarity="signed", mode="binary"),
        EventChannels(mode="voxel", bins=2),
    ],
)
def test_stored_events_have_no_other_channels(
    dotted: Dotted, tmp_path: Path, channels: EventChannels
) -> None:
    spec = replace(EVENTS, channels=channels)
    sequence = with_events(dotted(4), tmp_path)
    message = f"set polarity to both and event_mode .*got {channels.polarity} and {channels.mode}$"
    with pytest.raises(DatasetError, match=message):
        dataset_of(index_of(sequence), spec)
    assert len(dataset_of(index_of(sequence), replace(spec, input="grey"))) == 1
    assert len(dataset_of(index_of(replace(sequence, events=())), spec)) == 1


@pytest.mark.parametrize("stored", [False, True])
def test_a_person_who_is_absurdly_large_or_far(
    dotted: Dotted, tmp_path: Path, stored: bool
) -> None:
    """Too large: the whole picture is seen. Too far off: nothing, and no memory is taken."""
    (sequence,) = dotted(4).sequences
    if stored:
        sequence = with_events(index_of(sequence), tmp_path)
    spec = EVENTS if stored else SPEC
    plain = dataset_of(index_of(sequence), spec)[0]

    def seen(points: np.ndarray) -> PoseClip:
        changed = replace(sequence, truth=replace(sequence.truth, points=points))
        return dataset_of(index_of(changed), replace(spec, crop="person"))[0]

    for side, whole in ((MOST_SIDE * WIDTH - 1, False), (MOST_SIDE * WIDTH + 1, True), (1e6, True)):
        points = sequence.truth.points.copy()
        points[:] = 32
        points[0, 0], points[0, 1] = (32 + sign * side / PERSON_MARGIN / 2 for sign in (-1, 1))
        assert torch.equal(seen(points).video, plain.video) == whole
    assert (seen(sequence.truth.points + np.float32(1e6)).video == 0).all()


@pytest.mark.parametrize("crop", ["picture", "person"])
def test_stored_events_are_cut_like_pictures(dotted: Dotted, tmp_path: Path, crop: str) -> None:
    sequence = with_events(dotted(9), tmp_path)
    options = {"augmentation": STILL, "zoom": (0.7, 1.4), "shift": 0.2}
    for option in ({}, options):
        dataset = dataset_of(index_of(sequence), replace(EVENTS, crop=crop), **option)
        seen = 0
        for item in items(dataset):
            assert (item.video[:, 1] == 0).all()
            assert item.video.max() <= 1
            for frame, point in zip(item.video, item.points[:, 0].numpy(), strict=True):
                if (point > 4).all() and (point < 28).all():
                    seen += 1
                    np.testing.assert_allclose(brightest(frame[:1]), point, atol=0.6)
        assert seen > 5


def test_stored_events_become_the_mean_of_what_a_pixel_covers(
    dotted: Dotted, tmp_path: Path
) -> None:
    """The whole picture of 64 x 48 in 32 x 32: of 2 x 2 pixels, with four empty rows."""
    sequence = with_events(dotted(4), tmp_path)
    item = dataset_of(index_of(sequence), EVENTS)[0]
    dots = pictures_of(sequence.truth.points)[..., 0] / 255
    expected = np.pad(dots, ((0, 0), (8, 8), (0, 0))).reshape(4, 32, 2, 32, 2).mean((2, 4))
    np.testing.assert_allclose(item.video[:, 0], expected)


def test_several_event_frames_in_a_file(dotted: Dotted, tmp_path: Path) -> None:
    sequence = with_events(dotted(4), tmp_path, frames_in_each=2)
    with pytest.raises(DatasetError, match=r"event0\.npy holds 2 event frames; expected one"):
        dataset_of(index_of(sequence), EVENTS)[0]


# --- Poses between frames -------------------------------------------------------------------------

BETWEEN = replace(EVENTS, size=64, frames=2, poses="between")


def at(item: PoseClip, sequence: PoseSequence) -> list[int]:
    """The frames of the sequence that the poses of a clip are."""
    joints = sequence.truth.joints
    return [int(np.flatnonzero((joints == j).all((1, 2)))[0]) for j in item.joints.numpy()]


@pytest.mark.parametrize("rate_hz", [None, 5.0])
def test_event_frames_lie_between_poses(
    dotted: Dotted, tmp_path: Path, rate_hz: float | None
) -> None:
    """T frames and T + 1 poses; a frame has what happened from one pose to the next."""
    sequence = with_events(dotted(9), tmp_path)
    step = 1 if rate_hz is None else 2
    spec = replace(BETWEEN, frame_rate_hz=rate_hz, channels=EventChannels(mode="binary"))
    dots = pictures_of(sequence.truth.points)[..., 0] // 255
    found = items(dataset_of(index_of(sequence), spec))
    shown = [at(item, sequence) for item in found]
    assert shown == [[s, s + step, s + 2 * step] for s in range(0, 8, 2 * step)]
    assert [item.fresh.tolist() for item in found] == [[True] * 3] + [[False, True, True]] * (
        len(found) - 1
    )
    for item, places in zip(found, shown, strict=True):
        assert item.video.shape[0] == 2
        expected = [dots[a + 1 : b + 1].max(0) for a, b in pairwise(places)]
        np.testing.assert_array_equal(pixels(item.video), np.stack(expected))


def test_simulated_and_recorded_events_between_poses(dotted: Dotted, tmp_path: Path) -> None:
    """The same frames as with a pose for each, but for the one before the first pose."""
    index = dotted(3)
    usual = items(dataset_of(index, replace(BETWEEN, frames=3, poses="frames")))[0]
    (between,) = items(dataset_of(index, BETWEEN))
    assert torch.equal(between.video, usual.video[1:])
    assert torch.equal(between.joints, usual.joints)
    sequence = recorded(index.sequences[0], tmp_path / "events.npz", side=64)
    usual = items(dataset_of(index_of(sequence), replace(BETWEEN, frames=3, poses="frames")))[0]
    (between,) = items(dataset_of(index_of(sequence), BETWEEN))
    assert torch.equal(between.video, usual.video[1:]) and bool(between.video.any())


@pytest.mark.parametrize("stored", [True, False])
def test_a_single_pose_has_no_frame_after_it(dotted: Dotted, tmp_path: Path, stored: bool) -> None:
    index = dotted(1)
    index = index_of(with_events(index, tmp_path)) if stored else index
    (item,) = items(dataset_of(index, BETWEEN))
    assert item.fresh.tolist() == [True, False, False]
    assert item.video.shape == (2, 2, 64, 64) and not bool(item.video.any())


def test_training_gaps_are_drawn_anew(dotted: Dotted) -> None:
    """Of those for which the sequence is long enough; evaluation keeps the frame rate."""
    index = dotted(6)
    spec = replace(SPEC, frames=3, frame_rate_hz=5.0)
    trained = dataset_of(index, spec, augmentation=STILL, gap=(1, 4))
    steps = set()
    for epoch in range(60):
        for item in items(trained, epoch):
            places = at(item, index.sequences[0])
            (step,) = {b - a for a, b in pairwise(places)}
            steps.add(step)
    assert steps == {1, 2}
    first = items(dataset_of(index, spec))[0]
    assert at(first, index.sequences[0]) == [0, 2, 4]


def test_pictures_are_brought_to_the_size_of_the_data_set(dotted: Dotted) -> None:
    index = dotted(4)
    (item,) = items(dataset_of(index))
    twice = replace(
        index.sequences[0],
        size_px=(2 * HEIGHT, 2 * WIDTH),
        truth=replace(index.sequences[0].truth, points=2 * index.sequences[0].truth.points),
    )
    (other,) = items(dataset_of(index_of(twice)))
    torch.testing.assert_close(other.points, item.points)
    for one, two in zip(other.video, item.video, strict=True):
        np.testing.assert_allclose(brightest(one), brightest(two), atol=0.6)


def test_event_frames_without_pictures_are_no_pictures(dotted: Dotted, tmp_path: Path) -> None:
    sequence = replace(with_events(dotted(4), tmp_path), pictures=(), size_px=(HEIGHT, WIDTH))
    assert items(dataset_of(index_of(sequence), EVENTS))[0].video.shape == (4, 2, 32, 32)
    with pytest.raises(DatasetError, match=r"s0 has event frames and no pictures; set pose\.input"):
        dataset_of(index_of(sequence))[0]


# --- Batches --------------------------------------------------------------------------------------


def test_batches_stack_items(dotted: Dotted) -> None:
    dataset = dataset_of(dotted(4, 8))
    clips = items(dataset)
    batch = collate_poses(clips)
    assert len(batch) == 3
    assert batch.sequences.tolist() == [0, 1, 1]
    assert batch.video.shape == (3, 4, 3, 32, 32)
    assert batch.focal_px.shape == batch.centre_px.shape == (3, 2)
    for name, values in vars(batch.to("cpu")).items():
        if name != "sequences":
            for value, clip in zip(values, clips, strict=True):
                assert torch.equal(value, getattr(clip, name))


def recorded(sequence: PoseSequence, path: Path, side: int) -> PoseSequence:
    """A recording of the middle square of its pictures, which begins with one event more."""
    shown = pictures_of(sequence.truth.points)[:, :, (WIDTH - side) // 2 :][:, :side, :side]
    simulator = EventSimulator(EVENTS.camera)
    events = joined([simulator.step(p, i / sequence.frame_rate_hz) for i, p in enumerate(shown)])
    columns = {"t_s": events.t_s, "x": events.x, "y": events.y, "p": events.polarity}
    first = {"t_s": 0.0, "x": 0, "y": 0, "p": True}
    columns = {name: np.append(first[name], column) for name, column in columns.items()}
    np.savez(path, height=side, width=side, **columns)
    return replace(sequence, pictures=path)


@pytest.mark.parametrize("channels", [EventChannels(), EventChannels(mode="voxel", bins=3)])
def test_recorded_events_are_those_of_the_camera(
    dotted: Dotted, tmp_path: Path, channels: EventChannels
) -> None:
    spec = replace(EVENTS, frame_rate_hz=5.0, frames=3, size=48, channels=channels)
    index = dotted(12)
    sequence = recorded(index.sequences[0], tmp_path / "e.npz", 48)
    found = torch.cat([item.video for item in items(dataset_of(index_of(sequence), spec))])
    shown = torch.from_numpy(pictures_of(sequence.truth.points)[:, :, 8:56])
    times = [i / 10 for i in range(12)]
    whole = event_input(shown, times, [-0.2, *times[::2]], Square.of_picture(48, 48), spec)
    torch.testing.assert_close(found[1:], whole[1:])
    assert found[0].sum() == 1 and not whole[0].any()  # the one more
    assert not check_poses(index_of(sequence), spec=spec).problems
    (problem,) = check_poses(index_of(sequence)).problems
    assert "this network sees pictures" in problem.reason


def test_pixels_of_a_small_sensor_are_repeated() -> None:
    one = EventStream(
        t_s=np.array([0.1]),
        x=np.array([1]),
        y=np.array([0]),
        polarity=np.ones(1),
        height=2,
        width=2,
    )
    spec = replace(EVENTS, size=16)
    video = recorded_event_input([one], [0.0, 1.0], Square.of_picture(2, 2), spec)
    assert video.shape == (1, 2, 16, 16)
    assert video[0, 0, :8, 8:].eq(1).all() and video.sum() == 64
