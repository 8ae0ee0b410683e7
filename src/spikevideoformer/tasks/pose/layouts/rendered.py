"""Clips with exact joints, as `render.write_motion_clips` makes them.

root/splits.csv          path,label,group,split,style: a clip a line, `.mp4`
root/<clip>.npz          beside each `<clip>.mp4`: the body in each of its frames
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spikevideoformer.data.lists import listed_path, malformed, split_records
from spikevideoformer.data.problems import Problem
from spikevideoformer.tasks.pose.layouts.files import Shape, bad_file, float32, read_npz
from spikevideoformer.tasks.pose.sequence import PoseIndex, PoseSequence, PoseTruth

_SHAPES: dict[str, Shape] = {
    "joints3d": (None, None, 3),
    "joints2d": (None, None, 2),
    "rotations": (None, None, 3, 3),
    "focal_px": (),
    "centre_px": (2,),
    "times_s": (None,),
    "joint_names": (None,),
    "parents": (None,),
}


def find_rendered(root: Path) -> bool:
    """Whether there is a list of clips."""
    return (root / "splits.csv").is_file()


def read_rendered(root: Path) -> PoseIndex:
    """Read the list and the truth beside the clips; a clip is one sequence, its label the action.

    The first clip that can be read says what the joints are. The frame rate is that of `times_s`,
    and 1 Hz where there is one frame only.
    """
    sequences: dict[str, PoseSequence] = {}
    problems: list[Problem] = []
    tree: tuple[tuple[str, ...], tuple[int, ...]] | None = None
    for source, split, record in split_records(root / "splits.csv", ("path", "label"), problems):
        name = record["path"].rpartition(".")[0]
        if not name or "\0" in name or not record["label"]:
            reason = "no usable path or label"
            problems.append(malformed(source, reason, "fill in both", split))
        elif name in sequences:
            reason = f"{record['path']} is already listed"
            problems.append(malformed(source, reason, "remove one of the two lines", split))
        else:
            path = root / f"{name}.npz"
            try:
                joints, truth, frame_rate_hz = _truth(path)
                if tree not in (None, joints):
                    raise ValueError(f"{path} has other joints than the clips before it")
                sequences[name] = PoseSequence(
                    name=name,
                    action=record["label"],
                    split=split,
                    pictures=listed_path(root, record["path"]),
                    frame_rate_hz=frame_rate_hz,
                    truth=truth,
                )
                tree = joints
            except ValueError as error:
                problems.append(bad_file(path, root, error, split))
    names, parents = tree or ((), ())
    return PoseIndex(
        root=root,
        joint_names=names,
        parents=parents,
        sequences=tuple(sequences.values()),
        problems=tuple(problems),
    )


def _truth(path: Path) -> tuple[tuple[tuple[str, ...], tuple[int, ...]], PoseTruth, float]:
    """Names and parents of the joints, the body, and frames per second."""
    arrays = read_npz(path, _SHAPES, texts=("joint_names",))
    names = tuple(arrays["joint_names"].tolist())
    parents = tuple(arrays["parents"].tolist())
    times_s = arrays["times_s"]
    F, J = arrays["joints3d"].shape[:2]
    if not len(times_s) == F or not len(names) == len(parents) == J:
        raise ValueError(
            f"{path} has {F} frames of {J} joints, but {len(times_s)} times, {len(names)} names and"
            f" {len(parents)} parents"
        )
    tree = arrays["parents"].dtype.kind in "iu" and parents[:1] == (-1,)
    if not tree or not all(0 <= p < j for j, p in enumerate(parents[1:], start=1)):
        raise ValueError(f"{path} has parents that are no tree with its root first")
    steps_s = np.diff(np.where(np.isfinite(times_s), times_s, np.nan))
    step_s = float(steps_s.mean()) if F > 1 else 1.0
    if not step_s > 0 or not (np.abs(steps_s - step_s) < 0.01 * step_s).all():
        raise ValueError(f"{path} has times_s that are not evenly spaced")
    focal_px = float(arrays["focal_px"])
    truth = PoseTruth(
        joints=float32(arrays["joints3d"]),
        points=float32(arrays["joints2d"]),
        rotations=float32(arrays["rotations"]),
        focal_px=(focal_px, focal_px),
        centre_px=(float(arrays["centre_px"][0]), float(arrays["centre_px"][1])),
    )
    return (names, parents), truth, 1 / step_s
