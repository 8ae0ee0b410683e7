"""Motions rendered to pictures with exact joints: what the pose task learns from by default.

A body of shaded round cones in random clothes and proportions stands on a random floor under a
random light, and a random camera that does not move during a clip looks at it. Bones are made
longer or shorter before the skeleton is posed, so that the joints that come with the pictures are
those of the body that was drawn.

A ray through each pixel meets each part of the body; the nearest one is seen. Camera coordinates
are x to the right, y down, z forward, in metres; a point (x, y, z) is seen at
``focal_px * (x, y) / z + centre_px``, where pixel i covers i to i + 1.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from numpy.typing import NDArray

from spikevideoformer.body.bvh import Motion
from spikevideoformer.body.skeleton import Skeleton, forward_kinematics
from spikevideoformer.files import write_atomically, write_text
from spikevideoformer.synth.motions import LabelledMotion, clip_starts_s, resampled
from spikevideoformer.synth.spec import RenderSpec as RenderSpec
from spikevideoformer.video.frames import write_video

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """A pinhole camera; a point p of the world is at ``rotation p + translation``.

    Args:
        focal_px: focal length in pixels.
        centre_px: where the optical axis meets the picture, x and y.
        rotation: from the world, y up, to the camera, [3, 3].
        translation: in metres, [3].
    """

    focal_px: float
    centre_px: tuple[float, float]
    rotation: Array
    translation: Array

    def project(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 2"]:
        """Pixel coordinates (x, y) of points in camera coordinates in front of the camera."""
        pixels = self.focal_px * points[..., :2] / points[..., 2:] + np.array(self.centre_px)
        return np.asarray(pixels)


@dataclass(frozen=True, kw_only=True, eq=False)
class RenderedClip:
    """Pictures of a moving body and the truth about it.

    Args:
        pictures: RGB.
        joints_camera: joints in camera coordinates, in metres.
        joints_2d: the same in pixels, x and y.
        visible: whether the joint is inside the picture and no other part of the body is before it.
        rotations: of joints, local to their parents; that of the root in camera coordinates.
        translation: of the root in camera coordinates, in metres. With it and `rotations`,
            `skeleton` gives `joints_camera`.
        skeleton: of the body that was drawn.
        shape: its proportions: logarithms of the lengths of bones relative to the motion's own.
        camera: that looked.
        times_s: of the pictures, from the start of the motion.
    """

    pictures: UInt8[np.ndarray, "T H W 3"]
    joints_camera: Float[np.ndarray, "T J 3"]
    joints_2d: Float[np.ndarray, "T J 2"]
    visible: Bool[np.ndarray, "T J"]
    rotations: Float[np.ndarray, "T J 3 3"]
    translation: Float[np.ndarray, "T 3"]
    skeleton: Skeleton
    shape: Float[np.ndarray, " J"]
    camera: Camera
    times_s: Float[np.ndarray, " T"]


def render_motion(
    motion: Motion, *, seed: int, spec: RenderSpec | None = None, start_s: float = 0.0
) -> RenderedClip:
    """Draw a part of a motion.

    Args:
        motion: the motion, y up; bones have the length that its skeleton says. Joints whose names
            are not those of the Bandai-Namco files are drawn as plain bones. Where it ends before
            the clip, the body stands still.
        seed: proportions, clothes, camera, light and background follow from it; at least 0.
        spec: size and length of the clip; None: the defaults.
        start_s: time in the motion at which the clip starts.

    Raises:
        ValueError: a negative seed, a start outside the motion, or a `view_deg` for a body without
            hips by name.
    """
    spec = spec or RenderSpec()
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if not 0 <= start_s < len(motion.translation) / motion.frame_rate_hz:
        raise ValueError(
            f"start_s is {start_s}, but the motion lasts"
            f" {len(motion.translation) / motion.frame_rate_hz:.3f} s; start inside it"
        )
    rng = np.random.default_rng(seed)
    part = resampled(motion, start_s=start_s, frames=spec.frames, frame_rate_hz=spec.frame_rate_hz)
    shape = _proportions(part.skeleton, rng)
    skeleton = part.skeleton.scaled(shape.exp())
    translation = part.translation * _leg_factor(part, shape)
    offsets = skeleton.offsets.repeat(spec.frames, 1, 1)
    offsets[:, 0] = translation
    places, turns = (
        values.numpy() for values in forward_kinematics(skeleton.parents, part.rotations, offsets)
    )
    body = _body(skeleton, places, turns, rng)
    azimuths = (0.0, 2 * np.pi)
    if spec.view_deg < 180:
        facing, reach = _facing(skeleton, places), math.radians(spec.view_deg)
        azimuths = (facing - reach, facing + reach)
    camera = _random_camera(body, spec.size, azimuths, rng)
    pictures, depth = _draw(body, camera, spec, rng)

    joints = places @ camera.rotation.T + camera.translation
    joints_2d = camera.project(joints)
    rotations = part.rotations.numpy().copy()
    rotations[:, 0] = camera.rotation @ rotations[:, 0]
    return RenderedClip(
        pictures=pictures,
        joints_camera=joints,
        joints_2d=joints_2d,
        visible=_visible(joints, joints_2d, depth, body.thickness, spec),
        rotations=rotations,
        translation=joints[:, 0].copy(),
        skeleton=skeleton,
        shape=shape.numpy(),
        camera=camera,
        times_s=start_s + np.arange(spec.frames) / spec.frame_rate_hz,
    )


def _visible(
    joints: Array, joints_2d: Array, depth: Float32[np.ndarray, "T S S"], thickness: Array,
    spec: RenderSpec,
) -> NDArray[np.bool_]:  # fmt: skip
    """Joints whose own part of the body is the nearest thing at their pixel."""
    inside = ((joints_2d >= 0) & (joints_2d < spec.size)).all(-1)
    rays = (joints_2d * spec.supersampling).astype(int).clip(0, spec.size * spec.supersampling - 1)
    seen = depth[np.arange(len(joints))[:, None], rays[..., 1], rays[..., 0]]
    return np.asarray(inside & (joints[..., 2] - seen < 1.5 * thickness + 0.01))


# --- The body -----------------------------------------------------------------------------------


def _proportions(skeleton: Skeleton, rng: np.random.Generator) -> torch.Tensor:
    """Logarithms of the factors of bones, [J]: one for the body, one for each bone or pair."""
    joints = len(skeleton.parents)
    shape = rng.normal(0, 0.06) + rng.normal(0, 0.06, joints).clip(-0.15, 0.15)
    for left, right in skeleton.symmetric_pairs:
        shape[right] = shape[left]
    return torch.from_numpy(shape)


def _leg_factor(motion: Motion, shape: torch.Tensor) -> float:
    """How much longer the way is from the root to the lowest joint: so much longer are steps."""
    skeleton = motion.skeleton
    lowest = int(motion.joints()[..., 1].amin(0).argmin())
    before = after = 0.0
    while skeleton.parents[lowest] >= 0:
        length = float(torch.linalg.vector_norm(skeleton.offsets[lowest]))
        before, after = before + length, after + length * math.exp(shape[lowest])
        lowest = skeleton.parents[lowest]
    return after / before if before else 1.0


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
class _Body:
    """Round cones over T frames, in the world: hulls of two spheres each."""

    starts: Array  # [T, K, 3]
    ends: Array  # [T, K, 3]
    radii: Array  # [K, 2]
    colours: Array  # [K, 3], RGB in [0, 1]
    thickness: Array  # [J]: of the body around each joint
    floor: float  # height of the ground


def _body(skeleton: Skeleton, places: Array, turns: Array, rng: np.random.Generator) -> _Body:
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
    return _Body(
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


# --- The camera ---------------------------------------------------------------------------------


def _facing(skeleton: Skeleton, places: Array) -> float:
    """Azimuth of where the hips face, on average."""
    left, right = skeleton.hips
    x, _, z = (places[:, left] - places[:, right]).mean(0)
    return math.atan2(-z, x)


def _random_camera(
    body: _Body, size: int, azimuths: tuple[float, float], rng: np.random.Generator
) -> Camera:
    """Looks at the middle of where the body is during the clip, and has all of it in the picture.

    Of three directions it takes the first from which it need not stand much farther away than from
    the best one, or else a body that runs past would be tiny. Which way a body that stays in its
    place is seen is hardly changed by that.
    """
    points = np.concatenate((body.starts, body.ends), 1)  # [T, 2K, 3]
    radii = body.radii.T.reshape(-1)
    focal_px = size * rng.uniform(0.9, 1.8)
    fill = rng.uniform(0.75, 0.97)  # the part of the picture that the motion takes
    target = (points.min((0, 1)) + points.max((0, 1))) / 2 + rng.normal(0, 0.04, 3)
    views = []
    for _ in range(3):
        rotation = _towards(rng.uniform(*azimuths), rng.uniform(0.03, 0.5), rng.normal(0, 0.03))
        x, y, z = np.moveaxis((points - target) @ rotation.T, -1, 0)
        reach = np.maximum(np.abs(x), np.abs(y)) + radii
        distance = float((reach * 2 * focal_px / (fill * size) - z + radii).max())
        views.append((distance, rotation))
    nearest = min(distance for distance, _ in views)
    distance, rotation = next(view for view in views if view[0] <= 1.3 * nearest)
    return Camera(
        focal_px=focal_px,
        centre_px=(size / 2, size / 2),
        rotation=rotation,
        translation=np.array([0.0, 0.0, distance]) - rotation @ target,
    )


def _towards(azimuth: float, elevation: float, roll: float) -> Array:
    """Rotation of a camera that stands in this direction and looks back to the origin; radians."""
    forward = -_direction(azimuth, elevation)
    right = np.array([-forward[2], 0.0, forward[0]]) / np.cos(elevation)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    return np.stack((c * right + s * down, c * down - s * right, forward))


def _direction(azimuth: float, elevation: float) -> Array:
    """Unit vector, y up; azimuth 0 is z."""
    flat = np.cos(elevation)
    return np.array([flat * np.sin(azimuth), np.sin(elevation), flat * np.cos(azimuth)])


# --- Drawing ------------------------------------------------------------------------------------

_FRAMES_AT_ONCE = 16  # bounds the memory, and keeps it in the caches
_PENUMBRA = np.float32(0.05)  # metres over which the rim of a shadow fades


@dataclass(frozen=True, kw_only=True, eq=False)
class _Light:
    """A far lamp and the light that comes from all around.

    Args:
        direction: from the scene to the lamp, in the world, of length 1.
        strength: of the lamp; what is lit by both fully has about the brightness of its colour.
        ambient: of the rest.
    """

    direction: Array
    strength: float
    ambient: float


def _draw(
    body: _Body, camera: Camera, spec: RenderSpec, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "T H W 3"], Float32[np.ndarray, "T S S"]]:
    """The pictures, and for each ray how far forward what it meets is, in metres."""
    side, frames = spec.size * spec.supersampling, len(body.starts)
    # From the side of the camera rather than from behind the body, or else nothing is lit.
    azimuth = math.atan2(-camera.rotation[2, 0], -camera.rotation[2, 2]) + rng.normal(0, 0.9)
    ambient = rng.uniform(0.4, 0.65)
    light = _Light(
        direction=_direction(azimuth, rng.uniform(0.6, 1.2)),
        strength=rng.uniform(1.15, 1.4) - ambient,
        ambient=ambient,
    )
    column = (np.arange(side) + 0.5) / spec.supersampling - camera.centre_px[0]
    row = (np.arange(side) + 0.5) / spec.supersampling - camera.centre_px[1]
    rays = np.stack(np.broadcast_arrays(column, row[:, None], camera.focal_px), -1)
    rays = rays / camera.focal_px  # [S, S, 3]: one metre forward
    background, ground = _background(rays, camera, body.floor, light, rng)
    gain, grain = rng.uniform(0.9, 1.1), rng.uniform(0.004, 0.02)

    pictures = np.empty((frames, spec.size, spec.size, 3), np.uint8)
    depth = np.full((frames, side, side), np.inf, np.float32)
    for first in range(0, frames, _FRAMES_AT_ONCE):
        some = slice(first, min(first + _FRAMES_AT_ONCE, frames))
        image = np.repeat(background[None], some.stop - first, 0)
        _cast_shadow(image, ground, body, some, light)
        _draw_cones(image, depth[some], body, some, camera, rays.astype(np.float32), light)
        # [t, S, S, 3] -> [t, H, W, 3]: the mean of the rays of a pixel
        n = spec.supersampling
        image = np.mean([image[:, i::n, k::n] for i in range(n) for k in range(n)], 0)
        image = gain * image + grain * rng.standard_normal(image.shape, np.float32)
        pictures[some] = (image.clip(0, 1) * 255).round()
    return pictures, depth


def _background(
    rays: Array, camera: Camera, floor: float, light: _Light, rng: np.random.Generator
) -> tuple[Float32[np.ndarray, "S S 3"], Array]:
    """A floor to the horizon and something behind, and where rays meet the floor, [S, S, 3].

    Where they do not, that point is infinitely far away.
    """
    directions = rays @ camera.rotation
    eye = -camera.translation @ camera.rotation
    down = directions[..., 1] < -1e-3
    steps = np.where(down, (eye[1] - floor) / -np.where(down, directions[..., 1], -1), np.inf)
    with np.errstate(invalid="ignore"):
        ground = np.where(down[..., None], eye + steps[..., None] * directions, np.inf)

    x, z = (np.where(down, ground[..., i], 0) for i in (0, 2))
    angle, tile = rng.uniform(0, np.pi), rng.uniform(0.35, 1.1)
    u = (np.cos(angle) * x + np.sin(angle) * z) / tile + rng.random()
    v = (np.cos(angle) * z - np.sin(angle) * x) / tile + rng.random()
    kind = rng.integers(3)
    if kind == 0:  # checks
        share = (np.floor(u) + np.floor(v)) % 2
    elif kind == 1:  # boards
        share = np.sin(12.9898 * np.floor(2 * u)) * 43758.5453 % 1
    else:
        share = 0.5 + 0.25 * (np.sin(3 * u + 2 * np.sin(v)) + np.sin(4 * v + 2 * np.sin(2 * u)))
    colours = _pale(rng)[None] * rng.uniform(0.55, 1.1, (2, 1))
    far = np.where(down, steps, 0)
    share = 0.5 + (share - 0.5) * np.exp(-far / 9)  # texture finer than a pixel is no more seen
    floor_colour = colours[0] + share[..., None] * (colours[1] - colours[0])
    floor_colour *= light.ambient + light.strength * light.direction[1]

    up = directions[..., 1] / np.linalg.norm(directions, axis=-1)
    turn = np.arctan2(directions[..., 0], directions[..., 2])
    low, high = _pale(rng) * rng.uniform(0.6, 1.1), _pale(rng) * rng.uniform(0.5, 1.1)
    wall = low + (2.5 * up).clip(0, 1)[..., None] * (high - low)
    stripes = np.sin(rng.integers(3, 12) * turn + rng.uniform(0, 6))
    stripes = stripes * np.sin(rng.uniform(3, 12) * up + rng.uniform(0, 6))
    wall *= 1 + rng.uniform(0.0, 0.12) * np.sign(stripes)[..., None]
    haze = np.exp(-far / 14)[..., None] * down[..., None]
    return (wall + haze * (floor_colour - wall)).clip(0, 1).astype(np.float32), ground


def _pale(rng: np.random.Generator) -> Array:
    """A colour of walls and floors."""
    return np.asarray(rng.uniform(0.5, 0.95) * (1 + rng.normal(0, 0.1, 3)))


def _cast_shadow(
    image: Float32[np.ndarray, "t S S 3"], ground: Array, body: _Body, some: slice, light: _Light
) -> None:
    """Darken the floor where the body is between it and the lamp.

    Seen from the lamp, in the plane across its direction, a point of the floor is hidden by a
    cone where it is nearer to its axis than the radius there.
    """
    east = np.cross(light.direction, [0.0, 0.0, 1.0])
    east /= np.linalg.norm(east)
    axes = np.stack((east, np.cross(light.direction, east)), -1).astype(np.float32)  # [3, 2]
    starts, ends = (v[some].astype(np.float32) @ axes for v in (body.starts, body.ends))
    reach = float(body.radii.max()) + _PENUMBRA
    low = np.minimum(starts, ends).min((0, 1)) - reach
    high = np.maximum(starts, ends).max((0, 1)) + reach
    on_floor = np.isfinite(ground[..., 0])
    flat = np.where(on_floor[..., None], ground, 0).astype(np.float32) @ axes
    near = on_floor & ((flat > low) & (flat < high)).all(-1)
    u, v = flat[near].T  # [N]
    cover = np.zeros((len(starts), len(u)), np.float32)
    for k, (first, second) in enumerate(body.radii):
        a = starts[:, k, :, None]  # [t, 2, 1]
        b = ends[:, k, :, None] - a
        x, y = u - a[:, 0], v - a[:, 1]  # [t, N]
        along = (x * b[:, 0] + y * b[:, 1]) / ((b * b).sum(1) + np.float32(1e-9))
        along = along.clip(0, 1)
        away = np.hypot(x - along * b[:, 0], y - along * b[:, 1])
        edge = (np.float32(first) + along * np.float32(second - first) - away) / _PENUMBRA
        np.maximum(cover, edge + np.float32(0.5), out=cover)
    full = light.strength * light.direction[1]
    image[:, near] *= 1 - (full / (light.ambient + full)) * cover.clip(0, 1)[..., None]


def _draw_cones(
    image: Float32[np.ndarray, "t S S 3"],
    depth: Float32[np.ndarray, "t S S"],
    body: _Body,
    some: slice,
    camera: Camera,
    rays: Float32[np.ndarray, "S S 3"],
    light: _Light,
) -> None:
    """Draw the body over the background, whatever is nearest on top."""
    side = len(rays)
    starts, ends = (
        v[some] @ camera.rotation.T + camera.translation for v in (body.starts, body.ends)
    )
    flat_image, flat_depth, flat_rays = image.reshape(-1, 3), depth.reshape(-1), rays.reshape(-1, 3)
    lamp = (camera.rotation @ light.direction).astype(np.float32)
    sky = camera.rotation[:, 1].astype(np.float32)
    for k, radii in enumerate(body.radii):
        frame, ray = _boxes(starts[:, k], ends[:, k], radii, camera, side)
        index = frame * (side * side) + ray
        t, normal = _meet_cone(flat_rays[ray], starts[:, k], ends[:, k], radii, frame)
        nearest = np.flatnonzero(t < flat_depth[index])
        index, normal = index[nearest], normal[nearest]
        flat_depth[index] = t[nearest]
        shade = light.ambient * (0.75 + 0.25 * normal @ sky)
        shade = shade + light.strength * np.maximum(normal @ lamp, 0)
        flat_image[index] = shade[:, None] * body.colours[k].astype(np.float32)


def _boxes(
    starts: Array, ends: Array, radii: Array, camera: Camera, side: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Frames and rays (numbers of pixels, row after row) that may meet a cone."""
    scale = side / 2 / camera.centre_px[0]
    bounds = []
    for centre, radius in ((starts, radii[0]), (ends, radii[1])):
        depths = np.maximum(centre[:, 2:, None] + np.array([-radius, radius]), 0.05)  # [t, 1, 2]
        for sign in (-1, 1):
            edges = camera.focal_px * (centre[:, :2, None] + sign * radius) / depths
            bounds.append(scale * (edges + camera.centre_px[0]))
    edges = np.concatenate(bounds, -1)  # [t, 2, 8]
    low = np.floor(edges.min(-1)).clip(0, side).astype(int)
    high = np.ceil(edges.max(-1)).clip(0, side).astype(int)
    width, height = (high - low).T
    count = width * height
    frame = np.repeat(np.arange(len(count)), count)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    row, column = np.divmod(place, width[frame])
    return frame, (low[frame, 1] + row) * side + low[frame, 0] + column


