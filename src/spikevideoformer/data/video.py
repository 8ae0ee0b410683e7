"""Video files and image folders to pictures with times, streaming; and pictures to video files.

Three rules hold throughout. Time is the file's own (presentation timestamps from the first picture
on), never a frame index, so that a variable frame rate changes nothing. Never more than the chosen
frames is held in memory. And a file that is damaged, or gives fewer pictures than it announces, is
a `VideoError` and never a shorter clip.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import av.logging
import numpy as np
import torch
from av.codec.codec import UnknownCodecError
from av.video.stream import VideoStream
from jaxtyping import UInt8
from torch import Tensor

from .clip import Clip, ClipSpec
from .matroska import StructureError, check_structure

VIDEO_SUFFIXES = frozenset(
    ".avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv .3gp".split()
)
"""Endings by which a video is found in a folder; a file named outright may have any ending."""
IMAGE_SUFFIXES = frozenset(".bmp .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split())
"""Endings of the pictures of an image-sequence folder."""
SEQUENCE_RATE_HZ = 25.0
"""Frame rate of an image-sequence folder where none is given: FFmpeg's own default."""

# FFmpeg's messages reach us (they say why a file is bad) and nobody else: a logger with a handler
# of its own no longer falls back to printing. Repeated messages are kept, because the second file
# with the same fault must be told apart from a good one.
av.logging.set_level(av.logging.WARNING)
av.logging.set_skip_repeated(False)
logging.getLogger("libav").addHandler(logging.NullHandler())

