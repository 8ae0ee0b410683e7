"""What a network says of a video: a body in each frame."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from spikevideoformer.body.motion import Motion
from spikevideoformer.body.rotations import (
    axis_angle_from_matrix,
    matrix_from_6d,
    sixd_from_matrix,
)
from spikevideoformer.body.skeleton import BodyModel, Skeleton
from spikevideoformer.body.smpl import SmplBody
from spikevideoformer.inference.answer import Prediction, SeenFrame, rate_curve


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TrackedFrame(SeenFrame):
    """One frame of a video and the body in it.

    Attributes:
        joints: in metres, camera coordinates (x right, y down, z forward), [J, 3].
        points: the joints in pixels of the picture (x, y), [J, 2]; NaN for those that are not
            before the camera.
        rotations: of each joint against its parent, the first against the camera, [J, 3, 3].
        translation: as the body model takes it, in metres, [3].
        shape: proportions, as the body model counts them, [S].
    """

    joints: np.ndarray
    points: np.ndarray
    rotations: np.ndarray
    translation: np.ndarray
    shape: np.ndarray


POSE_NAMES = ("joints", "points", "rotations", "translation", "shape")
"""What a frame says of the body."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PosePrediction(Prediction):
    """How the body moves in one video.

    Attributes:
        joint_names: J of them.
        parents: index of each joint's parent, -1 for the first.
        joints: in metres, camera coordinates (x right, y down, z forward), float32 [F, J, 3].
        points: the joints in pixels of the picture (x, y), float32 [F, J, 2]; NaN for those that
            are not before the camera.
        rotations: of joints against their parents, the first against the camera, float32
            [F, J, 3, 3].
        translation: as the body model takes it, in metres, float32 [F, 3].
        shape: proportions, as the body model counts them, float32 [F, S].
        focal_px: the focal length that was assumed, in pixels of the picture.
    """

    joint_names: tuple[str, ...]
    parents: tuple[int, ...]
    joints: np.ndarray
    points: np.ndarray
    rotations: np.ndarray
    translation: np.ndarray
    shape: np.ndarray
    focal_px: float

    def says(self) -> str:
        """Where the body is."""
        x, y, z = self.joints[:, 0].mean(0).tolist()
        return (
            f"{len(self.joint_names)} joints, {self.joint_names[0]} on average at "
            f"{x:.2f} {y:.2f} {z:.2f} m right of, below and before the camera"
        )

    def _repr_html_(self) -> str:
        from spikevideoformer import notebook

        middle = len(self.timestamps_s) // 2
        return notebook.card(
            repr(self),
            notebook.skeleton(
                self.joints[middle, :, :2].tolist(),
                self.parents,
                caption=f"seen from the camera, at {self.timestamps_s[middle]:.2f} s",
            ),
            rate_curve(self.timestamps_s, self.firing_rate_per_frame),
        )

    @property
    def frame_rate_hz(self) -> float:
        """Mean rate of the frames."""
        first, last = self.timestamps_s[0], self.timestamps_s[-1]
        if last <= first:  # one frame, or a clock that stands still
            return len(self.timestamps_s) / self.duration_s
        return (len(self.timestamps_s) - 1) / (last - first)

    def motion(self, body: BodyModel) -> Motion:
        """The motion of one body with the mean of the predicted proportions, for a BVH file.

        Its y points up, as in motion capture: a point (x, y, z) of the camera is at (x, -y, -z).
        Frames follow each other at `frame_rate_hz`; where those of the video do not, those of the
        motion are between them, each at its time.

        Args:
            body: that of the tracker, a ``Skeleton`` or SMPL.

        Raises:
            ValueError: another body.
        """
        if body.joint_names != self.joint_names:
            raise ValueError("the body has other joints than the prediction; give tracker.body")
        shape = torch.from_numpy(self.shape).double().mean(0)
        if isinstance(body, SmplBody):
            skeleton = body.skeleton(shape)
        elif isinstance(body, Skeleton):
            skeleton = body.scaled(shape.exp())
        else:
            raise ValueError(f"got a {type(body).__name__}; give a Skeleton or an SmplBody")
        upright = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
        rotations = torch.from_numpy(self.rotations).double()
        rotations[:, 0] = upright[:, None] * rotations[:, 0]
        translation = upright * torch.from_numpy(self.joints[:, 0]).double()
        rate_hz, times_s = self.frame_rate_hz, np.array(self.timestamps_s)
        even_s = times_s[0] + np.arange(len(times_s)) / rate_hz
        if times_s[-1] > times_s[0] and np.abs(even_s - times_s).max() > 0.25 / rate_hz:
            rotations = matrix_from_6d(_at(even_s, times_s, sixd_from_matrix(rotations)))
            translation = _at(even_s, times_s, translation)
        return Motion(
            skeleton=skeleton.to("cpu"),
            rotations=rotations,
            translation=translation,
            frame_rate_hz=rate_hz,
        )

    def to_dict(self, *, frames: bool = True) -> dict[str, Any]:
        """Plain values for JSON.

        Their names say their units. For each frame there are ``joints_mm`` [J][3] in camera
        coordinates, ``points_px`` [J][2] ([null, null] for joints that are not before the camera),
        ``rotation_vectors_rad`` [J][3] (axis times angle), ``translation_mm`` [3] and ``shape``
        [S].

        Args:
            frames: whether to give these.
        """
        about = self.about()
        times_s = about.pop("timestamps_s")
        about |= {
            "focal_px": round(self.focal_px, 3),
            "joint_names": list(self.joint_names),
            "parents": list(self.parents),
            "timestamps_s": times_s,
        }
        return about | {key: list(values) for key, values in self._columns() if frames}

    def write_json(self, file: BinaryIO) -> None:
        """Write `to_dict` as one line of JSON, one frame after the other.

        All frames as Python numbers would take many times the memory of the arrays.
        """
        file.write(json.dumps(self.to_dict(frames=False), allow_nan=False)[:-1].encode())
        for key, values in self._columns():
            file.write(f', "{key}": ['.encode())
            for frame, value in enumerate(values):
                text = json.dumps(value, allow_nan=False)
                file.write(f"{', ' if frame else ''}{text}".encode())
            file.write(b"]")
        file.write(b"}\n")

    def _columns(self) -> Iterator[tuple[str, Iterator[Any]]]:
        """What JSON has of each frame: a name, and the values frame by frame."""
        yield "joints_mm", (_rounded(1000.0 * frame, 1) for frame in self.joints)
        yield "points_px", (_rounded(frame, 2) for frame in self.points)
        yield "rotation_vectors_rad", (_rounded(_vectors(frame), 5) for frame in self.rotations)
        yield "translation_mm", (_rounded(1000.0 * frame, 1) for frame in self.translation)
        yield "shape", (_rounded(frame, 5) for frame in self.shape)


def _at(wanted_s: np.ndarray, times_s: np.ndarray, values: Tensor) -> Tensor:
    """Values ``[T, ...]`` of some times at others, mixed of the two neighbours in time."""
    after = np.searchsorted(times_s, wanted_s, "right").clip(1, len(times_s) - 1)
    before = after - 1
    gap_s = np.maximum(times_s[after] - times_s[before], 1e-9)
    share = torch.from_numpy(((wanted_s - times_s[before]) / gap_s).clip(0, 1))
    share = share.view(-1, *[1] * (values.ndim - 1))
    return values[before] + share * (values[after] - values[before])


def _vectors(rotations: np.ndarray) -> np.ndarray:
    """Axis times angle, [J, 3]."""
    return axis_angle_from_matrix(torch.from_numpy(rotations).double()).numpy()


def _rounded(values: np.ndarray, digits: int) -> list[Any]:
    """Plain numbers, None for NaN."""
    rounded = np.round(values.astype(np.float64), digits) + 0.0  # no -0.0
    plain = rounded.astype(object)
    plain[np.isnan(rounded)] = None
    return plain.tolist()
