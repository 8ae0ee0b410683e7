"""Motions of the CMU library on Anny's bones, by the directions of limbs.

Both skeletons have their own rest pose, so rotations cannot be copied. Instead the torso and the
head get the frame spanned by their joints, and each limb the smallest rotation, seen from its
parent, that turns its direction at rest to that of the motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from spikevideoformer.body.bvh import read_bvh

RATE_HZ = 60.0


@dataclass(frozen=True)
class Capture:
    """Joints of a recorded motion, z up, metres, facing any way."""

    name: str
    joints: dict[str, np.ndarray]  # [T, 3] each
    frames: int


def read_capture(path: Path) -> Capture:
    """Joints of a BVH file of the library."""
    motion = read_bvh(path)
    positions = motion.joints().numpy()
    if abs(motion.frame_rate_hz - RATE_HZ) > 1:
        raise ValueError(f"{path}: {motion.frame_rate_hz:.0f} Hz, expected {RATE_HZ:.0f}")
    names = [n.removeprefix("CC_Base_") for n in motion.skeleton.joint_names]
    joints = {n: positions[:, i] for i, n in enumerate(names)}
    up = np.median(joints["Head"] - joints["Pelvis"], 0)
    if int(np.argmax(np.abs(up))) == 1:  # y up
        joints = {n: np.stack([p[:, 0], -p[:, 2], p[:, 1]], 1) for n, p in joints.items()}
    return Capture(path.name.split(".")[0], joints, len(positions))


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9)


def _frame(left: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Rotation matrices whose columns are left, forward and up, the last one kept exactly."""
    z = _unit(up)
    y = _unit(np.cross(z, left))
    return np.stack([np.cross(y, z), y, z], -1)


