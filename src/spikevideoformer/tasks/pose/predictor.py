"""From a video to a body in each frame, as a stream: memory does not grow with the video.

Every picture, or every few of them where the model has a frame rate of its own, becomes a frame;
T frames make a window of the network, the same that evaluation in training makes. Where the last
window would reach over the end it begins earlier, and a video that is too short repeats its last
frame.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from spikevideoformer.body.bvh import write_bvh
from spikevideoformer.body.skeleton import BodyModel
from spikevideoformer.body.stored import AbsentSmpl
from spikevideoformer.events.stream import EventStream
from spikevideoformer.files import write_atomically
from spikevideoformer.inference.answer import Tally
from spikevideoformer.inference.base import Engine, Precision
from spikevideoformer.inference.stream import StreamPredictor, mean_rates
from spikevideoformer.messages import require_finite
from spikevideoformer.models.heads import part_of
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.tasks.pose.answer import POSE_NAMES, PosePrediction, TrackedFrame
from spikevideoformer.tasks.pose.dataset import (
    event_input,
    filled,
    picture_input,
    recorded_event_input,
)
from spikevideoformer.tasks.pose.draw import overlaid, write_side_view
from spikevideoformer.tasks.pose.follow import Finder, Follower, person_finder
from spikevideoformer.tasks.pose.head import (
    focal_of_view,
    pose_from_output,
    with_rotations,
)
from spikevideoformer.tasks.pose.metrics import project_perspective
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.tasks.pose.square import MOST_SIDE, Square
from spikevideoformer.video.event_pictures import is_event_file
from spikevideoformer.video.frames import Pictures, VideoError, VideoFrame

USUAL_VIEW_DEG = 55.0
"""Angle that the longer side of a picture is taken to span where nothing is known of the camera."""

log = logging.getLogger(__name__)


class PoseTracker(StreamPredictor[PosePrediction]):
    """A network that finds poses, and all that it takes to use it on videos.

    Args:
        model: a network for pose.
        clip, device, precision, engine: as of
            :class:`~spikevideoformer.inference.base.Predictor`; ``clip`` is a `PoseSpec`.
        body: whose joints are found; None for ``model.body``. A model of SMPL needs SMPL's own
            file, see ``body.smpl.load_body``.
        field_of_view_deg: angle that the longer side of the picture spans, above 0 and below 180;
            None for `USUAL_VIEW_DEG`. It sets how far away a body is.
        focal_px: the focal length in pixels of the picture instead.
        box: the square of the picture that is seen: left, top and side in pixels. It may reach
            over the borders; None for the whole picture, with margins where it is not square.
        follow: whether the square goes with the person (`follow.Follower`): it begins at `box`, or
            where the person mask of the box sees somebody. None: where the model was trained on
            squares around the person and sees pictures.

    Attributes:
        body: the one in use.

    Raises:
        ValueError: settings that are unknown, absent from the model, or not possible here.
    """

    task: ClassVar[str] = "pose"
    _kept = POSE_NAMES
    clip: PoseSpec

    def __init__(
        self,
        model: SpikeVideoFormer,
        *,
        clip: PoseSpec | None = None,
        device: str = "auto",
        precision: Precision = "32-true",
        engine: Engine = "auto",
        body: BodyModel | None = None,
        field_of_view_deg: float | None = None,
        focal_px: float | None = None,
        box: tuple[int, int, int] | None = None,
        follow: bool | None = None,
    ) -> None:
        super().__init__(model, clip=clip, device=device, precision=precision, engine=engine)
        if self.clip.poses != self.model.config.poses:
            raise ValueError(
                f"the network has poses {self.model.config.poses}, and clips are made with poses "
                f"{self.clip.poses}; give clip=PoseSpec(..., poses={self.model.config.poses!r})"
            )
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
        if focal_px is not None and not 1e-3 <= focal_px <= 1e9:
            raise ValueError(f"focal_px is {focal_px}; it must be above 0, from 0.001 to 1e9")
        self.field_of_view_deg, self.focal_px = field_of_view_deg, focal_px
        if box is not None and (len(box) != 3 or box[2] < 2):
            raise ValueError(f"box is {box}; give left, top and side in pixels, side at least 2")
        self.box = None if box is None else Square(left=box[0], top=box[1], side=box[2])
        can_follow = self.clip.crop == "person" and self.clip.input != "events"
        if follow and not can_follow:
            raise ValueError(
                "follow is for models that see pictures and were trained on squares around the "
                f"person; this one has crop {self.clip.crop} and input {self.clip.input}"
            )
        self.follow = can_follow if follow is None else follow
        self._finder: Finder | None = None
        if self.box is None and self.clip.crop == "person" and not self.follow:
            log.warning(
                "the model was trained on squares around the person, and sees the whole picture;"
                " give a square with --box LEFT,TOP,SIDE"
            )

    track = StreamPredictor.stream

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

    def _follower(self) -> Follower:
        """One that begins at the box, or where it sees somebody."""
        if self._finder is None:
            self._finder = person_finder(self.device.type)
        return Follower(self._finder, self.box)

    def _answers(self, pictures: Pictures) -> Iterator[TrackedFrame]:
        square = self._square(pictures.height, pictures.width, pictures.path)
        return self._track(pictures, square)

    def _track(self, pictures: Pictures, square: Square) -> Iterator[TrackedFrame]:
        follower = self._follower() if self.follow else None
        rate_hz = pictures.frame_rate_hz
        T, step = self.clip.frames, self._step(rate_hz)
        recorded = pictures.path is not None and is_event_file(pictures.path)
        if recorded:
            frames: Iterator[tuple[VideoFrame, Any]] = _recorded(pictures.frames, step)
        else:
            frames = self._frames(pictures.frames, step, square)
        # One frame more than a window has: events of its first are those since the one before.
        seen: deque[Any] = deque(maxlen=T + 1)
        count, poses_of_clip, apart = 0, self.clip.num_poses, _Apart()
        while window := list(islice(frames, T if count else poses_of_clip)):
            seen.extend(shown for _, shown in window)
            count += len(window)
            first, picture = window[0][0], window[0][0].image.shape[:2]
            if follower is not None:
                square = follower.square(first.image, first.timestamp_s)
            if recorded:
                video = self._recorded_input(list(seen), count, step, rate_hz, square)
            else:
                video = self._input(list(seen), count, step, rate_hz, square)
            poses, rates, distance = self._poses(video, picture, square)
            if follower is not None:
                follower.saw(poses["points"][min(count, poses_of_clip) - 1], *picture)
            # Of the last window the end is new; of a short video only the beginning is there.
            end = min(count, poses_of_clip)
            for place, (frame, _) in enumerate(window, start=end - len(window)):
                yield TrackedFrame(
                    timestamp_s=frame.timestamp_s,
                    duration_s=frame.duration_s,
                    image=frame.image,
                    firing_rate=rates[place],
                    distance=distance,
                    **{name: values[place] for name, values in poses.items()},
                )
            for frame, _ in window:
                apart.see(frame.timestamp_s)
            window.clear()  # before the next pictures are read
        self._tell_uneven(apart, pictures.path)
        if follower is not None and not follower.sees_somebody:
            log.warning(
                "nobody was found in %s, so the whole picture was looked at; say where the person "
                "is at the start with --box LEFT,TOP,SIDE",
                pictures.path or "the video",
            )

    def _tell_uneven(self, apart: _Apart, path: Any) -> None:
        """A line about pictures that are not as far apart as those that the network learned from.

        Steps are counted in pictures, which a variable frame rate makes uneven.
        """
        if (rate_hz := self.clip.frame_rate_hz) is None:
            return
        if apart.most_s > max(2 / rate_hz, 2 * apart.least_s):
            log.warning(
                "%s has a variable frame rate: the network saw pictures %.2g to %.2g s apart, and "
                "learned from those %.2g s apart; write it with a fixed rate, for example with "
                "ffmpeg -r",
                path or "the video",
                apart.least_s,
                apart.most_s,
                1 / rate_hz,
            )

    def _frames(
        self, pictures: Iterator[VideoFrame], step: int, square: Square
    ) -> Iterator[tuple[VideoFrame, Tensor]]:
        """Every step-th picture, shown until the next one, and what is kept to see of it.

        That is ``[1, size, size, 3]``, or for events the pictures until the next frame as well;
        where the square goes with the person, it is cut later: ``[1, H, W, 3]``.
        """
        while group := list(islice(pictures, step)):
            used = group if self.clip.input == "events" else group[:1]
            shown = [torch.from_numpy(picture.image)[None] for picture in used]
            frame = replace(group[0], duration_s=_shown_s(group))
            del group, used
            yield frame, torch.cat(shown if self.follow else [self._cut(p, square) for p in shown])
            del shown, frame  # before the next pictures are read

    def _cut(self, pictures: Tensor, square: Square) -> Tensor:
        """The square of each picture, [n, size, size, 3]."""
        margin = (255 * torch.tensor(self.clip.mean)).round()
        return square.cut(pictures, self.clip.size, margin).permute(0, 2, 3, 1)

    def _input(
        self, seen: Sequence[Tensor], count: int, step: int, rate_hz: float, square: Square
    ) -> Tensor:
        """The last T frames of `count` poses as model input ``[T, C, size, size]``."""
        T = self.clip.frames
        whole = Square(left=0, top=0, side=self.clip.size)  # of what is cut already
        if self.clip.input != "events":
            real = min(count, T)
            cut = [self._cut(p, square) if self.follow else p for p in seen[-real:]]
            video = picture_input(torch.cat(cut), whole, self.clip)
            return torch.cat((video, video[-1:].expand(T - real, -1, -1, -1)))
        edges = self._edges(count, step)
        if len(edges) < 2:
            return filled(None, self.clip)
        shown = range(max(0, edges[0]), edges[-1] + 1)
        video = event_input(
            torch.cat(list(seen[-len(edges) :]))[: len(shown)],
            [position / rate_hz for position in shown],
            [edge / rate_hz for edge in edges],
            whole,
            self.clip,
        )
        return filled(video, self.clip)

    def _edges(self, count: int, step: int) -> list[int]:
        """The pictures between which the last T frames of events lie, of `count` poses."""
        real = min(count, self.clip.num_poses)
        moments = range((count - real) * step, count * step, step)
        return [*moments] if self.clip.poses == "between" else [moments[0] - step, *moments]

    def _recorded_input(
        self,
        seen: Sequence[Sequence[EventStream]],
        count: int,
        step: int,
        rate_hz: float,
        square: Square,
    ) -> Tensor:
        """The last T frames of `count` poses as model input, of events that were recorded."""
        edges = self._edges(count, step)
        if len(edges) < 2:
            return filled(None, self.clip)
        # Slices include their begin, and frames of the network their end.
        borders = [(edge + 1) / rate_hz - 1e-9 for edge in edges]
        streams = chain.from_iterable(seen[-len(edges) :])
        return filled(recorded_event_input(streams, borders, square, self.clip), self.clip)

    @torch.inference_mode()
    def _poses(
        self, video: Tensor, picture: tuple[int, int], square: Square
    ) -> tuple[dict[str, np.ndarray], list[float] | list[None], float | None]:
        """What each pose of a clip is, the firing rates that led to it; and the distance."""
        clip = video[None].to(self.device)
        output, rates = self._run_network(clip)
        H, W = picture
        focal, middle = self.focal_of(H, W), np.array((W / 2, H / 2))
        size = self.clip.size
        pose = pose_from_output(
            part_of(output, 0),
            self.body,
            size=size,
            focal_px=torch.full((2,), focal * size / square.side),
            centre_px=torch.from_numpy(square.to_input(middle, size)),
        )
        pose = with_rotations(pose, self.body)
        joints = pose.joints.cpu()
        require_finite(all(bool(values.isfinite().all()) for values in (joints, *output)))
        points = project_perspective(joints, torch.full((2,), focal), torch.from_numpy(middle))
        poses = {n: getattr(pose, n).cpu().numpy() for n in POSE_NAMES if n != "points"}
        poses["points"] = points.float().numpy()
        firing = mean_rates(rates.per_frame, len(video))
        spiking = [None] * len(video) if firing is None else firing.tolist()
        if self.clip.poses == "between":  # the first pose is seen by the frame after it
            spiking = [spiking[0], *spiking]
        return poses, spiking, self.distances(clip, rates)[0]

    def _step(self, frame_rate_hz: float) -> int:
        return self.clip.step(frame_rate_hz)

    def _result(self, tally: Tally[TrackedFrame], path: str | None) -> PosePrediction:
        return PosePrediction(
            path=path,
            joint_names=self.body.joint_names,
            parents=self.body.parents,
            focal_px=self.focal_of(*tally.picture),
            engine=self.engine,
            **{name: tally.values(name) for name in POSE_NAMES} | tally.about(),
        )

    def _drawer(self) -> Callable[[TrackedFrame], np.ndarray]:
        return partial(overlaid, body=self.body)

    def _beside(self, result: PosePrediction, out: Path) -> dict[str, str]:
        """The body from the side, its motion as a BVH file, and all numbers."""
        side, motion, data = map(out.with_suffix, (".side.mp4", ".bvh", ".json"))
        write_side_view(result, self.body, side)
        write_bvh(motion, result.motion(self.body))
        write_atomically(data, result.write_json)
        return {"side_view": str(side), "motion": str(motion), "json": str(data)}


class _Apart:
    """The least and the most time from one frame to the next; a stream may have no end."""

    def __init__(self) -> None:
        self.least_s, self.most_s = math.inf, 0.0
        self._before_s: float | None = None

    def see(self, time_s: float) -> None:
        """The time of the next frame."""
        if self._before_s is not None:
            step_s = time_s - self._before_s
            self.least_s, self.most_s = min(self.least_s, step_s), max(self.most_s, step_s)
        self._before_s = time_s


def _shown_s(group: Sequence[VideoFrame]) -> float:
    """From the begin of the first picture to the end of the last; there may be gaps between."""
    return group[-1].timestamp_s + group[-1].duration_s - group[0].timestamp_s


def _recorded(
    pictures: Iterator[VideoFrame], step: int
) -> Iterator[tuple[VideoFrame, list[EventStream]]]:
    """Every step-th picture, shown until the next one, and the events since the one before."""
    since: list[EventStream] = []
    while group := list(islice(pictures, step)):
        events = [picture.events for picture in group if picture.events is not None]
        yield (
            replace(group[0], duration_s=_shown_s(group)),
            [*since, events[0]],
        )
        since = events[1:]
