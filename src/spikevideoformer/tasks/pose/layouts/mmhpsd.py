"""MMHPSD: grey pictures and event frames with SMPL bodies (Zou et al., EventHPE, ICCV 2021).

    root/pose_events/<sequence>/pose0000.npz         joints3d [24, 3], joints2d [24, 2] in pixels,
                                                     body_pose [1, 72] axis-angle, beta [1, 10]
    root/full_pic_256/<sequence>/fullpic0000.jpg     or .png
    root/events_256/<sequence>/event0000.npy         optional, or .npz: a packed frame each
    root/splits.csv                                  optional: sequence,split

Sequences are named `subject01_group1_time1`; the group is what is done. This layout is from memory
of the release, whose files were not at hand, and so are the 15 frames per second. Also taken for
granted: `joints3d` are metres in camera coordinates (x right, y down, z forward), the first three
numbers of `body_pose` turn the body in them, and an event frame has what happened until the picture
of its number.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from spikevideoformer.body.smpl import SMPL_JOINTS, SMPL_PARENTS
from spikevideoformer.data.lists import csv_records, malformed, subfolders
from spikevideoformer.data.problems import Problem, listed_split
from spikevideoformer.tasks.pose.layouts.files import (
    Shape,
    bad_file,
    float32,
    read_npz,
    rotations_from_axis_angles,
)
from spikevideoformer.tasks.pose.layouts.pinhole import fit_pinhole
from spikevideoformer.tasks.pose.sequence import PoseIndex, PoseSequence, PoseTruth

_RATE_HZ = 15.0
_POSES, _PICTURES, _EVENTS = "pose_events", "full_pic_256", "events_256"
_ACTION = re.compile(r"_(group\d+)_")
_NUMBER = re.compile(r"\d{1,9}$", re.ASCII)
_SHAPES: dict[str, Shape] = {
    "joints3d": (24, 3),
    "joints2d": (24, 2),
    "body_pose": (1, 72),
    "beta": (1, 10),
}


def find_mmhpsd(root: Path) -> bool:
    """Whether there are folders of poses and of pictures."""
    return (root / _POSES).is_dir() and (root / _PICTURES).is_dir()


def read_mmhpsd(root: Path) -> PoseIndex:
    """Read all sequences.

    The frames are the pictures; one without a pose is not labelled. `splits.csv` leaves out what it
    does not list; without it the subjects are divided in the order of their names: the last fifth
    is test and the one before them val. The camera is fitted to joints3d and joints2d.
    """
    folders = subfolders(root / _POSES)
    split_of, problems = _splits(root, [folder.name for folder in folders])
    sequences: list[PoseSequence] = []
    for folder in folders:
        if (split := split_of.get(folder.name)) is None:
            continue
        try:
            sequences.append(_sequence(root, folder, split))
        except ValueError as error:
            problems.append(bad_file(folder, root, error, split))
    return PoseIndex(
        root=root,
        layout="mmhpsd",
        joint_names=SMPL_JOINTS,
        parents=SMPL_PARENTS,
        sequences=tuple(sequences),
        problems=tuple(problems),
    )


def _splits(root: Path, names: list[str]) -> tuple[dict[str, str], list[Problem]]:
    """The split of each sequence that has one, and what is wrong with the list."""
    path = root / "splits.csv"
    if not path.is_file():
        subjects = sorted({_subject(name) for name in names})
        n = len(subjects)
        val = n - 1 - max(n // 5, int(n > 2))  # a test subject as soon as there are three
        split_of_subject = {
            subject: "train" if i < max(1, val) else "val" if i == val else "test"
            for i, subject in enumerate(subjects)
        }
        return {name: split_of_subject[_subject(name)] for name in names}, []
    split_of: dict[str, str] = {}
    problems: list[Problem] = []
    for source, record in csv_records(path, ("sequence", "split")):
        if isinstance(record, Problem):
            problems.append(record)
            continue
        name, split = record["sequence"], listed_split(record["split"])
        if split is None:
            remedy = "name one, such as train, val or test"
            problems.append(malformed(source, "no split", remedy))
        elif name in split_of:
            reason = f"{name} is already listed"
            problems.append(malformed(source, reason, "remove one of the two lines", split))
        elif name not in names:
            reason = f"no folder {_POSES}/{name}"
            problems.append(malformed(source, reason, "unpack it, or remove the line", split))
        else:
            split_of[name] = split
    return split_of, problems


def _subject(name: str) -> str:
    return name.partition("_")[0]


def _sequence(root: Path, folder: Path, split: str) -> PoseSequence:
    name = folder.name
    poses = _by_number(folder, (".npz",))
    pictures = _by_number(root / _PICTURES / name, (".jpg", ".png"))
    events = _by_number(root / _EVENTS / name, (".npy", ".npz"))
    if not pictures:
        raise ValueError(f"{root / _PICTURES / name} holds no picture")
    if not poses:
        raise ValueError(f"{folder} holds no pose")
    every = {*pictures, *poses}
    numbers = range(min(every), max(every) + 1)
    for what, files in (("picture", pictures), ("event frame", events)):
        missing = len(numbers) - sum(n in numbers for n in files)
        if files and missing:
            first = next(n for n in numbers if n not in files)
            raise ValueError(f"{name} has no {what} {first} ({missing} are missing)")
    first, F = numbers.start, len(numbers)
    joints, points = (np.full((F, 24, n), np.nan, np.float32) for n in (3, 2))
    vectors = np.full((F, 72), np.nan, np.float32)
    betas = np.full((F, 10), np.nan, np.float32)
    for number, path in poses.items():
        arrays = {key: float32(array) for key, array in read_npz(path, _SHAPES).items()}
        joints[number - first], points[number - first] = arrays["joints3d"], arrays["joints2d"]
        vectors[number - first], betas[number - first] = arrays["body_pose"], arrays["beta"]
    known = betas[np.isfinite(betas).all(-1)]
    try:
        camera = fit_pinhole(joints, points)
        truth = PoseTruth(
            joints=joints,
            points=points,
            rotations=rotations_from_axis_angles(vectors),
            shape=known.mean(0) if len(known) else None,
            focal_px=camera.focal_px,
            centre_px=camera.centre_px,
        )
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    named = _ACTION.search(name)
    return PoseSequence(
        name=name,
        action=named[1] if named else name,
        split=split,
        pictures=tuple(pictures[number] for number in numbers),
        events=tuple(events[number] for number in numbers) if events else (),
        frame_rate_hz=_RATE_HZ,
        truth=truth,
    )


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
