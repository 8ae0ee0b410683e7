"""MMHPSD in its layout."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevideoformer.body.smpl import SMPL_JOINTS, SMPL_PARENTS
from spikevideoformer.tasks.pose.index import read_poses
from spikevideoformer.tasks.pose.layouts.mmhpsd import find_mmhpsd, read_mmhpsd

from ..segmentation.frames import picture
from .poses import (
    assert_skeleton,
    assert_sound,
    assert_truth,
    body,
    edit_npz,
    only_problem,
    write_mmhpsd,
)

FIRST = "subject01_group2_time1"


def test_what_is_read(tmp_path: Path) -> None:
    index = read_poses(write_mmhpsd(tmp_path, events=True))
    assert_sound(index)
    assert (index.layout, index.frames) == ("mmhpsd", 9)
    assert (index.joint_names, index.parents) == (SMPL_JOINTS, SMPL_PARENTS)
    assert [(s.action, s.split) for s in index.sequences] == [
        ("group2", "train"),
        ("group1", "val"),
        ("group2", "test"),
    ]
    for subject, sequence in enumerate(index.sequences, start=1):
        assert sequence.name.startswith(f"subject{subject:02d}")
        assert_truth(sequence, body(SMPL_PARENTS, 3, subject))
        assert sequence.truth.shape == pytest.approx([subject / 10] * 10)
        assert sequence.frame_rate_hz == 15
        assert [path.name for path in sequence.events] == [f"event{i:04d}.npy" for i in range(3)]
        assert sequence.pictures[2].name == "fullpic0002.jpg"  # type: ignore[index]
    assert_skeleton(index, body(SMPL_PARENTS, 3))


def test_events_may_be_absent_and_frames_without_pose_are_not_labelled(tmp_path: Path) -> None:
    write_mmhpsd(tmp_path, subjects=1, frames=3)
    (tmp_path / "pose_events" / FIRST / "pose0001.npz").unlink()
    picture(tmp_path / "full_pic_256" / FIRST / "fullpic0003.png")
    (tmp_path / "full_pic_256" / FIRST / "readme.txt").write_text("no picture")
    index = read_mmhpsd(tmp_path)
    assert_sound(index)
    (sequence,) = index.sequences
    assert sequence.events == () and len(sequence) == 4
    truth = sequence.truth
    for values in (truth.joints, truth.points, truth.rotations):
        assert values is not None
        labelled = np.isfinite(values).reshape(4, -1).all(1)
        assert labelled.tolist() == [True, False, True, False]
        assert np.isnan(values[[1, 3]]).all()


@pytest.mark.parametrize(
    ("subjects", "splits"), [(1, "t"), (2, "tv"), (3, "tve"), (5, "tttve"), (10, "tttttttvee")]
)
def test_subjects_are_divided_in_order(subjects: int, splits: str, tmp_path: Path) -> None:
    index = read_mmhpsd(write_mmhpsd(tmp_path, subjects=subjects, frames=1))
    named = {"t": "train", "v": "val", "e": "test"}
    assert [s.split for s in index.sequences] == [named[letter] for letter in splits]


def test_splits_of_a_list(tmp_path: Path) -> None:
    write_mmhpsd(tmp_path, subjects=4, frames=1)
    lines = [
        "sequence,split",
        f"{FIRST},test",
        "subject02_group1_time1,training",
        f"{FIRST},val",
        "subject07_group1_time1,val",
        "subject03_group2_time1, ",
        "subject04_group1_time1,Other",
    ]
    (tmp_path / "splits.csv").write_text("\n".join(lines))
    index = read_mmhpsd(tmp_path)
    assert [(s.name[:9], s.split) for s in index.sequences] == [
        ("subject01", "test"),
        ("subject02", "train"),
        ("subject04", "other"),
    ]
    assert index.splits == ("train", "test", "other")
    assert [(p.source, p.reason) for p in index.problems] == [
        ("splits.csv:4", f"{FIRST} is already listed"),
        ("splits.csv:5", "no folder pose_events/subject07_group1_time1"),
        ("splits.csv:6", "no split"),
    ]


def of_pose(**changes: Any) -> Callable[[Path], None]:
    return lambda root: edit_npz(root / "pose_events" / FIRST / "pose0001.npz", **changes)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (of_pose(beta=None), "pose0001.npz has no beta"),
        (of_pose(joints3d=np.zeros((23, 3))), r"has joints3d \[23, 3\]; expected \[24, 3\]"),
        (of_pose(body_pose=np.zeros(72)), r"has body_pose \[72\]; expected \[1, 72\]"),
        (of_pose(joints2d=np.array([None])), "cannot be read .Object arrays cannot be loaded"),
        (of_pose(joints3d=np.zeros((24, 3), complex)), "joints3d that is no array of numbers"),
        (of_pose(joints3d=np.full((24, 3), np.inf)), "infinite values in joints; give NaN"),
        (of_pose(joints2d=np.zeros((24, 2))), f"{FIRST}: joints and points fit no camera"),
        (
            lambda root: (root / "full_pic_256" / FIRST / "fullpic0002.jpg").unlink(),
            f"{FIRST} has no picture 2 .1 are missing",
        ),
        (
            lambda root: picture(root / "full_pic_256" / FIRST / "fullpic10000.jpg"),
            f"{FIRST} has no picture 3 .9997 are missing",
        ),
        (
            lambda root: [path.unlink() for path in (root / "full_pic_256" / FIRST).iterdir()],
            f"full_pic_256/{FIRST} holds no picture",
        ),
        (
            lambda root: [path.unlink() for path in (root / "pose_events" / FIRST).iterdir()],
            f"pose_events/{FIRST} holds no pose",
        ),
        (
            lambda root: (root / "events_256" / FIRST / "event0000.npy").unlink(),
            f"{FIRST} has no event frame 0 .1 are missing",
        ),
        (
            lambda root: picture(root / "full_pic_256" / FIRST / "fullpic0002.png"),
            "fullpic0002.jpg and fullpic0002.png have the same number; remove one of them",
        ),
        (
            lambda root: (root / "pose_events" / FIRST / "more1.npz").write_bytes(b"PK"),
            "more1.npz and pose0001.npz have the same number",
        ),
        (
            lambda root: (root / "pose_events" / FIRST / "pose0001.npz").write_bytes(b"PK"),
            "pose0001.npz cannot be read",
        ),
    ],
)
def test_malformed(damage: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    damage(write_mmhpsd(tmp_path, events=True))
    index = read_mmhpsd(tmp_path)
    problem = only_problem(index)
    assert (problem.source, problem.split) == (f"pose_events/{FIRST}", "train")
    assert re.search(message, str(problem))
    assert [s.split for s in index.sequences] == ["val", "test"]


def test_joints_that_are_nan_everywhere(tmp_path: Path) -> None:
    write_mmhpsd(tmp_path)
    for path in (tmp_path / "pose_events" / FIRST).iterdir():
        edit_npz(path, joints3d=np.full((24, 3), np.nan))
    assert "no joint is known both" in str(only_problem(read_mmhpsd(tmp_path)))


def test_unknown_shape_values(tmp_path: Path) -> None:
    write_mmhpsd(tmp_path, subjects=1, frames=1)
    edit_npz(tmp_path / "pose_events" / FIRST / "pose0000.npz", beta=np.full((1, 10), np.nan))
    assert read_mmhpsd(tmp_path).sequences[0].truth.shape is None


def test_recognition_needs_pictures(tmp_path: Path) -> None:
    (tmp_path / "pose_events").mkdir()
    assert not find_mmhpsd(tmp_path)
    (tmp_path / "full_pic_256").mkdir()
    assert find_mmhpsd(tmp_path)
