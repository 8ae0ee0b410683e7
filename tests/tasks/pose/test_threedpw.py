"""3DPW in its official layout; its pickles are never executed."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevideoformer.body.smpl import SMPL_JOINTS, SMPL_PARENTS
from spikevideoformer.tasks.pose.check import check_poses
from spikevideoformer.tasks.pose.index import read_poses
from spikevideoformer.tasks.pose.layouts.threedpw import read_3dpw

from ...payload import Payload
from .poses import (
    assert_skeleton,
    assert_sound,
    assert_truth,
    body,
    entries_3dpw,
    only_problem,
    write_3dpw,
)

PICKLE = "sequenceFiles/train/downtown_walking_00.pkl"


def test_what_is_read(tmp_path: Path) -> None:
    index = read_poses(write_3dpw(tmp_path))
    assert_sound(index)
    assert (index.layout, index.joint_names, index.parents) == ("3dpw", SMPL_JOINTS, SMPL_PARENTS)
    assert [(s.name, s.action, s.split) for s in index.sequences] == [
        ("downtown_walking_00_person0", "downtown_walking", "train"),
        ("downtown_walking_00_person1", "downtown_walking", "train"),
        ("courtyard_basketball_01_person0", "courtyard_basketball", "val"),
    ]
    for sequence in index.sequences:
        person = int(sequence.name[-1])
        assert_truth(sequence, entries_3dpw()[1][person])
        assert sequence.truth.shape == pytest.approx([0.5 + person] * 10)
        assert sequence.frame_rate_hz == 30
        assert sequence.pictures[2].name == "image_00002.jpg"  # type: ignore[index]
    assert_skeleton(index, body(SMPL_PARENTS, 3))


def test_frames_with_an_invalid_camera_are_not_labelled(tmp_path: Path) -> None:
    valid = [np.array([1, 0, 1], np.int64), np.zeros(3, bool)]
    camera = entries_3dpw()[0]["cam_poses"]
    camera[1] = np.inf
    index = read_3dpw(write_3dpw(tmp_path, campose_valid=valid, cam_poses=camera))
    assert index.problems == ()
    truth = index.sequences[0].truth
    for values in (truth.joints, truth.points, truth.rotations):
        assert values is not None
        assert np.isfinite(values[[0, 2]]).all() and np.isnan(values[1]).all()
    assert np.isnan(index.sequences[1].truth.joints).all()
    assert np.isnan(index.sequences[1].truth.rotations).all()
    settled = check_poses(index).settle(skip_bad=True)
    assert [s.name[-7:] for s in settled.sequences] == ["person0", "person0"]


def test_nothing_in_a_pickle_is_executed(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    index = read_3dpw(write_3dpw(tmp_path, texture_maps=Payload(trace)))
    assert not trace.exists()
    assert "cannot be read (it asks for posix.mkdir, which may be" in str(only_problem(index))
    assert [s.split for s in index.sequences] == ["val"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cam_poses": None}, "has no cam_poses"),
        ({"cam_poses": np.zeros((3, 3, 4))}, r"has cam_poses \[3, 3, 4\]; expected \[any, 4, 4\]"),
        ({"cam_intrinsics": [1, 2]}, "has cam_intrinsics that is no array of numbers"),
        ({"cam_intrinsics": np.zeros((3, 3))}, "person 0: focal lengths are .* must be above 0"),
        ({"poses": None}, "does not list the same people, at least one, in each of: poses 0, jo"),
        ({"poses": np.zeros((2, 3, 72))}, "does not list the same people, .*: poses 0, jointPos"),
        ({"poses": [np.zeros((3, 72))]}, "does not list the same people, .*: poses 1, jointPosi"),
        ({"poses": [np.zeros((3, 69))] * 2}, r"has poses\[0\] \[3, 69\]; expected \[3, 72\]"),
        ({"poses": [np.zeros((4, 72))] * 2}, r"has poses\[0\] \[4, 72\]; expected \[3, 72\]"),
        ({"poses": [np.array([None])] * 2}, "cannot be read .an array holds objects, not numbers"),
        ({"jointPositions": [[1.0], [2.0]]}, r"has jointPositions\[0\] that is no array of num"),
        ({"jointPositions": [np.full((3, 72), np.inf)] * 2}, "person 0: infinite values in joints"),
        ({"betas": [np.zeros(9)] * 2}, r"has less than 10 values in betas\[0\]"),
    ],
)  # fmt: skip
def test_malformed(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    index = read_3dpw(write_3dpw(tmp_path, **changes))
    problem = only_problem(index)
    assert (problem.source, problem.split) == (PICKLE, "train")
    assert re.search(message, str(problem))
    assert [s.split for s in index.sequences] == ["val"]


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x02]q\x00.", None])
def test_damaged(content: bytes | None, tmp_path: Path) -> None:
    path = write_3dpw(tmp_path) / PICKLE
    path.write_bytes(path.read_bytes()[:-300] if content is None else content)
    assert "00.pkl cannot be read (" in str(only_problem(read_3dpw(tmp_path)))


def test_pictures_fewer_than_poses(tmp_path: Path) -> None:
    (write_3dpw(tmp_path) / "imageFiles/courtyard_basketball_01/image_00002.jpg").unlink()
    with pytest.raises(
        ValueError, match=r"courtyard_basketball_01_person0: missing file: .*02.jpg"
    ):
        check_poses(read_3dpw(tmp_path)).settle()
