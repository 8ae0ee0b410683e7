"""Motions with a label, to render or to learn from: motion-capture files, and procedural ones.

A folder of motion capture has a table beside its BVH files, ``splits.csv``:

    path,content,style,split
    walk_happy_001.bvh.gz,walk,happy,train

Other columns are not read. The procedural motions need no file; they move a skeleton whose joints
have the names of the Bandai-Namco motion-capture files.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikevideoformer.body.bvh import guess_unit, read_bvh
from spikevideoformer.body.motion import Motion, Unit, drop_root
from spikevideoformer.body.rotations import (
    matrix_from_6d,
    matrix_from_axis_angle,
    sixd_from_matrix,
)
from spikevideoformer.body.skeleton import Skeleton
from spikevideoformer.data.lists import csv_records
from spikevideoformer.data.problems import DatasetError, Problem, split_of_name

Array = NDArray[np.float64]
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LabelledMotion:
    """A motion and what is known of it.

    Args:
        motion: the motion.
        name: of the file or whatever it came from, unique in its split.
        label: what is done: the class.
        split: train, val or test.
        style: how it is done; empty where nobody says.
    """

    motion: Motion
    name: str
    label: str
    split: str
    style: str = ""

    def __post_init__(self) -> None:
        for what, text in (("name", self.name), ("label", self.label), ("style", self.style)):
            if (what != "style" and not text) or not re.fullmatch(
                r"(?![. ])[^/\\,\"\x00-\x1f]*", text
            ):
                raise ValueError(
                    f"{what} {text!r} cannot stand in file names and lists; use letters, digits,"
                    " - and _"
                )
        if self.split not in ("train", "val", "test"):
            raise ValueError(f"split must be train, val or test, got {self.split!r}")


# --- Motion-capture files -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MocapRow:
    """One line of the table of a folder of motion capture; `load` reads its file."""

    path: Path
    content: str
    style: str
    split: str

    def load(self, unit: Unit | None = None) -> LabelledMotion:
        """Read the motion, without the joint `joint_Root`, which is no part of the body.

        Args:
            unit: what its lengths are in; None: as they make a body of usual size, told where that
                is not cm.

        Raises:
            BvhError: the file cannot be read, or the size of its body says no unit.
        """
        if unit is None:
            unit = guess_unit(self.path)
            if unit != "cm":
                log.warning("%s: lengths taken for %s, by the size of the body", self.path, unit)
        motion = read_bvh(self.path, unit=unit)
        if motion.skeleton.joint_names[0] == "joint_Root":
            motion = drop_root(motion)
        return LabelledMotion(
            motion=motion,
            name=self.path.name.removesuffix(".gz").removesuffix(".bvh"),
            label=self.content,
            split=self.split,
            style=self.style,
        )


def read_mocap_table(root: Path | str) -> list[MocapRow]:
    """Read `splits.csv` of a folder of motion capture; no motion is read.

    Args:
        root: the folder. Splits are train, val and test; `holdout` is test.

    Raises:
        DatasetError: no table, or a line of it that cannot be used; names the line.
    """
    root = Path(root)
    table = root / "splits.csv"
    if not table.is_file():
        raise DatasetError(f"{table} does not exist; give a folder of motion capture with a table")
    rows = []
    for source, record in csv_records(table, ("path", "content", "style", "split")):
        if isinstance(record, Problem):
            raise DatasetError(f"{root / source}: {record.reason}; {record.remedy}")
        name = record["split"].lower()
        split = "test" if name == "holdout" else split_of_name(name)
        if split is None:
            raise DatasetError(
                f"{root / source}: split is {record['split']!r}; use train, val, test or holdout"
            )
        path = root / record["path"]
        if not record["path"] or not record["content"] or not path.is_file():
            raise DatasetError(
                f"{root / source}: {path} is no file, or has no content; restore the file and name"
                " what is done in it, or remove the line"
            )
        rows.append(
            MocapRow(path=path, content=record["content"], style=record["style"], split=split)
        )
    if not rows:
        raise DatasetError(f"{table} lists no motion; add lines: path,content,style,split")
    return rows


# --- Parts of motions ---------------------------------------------------------------------------


def resampled(motion: Motion, *, start_s: float, frames: int, frame_rate_hz: float) -> Motion:
    """A part of a motion at another frame rate.

    Rotations between two frames are mixed in the 6-D representation. Before its first and after
    its last frame the motion stands still.

    Args:
        motion: the motion. Joints other than the root must not have positions of their own.
        start_s: time of the first frame in the motion.
        frames: how many, at least 1.
        frame_rate_hz: of the result, above 0.
    """
    times = (start_s + torch.arange(frames, dtype=torch.float64) / frame_rate_hz).clamp_min(0)
    # A time a rounding error before a frame is that frame's.
    place = (times * motion.frame_rate_hz + 1e-6).clamp_max(len(motion.translation) - 1)
    before = place.long()
    after = (before + 1).clamp_max(len(motion.translation) - 1)
    weight = (place - before)[:, None]
    weight = torch.where(weight < 1e-5, 0, weight)

    def mixed(values: Tensor) -> Tensor:
        share = weight.view(-1, *[1] * (values.ndim - 1))
        return values[before] + share * (values[after] - values[before])

    return replace(
        motion,
        rotations=matrix_from_6d(mixed(sixd_from_matrix(motion.rotations))),
        translation=mixed(motion.translation),
        positions={},
        frame_rate_hz=float(frame_rate_hz),
    )


def clip_starts_s(motion: Motion, duration_s: float, clips: int | None = None) -> list[float]:
    """Where to cut clips of one length out of a motion, evenly spread from its start to its end.

    Args:
        motion: the motion. One that is shorter than a clip gives clips that start at 0.
        duration_s: of a clip, above 0.
        clips: how many, at least 1, overlapping where there are more than fit; one lies in the
            middle. None: as many as fit without overlap, at least one.

    Returns:
        Times in the motion, each of a frame of it.

    Raises:
        ValueError: a value outside these ranges.
    """
    if not 0 < duration_s < math.inf:
        raise ValueError(f"duration_s must be above 0, got {duration_s}")
    if clips is not None and clips < 1:
        raise ValueError(f"clips must be at least 1, or None for all that fit, got {clips}")
    length_s = len(motion.translation) / motion.frame_rate_hz
    if clips is None:
        clips = max(1, int(length_s / duration_s + 1e-6))
    spare = max(0.0, length_s - duration_s) * motion.frame_rate_hz  # in frames
    places = [0.5] if clips == 1 else [i / (clips - 1) for i in range(clips)]
    return [int(spare * place) / motion.frame_rate_hz for place in places]


# --- Procedural motions -------------------------------------------------------------------------

# The right side mirrors the left. y up, the face to z, the left hand at positive x; metres.
_LEFT_BONES: dict[str, tuple[str, tuple[float, float, float]]] = {
    "Shoulder_L": ("Chest", (0.05, 0.13, 0.0)),
    "UpperArm_L": ("Shoulder_L", (0.12, 0.0, 0.0)),
    "LowerArm_L": ("UpperArm_L", (0.02, -0.26, 0.0)),
    "Hand_L": ("LowerArm_L", (0.0, -0.24, 0.01)),
    "UpperLeg_L": ("Hips", (0.09, -0.03, 0.0)),
    "LowerLeg_L": ("UpperLeg_L", (0.0, -0.41, 0.0)),
    "Foot_L": ("LowerLeg_L", (0.0, -0.42, 0.0)),
    "Toes_L": ("Foot_L", (0.02, -0.05, 0.12)),
}


def standing_skeleton() -> Skeleton:
    """The skeleton of the procedural motions: where nothing is turned it stands, arms down."""
    bones: dict[str, tuple[str, tuple[float, float, float]]] = {
        "Hips": ("", (0.0, 0.0, 0.0)),
        "Spine": ("Hips", (0.0, 0.14, 0.0)),
        "Chest": ("Spine", (0.0, 0.11, 0.0)),
        "Neck": ("Chest", (0.0, 0.19, 0.0)),
        "Head": ("Neck", (0.0, 0.08, 0.01)),
    }
    bones |= _LEFT_BONES
    for name, (parent, (x, y, z)) in _LEFT_BONES.items():
        bones[name.replace("_L", "_R")] = (parent.replace("_L", "_R"), (-x, y, z))
    names = list(bones)
    return Skeleton(
        names,
        [-1, *(names.index(parent) for parent, _ in list(bones.values())[1:])],
        [offset for _, offset in bones.values()],
    )


Pose = dict[str, Array]
"""Rotation vectors of joints in radians, [T, 3]; joints that are not named are not turned."""


def _turn(x: Array, y: Array | float = 0.0, z: Array | float = 0.0) -> Array:
    return np.stack(np.broadcast_arrays(x, y, z), -1)


def _walk(t: Array, rng: np.random.Generator) -> Pose:
    """On the spot. A limb swings forward with a negative turn about x."""
    phase = 2 * np.pi * (rng.uniform(0.8, 1.2) * t + rng.random())
    stride, lift, swing = rng.uniform(0.4, 0.6), rng.uniform(0.7, 1.1), rng.uniform(0.3, 0.6)
    pose: Pose = {}
    for side, late in (("L", 0.0), ("R", np.pi)):
        wave = np.sin(phase + late)
        knee = lift * np.clip(np.sin(phase + late + 0.4), 0, 1)
        pose[f"UpperLeg_{side}"] = _turn(-stride * np.clip(wave, -0.5, 1) - 0.3 * knee)
        pose[f"LowerLeg_{side}"] = _turn(knee + 0.1)
        pose[f"UpperArm_{side}"] = _turn(swing * wave)
        pose[f"LowerArm_{side}"] = _turn(-0.4 - 0.2 * swing * wave)
    pose["Chest"] = _turn(0.0 * t, 0.12 * np.sin(phase))
    return pose


def _wave(side: str) -> Callable[[Array, np.random.Generator], Pose]:
    def pose(t: Array, rng: np.random.Generator) -> Pose:
        outward = 1 if side == "L" else -1
        up = 1 / (1 + np.exp(-8 * (t - rng.uniform(0.1, 0.4))))
        shake = rng.uniform(0.3, 0.5) * np.sin(2 * np.pi * (rng.uniform(1.2, 2.0) * t))
        return {
            f"UpperArm_{side}": _turn(-0.2 * up, 0.0, outward * up * rng.uniform(1.5, 2.0)),
            f"LowerArm_{side}": _turn(0.0 * t, 0.0, outward * up * (0.8 + shake)),
            "Head": _turn(0.0 * t, 0.15 * outward * up),
        }

    return pose


def _squat(t: Array, rng: np.random.Generator) -> Pose:
    down = 0.5 - 0.5 * np.cos(2 * np.pi * (rng.uniform(0.35, 0.6) * t + rng.uniform(-0.1, 0.1)))
    bend, reach = rng.uniform(0.9, 1.3) * down, rng.uniform(0.8, 1.5) * down
    pose: Pose = {"Spine": _turn(0.5 * bend)}
    for side in "LR":
        pose[f"UpperLeg_{side}"] = _turn(-bend)
        pose[f"LowerLeg_{side}"] = _turn(1.9 * bend)
        pose[f"Foot_{side}"] = _turn(-0.9 * bend)
        pose[f"UpperArm_{side}"] = _turn(-reach)
        pose[f"LowerArm_{side}"] = _turn(-0.3 * reach)
    return pose


def _turning(sign: int) -> Callable[[Array, np.random.Generator], Pose]:
    def pose(t: Array, rng: np.random.Generator) -> Pose:
        return _walk(t, rng) | {"Hips": _turn(0.0 * t, sign * rng.uniform(0.9, 1.6) * t)}

    return pose


_POSES: dict[str, Callable[[Array, np.random.Generator], Pose]] = {
    "squat": _squat,
    "turn-left": _turning(1),
    "turn-right": _turning(-1),
    "walk-in-place": _walk,
    "wave-left-hand": _wave("L"),
    "wave-right-hand": _wave("R"),
}

ACTIONS = tuple(_POSES)
"""What `procedural_motion` can do."""


def procedural_motion(
    action: str, seed: int, *, frames: int = 90, frame_rate_hz: float = 30.0
) -> Motion:
    """A motion of the standing skeleton, its lower foot always on the ground.

    Args:
        action: one of `ACTIONS`.
        seed: speed, phase and reach follow from it and the action; at least 0.
        frames: how many, at least 1.
        frame_rate_hz: frames per second, above 0.

    Raises:
        ValueError: a value outside these ranges.
    """
    if action not in _POSES:
        raise ValueError(f"unknown action {action!r}; choose one of {', '.join(ACTIONS)}")
    if seed < 0 or frames < 1 or not 0 < frame_rate_hz < math.inf:
        raise ValueError(
            f"seed must be at least 0, frames at least 1 and frame_rate_hz above 0, got {seed},"
            f" {frames} and {frame_rate_hz}"
        )
    rng = np.random.default_rng([seed, ACTIONS.index(action)])
    t = np.arange(frames) / frame_rate_hz
    skeleton = standing_skeleton()
    vectors = torch.zeros(frames, len(skeleton.parents), 3, dtype=torch.float64)
    for name, values in _POSES[action](t, rng).items():
        vectors[:, skeleton.joint_names.index(name)] = torch.from_numpy(values)
    # At ease: the spine and the arms are never quite still.
    sway = 0.02 * np.sin(2 * np.pi * (0.3 * t + rng.random()))
    vectors[:, 1] += torch.from_numpy(_turn(sway, 0.5 * sway, 0.5 * sway))
    rotations = matrix_from_axis_angle(vectors)
    translation = torch.zeros(frames, 3, dtype=torch.float64)
    feet = [i for i, name in enumerate(skeleton.joint_names) if name.startswith("Toes")]
    lowest = skeleton.joints(rotations, translation)[:, feet, 1].amin(1)
    translation[:, 1] = -lowest
    return Motion(
        skeleton=skeleton,
        rotations=rotations,
        translation=translation,
        frame_rate_hz=float(frame_rate_hz),
    )


def procedural_motions(count: int) -> Iterator[LabelledMotion]:
    """Motions of every kind, each with its own speed, phase and reach.

    Args:
        count: of each kind; the last fifth of them is for validation.
    """
    for action in ACTIONS:
        for seed in range(count):
            yield LabelledMotion(
                motion=procedural_motion(action, seed),
                name=f"{action}_{seed:03d}",
                label=action,
                split="val" if seed >= count - count // 5 else "train",
            )
