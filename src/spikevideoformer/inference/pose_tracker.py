"""From a video to a body in each frame, as a stream: memory does not grow with the video.

Every picture, or every few of them where the model has a frame rate of its own, becomes a frame;
T frames make a window of the network, the same that evaluation in training makes. Where the last
window would reach over the end it begins earlier, and a video that is too short repeats its last
frame.
"""

from __future__ import annotations

import json
import logging
import math
import os
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spikevideoformer.body.bvh import Motion
from spikevideoformer.body.rotations import axis_angle_from_matrix
from spikevideoformer.body.skeleton import BodyModel, Skeleton
from spikevideoformer.body.smpl import SmplBody
from spikevideoformer.inference.predictor import (
    AnySpec,
    Engine,
    FailedPrediction,
    Precision,
    VideoPredictor,
    about_run,
    checked_array,
    path_of,
    rate_curve,
)
from spikevideoformer.inference.segmenter import Tell, array_frames
from spikevideoformer.messages import one_line
from spikevideoformer.models.pose import AbsentSmpl, focal_of_view, pose_from_output
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.tasks.outputs import require_finite
from spikevideoformer.tasks.pose.dataset import MOST_SIDE, Square, event_input, picture_input
from spikevideoformer.tasks.pose.metrics import project_perspective
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.video.frames import (
    SEQUENCE_RATE_HZ,
    DecodeLimits,
    VideoError,
    VideoFrame,
    iter_frames,
    probe,
)
from spikevideoformer.video.inputs import VideoArray, VideoPath, expand_inputs

