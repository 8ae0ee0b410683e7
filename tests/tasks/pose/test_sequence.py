"""What pose data sets are read into, their body, and how their frames are cut into windows."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spikevideoformer.body.rotations import matrix_from_axis_angle
from spikevideoformer.body.skeleton import Skeleton, forward_kinematics
from spikevideoformer.body.smpl import SmplBody
from spikevideoformer.data.problems import DatasetError, Problem
from spikevideoformer.events.spec import EventCamera, EventChannels
from spikevideoformer.tasks.pose.sequence import (
    PoseIndex,
    PoseSequence,
    PoseTruth,
    fit_skeleton,
    shape_values,
    window_positions,
)
from spikevideoformer.tasks.pose.spec import PoseSpec

from .poses import CAMERA, NAMES, PARENTS, body


def truth(frames: int = 4, seed: int = 0, scale: float = 1.0, **changes: Any) -> PoseTruth:
    moving = body(PARENTS, frames, seed, scale)
    values = {
        "joints": moving.joints.astype(np.float32),
        "points": moving.points,
        "rotations": moving.rotations.astype(np.float32),
        "focal_px": CAMERA.focal_px,
        "centre_px": CAMERA.centre_px,
    }
    return PoseTruth(**(values | changes))


def sequence(name: str = "a", **changes: Any) -> PoseSequence:
    values: dict[str, Any] = {
        "name": name,
        "action": "walk",
        "split": "train",
        "pictures": Path("a.mp4"),
        "frame_rate_hz": 20.0,
    }
    values["truth"] = changes.pop("truth") if "truth" in changes else truth()
    return PoseSequence(**(values | changes))


def index(*sequences: PoseSequence, problems: tuple[Problem, ...] = ()) -> PoseIndex:
    return PoseIndex(
        root=Path("data"),
        layout="rendered",
        joint_names=NAMES,
        parents=PARENTS,
        sequences=sequences,
        problems=problems,
    )


# --- Types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"joints": np.zeros((4, 4), np.float32)}, r"joints are \[4, 4\]; expected \[4, 4, 3\]"),
        ({"joints": np.zeros(4, np.float32)}, r"joints are \[4\]; expected \[4, 0, 3\]"),
        ({"points": np.zeros((4, 4, 3), np.float32)}, r"points are \[4, 4, 3\]; expected"),
        ({"rotations": np.zeros((5, 4, 3, 3), np.float32)}, r"rotations are \[5, 4, 3, 3\]"),
        ({"points": np.full((4, 4, 2), np.inf, np.float32)}, "infinite values in points; give NaN"),
        ({"shape": np.full(10, -np.inf, np.float32)}, "infinite values in shape; give NaN"),
        ({"focal_px": (1.0, 0.0)}, "focal lengths are .*above 0"),
        ({"focal_px": (math.nan, 1.0)}, "focal lengths are .*above 0"),
        ({"centre_px": (math.nan, 1.0)}, "principal point is .*finite"),
    ],
)  # fmt: skip
def test_truth_that_is_none(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        truth(**changes)


def test_truth_may_be_unknown() -> None:
    unknown = truth(joints=np.full((4, 4, 3), np.nan, np.float32), rotations=None)
    assert repr(unknown) == "PoseTruth(frames 4, joints 4)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pictures": (Path("0.png"),)}, "a has 1 pictures and 4 poses"),
        ({"events": (Path("0.npy"),) * 5}, "a has 5 event frames and 4 poses"),
        ({"pictures": ()}, "a has no frame"),
        ({"truth": truth(0)}, "a has no frame"),
        ({"frame_rate_hz": 0.0}, "a has 0.0 frames a second"),
        ({"frame_rate_hz": math.nan}, "a has nan frames a second"),
    ],
)
def test_sequences_that_are_none(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sequence(**changes)


def test_an_index_and_its_splits() -> None:
    def problem(split: str | None) -> Problem:
        return Problem(kind="k", source="s", reason="r", remedy="m", split=split)

    whole = index(
        sequence("a", split="val"),
        sequence("b", action="bow"),
        sequence("c", truth=truth(6)),
        problems=(problem("train"), problem("test"), problem(None)),
    )
    assert (whole.splits, whole.frames, whole.actions) == (("train", "val"), 14, ("bow", "walk"))
    part = whole.select("training")
    assert [s.name for s in part.sequences] == ["b", "c"]
    assert [p.split for p in part.problems] == ["train", None]
    assert whole.select("test").sequences == ()  # it has a problem to show
    for missing in ("other", "val"):
        with pytest.raises(DatasetError, match=f"no split '{missing}' .it has: train"):
            part.select(missing)


# --- Bodies ---------------------------------------------------------------------------------------


def test_the_skeleton_is_the_mean_body() -> None:
    both = index(sequence("a"), sequence("b", truth=truth(5, seed=1, scale=1.5)))
    skeleton = fit_skeleton(both)
    expected = torch.tensor(body(PARENTS, 4).offsets)
    assert (skeleton.joint_names, skeleton.parents) == (NAMES, PARENTS)
    torch.testing.assert_close(skeleton.offsets, expected * 1.25, atol=1e-6, rtol=0)
    for one, factor in zip(both.sequences, (1 / 1.25, 1.5 / 1.25), strict=True):
        shape = shape_values(one, skeleton)
        torch.testing.assert_close(
            shape, torch.tensor([0, *[math.log(factor)] * 3]), atol=1e-5, rtol=0
        )
        rotations = torch.from_numpy(one.truth.rotations)
        joints = torch.from_numpy(one.truth.joints)
        again = skeleton.joints(rotations, joints[:, 0], shape)
        torch.testing.assert_close(again, joints, atol=1e-5, rtol=0)


def test_without_rotations_the_mean_pose_is_at_rest() -> None:
    """One pose, before cameras all around that also nod: upright, with bones of the mean length."""
    pose = torch.tensor([[0.0, 0, 0], [0, -0.5, 0], [0.1, 0.9, 0.05], [0.1, -0.9, 0.1]])
    made = []
    for k in range(12):
        turn = matrix_from_axis_angle(torch.tensor([0.0, 2 * math.pi * k / 12, 0.0]))
        nod = matrix_from_axis_angle(torch.tensor([0.3 * (-1) ** k, 0.0, 0.0]))
        joints = (1 + k % 2) * pose @ (nod @ turn).mT + torch.tensor([0.0, 0, 5])
        several = joints.expand(3, 4, 3).numpy().copy()
        several[0, 1] = np.nan  # not whole
        made.append(sequence(f"{k}", truth=truth(3, joints=several, rotations=None)))
    rest = fit_skeleton(index(*made)).offsets
    bones = 1.5 * (pose - pose[[0, *PARENTS[1:]]])
    bones = bones.double()
    torch.testing.assert_close(rest.norm(dim=-1), bones.norm(dim=-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(rest @ rest.T, bones @ bones.T, atol=1e-5, rtol=0)
    torch.testing.assert_close(rest[1:, 1], bones[1:, 1], atol=0.03, rtol=0)


def test_rotations_of_some_sequences_are_enough() -> None:
    """Nor does one without a whole pose harm, also in the name of the one that does not fit."""
    nothing = truth(joints=np.full((4, 4, 3), np.nan, np.float32))
    odd = truth(seed=2)
    turn = matrix_from_axis_angle(torch.tensor([0.0, 0.0, 1.0])).numpy()
    others = [sequence("none", truth=nothing), sequence("plain", truth=truth(rotations=None))]
    skeleton = fit_skeleton(index(*others, sequence("turned", truth=truth(seed=1))))
    np.testing.assert_allclose(skeleton.offsets, body(PARENTS, 4).offsets, atol=1e-5)
    odd = replace(odd, rotations=odd.rotations @ turn)
    good = [sequence(name, truth=truth(seed=i)) for i, name in enumerate("abc")]
    with pytest.raises(ValueError, match="odd of data has a body that rests in another pose"):
        fit_skeleton(index(*others, *good, sequence("odd", truth=odd)))


def test_two_joints_in_one_place_have_no_bone() -> None:
    """Rounding gives the bone between them a length, and any direction."""
    offsets = body(PARENTS, 4).offsets
    offsets[3] = 0
    made = []
    for seed in range(6):
        rotations = torch.tensor(body(PARENTS, 4, seed).rotations)
        joints = forward_kinematics(PARENTS, rotations, torch.tensor(offsets))[0].numpy()
        joints = (joints + np.array([0, 0, 5 + seed])).astype(np.float32)
        joints[:, 3] += np.random.default_rng(seed).normal(size=(4, 3)).astype(np.float32) * 1e-6
        made.append(sequence(f"{seed}", truth=truth(seed=seed, joints=joints)))
    skeleton = fit_skeleton(index(*made))
    np.testing.assert_allclose(skeleton.offsets, offsets, atol=1e-5)
    assert shape_values(made[0], skeleton)[3] == 0


def test_no_whole_pose() -> None:
    joints = truth().joints.copy()
    joints[:, 1] = np.nan
    part = sequence(truth=truth(joints=joints))
    with pytest.raises(ValueError, match="no frame of data has all joints labelled"):
        fit_skeleton(index(part))
    assert shape_values(part, Skeleton(NAMES, PARENTS, np.ones((4, 3)).tolist())).isnan().all()


def test_shape_values_of_smpl_are_those_of_the_data_set() -> None:
    smpl = SmplBody(torch.zeros(24, 3), torch.zeros(24, 3, 10))
    assert shape_values(sequence(), smpl).isnan().all()
    shape = np.arange(16, dtype=np.float32)
    assert shape_values(sequence(truth=truth(shape=shape)), smpl).tolist() == list(range(10))


# --- Frames as input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        PoseSpec(frames=8, size=64),
        PoseSpec(
            frames=1,
            size=16,
            frame_rate_hz=12.5,
            input="events",
            crop="person",
            channels=EventChannels(polarity="signed", mode="voxel", bins=3),
            camera=EventCamera(threshold=0.3, seed=4),
            poses="between",
        ),
        PoseSpec(frames=2, size=32, input="grey", mean=(0.0, 1.0, 2.0), std=(1.0, 2.0, 3.0)),
    ],
    ids=["least", "events", "grey"],
)
def test_a_spec_is_read_back(spec: PoseSpec) -> None:
    assert PoseSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert spec.in_channels == 3


def test_channels_and_steps() -> None:
    spec = PoseSpec(frames=1, size=16, input="events", channels=EventChannels(bins=2))
    assert spec.in_channels == 4 and spec.step(50.0) == 1
    slow = replace(spec, frame_rate_hz=10.0)
    assert [slow.step(hz) for hz in (50.0, 24.0, 26.0, 3.0)] == [5, 2, 3, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 0}, "frames must be a whole number of at least 1, got 0"),
        ({"frames": True}, "frames (is|must be).* a whole number"),
        ({"size": 40}, "size must be a multiple of 16 pixels, at least 16, got 40"),
        ({"size": 0}, "size must be a multiple"),
        ({"frame_rate_hz": 0.0}, "frame_rate_hz must be above 0, got 0.0; None takes"),
        ({"frame_rate_hz": math.inf}, "frame_rate_hz must be above 0, got inf"),
        ({"input": "depth"}, "input must be one of rgb, grey, events, got 'depth'"),
        ({"crop": "face"}, "crop must be one of picture, person, got 'face'"),
        ({"poses": "after"}, "poses must be one of frames, between, got 'after'"),
        ({"poses": "between"}, "poses lie between frames of events, and input is rgb; set input"),
        ({"mean": [0.0, math.nan, 1.0]}, "mean must be three numbers from -1000 to 1000, got"),
        ({"std": [1.0, 0.0, 1.0]}, "std must be three numbers from 0.001 to 1000, got"),
        ({"channels": {"polarity": "none"}}, "polarity must be one of both"),
        ({"channels": {"colour": 1}}, "unknown clip setting channels.colour"),
        ({"channels": "both"}, "channels is 'both'; expected EventChannels"),
        ({"camera": {"threshold": 0.0}}, "threshold must be at least 0.01"),
        ({"camera": None}, "camera is None; expected EventCamera"),
        ({"stride": 2}, "unknown clip setting stride; did you mean"),
    ],
)
def test_specs_that_are_none(changes: dict[str, Any], message: str) -> None:
    values = json.loads(json.dumps(PoseSpec(frames=2, size=32).to_dict()))
    with pytest.raises(ValueError, match=message):
        PoseSpec.from_dict(values | changes)


def test_a_spec_needs_frames_and_size() -> None:
    with pytest.raises(ValueError, match="clip setting frames is missing"):
        PoseSpec.from_dict({"crop": "person"})


@pytest.mark.parametrize("frames", [1, 3, 4])
@pytest.mark.parametrize("step", [1, 2, 5])
def test_windows_show_each_frame_once(frames: int, step: int) -> None:
    spec = PoseSpec(frames=frames, size=16)
    for length in range(1, 20):
        windows = window_positions(length, spec, step)
        shown = []
        for positions, fresh in windows:
            assert len(positions) == len(fresh) == frames
            steps = set(np.diff(positions))
            assert steps <= ({step} if len(windows) > 1 else {step, 0})
            shown += [p for p, new in zip(positions, fresh, strict=True) if new]
        assert shown == list(range(0, length, step))


def test_windows_by_hand() -> None:
    spec = PoseSpec(frames=3, size=16)
    assert window_positions(2, spec, 1) == [([0, 1, 1], [True, True, False])]
    assert window_positions(8, spec, 2) == [
        ([0, 2, 4], [True] * 3),
        ([2, 4, 6], [False, False, True]),
    ]


def test_windows_of_poses_between_frames_by_hand() -> None:
    """The last pose of a window is the first of the next, and counts once."""
    spec = PoseSpec(frames=2, size=16, input="events", poses="between")
    assert window_positions(1, spec, 1) == [([0, 0, 0], [True, False, False])]
    assert window_positions(3, spec, 1) == [([0, 1, 2], [True] * 3)]
    assert window_positions(6, spec, 1) == [
        ([0, 1, 2], [True] * 3),
        ([2, 3, 4], [False, True, True]),
        ([3, 4, 5], [False, False, True]),
    ]
    assert window_positions(9, spec, 2) == [
        ([0, 2, 4], [True] * 3),
        ([4, 6, 8], [False, True, True]),
    ]
