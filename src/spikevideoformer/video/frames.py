"""Video files and image folders to pictures with times, streaming; and clips of them.

Three rules hold throughout. Time is the file's own (presentation timestamps from the first picture
on), never a frame index, so that a variable frame rate changes nothing. Never more than the chosen
frames is held in memory. And a file that is damaged, or gives fewer pictures than it announces, is
a `VideoError` and never a shorter clip. The reading of one file or folder itself is in `sources`.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from spikevideoformer.events.stream import EventStream
from spikevideoformer.video.clip import Clip
from spikevideoformer.video.clock import is_broadcast
from spikevideoformer.video.event_pictures import SimulatedPictures
from spikevideoformer.video.interface import (
    IMAGE_SUFFIXES,
    LIFT,
    SEQUENCE_RATE_HZ,
    VIDEO_SUFFIXES,
    DecodeLimits,
    Reading,
    SeekMissedError,
    Shown,
    Source,
    VideoError,
    VideoInfo,
    VideoName,
)
from spikevideoformer.video.sampling import check_stretch, multi_clip_times, window_times
from spikevideoformer.video.sources import open_source
from spikevideoformer.video.spec import ClipSpec
from spikevideoformer.video.video_file import VideoFile
from spikevideoformer.video.writing import write_video

__all__ = [
    "IMAGE_SUFFIXES",
    "PRECISION_S",
    "SEQUENCE_RATE_HZ",
    "VIDEO_SUFFIXES",
    "DecodeLimits",
    "VideoError",
    "VideoFrame",
    "VideoInfo",
    "check_decodes",
    "iter_frames",
    "iter_windows",
    "multi_clip_times",
    "probe",
    "read_clip",
    "window_times",
    "write_video",
]

PRECISION_S = 1e-3
"""Matroska rounds times to this: a picture that comes this much later is still taken as on time."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class VideoFrame:
    """One upright picture of a video.

    Args:
        timestamp_s: when it appears, from the first picture on.
        duration_s: how long it is shown.
        image: RGB, uint8 [H, W, 3].
        events: what it shows, where it is a picture of events.
    """

    timestamp_s: float
    duration_s: float
    image: UInt8[np.ndarray, "H W 3"]
    events: EventStream | None = None

    def __repr__(self) -> str:
        H, W, _ = self.image.shape
        return f"VideoFrame({self.timestamp_s:.3f} s, [H={H}, W={W}, 3])"


# --- Reading ------------------------------------------------------------------------------------


def probe(path: VideoName, **reading: Unpack[Reading]) -> VideoInfo:
    """What a video announces, with its first picture decoded (that is where rotation is known).

    Raises:
        VideoError: the video cannot be opened or its first picture cannot be decoded.
    """
    with open_source(path, **reading) as source:
        info = source.info(next(source.pictures()))
        # A broadcast announces no length, but its packets tell it without decoding.
        broadcast = isinstance(source, VideoFile) and is_broadcast(source.format)
        return replace(info, duration_s=source.length_s()) if broadcast else info


def check_decodes(path: VideoName, **reading: Unpack[Reading]) -> VideoInfo:
    """Decode a whole video and count its pictures.

    Returns:
        The announcement, with the true ``decoded_frames`` and ``duration_s``.

    Raises:
        VideoError: the video is damaged, or holds less than it announces.
    """
    with open_source(path, **reading) as source:
        pictures = source.pictures()
        info = source.info(first := next(pictures))
        count, end_s = 1, first.end_s
        for picture in pictures:
            count, end_s = count + 1, picture.end_s
        return replace(info, decoded_frames=count, duration_s=end_s)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Pictures:
    """An opened video: what it announces, and its pictures, to be gone through once.

    Args:
        path: as it was given; None for an array.
        frame_rate_hz: that it announces.
        count: of its pictures, where it says so.
        height: of the first picture, as it is shown, in pixels.
        width: the same.
        frames: upright pictures in order, one in memory at a time.
    """

    path: str | None
    frame_rate_hz: float
    count: int | None
    height: int
    width: int
    frames: Iterator[VideoFrame]


def open_pictures(
    path: VideoName, *, resize_short: int | None = None, **reading: Unpack[Reading]
) -> Pictures:
    """Open a video once, for what it announces and for all its pictures.

    Args:
        path: video file or folder of images.
        resize_short: shrink pictures to this short side, in pixels; smaller ones stay.
        **reading: see `Reading`.

    Raises:
        VideoError: the video cannot be opened; from ``frames`` as soon as damage shows, and after
            the last picture where the video is too short.
    """

    def opened() -> Iterator[Any]:
        with open_source(path, **reading) as source:
            pictures = source.pictures()
            picture: Shown | None = next(pictures)
            assert picture is not None
            yield source.info(picture)
            # The first picture sets the size, should a stream change its own on the way.
            width, height = picture.size(resize_short)
            while picture is not None:
                yield VideoFrame(
                    timestamp_s=picture.timestamp_s,
                    duration_s=picture.duration_s,
                    image=picture.rgb(width=width, height=height),
                    events=getattr(picture, "events", None),
                )
                picture = next(pictures, None)

    frames = opened()
    info = next(frames)
    return Pictures(
        path=os.fspath(path),
        frame_rate_hz=info.frame_rate_hz,
        count=info.declared_frames,
        height=info.height,
        width=info.width,
        frames=frames,
    )


