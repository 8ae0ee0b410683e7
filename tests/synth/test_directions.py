"""The embedded clips: their class is in the order of the frames and nowhere else."""

import itertools

import numpy as np
import pytest

from spikevideoformer.synth.directions import (
    DIRECTIONS,
    FRAMES,
    LATTICE,
    render_direction,
    visiting_order,
    write_direction_clips,
)
from spikevideoformer.synth.puppets import ACTIONS, render_interaction
from spikevideoformer.video.frames import iter_frames


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_class_visits_every_position_once_and_mostly_along_its_direction(direction):
    order = visiting_order(direction, np.random.default_rng(0))
    assert sorted(order) == [(x, y) for x in range(LATTICE) for y in range(LATTICE)]
    steps = [
        ((b[0] - a[0]) % LATTICE, (b[1] - a[1]) % LATTICE) for a, b in itertools.pairwise(order)
    ]
    dx, dy = DIRECTIONS[direction]
    assert steps.count((dx % LATTICE, dy % LATTICE)) == 12  # of 15


def test_files_of_all_classes_hold_the_same_frames_in_another_order(tmp_path):
    """Decoded from mp4, as a network sees them: equal as sets, bit by bit."""
    from spikevideoformer.synth.directions import _INTRA_ONLY
    from spikevideoformer.video.frames import write_video

    bags = {}
    for direction in DIRECTIONS:
        path = tmp_path / f"{direction}.mp4"
        write_video(path, render_direction(direction, seed=7), 8.0, options=_INTRA_ONLY)
        frames = [bytes(np.asarray(f.image)) for f in iter_frames(path)]
        assert len(set(frames)) == FRAMES
        bags[direction] = frames
    orders = {tuple(frames) for frames in bags.values()}
    assert len(orders) == len(DIRECTIONS)
    assert len({tuple(sorted(frames)) for frames in bags.values()}) == 1


def test_data_set_on_disk_is_balanced_and_deterministic(tmp_path):
    for name in ("a", "b"):
        write_direction_clips(tmp_path / name, train=16, val=8)
    files = {n: sorted((tmp_path / n).rglob("*.mp4")) for n in ("a", "b")}
    assert len(files["a"]) == 24
    for one, other in zip(files["a"], files["b"], strict=True):
        assert one.relative_to(tmp_path / "a") == other.relative_to(tmp_path / "b")
        assert one.read_bytes() == other.read_bytes()
    for direction in DIRECTIONS:
        assert len(list((tmp_path / "a" / "train" / direction).iterdir())) == 2
        assert len(list((tmp_path / "a" / "val" / direction).iterdir())) == 1


@pytest.mark.parametrize("action", ACTIONS)
def test_puppets_move_and_repeat(action):
    clip = np.stack(list(render_interaction(action, seed=3)))
    assert clip.shape == (24, 80, 80, 3) and clip.dtype == np.uint8
    assert np.array_equal(clip, np.stack(list(render_interaction(action, seed=3))))
    first = next(render_interaction(action, seed=4))
    assert not np.array_equal(clip[0], first)
    moved = np.abs(np.diff(clip.astype(int), axis=0)).max(axis=(1, 2, 3))
    assert (moved > 60).any()


def test_empty_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one clip"):
        write_direction_clips(tmp_path, train=8, val=0)
