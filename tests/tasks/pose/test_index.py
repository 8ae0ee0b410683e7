"""Layouts are told apart; what is wrong with pictures is found, and skipped on demand."""

import csv
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevideoformer.data.problems import DatasetError
from spikevideoformer.tasks.pose.check import check_poses
from spikevideoformer.tasks.pose.index import POSE_LAYOUTS, read_poses
from spikevideoformer.tasks.pose.sequence import PoseIndex

from .poses import (
    edit_npz,
    video,
    write_3dpw,
    write_eventhpe,
    write_human36m,
    write_mmhpsd,
    write_rendered,
)


def names(index: PoseIndex) -> list[str]:
    return [s.name for s in index.sequences]


# --- Layouts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "layout"),
    [
        (write_rendered, "rendered"),
        (write_mmhpsd, "mmhpsd"),
        (write_eventhpe, "eventhpe"),
        (write_human36m, "human36m"),
        (write_3dpw, "3dpw"),
    ],
)
def test_layouts_are_recognised(write: Callable[[Path], Path], layout: str, tmp_path: Path) -> None:
    if layout == "human36m":
        pytest.importorskip("cdflib", reason="CDF files are read by the package cdflib")
    root = write(tmp_path)
    found, named = read_poses(str(root)), read_poses(root, layout=layout)
    assert found.layout == named.layout == layout
    assert found.root == root
    assert names(found) == names(named) != []
    part = found.splits[-1]
    assert names(read_poses(root, split=part)) == names(found.select(part)) != names(found)


def test_a_list_of_splits_does_not_hide_mmhpsd(tmp_path: Path) -> None:
    (write_mmhpsd(tmp_path) / "splits.csv").write_text("sequence,split\n")
    with pytest.raises(DatasetError, match="read as mmhpsd, holds no poses; add some to it"):
        read_poses(tmp_path)


def test_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root, options, message in (
        (tmp_path, {}, "holds no poses: expected splits.csv .* MMHPSD .* Human3.6M .* 3DPW"),
        (tmp_path / "none", {}, "data folder .*none does not exist"),
        (tmp_path / "file", {}, "data folder .*file is a file"),
        (tmp_path, {"layout": "coco"}, "unknown layout 'coco'; choose one of mmhpsd, eventhpe,"),
        (tmp_path, {"layout": "rendered"}, "splits.csv cannot be read .*has the layout rendered"),
        (tmp_path, {"layout": "mmhpsd"}, "mmhpsd_events cannot be read .*has the layout mmhpsd"),
        (tmp_path, {"layout": "3dpw"}, "sequenceFiles cannot be read .*has the layout 3dpw"),
    ):
        with pytest.raises(DatasetError, match=message):
            read_poses(root, **options)  # type: ignore[arg-type]
    assert tuple(POSE_LAYOUTS) == ("mmhpsd", "eventhpe", "human36m", "3dpw", "rendered")


def test_no_such_split(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"has no split 'test' \(it has: train, val\)"):
        read_poses(write_rendered(tmp_path), split="test")


# --- The check ------------------------------------------------------------------------------------


def test_a_sound_data_set(tmp_path: Path) -> None:
    index = read_poses(write_rendered(tmp_path))
    calls: list[tuple[int, int]] = []
    settled = check_poses(
        index,
        required_splits=("train", "validation"),
        progress=lambda done, total: calls.append((done, total)),
    ).settle(folder=tmp_path / "absent")
    assert settled.sequences == index.sequences
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_a_video_may_be_longer_than_its_poses(tmp_path: Path) -> None:
    video(write_rendered(tmp_path) / "train/bow/1.mp4", frames=9)
    assert check_poses(read_poses(tmp_path)).settle().frames == 12


@pytest.mark.parametrize(("rate_hz", "sound"), [(20.3, True), (19.7, True), (20.4, False)])
def test_a_video_drifts_from_its_poses(rate_hz: float, sound: bool, tmp_path: Path) -> None:
    """By half a picture in 30 at 20 Hz."""
    video(write_rendered(tmp_path, frames=30) / "train/bow/1.mp4", 30, rate_hz)
    index = read_poses(tmp_path)
    assert check_poses(index, decode="none").settle().sequences == index.sequences
    for decode in ("open", "full"):
        if sound:
            assert check_poses(index, decode=decode).settle().sequences == index.sequences
            continue
        message = "other frame rate: 1.mp4 has 20.4 frames a second, but its poses 20; restore"
        with pytest.raises(DatasetError, match=message):
            check_poses(index, decode=decode).settle()


def test_a_single_pose_has_no_frame_rate(tmp_path: Path) -> None:
    index = read_poses(write_rendered(tmp_path, frames=1))
    assert index.sequences[0].frame_rate_hz == 1
    assert check_poses(index).settle().sequences == index.sequences