def iter_frames(
    path: VideoName, *, resize_short: int | None = None, **reading: Unpack[Reading]
) -> Iterator[VideoFrame]:
    """All pictures of a video in order; opened when the first is asked for.

    Arguments and errors as of `open_pictures`.
    """
    yield from open_pictures(path, resize_short=resize_short, **reading).frames


def read_clip(
    path: VideoName,
    spec: ClipSpec,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    times_s: Sequence[float] | None = None,
    resize_short: int | None = None,
    **reading: Unpack[Reading],
) -> Clip:
    """T frames of a video: at each sampled moment, the picture that a viewer would see.

    A whole video is decoded to its end and so fully checked. A stretch of it is checked as far as
    it is read; decoding starts at a key frame before it, and gives the same frames as from zero.

    Args:
        path: video file or folder of images.
        spec: T and the frame rate; its size and normalisation are for the transforms.
        start_s: start of the stretch; None is the video's start.
        end_s: end of the stretch; None is the video's end.
        times_s: sample at these T times (not falling) instead of those of `window_times`.
        resize_short: shrink pictures to this short side, in pixels; smaller ones stay.
        **reading: see `Reading`.

    Returns:
        The clip; moments past the end repeat the last picture.

    Raises:
        VideoError: the video is damaged or too short.
        ValueError: arguments that make no sense.
    """
    given: list[float] = []
    if times_s is not None:
        given = [float(time_s) for time_s in times_s]
        rising = all(a <= b for a, b in itertools.pairwise(given))
        if len(given) != spec.frames or not rising or not all(map(math.isfinite, given)):
            raise ValueError(f"times_s must be {spec.frames} times that do not fall, got {given}")

    with open_source(path, **reading) as source:
        length_s = source.length_s()
        if start_s is not None and start_s >= length_s:
            raise VideoError(
                Path(path), f"start_s {start_s:g} is not before the video's end at {length_s:.2f} s"
            )
        begin_s, finish_s = start_s or 0.0, length_s if end_s is None else end_s
        check_stretch(begin_s, finish_s)
        moments_s = given or window_times(spec, begin_s, finish_s)

        def walk(source: Source, from_s: float) -> tuple[list[_Shown], float | None]:
            pictures = source.pictures(from_s=from_s)
            chooser = _Chooser(path, pictures, len(moments_s), resize_short, reading)
            shown = [chooser.at(time_s) for time_s in moments_s]
            if finish_s >= length_s:
                chooser.finish()
            return shown, chooser.end_s

        from_s = max(0.0, moments_s[0])
        try:
            shown, video_end_s = walk(source, from_s)
        except (SeekMissedError, VideoError):
            if from_s == 0.0:
                raise
            # Pictures around a seek may lack their references: read from the start instead.
            with open_source(path, **reading) as again:
                shown, video_end_s = walk(again, 0.0)
    return _clip(path, shown, moments_s, start_s=begin_s, end_s=finish_s, video_end_s=video_end_s)


def checked_window_s(spec: ClipSpec, window_s: float | None) -> float | None:
    """Length of the windows of a video in seconds; None: as long as the video.

    Raises:
        ValueError: a `window_s` that is not above 0 or contradicts the frame rate.
    """
    if spec.frame_rate_hz is not None:
        if window_s is not None:
            raise ValueError(
                f"a window of {spec.frames} frames at {spec.frame_rate_hz:g} Hz lasts "
                f"{spec.frames / spec.frame_rate_hz:g} s; leave out window_s"
            )
        return spec.frames / spec.frame_rate_hz
    if window_s is not None and not (math.isfinite(window_s) and window_s > 0):
        raise ValueError(f"window_s must be above 0, got {window_s}")
    return window_s


