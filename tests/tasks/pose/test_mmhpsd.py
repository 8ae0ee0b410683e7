"""MMHPSD in its two layouts."""

import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch

from spikevideoformer.body.smpl import SMPL_JOINTS, SMPL_PARENTS
from spikevideoformer.cli import main
from spikevideoformer.events.spec import EventChannels
from spikevideoformer.tasks.pose.dataset import PoseDataset
from spikevideoformer.tasks.pose.event_frames import stored_event_input
from spikevideoformer.tasks.pose.index import read_poses
from spikevideoformer.tasks.pose.layouts.mmhpsd import (
    CAMERA,
    find_eventhpe,
    find_mmhpsd,
    read_eventhpe,
    read_mmhpsd,
)
from spikevideoformer.tasks.pose.sequence import PoseIndex, fit_skeleton
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.tasks.pose.square import Square

from ...payload import Payload
from .poses import (
    assert_skeleton,
    assert_sound,
    assert_truth,
    body,
    edit_npz,
    mmhpsd_body,
    mmhpsd_events,
    mmhpsd_name,
    only_problem,
    write_eventhpe,
    write_mmhpsd,
)

Write = Callable[..., Path]
LAYOUTS = pytest.mark.parametrize(
    ("write", "layout"), [(write_mmhpsd, "mmhpsd"), (write_eventhpe, "eventhpe")]
)
THIRD = mmhpsd_name(3)


@LAYOUTS
def test_what_is_read(write: Write, layout: str, tmp_path: Path) -> None:
    index = read_poses(write(tmp_path))
    assert_sound(index)
    assert (index.layout, index.frames) == (layout, 15)
    assert (index.joint_names, index.parents) == (SMPL_JOINTS, SMPL_PARENTS)
    assert [(s.name, s.action, s.split) for s in index.sequences] == [
        ("subject01_group2_time1", "group2", "test"),
        ("subject03_group2_time1", "group2", "train"),
        ("subject04_group1_time1", "group1", "train"),
    ]
    for subject, sequence in zip((1, 3, 4), index.sequences, strict=True):
        assert_truth(sequence, mmhpsd_body(subject, 5), camera=CAMERA)
        assert sequence.truth.shape == pytest.approx([subject / 10] * 10)
        assert (sequence.frame_rate_hz, sequence.size_px) == (15, (256, 256))
        assert sequence.pictures[2].name == "fullpic0002.jpg"  # type: ignore[index]
        # frame i lies between pose i and pose i + 1
        stems = [None if path is None else path.stem[-4:] for path in sequence.events]
        assert stems == [None, "0000", "0001", "0002", "0003"]
    assert_skeleton(index, body(SMPL_PARENTS, 5))
    assert CAMERA.focal_px[0] == pytest.approx(335.86) and CAMERA.centre_px[1] == pytest.approx(
        128.2
    )


@LAYOUTS
def test_what_follows_a_gap_is_a_sequence_of_its_own(
    write: Write, layout: str, tmp_path: Path
) -> None:
    index = read_poses(write(tmp_path, (3,), 9, absent=(0, 3, 4, 7)))
    assert_sound(index)
    assert [(s.name, len(s)) for s in index.sequences] == [
        (f"{THIRD}_0001", 2),
        (f"{THIRD}_0005", 2),
        (f"{THIRD}_0008", 1),
    ]
    whole = mmhpsd_body(3, 9)
    for sequence, first in zip(index.sequences, (1, 5, 8), strict=True):
        np.testing.assert_allclose(sequence.truth.joints[0], whole.joints[first], atol=1e-5)
        assert sequence.events[0].stem[-4:] == f"{first - 1:04d}"  # type: ignore[union-attr]


def test_numbers_need_not_begin_at_0(tmp_path: Path) -> None:
    (sequence,) = read_mmhpsd(write_mmhpsd(tmp_path, (3,), 3, first=120)).sequences
    assert sequence.name == THIRD and sequence.events[0] is None
    assert sequence.events[1].name == "events_0120.npz"  # type: ignore[union-attr]