def broken(path: Path) -> None:
    """The second half of the pictures is noise."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\xff" * (len(content) // 2))


@pytest.mark.parametrize(
    ("damage", "decodes", "message"),
    [
        (lambda path: path.unlink(), "none open full", "missing file: .*1.mp4 does not exist"),
        (lambda path: path.write_bytes(b""), "none open full", "empty file: 1.mp4 holds nothing"),
        (lambda path: path.write_bytes(b"x" * 99), "open full", "unreadable pictures: .*1.mp4"),
        (lambda path: video(path, 3), "open full", "short video: 1.mp4 has 3 frames, .* 4 poses"),
        (
            lambda path: edit_npz(
                path.with_suffix(".npz"),
                joints3d=np.full((4, 4, 3), np.nan, np.float32),
                joints2d=np.full((4, 4, 2), np.nan, np.float32),
            ),
            "none open full",
            "no labelled frame: no joint is labelled in any frame",
        ),
        (
            lambda path: path.with_suffix(".npz").unlink(),
            "none open full",
            "unusable poses: .*1.npz cannot be read",
        ),
    ],
    ids=["missing", "empty", "damaged", "short", "NaN", "no poses"],
)
def test_videos(damage: Callable[[Path], Any], decodes: str, message: str, tmp_path: Path) -> None:
    damage(write_rendered(tmp_path) / "train/bow/1.mp4")
    index = read_poses(tmp_path)
    for decode in ("none", "open", "full"):
        if decode not in decodes.split():
            assert check_poses(index, decode=decode).settle().sequences == index.sequences
            continue
        with pytest.raises(DatasetError, match=r"1 problem in .*--skip-bad") as caught:
            check_poses(index, decode=decode).settle()
        (problem,) = caught.value.problems
        assert re.search(f"train/bow/1.*: {message}", str(problem))
        assert problem.split == "train" and "\n" not in str(caught.value)
        settled = check_poses(index, decode=decode).settle(skip_bad=True)
        assert names(settled) == ["train/walk/0", "val/walk/2"] and settled.problems == ()


def test_damage_within_a_video_shows_when_it_is_decoded(tmp_path: Path) -> None:
    broken(write_rendered(tmp_path, frames=30) / "train/bow/1.mp4")
    with pytest.raises(DatasetError, match=r"unreadable pictures: .*1.mp4"):
        check_poses(read_poses(tmp_path)).settle()


def test_picture_files_and_events(tmp_path: Path) -> None:
    root = write_mmhpsd(tmp_path)
    index = read_poses(root)
    pictures = [s.pictures for s in index.sequences]
    pictures[0][1].write_bytes(b"no picture")  # type: ignore[index]
    assert check_poses(index, decode="open").settle().sequences == index.sequences
    index.sequences[1].events[2].write_bytes(b"")
    with pytest.raises(DatasetError) as caught:
        check_poses(index).settle()
    assert [(p.kind, p.path) for p in caught.value.problems] == [
        ("unreadable pictures", pictures[0][1]),  # type: ignore[index]
        ("empty file", index.sequences[1].events[2]),
    ]


def test_what_is_left_out_is_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_rendered(tmp_path / "data")
    (root / "train/bow/1.mp4").unlink()
    edit_npz(root / "train/walk/0.npz", focal_px=None)
    with (root / "splits.csv").open("a") as file:
        file.write("val/walk/2.mp4,walk,1,train,calm\n")
    index = read_poses(root, split="train")
    with pytest.raises(DatasetError, match=r"1 malformed line.*all are listed in .*problems.csv"):
        check_poses(read_poses(root)).settle(folder=tmp_path)
    with pytest.raises(DatasetError, match="without its bad sequences the split train is empty: 3"):
        check_poses(index).settle(skip_bad=True, folder=tmp_path)
    video(root / "train/bow/1.mp4", 4)
    with caplog.at_level(logging.WARNING):
        settled = check_poses(index).settle(skip_bad=True, folder=tmp_path)
    assert names(settled) == ["train/bow/1"]
    assert "left out what has problems: 2 problems" in caplog.text
    with (tmp_path / "skipped.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["source"], row["kind"]) for row in rows] == [
        ("train/walk/0.npz", "unusable poses"),
        ("splits.csv:5", "malformed line"),
    ]


def test_splits_that_are_required(tmp_path: Path) -> None:
    index = read_poses(write_rendered(tmp_path))
    with pytest.raises(DatasetError, match="split without samples: no sequence of test is there"):
        check_poses(index, required_splits=("train", "test")).settle()
    with pytest.raises(DatasetError, match="without its bad sequences the split test is empty"):
        check_poses(index, required_splits=("train", "test")).settle(skip_bad=True)