def _swing(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest rotations that turn unit vectors a to b, [T, 3, 3]."""
    axis = np.cross(a, b)
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = np.arctan2(sine, (a * b).sum(-1, keepdims=True))
    return Rotation.from_rotvec(axis / np.maximum(sine, 1e-9) * angle).as_matrix()


def _between(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    return np.stack(
        [
            Slerp([0, 1], Rotation.from_matrix(np.stack(pair)))(share).as_matrix()
            for pair in zip(a, b, strict=True)
        ]
    )


def retarget(
    capture: Capture,
    frames: np.ndarray,
    bones: list[str],
    parents: list[int],
    heads: np.ndarray,
    rng: np.random.Generator,
    *,
    sits: bool = False,
    arms: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and place of each bone in each frame.

    Args:
        capture: the motion.
        frames: [T] times in frames of the capture, fractions are interpolated.
        bones: names of Anny's bones.
        parents: of each bone.
        heads: [B, 3] where bones begin at rest.
        rng: curls the fingers and decides what follows.
        sits: bend hips and knees to a seat, whatever the legs do.
        arms: hold the arms some other way than the motion does.

    Returns:
        Rotations [T, B, 3, 3] in the world and places [T, B, 3] of the heads, the root at
        x = y = 0 in the first frame.
    """
    low = np.clip(np.floor(frames).astype(int), 0, capture.frames - 2)
    part = np.clip(frames - low, 0, 1)[:, None]
    j = {n: p[low] * (1 - part) + p[low + 1] * part for n, p in capture.joints.items()}
    at = {name: i for i, name in enumerate(bones)}
    rest = {name: heads[i].astype(float) for name, i in at.items()}
    span = len(frames)

    def turn(moved: np.ndarray, still: np.ndarray) -> np.ndarray:
        return moved @ still.T

    hips = _frame(j["L_Thigh"] - j["R_Thigh"], j["Waist"] - (j["L_Thigh"] + j["R_Thigh"]) / 2)
    hips0 = _frame(
        rest["upperleg01.L"] - rest["upperleg01.R"],
        rest["spine04"] - (rest["upperleg01.L"] + rest["upperleg01.R"]) / 2,
    )
    neck = j["NeckTwist01"]
    chest = _frame(j["L_Upperarm"] - j["R_Upperarm"], neck - j["Spine01"])
    chest0 = _frame(rest["upperarm01.L"] - rest["upperarm01.R"], rest["neck01"] - rest["spine03"])
    eyes = (j["L_Eye"] + j["R_Eye"]) / 2
    head = _frame(j["L_Eye"] - j["R_Eye"], np.cross(j["L_Eye"] - j["R_Eye"], j["Head"] - eyes))
    eyes0 = (rest["eye.L"] + rest["eye.R"]) / 2
    left0 = rest["eye.L"] - rest["eye.R"]
    head0 = _frame(left0, np.cross(left0, rest["head"] - eyes0))
    world: dict[str, np.ndarray] = {}
    pelvis, torso, skull = turn(hips, hips0), turn(chest, chest0), turn(head, head0)
    middle = _between(pelvis, torso, 0.5)
    if sits:
        _sit(j, hips, rng)
    if arms:
        _hold(j, chest, rng)
    for name in ("root", "pelvis.L", "pelvis.R", "spine05"):
        world[name] = pelvis
    for name in ("spine04", "spine03"):
        world[name] = middle
    for name in ("spine02", "spine01", "clavicle.L", "clavicle.R"):
        world[name] = torso
    for name, share in (("neck01", 0.3), ("neck02", 0.5), ("neck03", 0.75)):
        world[name] = _between(torso, skull, share)
    world["head"] = skull
    for side in "LR":

        def limb(
            names: tuple[str, ...],
            start: str,
            end: str,
            a: str,
            b: str,
            above: np.ndarray,
            side: str = side,
        ) -> np.ndarray:
            d0 = _unit(rest[f"{end}.{side}"] - rest[f"{start}.{side}"])
            d = _unit(j[f"{side}_{b}"] - j[f"{side}_{a}"])
            turned = _swing(above @ d0, d) @ above
            for name in names:
                world[f"{name}.{side}"] = turned
            return turned

        arm = limb(
            ("upperarm01", "upperarm02"), "upperarm01", "lowerarm01", "Upperarm", "Forearm", torso
        )
        fore = limb(("lowerarm01", "lowerarm02"), "lowerarm01", "wrist", "Forearm", "Hand", arm)
        limb(("wrist",), "wrist", "finger3-1", "Hand", "Mid1", fore)
        thigh = limb(
            ("upperleg01", "upperleg02"), "upperleg01", "lowerleg01", "Thigh", "Calf", pelvis
        )
        calf = limb(("lowerleg01", "lowerleg02"), "lowerleg01", "foot", "Calf", "Foot", thigh)
        limb(("foot",), "foot", "toe3-1", "Foot", "ToeBase", calf)
        world[f"shoulder01.{side}"] = torso
        across = rest[f"finger2-1.{side}"] - rest[f"finger5-1.{side}"]
        curl = rng.uniform(0, 1.2)
        for finger in range(2, 6):
            for piece in (1, 2, 3):
                bend = Rotation.from_rotvec(
                    _unit(across) * (1 if side == "L" else -1) * curl * piece * 0.6
                ).as_matrix()
                world[f"finger{finger}-{piece}.{side}"] = world[f"wrist.{side}"] @ bend
    rotations = np.empty((span, len(bones), 3, 3))
    places = np.empty((span, len(bones), 3))
    for i, name in enumerate(bones):
        above = parents[i]
        rotations[:, i] = world.get(name, rotations[:, above] if above >= 0 else np.eye(3))
        if above < 0:
            travel = j["Pelvis"] - j["Pelvis"][:1]
            places[:, i] = travel * [1, 1, 0]
        else:
            step = heads[i].astype(float) - heads[above]
            places[:, i] = places[:, above] + rotations[:, above] @ step
    # the lowest joint of the first frame stands on the floor, jumps are kept
    lift = j["Pelvis"][:, 2] - j["Pelvis"][:1, 2]
    scale = np.ptp(heads[:, 2]) / np.ptp(np.concatenate(list(capture.joints.values()))[:, 2])
    places[..., 2] += (lift * min(scale, 1.0))[:, None]
    feet = [at[n] for n in bones if n.startswith(("foot", "toe", "wrist", "lowerleg01", "head"))]
    places[..., 2] -= np.median(places[:, feet, 2].min(1)) - 0.03
    return rotations, places


def _sit(j: dict[str, np.ndarray], hips: np.ndarray, rng: np.random.Generator) -> None:
    ahead = -hips[..., 1] * [1, 1, 0]
    ahead = _unit(ahead)
    down = np.array([0.0, 0.0, -1.0])
    for side in "LR":
        aside = (hips[..., 0] if side == "L" else -hips[..., 0]) * rng.uniform(-0.1, 0.45)
        j[f"{side}_Calf"] = j[f"{side}_Thigh"] + 0.45 * _unit(
            ahead + aside + down * rng.uniform(-0.2, 0.3)
        )
        shin = 0.45 * _unit(down + ahead * rng.uniform(-0.5, 0.5))
        j[f"{side}_Foot"] = j[f"{side}_Calf"] + shin
        j[f"{side}_ToeBase"] = j[f"{side}_Foot"] + 0.15 * _unit(ahead + down * 0.3)


def _hold(j: dict[str, np.ndarray], chest: np.ndarray, rng: np.random.Generator) -> None:
    t = np.linspace(0, 1, len(chest))[:, None]
    for side, out in (("L", 1.0), ("R", -1.0)):
        if rng.random() < 0.2:
            continue

        def toward(mean: tuple[float, float, float], spread: float) -> np.ndarray:
            drift = rng.normal(0, 0.4, 3) * np.sin(t * rng.uniform(0, 5) + rng.uniform(0, 6))
            return _unit(np.array(mean) + rng.normal(0, spread, 3) + drift)

        upper = toward((0.35 * out, -0.3, -0.6), 0.5)
        fore = toward((-0.3 * out, -0.7, 0.2), 0.6)
        for name, start, d, long in (
            ("Forearm", "Upperarm", upper, 0.28),
            ("Hand", "Forearm", fore, 0.25),
            ("Mid1", "Hand", fore, 0.1),
        ):
            j[f"{side}_{name}"] = j[f"{side}_{start}"] + long * (chest @ d[..., None])[..., 0]


def skin(
    vertices: np.ndarray,
    normals: np.ndarray,
    weights,
    heads: np.ndarray,
    rotations: np.ndarray,
    places: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and normals in the pose of one frame (linear blend skinning).

    Args:
        vertices, normals: [N, 3] at rest.
        weights: [N, B], sparse.
        heads: [B, 3] at rest.
        rotations, places: [B, 3, 3] and [B, 3].
    """
    moved = places - (rotations @ heads[:, :, None])[:, :, 0]
    blend = weights @ np.concatenate([rotations.reshape(-1, 9), moved], 1).astype(np.float32)
    matrix = blend[:, :9].reshape(-1, 3, 3)
    return (
        np.einsum("nij,nj->ni", matrix, vertices) + blend[:, 9:],
        np.einsum("nij,nj->ni", matrix, normals),
    )
