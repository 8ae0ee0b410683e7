"""3DPW in its official layout: people outdoors with SMPL bodies (von Marcard et al., ECCV 2018).

    root/sequenceFiles/<split>/<sequence>.pkl       split: train, validation or test
    root/imageFiles/<sequence>/image_00000.jpg      a picture for each pose

The pickles are read without executing anything. Shape values are those of the male or female SMPL
that fits the person.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from spikevideoformer.body.inert_pickle import read_inert_pickle
from spikevideoformer.body.smpl import NUM_BETAS, SMPL_JOINTS, SMPL_PARENTS
from spikevideoformer.data.lists import split_folders
from spikevideoformer.data.problems import Problem
from spikevideoformer.tasks.pose.layouts.files import (
    Shape,
    bad_file,
    check_array,
    float32,
    rotations_from_axis_angles,
)
from spikevideoformer.tasks.pose.layouts.pinhole import Pinhole
from spikevideoformer.tasks.pose.sequence import PoseIndex, PoseSequence, PoseTruth

_RATE_HZ = 30.0
_POSES, _PICTURES = "sequenceFiles", "imageFiles"
_OF_CAMERA: dict[str, Shape] = {"cam_poses": (None, 4, 4), "cam_intrinsics": (3, 3)}
_OF_PERSON = ("poses", "jointPositions", "betas", "campose_valid")


def find_3dpw(root: Path) -> bool:
    """Whether there is a pickle of a sequence."""
    return next((root / _POSES).glob("*/*.pkl"), None) is not None


def read_3dpw(root: Path) -> PoseIndex:
    """Read all sequences; each person in one is a `PoseSequence`, called after it and a number.

    What a person does is the name of the sequence without its number. Where the pose of the camera
    is not valid, a frame is not labelled.
    """
    sequences: list[PoseSequence] = []
    problems: list[Problem] = []
    for split, folder in split_folders(root / _POSES):
        for path in sorted(folder.glob("*.pkl")):
            try:
                sequences += _people(root, path, split)
            except ValueError as error:
                problems.append(bad_file(path, root, error, split))
    return PoseIndex(
        root=root,
        joint_names=SMPL_JOINTS,
        parents=SMPL_PARENTS,
        sequences=tuple(sequences),
        problems=tuple(problems),
    )


def _people(root: Path, path: Path, split: str) -> list[PoseSequence]:
    entries = read_inert_pickle(path, (*_OF_CAMERA, *_OF_PERSON))
    for name, shape in _OF_CAMERA.items():
        check_array(path, name, entries.get(name), shape)
    counts = [len(v) if isinstance(v := entries.get(name), list) else 0 for name in _OF_PERSON]
    if not min(counts) == max(counts) > 0:
        held = ", ".join(f"{name} {n}" for name, n in zip(_OF_PERSON, counts, strict=True))
        raise ValueError(f"{path} does not list the same people, at least one, in each of: {held}")
    F = len(entries["cam_poses"])
    pictures = root / _PICTURES / path.stem
    return [
        PoseSequence(
            name=f"{path.stem}_person{person}",
            action=re.sub(r"_\d+$", "", path.stem),
            split=split,
            pictures=tuple(pictures / f"image_{frame:05d}.jpg" for frame in range(F)),
            frame_rate_hz=_RATE_HZ,
            truth=_truth(path, entries, person),
        )
        for person in range(counts[0])
    ]


def _truth(path: Path, entries: dict[str, Any], person: int) -> PoseTruth:
    F = len(entries["cam_poses"])
    shapes: dict[str, Shape] = {
        "poses": (F, 72),
        "jointPositions": (F, 72),
        "betas": (None,),
        "campose_valid": (F,),
    }
    of_person = {name: entries[name][person] for name in shapes}
    for name, shape in shapes.items():
        check_array(path, f"{name}[{person}]", of_person[name], shape, kinds="biuf")
    if len(of_person["betas"]) < NUM_BETAS:
        raise ValueError(f"{path} has less than {NUM_BETAS} values in betas[{person}]")
    K, poses = float32(entries["cam_intrinsics"]), entries["cam_poses"].astype(np.float64)
    invalid = ~of_person["campose_valid"].astype(bool)
    poses[invalid] = np.nan
    turn, shift = poses[:, :3, :3], poses[:, :3, 3]  # from the world to the camera
    world = of_person["jointPositions"].astype(np.float64).reshape(F, 24, 3)
    joints = float32(np.einsum("fik,fjk->fji", turn, world) + shift[:, None])
    rotations = rotations_from_axis_angles(of_person["poses"])
    rotations[:, 0] = np.einsum("fik,fkj->fij", turn, rotations[:, 0])
    rotations[invalid] = np.nan
    camera = Pinhole(
        focal_px=(float(K[0, 0]), float(K[1, 1])), centre_px=(float(K[0, 2]), float(K[1, 2]))
    )
    try:
        return PoseTruth(
            joints=joints,
            points=camera.project(joints),
            rotations=rotations,
            shape=float32(of_person["betas"][:NUM_BETAS]),
            focal_px=camera.focal_px,
            centre_px=camera.centre_px,
        )
    except ValueError as error:
        raise ValueError(f"{path}, person {person}: {error}") from error
