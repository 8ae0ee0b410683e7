"""Tables of motion capture, parts of motions, and the motions that need no file."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from spikevideoformer.body.bvh import write_bvh
from spikevideoformer.body.motion import Motion
from spikevideoformer.body.rotations import matrix_from_axis_angle
from spikevideoformer.body.skeleton import Skeleton
from spikevideoformer.data.problems import DatasetError
from spikevideoformer.synth.motions import (
    ACTIONS,
    LabelledMotion,
    MocapRow,
    clip_starts_s,
    procedural_motion,
    read_mocap_table,
    resampled,
    standing_skeleton,
)

HEADER = "path,subset,content,style,split\n"


@pytest.fixture
def mocap_folder(tmp_path):
    for name in ("a.bvh", "b.bvh"):
        write_bvh(tmp_path / name, procedural_motion("squat", 0, frames=5))
    return tmp_path


def spinning(frames=31, frame_rate_hz=30.0):
    """One bone that turns by 0.1 radians and moves by 1 cm a frame."""
    time = torch.arange(frames, dtype=torch.float64)
    return Motion(
        skeleton=Skeleton(["Hips", "Head"], [-1, 0], [[0.0, 0.0, 0.0], [0.0, 0.5, 0.0]]),
        rotations=matrix_from_axis_angle(
            torch.stack((0 * time, 0 * time, 0.1 * time), 1)[:, None].expand(-1, 2, -1)
        ),
        translation=torch.stack((0.01 * time, 0 * time, 0 * time), 1),
        frame_rate_hz=frame_rate_hz,
    )


def test_table_is_read_and_its_files_on_demand(mocap_folder):
    (mocap_folder / "splits.csv").write_text(
        HEADER + "a.bvh,one,bow,happy,train\nb.bvh,one,walk-left,,holdout\n"
    )
    first, second = read_mocap_table(mocap_folder)
    assert (first.content, first.style, first.split) == ("bow", "happy", "train")
    assert (second.content, second.style, second.split) == ("walk-left", "", "test")
    item = second.load()
    assert (item.name, item.label, item.split) == ("b", "walk-left", "test")
    assert item.motion.rotations.shape == (5, 21, 3, 3)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("path,style,split\na.bvh,happy,train\n", r"splits.csv:1: the header has no column con"),
        (HEADER + "a.bvh,one,bow,happy,later\n", r"splits.csv:2: split is 'later'; use train"),
        (HEADER + "c.bvh,one,bow,happy,train\n", r"splits.csv:2: .*c.bvh is no file"),
        (HEADER + "a.bvh,one,,happy,train\n", r"splits.csv:2: .* has no content"),
        (HEADER + "a.bvh,one,bow\n", r"splits.csv:2: 3 fields where the header has 5"),
        (HEADER, r"splits.csv lists no motion"),
    ],
)
def test_tables_that_cannot_be_used(mocap_folder, table, reason):
    (mocap_folder / "splits.csv").write_text(table)
    with pytest.raises(DatasetError, match=reason):
        read_mocap_table(mocap_folder)


def test_a_folder_without_table(tmp_path):
    with pytest.raises(DatasetError, match=r"splits\.csv does not exist; give a folder"):
        read_mocap_table(tmp_path)


@pytest.mark.parametrize("key", ["name", "label", "style"])
@pytest.mark.parametrize("text", ["a/b", "a,b", ".a", 'a"b', "a\nb"])
def test_names_that_cannot_be_files_or_listed(key, text):
    given = {"name": "a", "label": "bow", "style": "old", "split": "train"} | {key: text}
    with pytest.raises(ValueError, match=f"{key} .* cannot stand in file names and lists"):
        LabelledMotion(motion=spinning(), **given)


def test_a_motion_needs_a_name_and_a_known_split():
    with pytest.raises(ValueError, match="name '' cannot"):
        LabelledMotion(motion=spinning(), name="", label="bow", split="train")
    with pytest.raises(ValueError, match="split must be train, val or test, got 'holdout'"):
        LabelledMotion(motion=spinning(), name="a", label="bow", split="holdout")


def test_resampling_takes_frames_where_there_are_some():
    motion = spinning()
    half = resampled(motion, start_s=0.1, frames=10, frame_rate_hz=15.0)
    assert half.frame_rate_hz == 15.0
    torch.testing.assert_close(half.rotations, motion.rotations[3:22:2], rtol=0, atol=1e-14)
    assert torch.equal(half.translation, motion.translation[3:22:2])


def test_resampling_interpolates_between_frames_and_stands_still_at_the_end():
    part = resampled(spinning(), start_s=0.0, frames=60, frame_rate_hz=50.0)
    place = (torch.arange(60, dtype=torch.float64) * 0.6).clamp_max(30)
    angle = torch.atan2(part.rotations[:, 0, 1, 0], part.rotations[:, 0, 0, 0])
    turned = torch.remainder(angle - 0.1 * place + 1, 2 * torch.pi) - 1
    assert turned.abs().max() < 1e-4
    torch.testing.assert_close(part.translation[:, 0], 0.01 * place)


def test_clips_lie_evenly_inside_a_motion():
    motion = spinning(frames=100, frame_rate_hz=10.0)  # 10 s
    assert clip_starts_s(motion, 3.0) == pytest.approx([0.0, 3.5, 7.0])
    assert clip_starts_s(motion, 5.0) == pytest.approx([0.0, 5.0])
    assert clip_starts_s(motion, 3.0, 1) == pytest.approx([3.5])
    assert clip_starts_s(motion, 8.0, 3) == pytest.approx([0.0, 1.0, 2.0])
    assert clip_starts_s(motion, 12.0) == [0.0] and clip_starts_s(motion, 12.0, 2) == [0.0, 0.0]
    with pytest.raises(ValueError, match="clips must be at least 1"):
        clip_starts_s(motion, 1.0, 0)
    with pytest.raises(ValueError, match="duration_s must be above 0, got 0"):
        clip_starts_s(motion, 0.0)


def test_the_skeleton_has_joints_of_the_recordings(shared_data):
    recorded = read_mocap_table(shared_data / "mocap")[0].load().motion.skeleton
    own = standing_skeleton()

    def bones(skeleton):
        names = skeleton.joint_names
        return {(n, names[p]) for n, p in zip(names[1:], skeleton.parents[1:], strict=True)}

    assert bones(own) == bones(recorded)


@pytest.mark.parametrize("action", ACTIONS)
def test_motions_move_stand_on_the_ground_and_follow_from_the_seed(action):
    motion = procedural_motion(action, 3, frames=60)
    joints = motion.joints().numpy()
    names = motion.skeleton.joint_names
    toes = joints[:, [names.index("Toes_L"), names.index("Toes_R")], 1]
    np.testing.assert_allclose(toes.min(1), 0, atol=1e-12)
    assert 1.2 < joints[..., 1].max() < 2.2
    assert np.ptp(joints, axis=0).max() > 0.2
    assert torch.equal(procedural_motion(action, 3, frames=60).rotations, motion.rotations)
    assert not torch.equal(procedural_motion(action, 4, frames=60).rotations, motion.rotations)


def test_motions_do_what_they_are_called():
    def joint(action, name):
        motion = procedural_motion(action, 0)
        return motion.joints()[:, motion.skeleton.joint_names.index(name)].numpy()

    for side, other in (("L", "R"), ("R", "L")):
        action = "wave-left-hand" if side == "L" else "wave-right-hand"
        raised = joint(action, f"Hand_{side}")[45:, 1]
        assert (raised > joint(action, f"UpperArm_{side}")[45:, 1]).all()
        assert (joint(action, f"Hand_{other}")[:, 1] < joint(action, "Hips")[:, 1] + 0.1).all()
    assert np.ptp(joint("squat", "Hips")[:, 1]) > 0.2
    # From above, with the left at +x and the face at +z, a turn to the left moves the left hip
    # backwards, to negative z.
    assert (joint("turn-left", "UpperLeg_L") - joint("turn-left", "Hips"))[25, 2] < -0.03
    assert (joint("turn-right", "UpperLeg_L") - joint("turn-right", "Hips"))[25, 2] > 0.03
    feet = [joint("walk-in-place", f"Foot_{side}")[:, 1] for side in "LR"]
    assert min(np.ptp(foot) for foot in feet) > 0.05
    assert np.corrcoef(*feet)[0, 1] < 0


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"action": "fly"}, "unknown action 'fly'; choose one of squat, turn-left"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"frames": 0}, "frames at least 1"),
        ({"frame_rate_hz": 0.0}, "frame_rate_hz above 0"),
    ],
)
def test_motions_refuse_bad_arguments(given, reason):
    with pytest.raises(ValueError, match=reason):
        procedural_motion(**({"action": "squat", "seed": 0} | given))


@pytest.mark.parametrize(("unit", "factor"), [("cm", 1.0), ("m", 0.01), ("mm", 10.0)])
def test_the_unit_of_motion_capture_is_guessed_and_said(tmp_path, caplog, unit, factor):
    """By the size of the skeleton; a body that has no such size in any unit is refused."""
    motion = procedural_motion("squat", 0, frames=4)
    row = MocapRow(path=tmp_path / "a.bvh", content="squat", style="", split="train")
    write_bvh(row.path, replace(motion, unit=unit))

    def lengths(motion):
        return motion.skeleton.offsets.norm(dim=1).sort().values  # a file has its own order

    body = lengths(row.load().motion)
    assert torch.allclose(body, lengths(motion), atol=1e-5)
    assert (f"lengths taken for {unit}" in caplog.text) == (unit != "cm")
    if unit == "mm":
        assert torch.allclose(lengths(row.load("cm").motion), factor * body, atol=1e-4)
        text = row.path.read_text()
        row.path.write_text(re.sub(r"(OFFSET) .*", r"\1 0 0.000001 0", text))
        with pytest.raises(ValueError, match=r"a\.bvh: its skeleton measures .* give the unit"):
            row.load()
