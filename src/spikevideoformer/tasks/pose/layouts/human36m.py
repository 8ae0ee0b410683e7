"""Human3.6M in its official layout (Ionescu et al., TPAMI 2014).

    root/S1/Videos/<action>.<camera>.mp4
    root/S1/MyPoseFeatures/D3_Positions_mono/<action>.<camera>.cdf     [1, F, 96], millimetres
    root/S1/MyPoseFeatures/D2_Positions/<action>.<camera>.cdf          [1, F, 64], pixels

Of the 32 joints the usual 17 are taken. Subjects 1, 5, 6, 7 and 8 are train and 9 and 11 val, as is
the custom; the poses of the test subjects are not public. The camera is fitted to the two files of
positions. CDF files are read by the package `cdflib`.
"""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikevideoformer.body.inert_pickle import reason_of
from spikevideoformer.data.problems import DatasetError, Problem
from spikevideoformer.tasks.pose.layouts.files import bad_file, check_array, float32
from spikevideoformer.tasks.pose.layouts.pinhole import fit_pinhole
from spikevideoformer.tasks.pose.sequence import PoseIndex, PoseSequence, PoseTruth

_RATE_HZ = 50.0
_SPLIT_OF_SUBJECT = dict.fromkeys(("S1", "S5", "S6", "S7", "S8"), "train") | {
    "S9": "val",
    "S11": "val",
}
_POSES_3D, _POSES_2D = "MyPoseFeatures/D3_Positions_mono", "MyPoseFeatures/D2_Positions"

# Name, number of the joint among the 32, and parent among the 17.
_JOINTS = (
    ("pelvis", 0, -1),
    ("right_hip", 1, 0),
    ("right_knee", 2, 1),
    ("right_ankle", 3, 2),
    ("left_hip", 6, 0),
    ("left_knee", 7, 4),
    ("left_ankle", 8, 5),
    ("spine", 12, 0),
    ("thorax", 13, 7),
    ("neck", 14, 8),
    ("head", 15, 9),
    ("left_shoulder", 17, 8),
    ("left_elbow", 18, 11),
    ("left_wrist", 19, 12),
    ("right_shoulder", 25, 8),
    ("right_elbow", 26, 14),
    ("right_wrist", 27, 15),
)
HUMAN36M_JOINTS, _AMONG_32, HUMAN36M_PARENTS = zip(*_JOINTS, strict=True)


def find_human36m(root: Path) -> bool:
    """Whether a subject has a folder of positions."""
    return any((root / subject / _POSES_3D).is_dir() for subject in _SPLIT_OF_SUBJECT)


def read_human36m(root: Path) -> PoseIndex:
    """Read the videos that have poses, of all cameras; there are no rotations.

    The second take of an action ("Directions 1") counts as the same action. A video may go on after
    its last pose.

    Raises:
        DatasetError: `cdflib` is not installed.
    """
    if find_spec("cdflib") is None:
        raise DatasetError(
            f"{root} holds CDF files, which need the package cdflib:"
            ' pip install "spikevideoformer[human36m]"'
        )
    sequences: list[PoseSequence] = []
    problems: list[Problem] = []
    for subject, split in _SPLIT_OF_SUBJECT.items():
        for path in sorted((root / subject / _POSES_3D).glob("[!_]*.cdf")):  # not _ALL
            try:
                sequences.append(_sequence(root / subject, path, split))
            except ValueError as error:
                problems.append(bad_file(path, root, error, split))
    return PoseIndex(
        root=root,
        joint_names=HUMAN36M_JOINTS,
        parents=HUMAN36M_PARENTS,
        sequences=tuple(sequences),
        problems=tuple(problems),
    )


def _sequence(subject: Path, path: Path, split: str) -> PoseSequence:
    joints = _positions(path, 3) / np.float32(1000)
    points = _positions(subject / _POSES_2D / path.name, 2)
    if len(points) != len(joints):
        raise ValueError(f"{path} has {len(joints)} frames, its file in D2_Positions {len(points)}")
    try:
        camera = fit_pinhole(joints, points)
        truth = PoseTruth(
            joints=joints, points=points, focal_px=camera.focal_px, centre_px=camera.centre_px
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    take, _, _ = path.stem.rpartition(".")  # without the camera
    return PoseSequence(
        name=f"{subject.name}/{path.stem}",
        action=re.sub(r" \d+$", "", take or path.stem),
        split=split,
        pictures=subject / "Videos" / f"{path.stem}.mp4",
        frame_rate_hz=_RATE_HZ,
        truth=truth,
    )


def _positions(path: Path, axes: int) -> NDArray[np.float32]:
    """The 17 joints ``[F, 17, axes]`` of a CDF file, in its unit."""
    try:
        values = np.asarray(import_module("cdflib").CDF(path).varget("Pose"))
    except Exception as error:  # a damaged file can fail in any way
        raise ValueError(f"{path} cannot be read ({reason_of(error)})") from error
    values = values[0] if values.ndim == 3 and len(values) == 1 else values
    check_array(path, "Pose", values, (None, 32 * axes))
    return float32(values.reshape(-1, 32, axes)[:, _AMONG_32])
