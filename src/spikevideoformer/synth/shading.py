"""Rays through pixels that meet a body, a floor and a wall under a lamp."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from spikevideoformer.synth.performer import Body
from spikevideoformer.synth.spec import RenderSpec as RenderSpec
from spikevideoformer.synth.viewpoint import Camera, direction

Array = NDArray[np.float64]


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


def drawn(
    body: Body, camera: Camera, spec: RenderSpec, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "T H W 3"], Float32[np.ndarray, "T S S"]]:
    """The pictures, and for each ray how far forward what it meets is, in metres."""
    side, frames = spec.size * spec.supersampling, len(body.starts)
    # From the side of the camera rather than from behind the body, or else nothing is lit.
    azimuth = math.atan2(-camera.rotation[2, 0], -camera.rotation[2, 2]) + rng.normal(0, 0.9)
    ambient = rng.uniform(0.4, 0.65)
    light = _Light(
        direction=direction(azimuth, rng.uniform(0.6, 1.2)),
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
    image: Float32[np.ndarray, "t S S 3"], ground: Array, body: Body, some: slice, light: _Light
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
    body: Body,
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