def iter_windows(
    path: VideoName,
    spec: ClipSpec,
    *,
    window_s: float | None = None,
    resize_short: int | None = None,
    watch: Callable[[Shown], None] | None = None,
    **reading: Unpack[Reading],
) -> Iterator[Clip]:
    """Windows of T frames side by side along a whole video, in one streaming pass.

    A window lasts ``frames / frame_rate_hz`` seconds. Without a frame rate it lasts `window_s`,
    and without that the whole video is one window.

    Args:
        path: video file or folder of images.
        spec: T and the frame rate.
        window_s: length of a window for a spec without a frame rate, in seconds.
        resize_short: shrink pictures to this short side, in pixels; smaller ones stay.
        watch: called with every picture of the video, in order; where a simulated camera looks at
            it, too.
        **reading: see `Reading`.

    Yields:
        Clips in order; the last one repeats its last picture where the video ends before the
        window does, and says so in ``real_frames`` and ``end_s``.

    Raises:
        VideoError: as soon as damage shows; after the last window where the video is too short.
        ValueError: a `window_s` that is not above 0 or contradicts the frame rate.
    """
    window_s = checked_window_s(spec, window_s)
    with open_source(path, **reading) as source:
        length_s = source.length_s() if window_s is None else window_s
        pictures = source.pictures() if watch is None else _watched(source, watch)
        chooser = _Chooser(path, pictures, spec.frames, resize_short, reading)
        for index in itertools.count():
            start_s, end_s = index * length_s, (index + 1) * length_s
            if index and not chooser.reaches(start_s):
                return
            times = window_times(spec, start_s, end_s)
            frames = [chooser.at(time_s) for time_s in times]
            if window_s is None:
                chooser.finish()
            else:
                chooser.reaches(end_s)  # meets the end of the video where the window does
            yield _clip(
                path, frames, times, start_s=start_s, end_s=end_s, video_end_s=chooser.end_s
            )
            if window_s is None:
                return


def _watched(source: Source, watch: Callable[[Shown], None]) -> Iterator[Shown]:
    if isinstance(source, SimulatedPictures):
        yield from source.pictures(watch=watch)
        return
    for picture in source.pictures():
        watch(picture)
        yield picture


def _clip(
    path: VideoName,
    frames: list[_Shown],
    times_s: Sequence[float],
    *,
    start_s: float,
    end_s: float,
    video_end_s: float | None,
) -> Clip:
    inside = math.inf if video_end_s is None else video_end_s
    return Clip(
        frames=torch.stack([image for _, image in frames]),  # T x [H, W, 3] -> [T, H, W, 3]
        timestamps_s=torch.tensor([shown_s for shown_s, _ in frames], dtype=torch.float64),
        path=Path(path),
        start_s=start_s,
        end_s=min(end_s, inside),
        # A window always holds a picture: one shorter than half a slice still counts.
        real_frames=max(1, sum(time_s < inside for time_s in times_s)),
    )


_Shown = tuple[float, UInt8[Tensor, "H W 3"]]
"""Timestamp and picture of what is on screen at some moment."""


class _Chooser:
    """Walks forward along the pictures and gives the one that is shown at a time."""

    def __init__(
        self,
        path: VideoName,
        pictures: Iterator[Shown],
        frames: int,
        resize_short: int | None,
        reading: Reading,
    ) -> None:
        if resize_short is not None and resize_short < 1:
            raise ValueError(f"resize_short must be at least 1 pixel, got {resize_short}")
        self.pictures, self.resize_short = pictures, resize_short
        self.current = next(pictures)
        self.coming = next(pictures, None)
        # The first picture sets the size, should a stream change its own on the way.
        self.width, self.height = self.current.size(resize_short)
        self.chosen: tuple[Shown, Tensor] | None = None
        clip_bytes = frames * self.width * self.height * 3
        limits = reading.get("limits", DecodeLimits())
        if limits.max_clip_bytes is not None and clip_bytes > limits.max_clip_bytes:
            raise VideoError(
                Path(path),
                f"{frames} frames of {self.width}x{self.height} take {clip_bytes} bytes, over the "
                f"limit of {limits.max_clip_bytes}; read it smaller with resize_short, or {LIFT}",
            )

    @property
    def end_s(self) -> float | None:
        """End of the video, once the last picture has been met."""
        return self.current.end_s if self.coming is None else None

    def at(self, time_s: float) -> _Shown:
        """What is on screen at `time_s`, which must not be earlier than in the last call."""
        self._walk_to(time_s)
        if self.chosen is None or self.chosen[0] is not self.current:
            image = self.current.rgb(width=self.width, height=self.height)
            self.chosen = (self.current, torch.from_numpy(image))
        return self.current.timestamp_s, self.chosen[1]

    def reaches(self, time_s: float) -> bool:
        """Whether the video shows anything from `time_s` on."""
        self._walk_to(time_s)
        # A sliver of a picture, left over by rounding, does not make a window.
        return self.coming is not None or self.current.end_s > time_s + PRECISION_S

    def finish(self) -> None:
        """Run to the end: only there does a short or damaged tail show."""
        while self.coming is not None:
            self._step()

    def _walk_to(self, time_s: float) -> None:
        while self.coming is not None and self.coming.timestamp_s <= time_s + PRECISION_S:
            self._step()

    def _step(self) -> None:
        assert self.coming is not None
        self.current, self.coming = self.coming, next(self.pictures, None)
