"""The pinhole camera of a data set that tells joints and their pixels, but no calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_LEAST_FOCAL_PX = 10.0  # the widest lens on the smallest picture has more; less are no pixels
_FARTHEST_PX = 5.0  # lens distortion leaves one or two


@dataclass(frozen=True, kw_only=True)
class Pinhole:
    """A camera without distortion.

    Args:
        focal_px: focal lengths in x and y.
        centre_px: principal point (x, y).
    """

    focal_px: tuple[float, float]
    centre_px: tuple[float, float]

    def project(self, joints: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 2"]:
        """Pixels of places in camera coordinates; NaN for what is not in front of the camera."""
        z = np.where(joints[..., 2:] > 0, joints[..., 2:], np.nan)
        pixels = np.array(self.focal_px) * joints[..., :2] / z + np.array(self.centre_px)
        return np.asarray(pixels, np.float32)


def fit_pinhole(joints: Float[np.ndarray, "F J 3"], points: Float[np.ndarray, "F J 2"]) -> Pinhole:
    """The camera that shows joints where they are in the picture, by least squares.

    Equation: ``u = f_x x / z + c_x`` and ``v = f_y y / z + c_y``, linear in f and c.

    Args:
        joints: in camera coordinates, x right, y down, z forward, in any unit.
        points: the same joints in pixels. What is NaN in either is not used.

    Raises:
        ValueError: less than two joints beside each other, or joints and points that do not fit:
            they are more than 5 pixels apart (root mean square), or the focal length is below 10.
    """
    seen = np.isfinite(joints).all(-1) & np.isfinite(points).all(-1) & (joints[..., 2] > 0)
    if not seen.any():
        raise ValueError("no joint is known both in metres, before the camera, and in pixels")
    rays = joints[seen][:, :2].astype(np.float64) / joints[seen][:, 2:]  # [n, 2]
    pixels = points[seen].astype(np.float64)
    centred = rays - rays.mean(0)
    spread = np.square(centred).sum(0)
    if (spread < 1e-12).any():
        raise ValueError("all joints are in one line with the camera, so its lens is not known")
    focal = (centred * (pixels - pixels.mean(0))).sum(0) / spread
    centre = pixels.mean(0) - focal * rays.mean(0)
    apart_px = float(np.sqrt(np.square(focal * rays + centre - pixels).sum(-1).mean()))
    if not (focal > _LEAST_FOCAL_PX).all() or not apart_px < _FARTHEST_PX:
        raise ValueError(
            f"joints and points fit no camera (focal lengths {focal[0]:.1f} and {focal[1]:.1f} px,"
            f" {apart_px:.1f} px apart); points must be pixels, joints x right, y down, z forward"
        )
    return Pinhole(
        focal_px=(float(focal[0]), float(focal[1])), centre_px=(float(centre[0]), float(centre[1]))
    )
