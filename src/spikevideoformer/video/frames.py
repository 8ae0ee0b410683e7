"""Video files and image folders to pictures with times, streaming; and pictures to video files.

Three rules hold throughout. Time is the file's own (presentation timestamps from the first picture
on), never a frame index, so that a variable frame rate changes nothing. Never more than the chosen
frames is held in memory. And a file that is damaged, or gives fewer pictures than it announces, is
a `VideoError` and never a shorter clip. The reading of one file or folder itself is in `sources`.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import av.logging
import numpy as np
import torch
from av.video.stream import VideoStream
from jaxtyping import UInt8
from torch import Tensor

from spikevideoformer.events.stream import EventStream
from spikevideoformer.files import hidden_part
from spikevideoformer.video.clip import Clip
from spikevideoformer.video.sources import (
    IMAGE_SUFFIXES,
    LIFT,
    SEQUENCE_RATE_HZ,
    VIDEO_SUFFIXES,
    DecodeLimits,
    Ffmpeg,
    SeekMissedError,
    Shown,
    Source,
    VideoError,
    VideoInfo,
    VideoName,
    open_source,
)
from spikevideoformer.video.spec import ClipSpec

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


def probe(
    path: VideoName,
    *,
    limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
    sequence_rate_hz: float = SEQUENCE_RATE_HZ,
) -> VideoInfo:
    """What a video announces, with its first picture decoded (that is where rotation is known).

    Args:
        path: video file or folder of images.
        limits: see `DecodeLimits`.
        sequence_rate_hz: frame rate of a folder of images.

    Raises:
        VideoError: the video cannot be opened or its first picture cannot be decoded.
    """
    with open_source(path, limits, sequence_rate_hz) as source:
        return source.info(next(source.pictures()))


def check_decodes(
    path: VideoName,
    *,
    limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
    sequence_rate_hz: float = SEQUENCE_RATE_HZ,
) -> VideoInfo:
    """Decode a whole video and count its pictures.

    Args:
        path: video file or folder of images.
        limits: see `DecodeLimits`.
        sequence_rate_hz: frame rate of a folder of images.

    Returns:
        The announcement, with the true ``decoded_frames`` and ``duration_s``.

    Raises:
        VideoError: the video is damaged, or holds less than it announces.
    """
    with open_source(path, limits, sequence_rate_hz) as source:
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
    path: VideoName,
    *,
    resize_short: int | None = None,
    limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
    sequence_rate_hz: float = SEQUENCE_RATE_HZ,
) -> Pictures:
    """Open a video once, for what it announces and for all its pictures.

    Args:
        path: video file or folder of images.
        resize_short: shrink pictures to this short side, in pixels; smaller ones stay.
        limits: see `DecodeLimits`.
        sequence_rate_hz: frame rate of a folder of images.

    Raises:
        VideoError: the video cannot be opened; from ``frames`` as soon as damage shows, and after
            the last picture where the video is too short.
    """

    def opened() -> Iterator[Any]:
        with open_source(path, limits, sequence_rate_hz) as source:
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
    path: VideoName,
    *,
    resize_short: int | None = None,
    limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
    sequence_rate_hz: float = SEQUENCE_RATE_HZ,
) -> Iterator[VideoFrame]:
    """All pictures of a video in order; opened when the first is asked for.

    Arguments and errors as of `open_pictures`.
    """
    reading: dict[str, Any] = {"limits": limits, "sequence_rate_hz": sequence_rate_hz}
    yield from open_pictures(path, resize_short=resize_short, **reading).frames


def window_times(
    spec: ClipSpec,
    start_s: float,
    end_s: float,
    *,
    jitter: float = 0.0,
    generator: torch.Generator | None = None,
) -> list[float]:
    """The T moments at which a stretch of video is sampled.

    The stretch is cut into T equal slices and each is sampled at its centre. Where the spec has a
    frame rate, the slices last one frame each, and T of them lie in the middle of the stretch (or,
    where it is shorter, start with it and run past its end).

    Args:
        spec: gives T and the frame rate.
        start_s: start of the stretch.
        end_s: its end, above `start_s`.
        jitter: in [0, 1]; each moment moves by up to this part of half a slice either way, and a
            clip shorter than its stretch moves by up to this part of the room it has.
        generator: source of the jitter; needed where `jitter` is not 0.

    Returns:
        T rising times in seconds.

    Raises:
        ValueError: an empty stretch, a jitter outside [0, 1], or jitter without a generator.
    """
    _check_stretch(start_s, end_s)
    if not 0 <= jitter <= 1:
        raise ValueError(f"jitter must be between 0 and 1, got {jitter}")
    if jitter and generator is None:
        raise ValueError("jitter needs a torch.Generator, so that clips repeat by seed")
    shift, moves = 0.5, [0.5] * spec.frames
    if jitter:
        draws = torch.rand(spec.frames + 1, generator=generator, dtype=torch.float64) - 0.5
        shift, *moves = (0.5 + jitter * draws).tolist()
    return _times(spec, start_s, end_s, shift, moves)


def multi_clip_times(
    spec: ClipSpec, start_s: float, end_s: float, *, clips: int
) -> list[list[float]]:
    """The moments of several clips that together cover a stretch, for averaging over them.

    Clips shorter than the stretch are spread over it evenly; clips as long as the stretch sample
    its slices at different places. One clip is that of `window_times`.

    Args:
        spec: gives T and the frame rate.
        start_s: start of the stretch.
        end_s: its end, above `start_s`.
        clips: how many, at least 1.

    Raises:
        ValueError: an empty stretch or no clips.
    """
    if clips < 1:
        raise ValueError(f"clips must be at least 1, got {clips}")
    _check_stretch(start_s, end_s)
    slice_s, room_s = _layout(spec, start_s, end_s)
    times = []
    for place in ((index + 0.5) / clips for index in range(clips)):
        within = 0.5 if room_s >= slice_s else place
        times.append(_times(spec, start_s, end_s, place, [within] * spec.frames))
    return times


def _check_stretch(start_s: float, end_s: float) -> None:
    if not (math.isfinite(start_s) and math.isfinite(end_s) and 0 <= start_s < end_s):
        raise ValueError(f"a clip needs 0 <= start_s < end_s, got {start_s} and {end_s}")


def _layout(spec: ClipSpec, start_s: float, end_s: float) -> tuple[float, float]:
    """Length of a slice, and what T slices leave free of the stretch."""
    if spec.frame_rate_hz is None:
        return (end_s - start_s) / spec.frames, 0.0
    slice_s = 1 / spec.frame_rate_hz
    return slice_s, max(0.0, end_s - start_s - spec.frames * slice_s)


def _times(
    spec: ClipSpec, start_s: float, end_s: float, place: float, within: Sequence[float]
) -> list[float]:
    """Times at `within` (0 to 1) of each slice, the slices at `place` (0 to 1) of the free room."""
    slice_s, room_s = _layout(spec, start_s, end_s)
    first_s = start_s + room_s * place
    return [first_s + (index + part) * slice_s for index, part in enumerate(within)]


def read_clip(
    path: VideoName,
    spec: ClipSpec,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    times_s: Sequence[float] | None = None,
    jitter: float = 0.0,
    generator: torch.Generator | None = None,
    resize_short: int | None = None,
    limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
    sequence_rate_hz: float = SEQUENCE_RATE_HZ,
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
        jitter: see `window_times`.
        generator: see `window_times`.
        resize_short: shrink pictures to this short side, in pixels; smaller ones stay.
        limits: see `DecodeLimits`.
        sequence_rate_hz: frame rate of a folder of images.

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

    with open_source(path, limits, sequence_rate_hz) as source:
        length_s = source.length_s()
        if start_s is not None and start_s >= length_s:
            raise VideoError(
                Path(path), f"start_s {start_s:g} is not before the video's end at {length_s:.2f} s"
            )
        begin_s, finish_s = start_s or 0.0, length_s if end_s is None else end_s
        _check_stretch(begin_s, finish_s)
        moments_s = given or window_times(
            spec, begin_s, finish_s, jitter=jitter, generator=generator
        )

        def walk(source: Source, from_s: float) -> tuple[list[_Shown], float | None]:
            pictures = source.pictures(from_s=from_s)
            chooser = _Chooser(path, pictures, len(moments_s), resize_short, limits)
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
            with open_source(path, limits, sequence_rate_hz) as again:
                shown, video_end_s = walk(again, 0.0)
    return _clip(path, shown, moments_s, start_s=begin_s, end_s=finish_s, video_end_s=video_end_s)


def iter_windows(
    path: VideoName,
    spec: ClipSpec,
    *,
    window_s: float | None = None,
    resize_short: int | None = None,
    limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
    sequence_rate_hz: float = SEQUENCE_RATE_HZ,
    watch: Callable[[Shown], None] | None = None,
) -> Iterator[Clip]:
    """Windows of T frames side by side along a whole video, in one streaming pass.

    A window lasts ``frames / frame_rate_hz`` seconds. Without a frame rate it lasts `window_s`,
    and without that the whole video is one window.

    Args:
        path: video file or folder of images.
        spec: T and the frame rate.
        window_s: length of a window for a spec without a frame rate, in seconds.
        resize_short: shrink pictures to this short side, in pixels; smaller ones stay.
        limits: see `DecodeLimits`.
        sequence_rate_hz: frame rate of a folder of images.
        watch: called with every picture of the video, in order.

    Yields:
        Clips in order; the last one repeats its last picture where the video ends before the
        window does, and says so in ``real_frames`` and ``end_s``.

    Raises:
        VideoError: as soon as damage shows; after the last window where the video is too short.
        ValueError: a `window_s` that is not above 0 or contradicts the frame rate.
    """
    if spec.frame_rate_hz is not None:
        if window_s is not None:
            raise ValueError(
                f"a window of {spec.frames} frames at {spec.frame_rate_hz:g} Hz lasts "
                f"{spec.frames / spec.frame_rate_hz:g} s; leave out window_s"
            )
        window_s = spec.frames / spec.frame_rate_hz
    elif window_s is not None and not (math.isfinite(window_s) and window_s > 0):
        raise ValueError(f"window_s must be above 0, got {window_s}")
    with open_source(path, limits, sequence_rate_hz) as source:
        length_s = source.length_s() if window_s is None else window_s
        pictures = source.pictures() if watch is None else _watched(source.pictures(), watch)
        chooser = _Chooser(path, pictures, spec.frames, resize_short, limits)
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


def _watched(pictures: Iterator[Shown], watch: Callable[[Shown], None]) -> Iterator[Shown]:
    for picture in pictures:
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
        limits: DecodeLimits,
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


# --- Writing ------------------------------------------------------------------------------------

# With macroblock trees (mbtree) x264 chooses otherwise on every run, even with one thread. Without
# them a rate factor of 21 gives the size and the quality of one of 18 with them.
_X264 = {"crf": "21", "preset": "veryfast", "x264-params": "mbtree=0"}


def write_video(
    path: str | Path,
    frames: Iterable[UInt8[np.ndarray, "H W 3"] | UInt8[Tensor, "H W 3"]],
    frame_rate_hz: float,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    part: Path | None = None,
) -> None:
    """Write pictures to a video file as they come; the file appears whole or not at all.

    The same pictures give the same bytes on every run with one version of FFmpeg and the default
    codec and options.

    Where `part` is given, the pictures of an interrupted run are not lost: that file can be played
    at any time (but for the last second or two), also when the process was killed.

    Args:
        path: its ending names the container; an existing file is replaced. The folder must exist.
        frames: RGB pictures of one size, at least one. Odd sizes are widened by one repeated row
            or column, as 4:2:0 video needs.
        frame_rate_hz: pictures per second.
        codec: FFmpeg's name of the encoder.
        options: for the encoder; None is good quality for libx264 and its own defaults for others.
        part: MP4 file that is written to until the video is complete. An old one is overwritten;
            it stays where the run is interrupted, and goes where it fails. None writes to a hidden
            file, which never stays.

    Raises:
        VideoError: the file cannot be written.
        ValueError: no pictures, or pictures that are not uint8 [H, W, 3] of one size.
    """
    path = Path(path)
    if not (math.isfinite(frame_rate_hz) and frame_rate_hz > 0):
        raise ValueError(f"frame_rate_hz must be above 0, got {frame_rate_hz}")
    if options is None:
        options = _X264 if codec == "libx264" else {}
    container_options = {}
    kept = part is not None
    if part is None:
        part = hidden_part(path)
    else:  # each second becomes a fragment, and at the end FFmpeg makes an ordinary file of them
        container_options = {"movflags": "hybrid_fragmented+frag_keyframe", "flush_packets": "1"}
        options = {"g": str(max(1, round(frame_rate_hz)))} | options
    try:
        _encode(
            part,
            path,
            iter(frames),
            Fraction(frame_rate_hz).limit_denominator(1001),
            codec,
            options,
            container_options,
        )
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(part, path)
    except BaseException as error:
        if not kept or isinstance(error, Exception):  # an interruption is none
            part.unlink(missing_ok=True)
        raise


def _encode(
    part: Path,
    path: Path,
    frames: Iterator[UInt8[np.ndarray, "H W 3"] | UInt8[Tensor, "H W 3"]],
    rate: Fraction,
    codec: str,
    options: dict[str, str],
    container_options: dict[str, str],
) -> None:
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{path}: no frames to write")
    H, W = _checked(first, None).shape[:2]
    ffmpeg = Ffmpeg(path)
    with ffmpeg("cannot be written"):
        # Without random identifiers, and without the library's version in the file.
        bitexact = {"fflags": "+bitexact"}
        container = av.open(f"file:{part}", "w", options=bitexact | container_options)
    try:
        with ffmpeg("cannot be written"):
            stream = cast(VideoStream, container.add_stream(codec, rate=rate, options=options))
            stream.width, stream.height = W + W % 2, H + H % 2
            formats = [f.name for f in stream.codec_context.codec.video_formats or ()]
            stream.pix_fmt = "yuv420p" if not formats or "yuv420p" in formats else formats[0]
            stream.codec_context.thread_count = 1  # x264's choices depend on its thread count
        for image in itertools.chain([first], frames):
            padded = np.pad(_checked(image, (H, W)), ((0, H % 2), (0, W % 2), (0, 0)), mode="edge")
            with ffmpeg("cannot be written"):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(padded, format="rgb24")))
        with ffmpeg("cannot be written"):
            container.mux(stream.encode())
    finally:
        with av.logging.Capture():
            container.close()


def _checked(image: np.ndarray | Tensor, size: tuple[int, int] | None) -> np.ndarray:
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(f"frames must be uint8 [H, W, 3], got {array.dtype} {list(array.shape)}")
    if size is not None and array.shape[:2] != size:
        raise ValueError(
            f"frames must have one size: got {list(array.shape[:2])} after {list(size)}"
        )
    return array
