"""Rendered clips as sequences with poses."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevideoformer.synth.motions import LabelledMotion, procedural_motion
from spikevideoformer.synth.render import write_motion_clips
from spikevideoformer.synth.spec import RenderSpec
from spikevideoformer.tasks.pose.index import read_poses
from spikevideoformer.tasks.pose.layouts.rendered import read_rendered
from spikevideoformer.tasks.pose.sequence import fit_skeleton, shape_values

from .poses import NAMES, PARENTS, assert_sound, body, edit_npz, only_problem, write_rendered


def test_clips_of_the_renderer(tmp_path: Path) -> None:
    motions = [
        LabelledMotion(motion=procedural_motion(name, seed=1), name=name, label=name, split=split)
        for name, split in (("walk-in-place", "train"), ("squat", "val"))
    ]
    spec = RenderSpec(size=32, frames=5, frame_rate_hz=12.5)
    write_motion_clips(motions, tmp_path, spec=spec, clips_per_motion=1)
    index = read_poses(tmp_path)
    assert_sound(index)
    assert (index.layout, index.splits, index.frames) == ("rendered", ("train", "val"), 10)
    for sequence in index.sequences:
        assert sequence.action == sequence.name.split("/")[1]
        assert sequence.frame_rate_hz == pytest.approx(12.5)
        with np.load(tmp_path / f"{sequence.name}.npz") as file:
            truth = dict(file)
        assert sequence.truth.focal_px == (float(truth["focal_px"]),) * 2
        np.testing.assert_array_equal(sequence.truth.joints, truth["joints3d"])
        skeleton = fit_skeleton(index)
        bones = (
            np.linalg.norm(skeleton.offsets, axis=-1)
            * shape_values(sequence, skeleton).exp().numpy()
        )
        np.testing.assert_allclose(bones, np.linalg.norm(truth["offsets"], axis=-1), atol=1e-5)


def test_what_is_read(tmp_path: Path) -> None:
    index = read_rendered(write_rendered(tmp_path))
    assert_sound(index)
    assert (index.joint_names, index.parents) == (NAMES, PARENTS)
    names = [(s.name, s.action, s.split) for s in index.sequences]
    assert names == [
        ("train/walk/0", "walk", "train"),
        ("train/bow/1", "bow", "train"),
        ("val/walk/2", "walk", "val"),
    ]
    for seed, sequence in enumerate(index.sequences):
        expected = body(PARENTS, 4, seed, scale=2.0 if seed == 1 else 1.0)
        np.testing.assert_allclose(sequence.truth.joints, expected.joints, atol=1e-5)
        np.testing.assert_array_equal(sequence.truth.points, expected.points)
        np.testing.assert_allclose(sequence.truth.rotations, expected.rotations, atol=1e-6)
        assert sequence.truth.focal_px == (100, 100) and sequence.truth.centre_px == (30, 34)
        assert sequence.frame_rate_hz == pytest.approx(20)
        assert sequence.pictures == tmp_path / f"{sequence.name}.mp4"


def test_one_frame_has_a_rate_of_1_hz(tmp_path: Path) -> None:
    index = read_rendered(write_rendered(tmp_path, frames=1))
    assert [s.frame_rate_hz for s in index.sequences] == [1, 1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"joints3d": None}, "has no joints3d"),
        ({"joints3d": np.array([{}])}, "cannot be read .Object arrays cannot be loaded when allow"),
        ({"joints3d": np.zeros((4, 4, 2))}, r"has joints3d \[4, 4, 2\]; expected \[any, any, 3\]"),
        ({"joints3d": np.zeros((4, 5, 3))}, "has 4 frames of 5 joints, but 4 times, 4 names and 4"),
        ({"joints3d": np.full((4, 4, 3), 1e300)}, "infinite values in joints; give NaN"),
        ({"joints3d": np.full((4, 4, 3), "1")}, "has joints3d that is no array of numbers"),
        ({"joint_names": np.zeros(4)}, "has joint_names that is no array of text"),
        ({"joint_names": np.array([*NAMES[:3], "tail"])}, "has other joints than the clips before"),
        ({"parents": np.array([-1, 2, 1, 0])}, "has parents that are no tree with its root first"),
        ({"parents": np.array([-1, 0, 0.5, np.inf])}, "has parents that are no tree with its"),
        ({"times_s": np.full(4, np.inf)}, "has times_s that are not evenly spaced"),
        ({"rotations": np.zeros((3, 4, 3, 3))}, r"rotations are \[3, 4, 3, 3\]; expected \[4, 4,"),
        ({"times_s": np.array([0, 1, 2, 4.0])}, "has times_s that are not evenly spaced"),
        ({"times_s": np.full(4, np.nan)}, "has times_s that are not evenly spaced"),
        ({"focal_px": np.float32(0)}, "focal lengths are .* they must be above 0"),
        ({"centre_px": np.array([np.inf, 0])}, "the principal point is .* it must be finite"),
    ],
)  # fmt: skip
def test_malformed_truth(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_rendered(tmp_path)
    edit_npz(tmp_path / "train/bow/1.npz", **changes)
    index = read_rendered(tmp_path)
    problem = only_problem(index)
    assert (problem.source, problem.split) == ("train/bow/1.npz", "train")
    assert problem.path == tmp_path / "train/bow/1.npz"
    assert re.search(message, str(problem))
    assert [s.name for s in index.sequences] == ["train/walk/0", "val/walk/2"]


@pytest.mark.parametrize("content", [None, b"", b"PK no archive", b"cposix\nmkdir\n(S'x'\ntR."])
def test_damaged_truth(content: bytes | None, tmp_path: Path) -> None:
    path = write_rendered(tmp_path) / "train/bow/1.npz"
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    assert "1.npz cannot be read (" in str(only_problem(read_rendered(tmp_path)))
    path.unlink()
    assert "No such file" in str(only_problem(read_rendered(tmp_path)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train/bow/1.mp4,bow,1,,calm", "no split; name one, such as train, val or test"),
        ("train/bow/1.mp4,,1,train,calm", "no usable path or label; fill in both"),
        (",bow,1,train,calm", "no usable path or label; fill in both"),
        ("a\0b.mp4,bow,1,train,calm", "no usable path or label; fill in both"),
        ("train/walk/0.mp4,bow,1,val,calm", "train/walk/0.mp4 is already listed; remove one of"),
        ("train/bow/1.mp4,bow,1,train", "4 fields where the header has 5"),
        ('"train/bow/1.mp4,bow,1,train,calm', "a quote is not closed"),
    ],
)
def test_malformed_lines(line: str, message: str, tmp_path: Path) -> None:
    path = write_rendered(tmp_path) / "splits.csv"
    lines = path.read_text().splitlines()
    lines[2] = line
    path.write_text("\n".join(lines))
    problem = only_problem(read_rendered(tmp_path))
    assert (problem.kind, problem.source) == ("malformed line", "splits.csv:3")
    assert message in str(problem)


def test_a_list_without_a_column(tmp_path: Path) -> None:
    (tmp_path / "splits.csv").write_text("path,label\na.mp4,x\n")
    assert "the header has no column split" in str(only_problem(read_rendered(tmp_path)))