def _meet_cone(
    rays: Float32[np.ndarray, "N 3"],
    starts: Array,
    ends: Array,
    radii: Array,
    frame: NDArray[np.int64],
) -> tuple[Float32[np.ndarray, " N"], Float32[np.ndarray, "N 3"]]:
    """Where rays from the origin first meet the hull of two spheres.

    A point at y along the axis, in units of its squared length less the squared difference of
    radii, touches the side where 0 < y < 1 and one of the spheres elsewhere.

    Args:
        rays: one metre forward (z = 1), so that the result is a depth.
        starts: centre of the first sphere in each frame, [t, 3].
        ends: of the second, likewise.
        radii: of the two.
        frame: of each ray.

    Returns:
        Depths, infinite where a ray misses, and outward normals there.

    Source: I. Quilez, "intersectors", round cone (https://iquilezles.org/articles/intersectors/).
    """
    first, second = (np.float32(r) for r in radii)
    taper = first - second
    # From a point of the ray next to the cone rather than from the camera: float32 is enough then.
    begin = ((starts + ends) / 2)[:, 2].astype(np.float32)[frame]
    axis = (ends - starts).astype(np.float32)
    square = (axis * axis).sum(-1)
    slope = square - taper * taper
    axis, square, slope = axis[frame], square[frame], slope[frame]
    to = begin[:, None] * rays - starts.astype(np.float32)[frame]

    def dot(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1] + a[:, 2] * b[:, 2])

    length = dot(rays, rays)
    along, turned, ahead = dot(axis, to), dot(axis, rays), dot(rays, to)
    far = dot(to, to)
    with np.errstate(divide="ignore", invalid="ignore"):
        # The side: a t^2 + 2 b t + c = 0
        a = slope * length - turned * turned
        b = slope * ahead - along * turned + taper * first * turned
        c = slope * far - along * along + 2 * taper * first * along - square * first * first
        t = (-b - np.sqrt(b * b - a * c)) / a
        y = along - first * taper + t * turned
        on_side = (y > 0) & (y < slope)  # false where t is no number
        # The spheres
        near = -(ahead + np.sqrt(ahead * ahead - length * (far - first * first))) / length
        ahead, far = ahead - turned, far - 2 * along + square
        end = -(ahead + np.sqrt(ahead * ahead - length * (far - second * second))) / length
    sphere = np.fmin(near, end)  # of the two the one that is met, if any
    t = np.where(on_side, t, sphere)
    t = np.where(np.isfinite(t) & (t + begin > 0.05), t, np.float32(np.inf))
    met = np.isfinite(t)
    point = to + np.where(met, t, 0)[:, None] * rays
    at_end = ~on_side & (end == t)
    share = np.where(on_side, y / np.where(slope > 0, slope, 1), at_end)
    normal = point - share[:, None] * axis
    normal /= np.sqrt(dot(normal, normal))[:, None] + np.float32(1e-9)
    return t + begin, normal