USUAL_VIEW_DEG = 55.0
"""Angle that the longer side of a picture is taken to span where nothing is known of the camera."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TrackedFrame:
    """One frame of a video and the body in it.

    Attributes:
        timestamp_s: when it appears.
        duration_s: how long it is shown, until the next frame.
        image: RGB, uint8 [H, W, 3].
        joints: in metres, camera coordinates (x right, y down, z forward), [J, 3].
        points: the joints in pixels of the picture (x, y), [J, 2]; NaN for those that are not
            before the camera.
        rotations: of each joint against its parent, the first against the camera, [J, 3, 3].
        translation: as the body model takes it, in metres, [3].
        shape: proportions, as the body model counts them, [S].
        firing_rate: spikes per neuron in this frame, mean over all layers of neurons; None for an
            ordinary network, which has no spikes.
    """

    timestamp_s: float
    duration_s: float
    image: np.ndarray
    joints: np.ndarray
    points: np.ndarray
    rotations: np.ndarray
    translation: np.ndarray
    shape: np.ndarray
    firing_rate: float | None

    def __repr__(self) -> str:
        H, W, _ = self.image.shape
        return f"TrackedFrame({self.timestamp_s:.3f} s, [H={H}, W={W}], joints {len(self.joints)})"


_POSE = ("joints", "points", "rotations", "translation", "shape")  # what a frame says of the body


@dataclass(frozen=True, kw_only=True, eq=False)
class PosePrediction:
    """How the body moves in one video.

    Attributes:
        path: as it was given; None for an array.
        duration_s: of the video.
        joint_names: J of them.
        parents: index of each joint's parent, -1 for the first.
        timestamps_s: when each of the F frames appears.
        joints: in metres, camera coordinates (x right, y down, z forward), float32 [F, J, 3].
        points: the joints in pixels of the picture (x, y), float32 [F, J, 2]; NaN for those that
            are not before the camera.
        rotations: of joints against their parents, the first against the camera, float32
            [F, J, 3, 3].
        translation: as the body model takes it, in metres, float32 [F, 3].
        shape: proportions, as the body model counts them, float32 [F, S].
        focal_px: the focal length that was assumed, in pixels of the picture.
        firing_rate: spikes per neuron and frame, mean over all layers of neurons and all frames;
            None for an ordinary network, which has no spikes.
        firing_rate_per_frame: the same for each frame, or None.
        engine: what ran the network: exact, int8 or model.
    """

    path: str | None
    duration_s: float
    joint_names: tuple[str, ...] = field(repr=False)
    parents: tuple[int, ...] = field(repr=False)
    timestamps_s: tuple[float, ...] = field(repr=False)
    joints: np.ndarray = field(repr=False)
    points: np.ndarray = field(repr=False)
    rotations: np.ndarray = field(repr=False)
    translation: np.ndarray = field(repr=False)
    shape: np.ndarray = field(repr=False)
    focal_px: float
    firing_rate: float | None
    firing_rate_per_frame: tuple[float, ...] | None = field(repr=False)
    engine: str

    def __repr__(self) -> str:
        about = about_run(self.duration_s, self.firing_rate, self.engine)
        size = f"{len(self.timestamps_s)} frames of {len(self.joint_names)} joints"
        return one_line(f"PosePrediction({self.path!r}, {size}, {about})")

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
        if len(self.timestamps_s) == 1:
            return 1 / self.duration_s
        return (len(self.timestamps_s) - 1) / (last - first)

    def motion(self, body: BodyModel) -> Motion:
        """The motion of one body with the mean of the predicted proportions, for a BVH file.

        Its y points up, as in motion capture: a point (x, y, z) of the camera is at (x, -y, -z).
        Frames follow each other at `frame_rate_hz`.

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
        return Motion(
            skeleton=skeleton.to("cpu"),
            rotations=rotations,
            translation=upright * torch.from_numpy(self.joints[:, 0]).double(),
            frame_rate_hz=self.frame_rate_hz,
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
        about = {
            "path": self.path,
            "duration_s": self.duration_s,
            "engine": self.engine,
            "firing_rate": self.firing_rate,
            "focal_px": round(self.focal_px, 3),
            "joint_names": list(self.joint_names),
            "parents": list(self.parents),
            "timestamps_s": list(self.timestamps_s),
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


class PoseTracker(VideoPredictor):
    """A network that finds poses, and all that it takes to use it on videos.

    Args:
        model: a network for pose.
        clip: how pictures become its input, a ``PoseSpec``; None for ``model.clip``.
        device: as for a :class:`VideoPredictor`.
        precision: as for a :class:`VideoPredictor`.
        engine: as for a :class:`VideoPredictor`.
        body: whose joints are found; None for ``model.body``. A model of SMPL needs SMPL's own
            file, see ``body.smpl.load_body``.
        field_of_view_deg: angle that the longer side of the picture spans, above 0 and below 180;
            None for `USUAL_VIEW_DEG`. It sets how far away a body is.
        focal_px: the focal length in pixels of the picture instead.
        box: the square of the picture that is seen: left, top and side in pixels. It may reach
            over the borders; None for the whole picture, with margins where it is not square.

    Attributes:
        body: the one in use.

    Raises:
        ValueError: settings that are unknown, absent from the model, or not possible here.
    """

    task: ClassVar[str] = "pose"
    _spec = PoseSpec
    clip: PoseSpec  # type: ignore[assignment]  # each task has its own

    def __init__(
        self,
        model: SpikeVideoFormer,
        *,
        clip: AnySpec | None = None,
        device: str = "auto",
        precision: Precision = "32-true",
        engine: Engine = "auto",
        body: BodyModel | None = None,
        field_of_view_deg: float | None = None,
        focal_px: float | None = None,
        box: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__(model, clip=clip, device=device, precision=precision, engine=engine)
        own = self.model.body
        assert own is not None  # a model for pose has one
        body = own if body is None else body
        if (body.joint_names, body.num_shape) != (own.joint_names, own.num_shape):
            raise ValueError(
                f"the body has {len(body.joint_names)} joints and {body.num_shape} shape values,"
                f" the model {len(own.joint_names)} and {own.num_shape}, or others by name; give"
                " the body that the model was trained with"
            )
        if isinstance(body, AbsentSmpl):
            body.joints(torch.eye(3).expand(len(body.parents), 3, 3), torch.zeros(3))  # says why
        self.body = body.to(self.device)
        if field_of_view_deg is not None and focal_px is not None:
            raise ValueError("field_of_view_deg and focal_px say the same; give one of them")
        if field_of_view_deg is not None and not 0 < field_of_view_deg < 180:
            raise ValueError(
                f"field_of_view_deg is {field_of_view_deg}; it must be above 0 and below 180"
            )
        if focal_px is not None and not 0 < focal_px < math.inf:
            raise ValueError(f"focal_px is {focal_px}; it must be above 0")
        self.field_of_view_deg, self.focal_px = field_of_view_deg, focal_px
        if box is not None and (len(box) != 3 or box[2] < 2):
            raise ValueError(f"box is {box}; give left, top and side in pixels, side at least 2")
        self.box = None if box is None else Square(left=box[0], top=box[1], side=box[2])
        if self.box is None and self.clip.crop == "person":
            log.warning(
                "the model was trained on squares around the person, and sees the whole picture;"
                " give a square with --box LEFT,TOP,SIDE"
            )

    @classmethod
    def from_pretrained(
        cls,
        folder: VideoPath,
        *,
        clip: AnySpec | None = None,
        device: str = "auto",
        precision: Precision = "32-true",
        engine: Engine = "auto",
        body: BodyModel | None = None,
        field_of_view_deg: float | None = None,
        focal_px: float | None = None,
        box: tuple[int, int, int] | None = None,
    ) -> PoseTracker:
        """Load a model folder, or a model of the Hugging Face hub.

        Args:
            folder: ``config.json`` and ``model.safetensors``, or a hub id (owner/name).
            clip: as in :class:`PoseTracker`.
            device: as in :class:`PoseTracker`.
            precision: as in :class:`PoseTracker`.
            engine: as in :class:`PoseTracker`.
            body: as in :class:`PoseTracker`.
            field_of_view_deg: as in :class:`PoseTracker`.
            focal_px: as in :class:`PoseTracker`.
            box: as in :class:`PoseTracker`.

        Raises:
            ValueError: no usable model folder, or settings as in :class:`PoseTracker`.
        """
        return cls(
            SpikeVideoFormer.from_pretrained(folder),
            clip=clip,
            device=device,
            precision=precision,
            engine=engine,
            body=body,
            field_of_view_deg=field_of_view_deg,
            focal_px=focal_px,
            box=box,
        )

    def track(
        self,
        video: VideoPath | VideoArray,
        *,
        frame_rate_hz: float | None = None,
        limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
        sequence_rate_hz: float = SEQUENCE_RATE_HZ,
    ) -> Iterator[TrackedFrame]:
        """The frames of a video with the body in them, as they are computed.

        Args:
            video: a video file, a folder of numbered images, or frames as uint8 RGB.
            frame_rate_hz: of frames given as an array; files know their own.
            limits: against files that unpack to far more than they seem.
            sequence_rate_hz: pictures per second of a folder of numbered images.

        Yields:
            Every ``clip.step``-th picture of the video, in order.

        Raises:
            VideoError: the video cannot be read, as soon as damage shows; or the box lies outside
                of its picture, or has more than `MOST_SIDE` times the side of it.
            ValueError: wrong arguments, an array that is no video or whose pictures the box does
                not fit, or outputs of the model that are NaN or infinite.
        """
        if isinstance(video, (np.ndarray, Tensor)):
            array, rate_hz = checked_array(video, frame_rate_hz)
            pictures = array_frames(array, rate_hz)
            square = self._square(array.shape[1], array.shape[2])
        else:
            path = path_of(video, frame_rate_hz)
            reading: dict[str, Any] = {"limits": limits, "sequence_rate_hz": sequence_rate_hz}
            info = probe(path, **reading)
            rate_hz, square = info.frame_rate_hz, self._square(info.height, info.width, path)
            pictures = iter_frames(path, **reading)
        return self._track(pictures, rate_hz, square)

    def predict(  # type: ignore[override]  # another task, another result
        self,
        video: VideoPath | VideoArray,
        *,
        frame_rate_hz: float | None = None,
        progress: Tell | None = None,
        limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
        sequence_rate_hz: float = SEQUENCE_RATE_HZ,
    ) -> PosePrediction:
        """How the body moves in one video.

        Args:
            video: as in :meth:`track`.
            frame_rate_hz: as in :meth:`track`.
            progress: told about each frame.
            limits: as in :meth:`track`.
            sequence_rate_hz: as in :meth:`track`.

        Raises:
            VideoError: as in :meth:`track`.
            ValueError: as in :meth:`track`.
        """
        reading: dict[str, Any] = {"limits": limits, "sequence_rate_hz": sequence_rate_hz}
        frames = self.track(video, frame_rate_hz=frame_rate_hz, **reading)
        path, total = None, None
        if isinstance(video, (np.ndarray, Tensor)):
            total = self.frames_of(len(video), frame_rate_hz or 0.0)
        else:
            path = os.fspath(video)
            if progress is not None:
                info = probe(path, **reading)
                total = self.frames_of(info.declared_frames, info.frame_rate_hz)
        tally = PoseTally(progress, total)
        for _ in tally.watch(frames):
            pass
        return tally.result(self, path)

    def predict_many(  # type: ignore[override]
        self,
        inputs: VideoPath | VideoArray | Iterable[VideoPath | VideoArray],
        *,
        frame_rate_hz: float | None = None,
        limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
        sequence_rate_hz: float = SEQUENCE_RATE_HZ,
    ) -> Iterator[PosePrediction | FailedPrediction]:
        """Predict many videos, one after the other.

        Args:
            inputs: as for a :class:`VideoPredictor`.
            frame_rate_hz: of the arrays among them.
            limits: as in :meth:`track`.
            sequence_rate_hz: as in :meth:`track`.

        Yields:
            One result for each video, in order: a prediction, or why there is none; the latter,
            too, for an input in which there is no video.

        Raises:
            ValueError: as in :meth:`track`.
        """
        if isinstance(inputs, (str, int, os.PathLike, np.ndarray, Tensor)):
            inputs = [inputs]
        for video in expand_inputs(inputs):
            result: PosePrediction | FailedPrediction
            try:
                if isinstance(video, VideoError):
                    raise video
                result = self.predict(
                    video,
                    frame_rate_hz=None if isinstance(video, str) else frame_rate_hz,
                    limits=limits,
                    sequence_rate_hz=sequence_rate_hz,
                )
            except VideoError as error:
                result = FailedPrediction(path=str(error.path), reason=error.reason)
            yield result

    def frames_of(self, pictures: int | None, frame_rate_hz: float) -> int | None:
        """How many frames a video of so many pictures has; None where it does not say."""
        return None if pictures is None else math.ceil(pictures / self.clip.step(frame_rate_hz))

    def focal_of(self, height: int, width: int) -> float:
        """The focal length that is assumed for pictures of this size, in their pixels."""
        if self.focal_px is not None:
            return self.focal_px
        return focal_of_view(max(height, width), self.field_of_view_deg or USUAL_VIEW_DEG)

    def _square(self, height: int, width: int, path: str | None = None) -> Square:
        """What the network sees of a picture."""
        box = self.box
        if box is None:
            return Square.of_picture(height, width)
        outside = not (-box.side < box.left < width and -box.side < box.top < height)
        if outside or box.side > MOST_SIDE * max(height, width):
            fault = "lies outside of" if outside else f"is more than {MOST_SIDE} times as large as"
            reason = (
                f"the box (left {box.left}, top {box.top}, side {box.side}) {fault} the picture of"
                f" {width}x{height} pixels; give one that shows the person"
            )
            raise ValueError(reason) if path is None else VideoError(path, reason)
        return box

    def _track(
        self, pictures: Iterator[VideoFrame], rate_hz: float, square: Square
    ) -> Iterator[TrackedFrame]:
        T, step = self.clip.frames, self.clip.step(rate_hz)
        frames = self._frames(pictures, step, square)
        # One frame more than a window has: events of its first are those since the one before.
        seen: deque[Tensor] = deque(maxlen=T + 1)
        count = 0
        while window := list(islice(frames, T)):
            seen.extend(small for _, small in window)
            count += len(window)
            video = self._input(list(seen), count, step, rate_hz)
            poses, rates = self._poses(video, window[0][0].image.shape[:2], square)
            # Of the last window the end is new; of a short video only the beginning is there.
            end = min(count, T)
            for place, (frame, _) in enumerate(window, start=end - len(window)):
                yield TrackedFrame(
                    timestamp_s=frame.timestamp_s,
                    duration_s=frame.duration_s,
                    image=frame.image,
                    firing_rate=rates[place],
                    **{name: values[place] for name, values in poses.items()},
                )
            window.clear()  # before the next pictures are read

    def _frames(
        self, pictures: Iterator[VideoFrame], step: int, square: Square
    ) -> Iterator[tuple[VideoFrame, Tensor]]:
        """Every step-th picture, shown until the next one, and what the network sees.

        That is ``[1, size, size, 3]``, or for events the pictures until the next frame as well.
        """
        margin = (255 * torch.tensor(self.clip.mean)).round()
        while group := list(islice(pictures, step)):
            used = group if self.clip.input == "events" else group[:1]
            small = [
                square.cut(torch.from_numpy(picture.image)[None], self.clip.size, margin)
                for picture in used
            ]
            frame = replace(group[0], duration_s=sum(picture.duration_s for picture in group))
            del group, used
            yield frame, torch.cat(small).permute(0, 2, 3, 1)  # [n, 3, H, W] -> [n, H, W, 3]

    def _input(self, seen: Sequence[Tensor], count: int, step: int, rate_hz: float) -> Tensor:
        """The last T frames of `count` as model input ``[T, C, size, size]``."""
        T = self.clip.frames
        real = min(count, T)
        square = Square(left=0, top=0, side=self.clip.size)  # they are cut already
        if self.clip.input != "events":
            video = picture_input(torch.cat(list(seen[-real:])), square, self.clip)
            return torch.cat((video, video[-1:].expand(T - real, -1, -1, -1)))
        moments = range((count - real) * step, count * step, step)
        shown = range(max(0, moments[0] - step), moments[-1] + 1)
        video = event_input(
            torch.cat(list(seen[-real - 1 :]))[: len(shown)],
            [position / rate_hz for position in shown],
            [(moments[0] - step) / rate_hz, *(moment / rate_hz for moment in moments)],
            square,
            self.clip,
        )
        return F.pad(video, (0, 0, 0, 0, 0, 0, 0, T - real))  # nothing happens any more

    @torch.inference_mode()
    def _poses(
        self, video: Tensor, picture: tuple[int, int], square: Square
    ) -> tuple[dict[str, np.ndarray], list[float] | list[None]]:
        """What a frame says of the body, and firing rates, for all T frames."""
        output, rates = self._run_network(video[None].to(self.device))
        H, W = picture
        focal, middle = self.focal_of(H, W), np.array((W / 2, H / 2))
        size = self.clip.size
        pose = pose_from_output(
            output.part(0),
            self.body,
            size=size,
            focal_px=torch.full((2,), focal * size / square.side),
            centre_px=torch.from_numpy(square.to_input(middle, size)),
        )
        joints = pose.joints.cpu()
        require_finite(all(bool(values.isfinite().all()) for values in (joints, *output)))
        points = project_perspective(joints, torch.full((2,), focal), torch.from_numpy(middle))
        poses = {name: getattr(pose, name).cpu().numpy() for name in _POSE if name != "points"}
        poses["points"] = points.float().numpy()
        if not rates.per_frame:
            return poses, [None] * len(video)
        return poses, torch.stack(list(rates.per_frame.values())).mean((0, 2)).tolist()


class PoseTally:
    """What stays of the frames that pass: times, poses and firing rates.

    Args:
        progress: told about each frame.
        total: frames that are announced.
    """

    def __init__(self, progress: Tell | None, total: int | None) -> None:
        self._progress, self._total = progress, total
        # Blocks of numbers, as those of `SegmentationTally`.
        self._timestamps_s, self._rates = array("d"), array("d")
        self._poses = {name: array("f") for name in _POSE}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._picture = (0, 0)
        self._end_s = 0.0

    def watch(self, frames: Iterable[TrackedFrame]) -> Iterator[TrackedFrame]:
        """The same frames."""
        for frame in frames:
            self._timestamps_s.append(frame.timestamp_s)
            for name, values in self._poses.items():
                pose = getattr(frame, name)
                values.frombytes(pose.astype(np.float32).tobytes())
                self._shapes[name] = pose.shape
            if frame.firing_rate is not None:
                self._rates.append(frame.firing_rate)
            self._picture = frame.image.shape[:2]
            self._end_s = frame.timestamp_s + frame.duration_s
            if self._progress is not None:
                self._progress(len(self._timestamps_s), self._total)
            yield frame

    def result(self, tracker: PoseTracker, path: str | None) -> PosePrediction:
        """The prediction, when all frames have passed."""
        return PosePrediction(
            path=path,
            duration_s=self._end_s,
            joint_names=tracker.body.joint_names,
            parents=tracker.body.parents,
            timestamps_s=tuple(self._timestamps_s),
            focal_px=tracker.focal_of(*self._picture),
            firing_rate=math.fsum(self._rates) / len(self._rates) if self._rates else None,
            firing_rate_per_frame=tuple(self._rates) or None,
            engine=tracker.engine,
            **{
                name: np.frombuffer(values, np.float32).reshape(-1, *self._shapes[name])
                for name, values in self._poses.items()
            },
        )


def _vectors(rotations: np.ndarray) -> np.ndarray:
    """Axis times angle, [J, 3]."""
    return axis_angle_from_matrix(torch.from_numpy(rotations).double()).numpy()


def _rounded(values: np.ndarray, digits: int) -> list[Any]:
    """Plain numbers, None for NaN."""
    rounded = np.round(values.astype(np.float64), digits) + 0.0  # no -0.0
    plain = rounded.astype(object)
    plain[np.isnan(rounded)] = None
    return plain.tolist()
