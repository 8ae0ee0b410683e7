"""The camera that a motion is seen by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from spikevideoformer.body.skeleton import Skeleton
from spikevideoformer.synth.performer import Body

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


def facing(skeleton: Skeleton, places: Array) -> float:
    """Azimuth of where the hips face, on average."""
    left, right = skeleton.hips
    x, _, z = (places[:, left] - places[:, right]).mean(0)
    return math.atan2(-z, x)


def random_camera(
    body: Body, size: int, azimuths: tuple[float, float], rng: np.random.Generator
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
    forward = -direction(azimuth, elevation)
    right = np.array([-forward[2], 0.0, forward[0]]) / np.cos(elevation)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    return np.stack((c * right + s * down, c * down - s * right, forward))


def direction(azimuth: float, elevation: float) -> Array:
    """Unit vector, y up; azimuth 0 is z."""
    flat = np.cos(elevation)
    return np.array([flat * np.sin(azimuth), np.sin(elevation), flat * np.cos(azimuth)])
