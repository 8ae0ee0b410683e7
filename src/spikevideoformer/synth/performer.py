"""The body that is rendered: round cones in random clothes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spikevideoformer.body.skeleton import Skeleton

Array = NDArray[np.float64]


Point = tuple[str, str, float]
"""On the line from the first to the second joint, at this part of it.

`Head>` is as far beyond the head as that is from its parent, turned as the head is; `Face` and
`Crown` are points of the head."""
# Where it begins and ends, radii there in metres, and what it is dressed in. _L stands for either
# side. Set by eye on recorded motions.
_PARTS: tuple[tuple[Point, Point, float, float, str], ...] = (
    (("Hips", "UpperLeg_L", 0.0), ("Hips", "UpperLeg_L", 0.85), 0.100, 0.098, "legs"),
    (("Hips", "Spine", 0.2), ("Chest", "Neck", 0.1), 0.100, 0.105, "trunk"),
    (("Hips", "UpperLeg_L", 0.6), ("Chest", "UpperArm_L", 0.72), 0.085, 0.082, "trunk"),
    (("Shoulder_L", "UpperArm_L", 1.0), ("Chest", "Neck", 0.75), 0.060, 0.075, "trunk"),
    (("Neck", "Head", 0.0), ("Head", "Head>", 0.5), 0.052, 0.052, "skin"),
    (("Head", "Head>", 0.9), ("Head", "Head>", 1.8), 0.078, 0.098, "skin"),
    (("Head", "Face", 0.8), ("Head", "Face", 0.8), 0.074, 0.074, "skin"),
    (("Head", "Crown", 1.0), ("Crown", "Head>", 0.5), 0.100, 0.085, "hair"),
    (("UpperArm_L", "LowerArm_L", 0.0), ("UpperArm_L", "LowerArm_L", 1.0), 0.056, 0.043, "trunk"),
    (("LowerArm_L", "Hand_L", 0.0), ("LowerArm_L", "Hand_L", 1.0), 0.042, 0.031, "sleeve"),
    (("Hand_L", "Hand_L>", 0.1), ("Hand_L", "Hand_L>", 0.45), 0.036, 0.033, "skin"),
    (("UpperLeg_L", "LowerLeg_L", 0.0), ("UpperLeg_L", "LowerLeg_L", 1.0), 0.088, 0.058, "legs"),
    (("LowerLeg_L", "Foot_L", 0.0), ("LowerLeg_L", "Foot_L", 1.0), 0.056, 0.040, "shins"),
    (("Foot_L", "Toes_L", -0.1), ("Foot_L", "Toes_L", 1.3), 0.048, 0.036, "shoes"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Body:
    """Round cones over T frames, in the world: hulls of two spheres each."""

    starts: Array  # [T, K, 3]
    ends: Array  # [T, K, 3]
    radii: Array  # [K, 2]
    colours: Array  # [K, 3], RGB in [0, 1]
    thickness: Array  # [J]: of the body around each joint
    floor: float  # height of the ground


def dressed(skeleton: Skeleton, places: Array, turns: Array, rng: np.random.Generator) -> Body:
    """A body in clothes, whose joints are at these places, turned so.

    Args:
        skeleton: J joints.
        places: of them, [T, J, 3], in metres.
        turns: of them, [T, J, 3, 3].
        rng: what clothes and girth follow from.
    """
    names = skeleton.joint_names
    offsets = skeleton.offsets.numpy()
    points = {name: places[:, j] for j, name in enumerate(names)}
    for j, name in enumerate(names):
        points[f"{name}>"] = places[:, j] + turns[:, j] @ offsets[j]
    if {"Head", "Neck", "Hips", "UpperArm_L", "UpperArm_R"} <= points.keys():
        points |= _face_and_crown(points, turns[:, names.index("Head")])

    clothes = _clothes(rng)
    girth = rng.uniform(0.85, 1.25)
    starts, ends, radii, colours = [], [], [], []
    thickness = np.zeros(len(names))

    def add(start: Array, end: Array, radius: tuple[float, float], colour: Array) -> None:
        starts.append(start)
        ends.append(end)
        radii.append(radius)
        colours.append(colour)

    for start, end, first, second, dress in _PARTS:
        for side in ("_L", "_R") if "_L" in start[1] + end[1] else ("",):
            between = [name.replace("_L", side) for name in (*start[:2], *end[:2])]
            if not points.keys() >= set(between):
                continue
            p, q, r, s = (points[name] for name in between)
            spread = 1.0 if dress in ("skin", "hair", "shoes") else girth
            wide = (spread * first, spread * second)
            add(p + start[2] * (q - p), r + end[2] * (s - r), wide, clothes[dress])
            for joint in set(between) & set(names):
                j = names.index(joint)
                thickness[j] = max(thickness[j], *wide)
    for j, parent in enumerate(skeleton.parents):
        if thickness[j] == 0:
            thickness[j] = 0.04
            add(points[names[max(parent, 0)]], points[names[j]], (0.04, 0.04), clothes["trunk"])
    return Body(
        starts=np.stack(starts, 1),
        ends=np.stack(ends, 1),
        radii=np.array(radii),
        colours=np.array(colours),
        thickness=thickness,
        floor=float(places[..., 1].min()) - 0.036,
    )


def _face_and_crown(points: dict[str, Array], head: Array) -> dict[str, Array]:
    """Before and behind the head. On average over a clip it looks where the chest does."""
    left = points["UpperArm_L"] - points["UpperArm_R"]
    forward = np.cross(left, points["Neck"] - points["Hips"])
    own = (head.swapaxes(-1, -2) @ forward[..., None]).mean(0)  # in the frame of the head
    own /= np.linalg.norm(own) + 1e-9
    up = points["Head>"] - points["Head"]
    return {
        "Face": points["Head"] + 1.3 * up + 0.035 * (head @ own)[..., 0],
        "Crown": points["Head"] + 1.9 * up - 0.020 * (head @ own)[..., 0],
    }


def _colour(rng: np.random.Generator) -> Array:
    """A colour of cloth: any hue, from pale to strong."""
    hue = rng.random() - np.arange(3) / 3
    strength, light = rng.uniform(0.1, 0.85), rng.uniform(0.3, 1.0)
    return np.asarray(light * (1 - strength * (0.5 - 0.5 * np.cos(2 * np.pi * hue))))


def _clothes(rng: np.random.Generator) -> dict[str, Array]:
    skin = np.array([0.92, 0.70, 0.56]) * rng.uniform(0.3, 1.0) ** np.array([0.6, 0.9, 1.1])
    shirt, trousers = _colour(rng), _colour(rng) * rng.uniform(0.4, 1.0)
    return {
        "skin": skin,
        "trunk": shirt,
        "sleeve": skin if rng.random() < 0.5 else shirt,
        "legs": trousers,
        "shins": skin if rng.random() < 0.25 else trousers,
        "shoes": _colour(rng) * rng.uniform(0.2, 1.0),
        "hair": np.array([0.30, 0.22, 0.16]) * rng.uniform(0.1, 2.2),
    }