# --- Files --------------------------------------------------------------------------------------

_COLUMNS = "path,label,group,split,style"


def write_motion_clips(
    motions: Iterable[LabelledMotion],
    root: Path,
    *,
    spec: RenderSpec | None = None,
    seed: int = 0,
    clips_per_motion: int | None = None,
) -> int:
    """Render motions to a data set of clips with exact joints, which also serves classification.

    ``root/splits.csv`` lists the clips (layout `splits`: path, label, group, split; and the style);
    that of earlier clips is emptied first, and the new one is written last. Clips of one motion are
    one group. Beside ``<split>/<label>/<clip>.mp4`` lies ``<clip>.npz`` with the truth about T
    frames of J joints, in metres and camera coordinates unless said otherwise:

        joints3d [T, J, 3], joints2d [T, J, 2] in pixels, visible [T, J]
        rotations [T, J, 3, 3] local to the parents, translation [T, 3] of the root
        shape [J]: logarithms of lengths of bones relative to those of the motion's skeleton
        joint_names [J], parents [J], offsets [J, 3]: the skeleton that was drawn
        focal_px, centre_px [2], camera_rotation [3, 3], camera_translation [3]: from the world
        times_s [T]: from the start of the motion

    Args:
        motions: what to render; may be read on the way.
        root: made where it is missing; files of the same name are replaced.
        spec: size and length of clips; None: the defaults.
        seed: the same seed gives the same files, whatever other motions there are; at least 0.
        clips_per_motion: as `clips` of :func:`clip_starts_s`; each clip has its own body, camera
            and light. None: as many as fit without overlap.

    Returns:
        How many clips were written.

    Raises:
        ValueError: a value outside these ranges, no motion, two motions of one name, a
            `splits.csv` in the root that lists anything but rendered clips, or a body without hips
            by name where `spec.view_deg` asks for the front.
    """
    spec = spec or RenderSpec()
    table = root / "splits.csv"
    if table.exists() and table.read_text(errors="replace").split("\n")[0] != _COLUMNS:
        raise ValueError(
            f"{table} lists other things than rendered clips and would be replaced; choose another"
            " folder for the clips"
        )
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if clips_per_motion is not None and clips_per_motion < 1:
        raise ValueError(
            f"clips_per_motion must be at least 1, or None for all that fit, got {clips_per_motion}"
        )
    rows: list[str] = []
    names: set[str] = set()
    for item in motions:
        folder = f"{item.split}/{item.label}"
        if f"{folder}/{item.name}" in names:
            raise ValueError(f"two motions of {folder} are named {item.name}; rename one of them")
        names.add(f"{folder}/{item.name}")
        if spec.view_deg < 180:
            item.motion.skeleton.hips  # noqa: B018 - says here, before the list is emptied, if none
        (root / folder).mkdir(parents=True, exist_ok=True)
        if not rows:
            # What was begun is never listed: the clips may be of another recipe than the old ones.
            # Without any list, folders would be taken for classes.
            write_text(table, f"{_COLUMNS}\n")
        starts = clip_starts_s(item.motion, spec.duration_s, clips_per_motion)
        for number, start_s in enumerate(starts):
            name = f"{folder}/{item.name}_{number:02d}"
            clip_seed = seed * 2**32 + zlib.crc32(name.encode())
            clip = render_motion(item.motion, seed=clip_seed, spec=spec, start_s=start_s)
            write_video(root / f"{name}.mp4", iter(clip.pictures), spec.frame_rate_hz)
            _write_truth(root / f"{name}.npz", clip)
            rows.append(f"{name}.mp4,{item.label},{item.name},{item.split},{item.style}")
    if not rows:
        raise ValueError(f"no motion to render into {root}; give at least one")
    write_text(table, "\n".join([_COLUMNS, *rows, ""]))
    return len(rows)


def _write_truth(path: Path, clip: RenderedClip) -> None:
    skeleton, camera = clip.skeleton, clip.camera
    real = {
        "joints3d": clip.joints_camera,
        "joints2d": clip.joints_2d,
        "rotations": clip.rotations,
        "translation": clip.translation,
        "shape": clip.shape,
        "offsets": skeleton.offsets.numpy(),
        "focal_px": camera.focal_px,
        "centre_px": camera.centre_px,
        "camera_rotation": camera.rotation,
        "camera_translation": camera.translation,
    }
    arrays = {key: np.asarray(values, np.float32) for key, values in real.items()}
    arrays["visible"] = clip.visible
    arrays["times_s"] = clip.times_s
    arrays["parents"] = np.array(skeleton.parents)
    arrays["joint_names"] = np.array(skeleton.joint_names)
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]
