"""A camera is found from joints and where they are in the picture."""

import numpy as np
import pytest

from spikevideoformer.tasks.pose.layouts.pinhole import Pinhole, fit_pinhole

CAMERA = Pinhole(focal_px=(1145.0, 1143.5), centre_px=(512.5, 515.25))


def scene(frames: int = 5) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(frames, 17, 3)) + np.array([0, 0, 6])).astype(np.float32)


def test_projection_by_hand() -> None:
    camera = Pinhole(focal_px=(100.0, 200.0), centre_px=(10.0, 20.0))
    points = camera.project(np.array([[1.0, -0.5, 2.0], [1, 1, 0], [1, 1, -1]]))
    np.testing.assert_array_equal(points, [[60, -30], [np.nan] * 2, [np.nan] * 2])


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_the_camera_comes_back(unit: float) -> None:
    joints = scene()
    points = CAMERA.project(joints)
    points[0, 3], joints[1, 2], joints[2, 5, 2] = np.nan, np.nan, -1
    found = fit_pinhole(joints * np.float32(unit), points)
    np.testing.assert_allclose(found.focal_px, CAMERA.focal_px, rtol=1e-5)
    np.testing.assert_allclose(found.centre_px, CAMERA.centre_px, atol=1e-3)


def test_noise_and_lens_distortion_are_averaged_out() -> None:
    """The lens has the distortion of the cameras of Human3.6M."""
    joints = scene(200)
    joints[..., :2] *= 0.4
    rays = joints[..., :2] / joints[..., 2:]
    r2 = np.square(rays).sum(-1, keepdims=True)
    bent = rays * (1 - 0.207 * r2 + 0.248 * r2**2)
    points = CAMERA.focal_px * bent + np.array(CAMERA.centre_px)
    points += np.random.default_rng(1).normal(size=points.shape)
    found = fit_pinhole(joints, points)
    np.testing.assert_allclose(found.focal_px, CAMERA.focal_px, rtol=0.02)
    np.testing.assert_allclose(found.centre_px, CAMERA.centre_px, atol=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda joints, points: (joints * np.nan, points), "no joint is known both"),
        (lambda joints, points: (joints * -1, points), "no joint is known both in metres, before"),
        (lambda joints, points: (joints[:, :1][:1], points[:, :1][:1]), "all joints are in one li"),
        (lambda joints, points: (joints, points / 1024), r"focal lengths 1.1 and .*must be pixels"),
        (lambda joints, points: (joints * [1, -1, 1], points), "fit no camera .*y down, z forward"),
        (lambda joints, points: (joints, points[::-1]), r"fit no camera .*[0-9.]+ px apart"),
    ],
)  # fmt: skip
def test_what_fits_no_camera(change, message: str) -> None:
    joints, points = change(scene(), CAMERA.project(scene()))
    with pytest.raises(ValueError, match=message):
        fit_pinhole(joints, points)