# FFmpeg renders text files as pictures of text; nobody means that by a video.
_TEXT_FORMATS = frozenset({"adf", "bin", "idf", "tty", "xbin"})
# These demuxers know decoding times only; their presentation times are guesses.
_DECODING_TIME_FORMATS = frozenset({"avi"})
# Containers whose announced length is exact and whose seeking lands on true timestamps.
_EXACT_FORMATS = frozenset({"avi", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"})
_SEEKABLE_FORMATS = frozenset({"matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"})


class VideoError(ValueError):
    """A video that cannot be used: ``str`` gives ``path: reason`` on one line.

    Args:
        path: the file or folder.
        reason: what is wrong and, where there is one, the remedy.
    """

    # `reason` may be left out because a loader worker's error is rebuilt from its text alone.
    def __init__(self, path: str | Path, reason: str = "") -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = " ".join(reason.split())

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.reason else str(self.path)


@dataclass(frozen=True, kw_only=True)
class DecodeLimits:
    """What a file may unfold to: a small file can announce or hold an absurd amount of pixels.

    The defaults pass hours of 4K, which stream in little memory; None lifts a limit.

    Args:
        max_frame_pixels: largest picture, in pixels; 2^26 is 8192 x 8192.
        max_frames: most pictures of one video.
        max_total_pixels: most pixels decoded from one video; 4e12 is 2.2 hours of 4K at 60 Hz.
        max_clip_bytes: most memory that the frames of one clip may take.
    """

    max_frame_pixels: int | None = 2**26
    max_frames: int | None = 10_000_000
    max_total_pixels: int | None = 4 * 10**12
    max_clip_bytes: int | None = 2**30

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and (isinstance(value, bool) or value < 1):
                raise ValueError(f"{name} must be at least 1, or None for no limit; got {value!r}")

    @classmethod
    def unlimited(cls) -> DecodeLimits:
        """No limits, for files that are trusted."""
        return cls(
            max_frame_pixels=None, max_frames=None, max_total_pixels=None, max_clip_bytes=None
        )


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a video announces about itself.

    Args:
        path: the file or image-sequence folder.
        codec: FFmpeg's name of the decoder.
        width: of the upright picture, in pixels.
        height: of the upright picture, in pixels.
        rotation_deg: how far stored pictures are turned counterclockwise to be upright.
        frame_rate_hz: mean frame rate.
        duration_s: announced length; None where the file does not say.
        declared_frames: announced number of pictures; None where the file does not say.
        decoded_frames: pictures counted by a full pass (`check_decodes`), otherwise None.
    """

    path: Path
    codec: str
    width: int
    height: int
    rotation_deg: int
    frame_rate_hz: float
    duration_s: float | None
    declared_frames: int | None
    decoded_frames: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class VideoFrame:
    """One upright picture of a video.

    Args:
        timestamp_s: when it appears, from the first picture on.
        duration_s: how long it is shown.
        image: RGB, uint8 [H, W, 3].
    """

    timestamp_s: float
    duration_s: float
    image: UInt8[np.ndarray, "H W 3"]

    def __repr__(self) -> str:
        H, W, _ = self.image.shape
        return f"VideoFrame({self.timestamp_s:.3f} s, [H={H}, W={W}, 3])"


# --- Reading ------------------------------------------------------------------------------------


def probe(
    path: str | Path,
    *,
    limits: DecodeLimits = DecodeLimits(),
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
    with _open(path, limits, sequence_rate_hz) as source:
        return source.info(next(source.pictures()))


def check_decodes(
    path: str | Path,
    *,
    limits: DecodeLimits = DecodeLimits(),
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
    with _open(path, limits, sequence_rate_hz) as source:
        pictures = source.pictures()
        info = source.info(first := next(pictures))
        count, end_s = 1, first.end_s
        for picture in pictures:
            count, end_s = count + 1, picture.end_s
        return replace(info, decoded_frames=count, duration_s=end_s)


def iter_frames(
    path: str | Path,
    *,
    resize_short: int | None = None,
    limits: DecodeLimits = DecodeLimits(),
    sequence_rate_hz: float = SEQUENCE_RATE_HZ,
) -> Iterator[VideoFrame]:
    """All pictures of a video in order, one in memory at a time.

    Args:
        path: video file or folder of images.
        resize_short: shrink pictures to this short side, in pixels; smaller ones stay.
        limits: see `DecodeLimits`.
        sequence_rate_hz: frame rate of a folder of images.

    Yields:
        Upright pictures with their times.

    Raises:
        VideoError: as soon as damage shows; after the last picture where the video is too short.
    """
    with _open(path, limits, sequence_rate_hz) as source:
        for picture in source.pictures():
            width, height = picture.size(resize_short)
            yield VideoFrame(
                timestamp_s=picture.timestamp_s,
                duration_s=picture.duration_s,
                image=picture.rgb(width=width, height=height),
            )


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
    path: str | Path,
    spec: ClipSpec,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    times_s: Sequence[float] | None = None,
    jitter: float = 0.0,
    generator: torch.Generator | None = None,
    resize_short: int | None = None,
    limits: DecodeLimits = DecodeLimits(),
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
    if times_s is not None:
        given = [float(time_s) for time_s in times_s]
        rising = all(a <= b for a, b in itertools.pairwise(given))
        if len(given) != spec.frames or not rising or not all(map(math.isfinite, given)):
            raise ValueError(f"times_s must be {spec.frames} times that do not fall, got {given}")

    def choose(begin_s: float, finish_s: float) -> list[list[float]]:
        if times_s is not None:
            return [given]
        return [window_times(spec, begin_s, finish_s, jitter=jitter, generator=generator)]

    return _read(path, spec, choose, start_s, end_s, resize_short, limits, sequence_rate_hz)[0]


def read_clips(
    path: str | Path,
    spec: ClipSpec,
    *,
    clips: int,
    start_s: float | None = None,
    end_s: float | None = None,
    resize_short: int | None = None,
    limits: DecodeLimits = DecodeLimits(),
    sequence_rate_hz: float = SEQUENCE_RATE_HZ,
) -> list[Clip]:
    """Several clips of a video at the times of `multi_clip_times`, decoded once.

    Args:
        path: video file or folder of images.
        spec: T and the frame rate.
        clips: how many, at least 1.
        start_s: start of the stretch; None is the video's start.
        end_s: end of the stretch; None is the video's end.
        resize_short: shrink pictures to this short side, in pixels; smaller ones stay.
        limits: see `DecodeLimits`.
        sequence_rate_hz: frame rate of a folder of images.

    Raises:
        VideoError: the video is damaged or too short.
        ValueError: arguments that make no sense.
    """

    def choose(begin_s: float, finish_s: float) -> list[list[float]]:
        return multi_clip_times(spec, begin_s, finish_s, clips=clips)

    return _read(path, spec, choose, start_s, end_s, resize_short, limits, sequence_rate_hz)


def _read(
    path: str | Path,
    spec: ClipSpec,
    choose: Callable[[float, float], list[list[float]]],
    start_s: float | None,
    end_s: float | None,
    resize_short: int | None,
    limits: DecodeLimits,
    sequence_rate_hz: float,
) -> list[Clip]:
    """Clips at the times that `choose` gives for a stretch of the video, in one walk."""
    with _open(path, limits, sequence_rate_hz) as source:
        length_s = source.length_s()
        if start_s is not None and start_s >= length_s:
            raise VideoError(
                path, f"start_s {start_s:g} is not before the video's end at {length_s:.2f} s"
            )
        begin_s, finish_s = start_s or 0.0, length_s if end_s is None else end_s
        _check_stretch(begin_s, finish_s)
        clips_s = choose(begin_s, finish_s)
        moments_s = sorted({time_s for times_s in clips_s for time_s in times_s})

        def walk(
            source: _File | _Folder, from_s: float
        ) -> tuple[dict[float, _Shown], float | None]:
            pictures = source.pictures(from_s=from_s)
            chooser = _Chooser(path, pictures, len(moments_s), resize_short, limits)
            shown = {time_s: chooser.at(time_s) for time_s in moments_s}
            if finish_s >= length_s:
                chooser.finish()
            return shown, chooser.end_s

        from_s = max(0.0, moments_s[0])
        try:
            shown, video_end_s = walk(source, from_s)
        except (_SeekMissedError, VideoError):
            if from_s == 0.0:
                raise
            # Pictures around a seek may lack their references: read from the start instead.
            with _open(path, limits, sequence_rate_hz) as again:
                shown, video_end_s = walk(again, 0.0)
    return [
        _clip(
            path,
            [shown[time_s] for time_s in times_s],
            times_s,
            start_s=begin_s,
            end_s=finish_s,
            video_end_s=video_end_s,
        )
        for times_s in clips_s
    ]


def iter_windows(
    path: str | Path,
    spec: ClipSpec,
    *,
    window_s: float | None = None,
    resize_short: int | None = None,
    limits: DecodeLimits = DecodeLimits(),
    sequence_rate_hz: float = SEQUENCE_RATE_HZ,
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
    with _open(path, limits, sequence_rate_hz) as source:
        length_s = source.length_s() if window_s is None else window_s
        chooser = _Chooser(path, source.pictures(), spec.frames, resize_short, limits)
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


def _clip(
    path: str | Path,
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
        path: str | Path,
        pictures: Iterator[_Picture],
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
        self.chosen: tuple[_Picture, Tensor] | None = None
        clip_bytes = frames * self.width * self.height * 3
        if limits.max_clip_bytes is not None and clip_bytes > limits.max_clip_bytes:
            raise VideoError(
                path,
                f"{frames} frames of {self.width}x{self.height} take {clip_bytes} bytes, over the "
                f"limit of {limits.max_clip_bytes}; read it smaller with resize_short, or {_LIFT}",
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


# --- Sources of pictures ------------------------------------------------------------------------

PRECISION_S = 1e-3
"""Matroska rounds times to this: a picture that comes this much later is still taken as on time."""
_LIFT = "lift the limits with --no-decode-limits (DecodeLimits.unlimited()) if you trust the file"


@dataclass(frozen=True, eq=False)
class _Picture:
    """A decoded picture, still in FFmpeg's memory and format."""

    frame: av.VideoFrame
    timestamp_s: float
    duration_s: float

    @property
    def end_s(self) -> float:
        return self.timestamp_s + self.duration_s

    def size(self, resize_short: int | None = None) -> tuple[int, int]:
        """Width and height of the upright picture, shrunk to a short side."""
        width, height = self.frame.width, self.frame.height
        if _quarter_turns(self.frame) % 2:
            width, height = height, width
        short = min(width, height)
        if resize_short is None or short <= resize_short:
            return width, height
        scale = resize_short / short
        return max(1, round(width * scale)), max(1, round(height * scale))

    def rgb(self, *, width: int, height: int) -> np.ndarray:
        """The upright picture in this size, uint8 [H, W, 3]."""
        turns = _quarter_turns(self.frame)
        if turns % 2:
            width, height = height, width
        shrinks = width < self.frame.width or height < self.frame.height
        with av.logging.Capture():
            image = self.frame.to_ndarray(
                format="rgb24",
                width=width,
                height=height,
                interpolation="AREA" if shrinks else "BILINEAR",
                threads=1,  # a picture this small is converted sooner than threads wake up
            )
        return np.ascontiguousarray(np.rot90(image, turns))  # counterclockwise, as FFmpeg counts


def _quarter_turns(frame: av.VideoFrame) -> int:
    return round(frame.rotation / 90) % 4


class _SeekMissedError(Exception):
    """The first picture after a seek lies behind the wanted time."""


def _open(path: str | Path, limits: DecodeLimits, sequence_rate_hz: float) -> _File | _Folder:
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise VideoError(path, "no such file or folder; check the spelling") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise VideoError(path, f"cannot be reached: {_os_reason(error)}") from error
    if stat.S_ISDIR(mode):
        return _Folder(path, limits, sequence_rate_hz)
    if not stat.S_ISREG(mode):
        raise VideoError(path, "neither a file nor a folder; give a video or a folder of images")
    return _File(path, limits)


def _os_reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


class _Ffmpeg:
    """Runs calls into FFmpeg for one file; its exceptions become `VideoError`."""

    def __init__(self, path: Path, within: str = "") -> None:
        self.path, self.within = path, within

    @contextmanager
    def __call__(self, doing: str) -> Iterator[list[tuple[int, str, str]]]:
        with av.logging.Capture() as messages:
            try:
                yield messages
            except UnknownCodecError as error:
                raise self.error(f"{doing}: FFmpeg has no codec {error}") from error
            except (av.FFmpegError, OSError, OverflowError, UnicodeError, MemoryError) as error:
                reason = _os_reason(error)
                said = [m.strip() for level, _, m in messages if level <= av.logging.ERROR]
                if said:
                    reason += f" ({said[-1]})"
                raise self.error(f"{doing}: {reason}") from error

    def error(self, reason: str) -> VideoError:
        return VideoError(self.path, f"{self.within}{reason}")


class _File:
    """One opened video file and its default video stream."""

    def __init__(self, path: Path, limits: DecodeLimits) -> None:
        self.path, self.limits = path, limits
        self.ffmpeg = _Ffmpeg(path)
        if path.stat().st_size == 0:
            raise VideoError(path, "the file is empty")
        with self.ffmpeg("cannot be opened") as messages:
            # The prefix keeps a colon in a name from being read as a protocol; the list keeps a
            # playlist from reaching into the network.
            self.container = av.open(
                f"file:{path}",
                options={"protocol_whitelist": "file"},
                metadata_errors="replace",
            )
        try:
            self.stream = self._choose_stream()
            # A length that FFmpeg estimated from the bit rate is not an announcement.
            self.estimated = any("Estimating duration" in text for _, _, text in messages)
            self._prepare()
        except BaseException:
            self.container.close()
            raise

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def _choose_stream(self) -> VideoStream:
        if self.container.format.name in _TEXT_FORMATS:
            raise VideoError(self.path, "a text file, not a video")
        cover = av.stream.Disposition.attached_pic
        default = av.stream.Disposition.default
        streams = [s for s in self.container.streams.video if not s.disposition & cover]
        if not streams:
            kinds = sorted({str(s.type) for s in self.container.streams}) or ["nothing"]
            raise VideoError(self.path, f"no video in it, only {', '.join(kinds)}")
        flagged = [s for s in streams if s.disposition & default]
        return (flagged or streams)[0]

    def _prepare(self) -> None:
        stream, context = self.stream, self.stream.codec_context
        if context is None:
            raise VideoError(self.path, "FFmpeg has no decoder for its video")
        width, height = context.width, context.height
        _check_frame_size(self.path, width, height, self.limits)
        _check_total(self.path, stream.frames, stream.frames * width * height, self.limits)
        # One thread: the same messages in the same order every time, and loader workers that do
        # not fight for cores.
        context.thread_type = "NONE"
        context.thread_count = 1
        if self.limits.max_frame_pixels is not None:
            # Guards against a stream whose pictures are larger than its container says.
            context.options = {"max_pixels": str(max(self.limits.max_frame_pixels, 128 * 128))}

    @property
    def frame_rate_hz(self) -> float:
        for rate in (self.stream.average_rate, self.stream.guessed_rate, self.stream.base_rate):
            if rate is not None and 1e-3 <= rate <= 1e4:
                return float(rate)
        return SEQUENCE_RATE_HZ

    def announced_s(self) -> float | None:
        """Length of the video stream as the file states it, None where it does not."""
        stream = self.stream
        if self.estimated:
            return None
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        for key, value in stream.metadata.items():
            if key.upper().startswith("DURATION") and (seconds := _clock_s(value)) is not None:
                return seconds
        return self.container_s() if len(self.container.streams) == 1 else None

    def container_s(self) -> float | None:
        """Length of the longest stream as the file states it, None where it does not."""
        duration = self.container.duration
        return None if duration is None or self.estimated else duration / av.time_base

    def length_s(self) -> float:
        """Length of the video: as announced, or else as its packets (not decoded) tell."""
        announced = self.announced_s()
        if announced is not None and announced > 0:
            return announced
        last_s = first_s = None
        with self.ffmpeg("cannot be read"), _File(self.path, self.limits) as again:
            for packet in again.container.demux(again.stream):
                time = packet.dts if packet.pts is None else packet.pts
                if time is not None and packet.size:
                    begin = float(time * packet.time_base)
                    end = begin + float((packet.duration or 0) * packet.time_base)
                    first_s = begin if first_s is None else min(first_s, begin)
                    last_s = end if last_s is None else max(last_s, end)
        least_s = 1 / self.frame_rate_hz
        return least_s if last_s is None or first_s is None else max(last_s - first_s, least_s)

    def info(self, first: _Picture) -> VideoInfo:
        width, height = first.size()
        return VideoInfo(
            path=self.path,
            codec=self.stream.codec_context.name,
            width=width,
            height=height,
            rotation_deg=_quarter_turns(first.frame) * 90,
            frame_rate_hz=self.frame_rate_hz,
            duration_s=self.announced_s(),
            declared_frames=self.stream.frames or None,
        )

    def pictures(self, *, from_s: float = 0.0) -> Iterator[_Picture]:
        """Decode in order, from the key frame before `from_s`, to the end; then take stock."""
        yield from _Pass(self, from_s).run()


class _Pass:
    """One walk through the packets of a file that counts what came against what was promised."""

    def __init__(self, file: _File, from_s: float) -> None:
        self.file, self.from_s = file, from_s
        self.announced_s = file.announced_s()
        self.nominal_s = 1 / file.frame_rate_hz
        self.origin_s: float | None = None  # the file's own time of its first picture
        self.offset_s = 0.0  # what joined recordings, whose clocks start again, are moved by
        self.last: _Picture | None = None
        self.pictures = 0
        self.pixels = 0
        self.interlaced = False
        self.packets = 0  # that should give a picture each
        self.early_packets: list[float] = []  # times of packets before the first picture
        self.packet_s: float | None = None  # time of the packet before
        self.streams_end_s = 0.0  # where the last packet of any stream ends, in the file's time

    def run(self) -> Iterator[_Picture]:
        seeks = (
            self.from_s > _SEEK_MARGIN_S and self.file.container.format.name in _SEEKABLE_FORMATS
        )
        walk = self._walk()
        if not seeks:
            yield from walk
            self._take_stock()
            return
        next(walk)  # the first picture sets the clock
        assert self.origin_s is not None
        stream = self.file.stream
        assert stream.time_base is not None
        with self.file.ffmpeg("cannot seek"):
            target_s = self.origin_s + self.from_s - _SEEK_MARGIN_S
            self.file.container.seek(round(target_s / stream.time_base), stream=stream)
        self.last = None
        walk = self._walk()
        first = next(walk, None)
        if first is None or first.timestamp_s > self.from_s:
            raise _SeekMissedError
        yield first
        yield from walk

    def _walk(self) -> Iterator[_Picture]:
        file, stream = self.file, self.file.stream
        packets = file.container.demux()
        while True:
            where = f"decoding fails after {self.pictures} pictures"
            if self.announced_s is not None and self.last is not None:
                where += f", {self.last.end_s:.2f} s of {self.announced_s:.2f} s"
            with file.ffmpeg(where) as messages:
                packet = next(packets, None)
                if packet is None:
                    return
                ours = packet.stream_index == stream.index
                # Without data, a packet with a time is a dropped picture, one without is the end.
                flushes = packet.size == 0 and packet.dts is None
                frames = packet.decode() if ours and (packet.size or flushes) else []
                if packet.is_corrupt:
                    raise file.ffmpeg.error(f"{where}: its data ends inside a packet")
            self._listen(messages, where)
            if packet.size:
                self._count(packet, ours)
            for frame in frames:
                yield self._picture(cast(av.VideoFrame, frame), where)

    def _listen(self, messages: list[tuple[int, str, str]], where: str) -> None:
        """Decoders hide what they cannot decode, and say so only in their messages."""
        speakers = (self.file.stream.codec_context.name, self.file.container.format.name)
        for level, speaker, text in messages:
            if level <= av.logging.ERROR and speaker in speakers:
                raise self.file.ffmpeg.error(f"{where}: {text}")

    def _count(self, packet: av.Packet[Any], ours: bool) -> None:
        time = packet.dts if packet.pts is None else packet.pts
        time_s = None if time is None else float(time * packet.time_base)
        if time_s is not None:
            end_s = time_s + float((packet.duration or 0) * packet.time_base)
            self.streams_end_s = max(self.streams_end_s, end_s)
        if not ours:
            return
        since_s = 0.0 if time_s is None or self.packet_s is None else time_s - self.packet_s
        self.packet_s = time_s
        if packet.is_discard or _shows_nothing(packet, at_once=since_s < 0.5 * self.nominal_s):
            return
        # A recording cut out of a longer one may begin with pictures whose references are gone.
        if time_s is None or self.file.container.format.name in _DECODING_TIME_FORMATS:
            self.packets += 1
        elif self.origin_s is None:
            self.early_packets.append(time_s)
        else:
            self.packets += time_s >= self.origin_s

    def _picture(self, frame: av.VideoFrame, where: str) -> _Picture:
        file, limits = self.file, self.file.limits
        if frame.is_corrupt:
            raise file.ffmpeg.error(f"{where}: the next picture is damaged")
        self.pictures += 1
        self.pixels += frame.width * frame.height
        self.interlaced |= frame.interlaced_frame
        _check_frame_size(file.path, frame.width, frame.height, limits)
        _check_total(file.path, self.pictures, self.pixels, limits)
        picture = self._timed(frame)
        before_s = picture.timestamp_s if self.last is None else self.last.timestamp_s
        believed_s = max(before_s, self.announced_s or 0.0) + _JUMP_S
        if picture.timestamp_s > believed_s:
            raise file.ffmpeg.error(
                f"{where}: its clock jumps from {before_s:.2f} s to {picture.timestamp_s:.2f} s"
            )
        self.last = picture
        return picture

    def _timed(self, frame: av.VideoFrame) -> _Picture:
        decodes_only = self.file.container.format.name in _DECODING_TIME_FORMATS
        time = frame.dts if decodes_only else frame.pts
        time_base = frame.time_base or self.file.stream.time_base
        follows_s = 0.0 if self.last is None else self.last.end_s
        timestamp_s = follows_s
        duration_s = self.nominal_s
        if time_base is not None:
            if time is not None:
                file_s = float(time * time_base)
                if self.origin_s is None:
                    self.origin_s = file_s - follows_s
                    self.packets += sum(t >= self.origin_s for t in self.early_packets)
                timestamp_s = file_s - self.origin_s + self.offset_s
            if self.last is not None:
                if timestamp_s < self.last.timestamp_s - _RESTART_S:
                    self.offset_s += follows_s - timestamp_s
                    timestamp_s = follows_s
                timestamp_s = max(timestamp_s, self.last.timestamp_s)
            if frame.duration > 0:
                # Only as far as the file reaches: the last duration of a file is often invented.
                rest_s = (self.announced_s or 0.0) - timestamp_s
                duration_s = min(float(frame.duration * time_base), max(rest_s, self.nominal_s))
        return _Picture(frame, timestamp_s, duration_s)

    def _take_stock(self) -> None:
        """At the end of a whole file: did it give all that it announces?"""
        file = self.file
        if self.last is None:
            raise file.ffmpeg.error("no picture in it can be decoded")
        declared = file.stream.frames
        got = f"decoded {self.pictures}" + (f" of {declared} announced" if declared else "")
        # Fields of interlaced video may come in a packet each.
        if self.pictures < self.packets and not self.interlaced:
            raise file.ffmpeg.error(
                f"decoded {self.pictures} pictures from {self.packets} packets: some are damaged"
            )
        tolerance_s = 0.6 * self.nominal_s
        if file.container.format.name not in _EXACT_FORMATS:
            tolerance_s += 0.5
        # Some files announce where they end, others how long they last.
        end_s = self.last.end_s + max(0.0, self.origin_s or 0.0)
        container_s = file.container_s()
        if self.announced_s is not None:
            if end_s + tolerance_s < self.announced_s:
                raise file.ffmpeg.error(
                    f"{got} pictures, {self.last.end_s:.2f} s of {self.announced_s:.2f} s: "
                    "the file is cut short or damaged"
                )
        elif container_s is not None:
            if self.streams_end_s + tolerance_s + 0.1 < container_s:
                raise file.ffmpeg.error(
                    f"{got} pictures; data ends at {self.streams_end_s:.2f} s of "
                    f"{container_s:.2f} s: the file is cut short or damaged"
                )
        elif self.pictures < declared:
            raise file.ffmpeg.error(f"{got} pictures: the file is cut short or damaged")
        if file.container.format.name == "matroska,webm":
            try:
                with file.ffmpeg("cannot be read"), file.path.open("rb") as stream:
                    check_structure(stream)
            except StructureError as error:
                raise file.ffmpeg.error(str(error)) from None


_SEEK_MARGIN_S = 1.0
"""Seeking aims this much early: key frames are found by decoding time, which runs ahead."""
_RESTART_S = 1.0
"""A clock that falls back further than this started again; less is a disordered timestamp."""
_JUMP_S = 60.0
"""Longest step of the clock that is believed past the announced end."""


def _shows_nothing(packet: av.Packet[Any], *, at_once: bool) -> bool:
    """Whether a packet rightly gives no picture: hidden references and "as before" markers."""
    name = packet.stream.codec_context.name
    if name == "vp8":
        # show_frame (RFC 6386, section 9.1). Encoders stamp a hidden picture right after the one
        # before (libvpx, vp8_cx_iface.c); one with a time slot of its own was meant to be seen.
        return at_once and not memoryview(packet)[0] >> 4 & 1
    # An MPEG-4 picture that is not coded is its start code and a few bits of time.
    return name == "mpeg4" and packet.size <= 8


def _clock_s(text: str) -> float | None:
    """Seconds of a Matroska duration tag such as 00:00:10.333000000."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)\s*", text)
    if match is None:
        return None
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])


def _check_frame_size(path: Path, width: int, height: int, limits: DecodeLimits) -> None:
    most = limits.max_frame_pixels
    if most is not None and width * height > most:
        raise VideoError(
            path, f"pictures of {width}x{height} are over the limit of {most} pixels; {_LIFT}"
        )


def _check_total(path: Path, frames: int, pixels: int, limits: DecodeLimits) -> None:
    for count, most, what in (
        (frames, limits.max_frames, "pictures"),
        (pixels, limits.max_total_pixels, "pixels in all"),
    ):
        if most is not None and count > most:
            raise VideoError(path, f"{count} {what} are over the limit of {most}; {_LIFT}")


class _Folder:
    """A folder of images, in natural order, as a video of constant frame rate."""

    def __init__(self, path: Path, limits: DecodeLimits, frame_rate_hz: float) -> None:
        if not (math.isfinite(frame_rate_hz) and frame_rate_hz > 0):
            raise ValueError(f"sequence_rate_hz must be above 0, got {frame_rate_hz}")
        self.path, self.limits, self.frame_rate_hz = path, limits, frame_rate_hz
        try:
            files = [f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES]
        except OSError as error:
            raise VideoError(path, f"cannot be listed: {_os_reason(error)}") from error
        self.images = sorted((f for f in files if not f.name.startswith(".")), key=_natural_key)
        if not self.images:
            endings = " ".join(sorted(IMAGE_SUFFIXES))
            raise VideoError(
                path, f"a folder without images ({endings}); give a video file instead?"
            )
        _check_total(path, len(self.images), 0, limits)

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def length_s(self) -> float:
        """Length of the video: one slot per image."""
        return len(self.images) / self.frame_rate_hz

    def info(self, first: _Picture) -> VideoInfo:
        width, height = first.size()
        return VideoInfo(
            path=self.path,
            codec="images",
            width=width,
            height=height,
            rotation_deg=_quarter_turns(first.frame) * 90,
            frame_rate_hz=self.frame_rate_hz,
            duration_s=self.length_s(),
            declared_frames=len(self.images),
        )

    def pictures(self, *, from_s: float = 0.0) -> Iterator[_Picture]:
        """Decode in order, from the image before `from_s`."""
        size = None
        begin = min(max(0, math.floor(from_s * self.frame_rate_hz) - 1), len(self.images) - 1)
        pixels = 0
        for index in range(begin, len(self.images)):
            picture = self._image(index)
            size = size or picture.size()
            if picture.size() != size:
                raise VideoError(
                    self.path,
                    f"{self.images[index].name} is {'x'.join(map(str, picture.size()))}, "
                    f"{self.images[begin].name} is {'x'.join(map(str, size))}; "
                    "all images of a sequence must have one size",
                )
            pixels += size[0] * size[1]
            _check_total(self.path, index + 1, pixels, self.limits)
            yield picture

    def _image(self, index: int) -> _Picture:
        image = self.images[index]
        ffmpeg = _Ffmpeg(self.path, within=f"{image.name}: ")
        # Opened by us: FFmpeg takes a % in the name of an image for a pattern.
        with (
            ffmpeg("cannot be decoded") as messages,
            image.open("rb") as file,
            av.open(file, "r", metadata_errors="replace") as container,
        ):
            if not container.streams.video:
                raise ffmpeg.error("not an image")
            stream = container.streams.video[0]
            context = stream.codec_context
            _check_frame_size(self.path, context.width, context.height, self.limits)
            context.thread_type, context.thread_count = "NONE", 1
            if self.limits.max_frame_pixels is not None:
                context.options = {"max_pixels": str(max(self.limits.max_frame_pixels, 128 * 128))}
            frame = next(container.decode(stream), None)
            said = [text for level, name, text in messages if level <= av.logging.ERROR]
            if frame is None or frame.is_corrupt or said:
                raise ffmpeg.error(f"damaged ({said[-1] if said else 'no picture in it'})")
        return _Picture(frame, index / self.frame_rate_hz, 1 / self.frame_rate_hz)


def _natural_key(path: Path) -> tuple[list[tuple[bool, int, str]], str]:
    """Sorts frame_2 before frame_10; the plain name decides between 01 and 1."""
    parts = [p for p in re.split(r"(\d+)", path.name) if p]
    return [(not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts], path.name


# --- Writing ------------------------------------------------------------------------------------


def write_video(
    path: str | Path,
    frames: Iterable[UInt8[np.ndarray, "H W 3"] | UInt8[Tensor, "H W 3"]],
    frame_rate_hz: float,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
) -> None:
    """Write pictures to a video file as they come; the file appears whole or not at all.

    The same pictures give the same bytes on every run with one version of FFmpeg.

    Args:
        path: its ending names the container; an existing file is replaced. The folder must exist.
        frames: RGB pictures of one size, at least one. Odd sizes are widened by one repeated row
            or column, as 4:2:0 video needs.
        frame_rate_hz: pictures per second.
        codec: FFmpeg's name of the encoder.
        options: for the encoder; None is good quality for libx264 and its own defaults for others.

    Raises:
        VideoError: the file cannot be written.
        ValueError: no pictures, or pictures that are not uint8 [H, W, 3] of one size.
    """
    path = Path(path)
    if not (math.isfinite(frame_rate_hz) and frame_rate_hz > 0):
        raise ValueError(f"frame_rate_hz must be above 0, got {frame_rate_hz}")
    if options is None:
        options = {"crf": "18", "preset": "veryfast"} if codec == "libx264" else {}
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        _encode(
            part,
            path,
            iter(frames),
            Fraction(frame_rate_hz).limit_denominator(1001),
            codec,
            options,
        )
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _encode(
    part: Path,
    path: Path,
    frames: Iterator[UInt8[np.ndarray, "H W 3"] | UInt8[Tensor, "H W 3"]],
    rate: Fraction,
    codec: str,
    options: dict[str, str],
) -> None:
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{path}: no frames to write")
    H, W = _checked(first, None).shape[:2]
    ffmpeg = _Ffmpeg(path)
    with ffmpeg("cannot be written"):
        # Without random identifiers, and without the library's version in the file.
        container = av.open(f"file:{part}", "w", options={"fflags": "+bitexact"})
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