def input_of(index: PoseIndex, channels: EventChannels, gap: float) -> torch.Tensor:
    spec = PoseSpec(
        frames=2, size=256, frame_rate_hz=gap, input="events", poses="between", channels=channels
    )
    item = PoseDataset(index, spec, fit_skeleton(index))[0]
    assert item.joints.shape[0] == 3
    return item.video


@pytest.mark.parametrize("gap", [1, 2])
def test_event_frames_as_each_loader_unites_them(gap: int, tmp_path: Path) -> None:
    """Channel by channel; or all channels of a stretch in a row, united into eight."""
    numbers = [range(t * gap, (t + 1) * gap) for t in range(2)]
    stored = [[mmhpsd_events(3, n) for n in stretch] for stretch in numbers]
    video = input_of(
        read_poses(write_mmhpsd(tmp_path / "a", (3,))),
        EventChannels(mode="binary", bins=2),
        15 / gap,
    )
    expected = np.stack([np.any(frames, 0) for frames in stored]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(video, expected)
    parts = 4 * gap  # with the gap of 2 the eight of EventHPE
    video = input_of(
        read_poses(write_eventhpe(tmp_path / "b", (3,))),
        EventChannels(polarity="merged", bins=parts),
        15 / gap,
    )
    expected = np.stack([np.concatenate(frames, -1) for frames in stored]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(video, expected)


@pytest.mark.parametrize("compress", [0, 3])
def test_pickles_of_joblib(compress: int, tmp_path: Path) -> None:
    """Lists, or dicts by the names of the arrays; what pose_info leaves out is no pose."""
    write_eventhpe(tmp_path, (3,), compress=compress)
    folder = tmp_path / "pose_events" / THIRD
    beta, theta, tran, joints3d, joints2d = joblib.load(folder / "pose0002.pkl")
    held = {"beta": beta, "theta": theta, "tran": tran, "joints3d": joints3d, "joints2d": joints2d}
    joblib.dump(held, folder / "pose0002.pkl", compress=compress)
    (sequence,) = read_eventhpe(tmp_path).sequences
    assert_truth(sequence, mmhpsd_body(3, 5), camera=CAMERA)
    joblib.dump(np.array([1, 2, 4]), folder / "pose_info.pkl", compress=compress)
    assert [len(s) for s in read_eventhpe(tmp_path).sequences] == [2, 1]


def test_joints_about_the_body_are_brought_to_their_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_mmhpsd(tmp_path, (3,))
    poses = sorted((tmp_path / "mmhpsd_events" / THIRD / "poses").iterdir())
    for path in poses:
        with np.load(path) as file:
            edit_npz(path, joints3d=file["joints3d"] - file["trans"].astype(np.float32))
    assert_truth(read_mmhpsd(tmp_path).sequences[0], mmhpsd_body(3, 5), camera=CAMERA)
    assert caplog.text == ""
    for path in poses:
        edit_npz(path, joints2d=np.full((24, 3), 9.0))
    with caplog.at_level(logging.WARNING):
        read_mmhpsd(tmp_path)
    assert "pixels from joints2d; are these pixels of a picture of 256?" in caplog.text


@LAYOUTS
def test_pictures_or_events_may_be_absent(write: Write, layout: str, tmp_path: Path) -> None:
    write(tmp_path)
    kinds = {
        "mmhpsd": ("mmhpsd_grayscale_img/*/imgs/*.jpg", "mmhpsd_events/*/events_frame_04/*"),
        "eventhpe": ("full_pic_256/*/*", "events_256/*/*"),
    }[layout]
    for path in tmp_path.glob(kinds[0]):
        path.unlink()
    index = read_poses(tmp_path)
    assert_sound(index)
    assert {s.pictures for s in index.sequences} == {()} and index.frames == 15
    for path in tmp_path.glob(kinds[1]):
        path.unlink()
    assert "neither pictures nor event frames" in str(read_poses(tmp_path).problems[0])


def test_splits_of_a_list(tmp_path: Path) -> None:
    write_mmhpsd(tmp_path, (1, 2, 3, 4), 1, events=False)
    lines = [
        "sequence,split",
        "subject01_group2_time1,train",
        "subject02_group1_time1,validation",
        "subject01_group2_time1,val",
        "subject07_group1_time1,val",
        f"{THIRD}, ",
        "subject04_group1_time1,Other",
    ]
    (tmp_path / "splits.csv").write_text("\n".join(lines))
    index = read_mmhpsd(tmp_path)
    assert [(s.name[:9], s.split) for s in index.sequences] == [
        ("subject01", "train"),
        ("subject02", "val"),
        ("subject04", "other"),
    ]
    assert [(p.source, p.reason) for p in index.problems] == [
        ("splits.csv:4", "subject01_group2_time1 is already listed"),
        ("splits.csv:5", "no folder mmhpsd_events/subject07_group1_time1"),
        ("splits.csv:6", "no split"),
    ]


def test_the_official_split(tmp_path: Path) -> None:
    index = read_mmhpsd(write_mmhpsd(tmp_path, range(1, 10), 1, events=False))
    tested = {s.name[7:9] for s in index.select("test").sequences}
    assert (tested, len(index.select("train").sequences)) == ({"01", "02", "07"}, 6)


def of_npz(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_npz(folder / "poses/pose_0001.npz", **changes)


def of_pickle(value: Any, name: str = "pose0001") -> Callable[[Path], Any]:
    return lambda folder: joblib.dump(
        value(folder) if callable(value) else value, folder / f"{name}.pkl"
    )


@pytest.mark.parametrize(
    ("layout", "damage", "message"),
    [
        ("mmhpsd", of_npz(beta=None), "pose_0001.npz has no beta"),
        (
            "mmhpsd",
            of_npz(joints3d=np.zeros((23, 3))),
            r"has joints3d \[23, 3\]; expected \[24, 3\]",
        ),
        ("mmhpsd", of_npz(body_pose=np.zeros(72)), r"has body_pose \[72\]; expected \[1, 72\]"),
        ("mmhpsd", of_npz(joints2d=np.zeros((24, 1))), "has joints2d of one number"),
        ("mmhpsd", of_npz(joints2d=np.array([None])), "cannot be read .Object arrays cannot be"),
        (
            "mmhpsd",
            of_npz(joints3d=np.full((24, 3), np.inf)),
            "infinite values in joints; give NaN",
        ),
        (
            "mmhpsd",
            lambda folder: (folder / "events_frame_04/events_0002.npz").unlink(),
            "has no event frame 2 .1 are missing",
        ),
        (
            "mmhpsd",
            lambda folder: next(folder.parents[1].glob(f"*img/{THIRD}/imgs/*0003.jpg")).unlink(),
            "has no picture 3 .1 are missing",
        ),
        (
            "mmhpsd",
            lambda folder: [path.unlink() for path in (folder / "poses").iterdir()],
            f"{THIRD} holds no pose",
        ),
        (
            "mmhpsd",
            lambda folder: (folder / "poses/more1.npz").write_bytes(b"PK"),
            "more1.npz and pose_0001.npz have the same number",
        ),
        ("eventhpe", of_pickle([1, 2]), "does not hold beta, theta, tran, joints3d and joints2d"),
        ("eventhpe", of_pickle({"beta": np.zeros((1, 10))}), "pose0001.pkl has no joints3d"),
        (
            "eventhpe",
            of_pickle(lambda f: [Payload(f / "x")] * 5),
            "asks for .*mkdir, which may be harm",
        ),
        (
            "eventhpe",
            of_pickle(lambda f: Payload(f / "x"), "pose_info"),
            "pose_info.pkl cannot be rea",
        ),
        ("eventhpe", of_pickle({"a": 1}, "pose_info"), "pose_info.pkl holds no list of numbers"),
        (
            "eventhpe",
            of_pickle([0, 1, 8, 9], "pose_info"),
            "lists pose 8, whose file is absent .2 are",
        ),
    ],
)
def test_malformed(
    layout: str, damage: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    if layout == "mmhpsd":
        folder = write_mmhpsd(tmp_path) / "mmhpsd_events" / THIRD
    else:
        folder = write_eventhpe(tmp_path) / "pose_events" / THIRD
    damage(folder)
    index = read_poses(tmp_path)
    problem = only_problem(index)
    assert (problem.source, problem.split) == (f"{folder.parent.name}/{THIRD}", "train")
    assert re.search(message, str(problem))
    assert [s.name[:9] for s in index.sequences] == ["subject01", "subject04"]
    assert not (folder / "x").exists()


def test_recognition(tmp_path: Path) -> None:
    assert not find_mmhpsd(tmp_path) and not find_eventhpe(tmp_path)
    (tmp_path / "pose_events" / "subject03").mkdir(parents=True)
    assert not find_eventhpe(tmp_path)
    write_eventhpe(tmp_path, (4,), 1)
    assert find_eventhpe(tmp_path) and not find_mmhpsd(tmp_path)
    write_mmhpsd(tmp_path, (4,), 1)
    assert find_mmhpsd(tmp_path)


def test_damaged_event_frames_are_named(tmp_path: Path) -> None:
    index = read_poses(write_mmhpsd(tmp_path, (3,)))
    path = index.sequences[0].events[1]
    assert path is not None
    np.savez(path, events_frame=np.zeros(7, np.uint8))
    spec = PoseSpec(frames=1, size=16, input="events", channels=EventChannels(bins=2))
    with pytest.raises(ValueError, match=r"events_0000\.npz: is uint8 \[7\]; frames 256x256x4"):
        stored_event_input([[path]], 256, 256, Square.of_picture(256, 256), spec)
    assert replace(spec, poses="between").num_poses == 2


# --- The whole way --------------------------------------------------------------------------------


@LAYOUTS
def test_it_trains_evaluates_and_predicts(
    write: Write, layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """T event frames for T + 1 poses, training gaps of 1 to 3, test gap 2, the official split."""
    data, out = write(tmp_path / "data", frames=9, absent=(6,)), tmp_path / "run"
    head = {"mmhpsd": "regressor", "eventhpe": "grid"}[layout]
    events = {
        "mmhpsd": "--pose.event-mode binary --pose.bins 2 --pose.gap [1,3]",
        "eventhpe": "--pose.polarity merged --pose.bins 8 --pose.gap [2,3]",
    }[layout]
    train = f"train --task pose --model svf_nano --val-split test --frames 2 --size 32 --epochs 1 \
        --frame-rate-hz 7.5 --pose.input events --pose.poses between --pose.head {head} {events} \
        --batch-size 2 --device cpu --workers 0".split()
    train += ["--data", str(data), "--out", str(out)]
    assert main(train) == 0
    capsys.readouterr()
    model = str(out / "model")
    evaluate = ["eval", "--model", model, "--data", str(data), "--split", "test", "--json"]
    assert main([*evaluate, "--device", "cpu"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["frames"] == 3 + 1  # every second of 0 to 5, and of 7 to 8
    for name in ("absolute_mpjpe_mm", "pel_mpjpe_mm", "pa_mpjpe_mm", "mpjpe_mm"):
        assert scores["overall"][name] > 0
    assert 0 <= scores["overall"]["pel_pck_3d"] <= 1
    folder = "mmhpsd_grayscale_img/*/imgs" if layout == "mmhpsd" else "full_pic_256/*"
    pictures = str(next(data.glob(folder)))
    predict = ["predict", "--model", model, pictures, "--sequence-rate-hz", "15", "--json"]
    assert main([*predict, "--device", "cpu"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["joints_mm"]) == len(result["timestamps_s"]) == 5  # of 9 pictures
