"""MMHPSD: grey pictures and event frames with SMPL bodies (Zou et al., EventHPE, ICCV 2021).

It lies on disk in two ways. That of HumanPoseTracking_SNN (layout ``mmhpsd``):

    root/mmhpsd_events/<sequence>/poses/pose_0000.npz   joints3d [24, 3], joints2d [24, 3],
            trans [1, 3], body_pose [1, 72] axis-angle, beta [1, 10]
    root/mmhpsd_events/<sequence>/events_frame_04/events_0000.npz  events_frame: packed bits of
            [256, 256, 4]
    root/mmhpsd_grayscale_img/<sequence>/imgs/fullpic0000.jpg

and that of EventHPE (layout ``eventhpe``):

    root/pose_events/<sequence>/pose0000.pkl        joblib: beta [1, 10], theta [1, 72],
            tran [1, 3], joints3d [24, 3], joints2d [24, >= 2]
    root/pose_events/<sequence>/pose_info.pkl       the numbers that exist
    root/events_256/<sequence>/event0000.png        channels in the order of time
    root/full_pic_256/<sequence>/fullpic0000.jpg

Pictures or event frames may be absent. Joints are in metres before the camera, points in pixels of
a picture of 256. Event frame i lies between pose i and pose i + 1. A picture whose annotation
failed has no pose: the numbers have gaps, and what follows a gap is a sequence of its own.
``root/splits.csv`` (sequence,split) replaces the official split.

Source: the loaders of github.com/JimmyZou/HumanPoseTracking_SNN and EventHPE. The 15 pictures a
second are from memory.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from spikevideoformer.body.inert_pickle import read_inert_joblib
from spikevideoformer.body.smpl import SMPL_JOINTS, SMPL_PARENTS
from spikevideoformer.data.lists import malformed, split_records, subfolders
from spikevideoformer.data.problems import Problem
from spikevideoformer.messages import one_line
from spikevideoformer.tasks.pose.layouts.files import (
    Shape,
    bad_file,
    check_array,
    float32,
    read_npz,
    rotations_from_axis_angles,
)
from spikevideoformer.tasks.pose.layouts.pinhole import Pinhole
from spikevideoformer.tasks.pose.sequence import PoseIndex, PoseSequence, PoseTruth

log = logging.getLogger(__name__)

TEST_SUBJECTS = frozenset({"subject01", "subject02", "subject07"})
"""The official split; all others are train."""
_RATE_HZ = 15.0
_SIZE = 256
_SCALE = _SIZE / 1280  # the camera's own picture
CAMERA = Pinhole(focal_px=(1679.3 * _SCALE,) * 2, centre_px=(641 * _SCALE,) * 2)
_FARTHEST_PX = 5.0  # of joints from their points; lens distortion leaves one or two
_ACTION = re.compile(r"_(group\d+)_")
_NUMBER = re.compile(r"\d{1,9}$", re.ASCII)
_FRAMES = re.compile(r"events_frame_(\d\d)", re.ASCII)
_SHAPES: dict[str, Shape] = {
    "joints3d": (24, 3),
    "joints2d": (24, None),
    "trans": (1, 3),
    "body_pose": (1, 72),
    "beta": (1, 10),
}
_PICKLED = ("beta", "body_pose", "trans", "joints3d", "joints2d")  # in their order
_OTHER_NAMES = {"theta": "body_pose", "tran": "trans"}


@dataclass(frozen=True)
class _Files:
    """Where what is known of one sequence lies.

    Args:
        poses: by number.
        read: the arrays of `_SHAPES` in one of them.
        pictures: by number; {} if there are none.
        events: by number, what happened between the pose of that number and the next; {} if none.
        channels: of a packed event frame; None: of PNGs.
    """

    poses: Mapping[int, Path]
    read: Callable[[Path], Mapping[str, np.ndarray]]
    pictures: Mapping[int, Path]
    events: Mapping[int, Path]
    channels: int | None = None


# --- HumanPoseTracking_SNN ------------------------------------------------------------------------


def find_mmhpsd(root: Path) -> bool:
    """Whether there are its folders of sequences."""
    return (root / "mmhpsd_events").is_dir()


def read_mmhpsd(root: Path) -> PoseIndex:
    """Read all sequences in the layout of HumanPoseTracking_SNN.

    Of several kinds of event frames those of 4 channels are taken, else those of the fewest; the
    simulated ones (``events_synthesis_frame_*``) and the mirrored poses are not read.
    """

    def files(folder: Path) -> _Files:
        kinds = {
            int(found[1]): f for f in subfolders(folder) if (found := _FRAMES.fullmatch(f.name))
        }
        channels = 4 if 4 in kinds else min(kinds, default=None)
        imgs = root / "mmhpsd_grayscale_img" / folder.name / "imgs"
        return _Files(
            _by_number(folder / "poses", (".npz",)),
            lambda path: read_npz(path, _SHAPES),
            _by_number(imgs, (".jpg", ".png")),
            {} if channels is None else _by_number(kinds[channels], (".npz",)),
            channels,
        )

    return _read(root, "mmhpsd_events", files)


# --- EventHPE -------------------------------------------------------------------------------------


def find_eventhpe(root: Path) -> bool:
    """Whether there is a pickle of a pose."""
    return next((root / "pose_events").glob("*/pose*.pkl"), None) is not None


def read_eventhpe(root: Path) -> PoseIndex:
    """Read all sequences in the layout of EventHPE; pickles are read without executing them."""

    def files(folder: Path) -> _Files:
        poses, info = _by_number(folder, (".pkl",)), folder / "pose_info.pkl"
        if info.is_file():
            numbers = read_inert_joblib(info)
            numbers = numbers.tolist() if isinstance(numbers, np.ndarray) else numbers
            if not isinstance(numbers, (list, tuple)) or not all(
                isinstance(n, int) and not isinstance(n, bool) for n in numbers
            ):
                raise ValueError(f"{info} holds no list of numbers")
            if absent := sorted(set(numbers) - set(poses)):
                raise ValueError(
                    f"{info} lists pose {absent[0]}, whose file is absent ({len(absent)} are)"
                )
            poses = {n: poses[n] for n in sorted(set(numbers))}
        return _Files(
            poses,
            _pickled,
            _by_number(root / "full_pic_256" / folder.name, (".jpg", ".png")),
            _by_number(root / "events_256" / folder.name, (".png",)),
        )

    return _read(root, "pose_events", files)


def _pickled(path: Path) -> dict[str, np.ndarray]:
    held: Any = read_inert_joblib(path)
    if isinstance(held, dict):
        held = {_OTHER_NAMES.get(key, key): value for key, value in held.items()}
    elif isinstance(held, (list, tuple)) and len(held) == len(_PICKLED):
        held = dict(zip(_PICKLED, held, strict=True))
    else:
        raise ValueError(f"{path} does not hold beta, theta, tran, joints3d and joints2d")
    for name, shape in _SHAPES.items():
        check_array(path, name, held.get(name), shape)
    return held


# --- Both -----------------------------------------------------------------------------------------


def _read(root: Path, poses: str, files: Callable[[Path], _Files]) -> PoseIndex:
    folders = subfolders(root / poses)
    split_of, problems = _splits(root, poses, [folder.name for folder in folders])
    sequences: list[PoseSequence] = []
    for folder in folders:
        if (split := split_of.get(folder.name)) is None:
            continue
        try:
            sequences += _sequences(folder, files(folder), split)
        except ValueError as error:
            problems.append(bad_file(folder, root, error, split))
    return PoseIndex(
        root=root,
        joint_names=SMPL_JOINTS,
        parents=SMPL_PARENTS,
        sequences=tuple(sequences),
        problems=tuple(problems),
    )


def _splits(root: Path, poses: str, names: list[str]) -> tuple[dict[str, str], list[Problem]]:
    """The split of each sequence that has one, and what is wrong with the list."""
    path = root / "splits.csv"
    if not path.is_file():
        subjects = {name: name.partition("_")[0] for name in names}
        return {n: "test" if s in TEST_SUBJECTS else "train" for n, s in subjects.items()}, []
    split_of: dict[str, str] = {}
    problems: list[Problem] = []
    for source, split, record in split_records(path, ("sequence",), problems):
        name = record["sequence"]
        if name in split_of:
            reason = f"{name} is already listed"
            problems.append(malformed(source, reason, "remove one of the two lines", split))
        elif name not in names:
            reason = f"no folder {poses}/{name}"
            problems.append(malformed(source, reason, "unpack it, or remove the line", split))
        else:
            split_of[name] = split
    return split_of, problems


def _sequences(folder: Path, files: _Files, split: str) -> list[PoseSequence]:
    """One for each stretch of numbers without a gap."""
    name, numbers = folder.name, sorted(files.poses)
    if not numbers:
        raise ValueError(f"{folder} holds no pose")
    if not files.pictures and not files.events:
        raise ValueError(f"{name} has neither pictures nor event frames")
    breaks = [i for i, (a, b) in enumerate(pairwise(numbers), start=1) if b > a + 1]
    runs = [numbers[a:b] for a, b in pairwise([0, *breaks, len(numbers)])]
    for what, there, wanted in (
        ("picture", files.pictures, numbers),
        ("event frame", files.events, [n for run in runs for n in run[:-1]]),
    ):
        missing = [n for n in wanted if n not in there] if there else []
        if missing:
            raise ValueError(f"{name} has no {what} {missing[0]} ({len(missing)} are missing)")
    action = _ACTION.search(name)
    return [
        PoseSequence(
            name=name if len(runs) == 1 else f"{name}_{run[0]:04d}",
            action=action[1] if action else name,
            split=split,
            pictures=tuple(files.pictures[n] for n in run) if files.pictures else (),
            # ours lead to the pose of their number
            events=tuple(files.events.get(n - 1) for n in run) if files.events else (),
            event_channels=files.channels if files.events else None,
            size_px=(_SIZE, _SIZE),
            frame_rate_hz=_RATE_HZ,
            truth=_truth(name, [files.read(files.poses[n]) for n in run]),
        )
        for run in runs
    ]


def _truth(name: str, poses: Sequence[Mapping[str, np.ndarray]]) -> PoseTruth:
    """Of poses that follow each other.

    Raises:
        ValueError: numbers that are no body.
    """
    of = {
        key: np.stack([float32(pose[key]) for pose in poses])
        for key in _SHAPES
        if key != "joints2d"
    }
    if min(pose["joints2d"].shape[1] for pose in poses) < 2:
        raise ValueError(f"{name} has joints2d of one number; expected x and y")
    points = np.stack([float32(pose["joints2d"][:, :2]) for pose in poses])
    joints, known = of["joints3d"], of["beta"][np.isfinite(of["beta"]).all(-1)]
    placed = joints + of["trans"]
    apart_px = _apart_px(joints, points)
    if apart_px > _FARTHEST_PX and _apart_px(placed, points) < _FARTHEST_PX:
        joints = placed  # they are about the body
    elif apart_px > _FARTHEST_PX:
        log.warning(
            one_line(
                f"{name}: the camera of MMHPSD sees joints3d {apart_px:.0f} pixels from joints2d; "
                "are these pixels of a picture of 256?"
            )
        )
    try:
        return PoseTruth(
            joints=joints,
            points=points,
            rotations=rotations_from_axis_angles(of["body_pose"][:, 0]),
            shape=known.mean(0) if len(known) else None,
            focal_px=CAMERA.focal_px,
            centre_px=CAMERA.centre_px,
        )
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _apart_px(joints: np.ndarray, points: np.ndarray) -> float:
    """How far joints are seen from their points, root mean square; NaN where nothing is seen."""
    with np.errstate(invalid="ignore"):
        square = np.square(CAMERA.project(joints) - points).sum(-1)
    seen = square[np.isfinite(square)]
    return float(np.sqrt(seen.mean())) if len(seen) else float("nan")


def _by_number(folder: Path, suffixes: tuple[str, ...]) -> dict[int, Path]:
    """The files of a folder by the number at the end of their names; {} if no folder.

    Raises:
        ValueError: two files have the same number.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in suffixes and (number := _NUMBER.search(path.stem)):
            other = found.setdefault(int(number[0]), path)
            if other != path:
                raise ValueError(
                    f"{other} and {path.name} have the same number; remove one of them"
                )
    return found
