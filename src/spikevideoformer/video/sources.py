"""Where pictures come from: one opened video file, or a folder of images taken as a video.

`video` reads through these two. Both tell what they announce, give their pictures in order, each
with its time, and raise `VideoError` for damage, for a tail that is missing, and for whatever is
over the `DecodeLimits`.
"""

from __future__ import annotations

import logging
import math
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import av
import av.logging
import numpy as np
from av.codec.codec import UnknownCodecError
from av.video.stream import VideoStream

from spikevideoformer.events.spec import is_recording
from spikevideoformer.video.matroska import StructureError, check_structure

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


# --- Opening ------------------------------------------------------------------------------------

LIFT = "lift the limits with --no-decode-limits (DecodeLimits.unlimited()) if you trust the file"
"""What a refusal for a limit ends with."""

RECORDING_REFUSED = (
    "a recording of events, and this network sees pictures; train one with --input events"
)

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/{1,2}(?=[^/])", re.IGNORECASE)  # Path makes one slash
_CAMERA = re.compile(r"\d{1,3}|/dev/video\d*", re.ASCII)


def live_source(path: str) -> str | None:
    """Why what is meant is no recording: the number or device of a camera, or an address.

    Args:
        path: as it was given.

    Returns:
        The reason and the remedy; None for paths of files.
    """
    if _ADDRESS.match(path):
        return "addresses are not read yet; download or record it, and give the file"
    if _CAMERA.fullmatch(path) and not os.path.isfile(path) and not os.path.isdir(path):
        return "cameras are not read yet; record a video first, and give the file"
    return None


@runtime_checkable
class Shown(Protocol):
    """A picture of a source, not yet in the form and size that is asked for."""

    @property
    def timestamp_s(self) -> float:
        """When it appears, from the first picture on."""

    @property
    def duration_s(self) -> float:
        """How long it is shown."""

    @property
    def end_s(self) -> float:
        """Until when it is shown."""

    def size(self, resize_short: int | None = None) -> tuple[int, int]:
        """Width and height of the upright picture, shrunk to a short side."""

    def rgb(self, *, width: int, height: int) -> np.ndarray:
        """The upright picture in this size, uint8 [H, W, 3]."""


@runtime_checkable
class Source(Protocol):
    """What is opened: a video file, a folder of images, or events."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *_: object) -> None: ...

    def length_s(self) -> float:
        """Length of the video."""

    def info(self, first: Any) -> VideoInfo:
        """What it announces, with its first picture."""

    def pictures(self, *, from_s: float = 0.0) -> Iterator[Shown]:
        """Its pictures in order, from one at or before `from_s`."""


class SeenPath(os.PathLike[str], ABC):
    """A path that says itself how it is opened, in the place of the path of a video."""

    @abstractmethod
    def opened(self, limits: DecodeLimits, sequence_rate_hz: float) -> Source:
        """As `open_source`."""


VideoName = str | os.PathLike[str]
"""Path of a video file or of a folder of images, or a `SeenPath`."""


def open_source(path: VideoName, limits: DecodeLimits, sequence_rate_hz: float) -> Source:
    """Open what stands at a path, to be used in a ``with``.

    Args:
        path: video file or folder of images, or a path that says how it is opened.
        limits: see `DecodeLimits`.
        sequence_rate_hz: frame rate of a folder of images.

    Raises:
        VideoError: nothing there that can be opened.
        ValueError: a frame rate that is not above 0.
    """
    if not (math.isfinite(sequence_rate_hz) and sequence_rate_hz > 0):
        raise ValueError(f"sequence_rate_hz must be above 0, got {sequence_rate_hz}")
    if isinstance(path, SeenPath):
        return path.opened(limits, sequence_rate_hz)
    given, path = str(path), Path(path)
    if (reason := live_source(given)) is not None:
        raise VideoError(given, reason)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise VideoError(path, "no such file or folder; check the spelling") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise VideoError(path, f"cannot be reached: {_os_reason(error)}") from error
    if stat.S_ISDIR(mode):
        return ImageFolder(path, limits, sequence_rate_hz)
    if not stat.S_ISREG(mode):
        raise VideoError(path, "neither a file nor a folder; give a video or a folder of images")
    if is_recording(path):
        raise VideoError(path, RECORDING_REFUSED)
    return VideoFile(path, limits)


# --- Pictures ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Picture:
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


class SeekMissedError(Exception):
    """The first picture after a seek lies behind the wanted time."""


def _os_reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


class Ffmpeg:
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


# --- Files ---------------------------------------------------------------------------------------


class VideoFile:
    """One opened video file and its default video stream."""

    def __init__(self, path: Path, limits: DecodeLimits) -> None:
        self.path, self.limits = path, limits
        self.ffmpeg = Ffmpeg(path)
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

    def __enter__(self) -> VideoFile:
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
        check_total(self.path, stream.frames, stream.frames * width * height, self.limits)
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
        with self.ffmpeg("cannot be read"), VideoFile(self.path, self.limits) as again:
            for packet in again.container.demux(again.stream):
                time = packet.dts if packet.pts is None else packet.pts
                if time is not None and packet.size:
                    begin = float(time * packet.time_base)
                    end = begin + float((packet.duration or 0) * packet.time_base)
                    first_s = begin if first_s is None else min(first_s, begin)
                    last_s = end if last_s is None else max(last_s, end)
        least_s = 1 / self.frame_rate_hz
        return least_s if last_s is None or first_s is None else max(last_s - first_s, least_s)

    def info(self, first: Picture) -> VideoInfo:
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

    def pictures(self, *, from_s: float = 0.0) -> Iterator[Picture]:
        """Decode in order, from the key frame before `from_s`, to the end; then take stock."""
        yield from _Pass(self, from_s).run()


class _Pass:
    """One walk through the packets of a file that counts what came against what was promised."""

    def __init__(self, file: VideoFile, from_s: float) -> None:
        self.file, self.from_s = file, from_s
        self.announced_s = file.announced_s()
        self.nominal_s = 1 / file.frame_rate_hz
        self.origin_s: float | None = None  # the file's own time of its first picture
        self.offset_s = 0.0  # what joined recordings, whose clocks start again, are moved by
        self.last: Picture | None = None
        self.pictures = 0
        self.pixels = 0
        self.interlaced = False
        self.packets = 0  # that should give a picture each
        self.early_packets: list[float] = []  # times of packets before the first picture
        self.packet_s: float | None = None  # time of the packet before
        self.streams_end_s = 0.0  # where the last packet of any stream ends, in the file's time

    def run(self) -> Iterator[Picture]:
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
            raise SeekMissedError
        yield first
        yield from walk

    def _walk(self) -> Iterator[Picture]:
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

    def _picture(self, frame: av.VideoFrame, where: str) -> Picture:
        file, limits = self.file, self.file.limits
        if frame.is_corrupt:
            raise file.ffmpeg.error(f"{where}: the next picture is damaged")
        self.pictures += 1
        self.pixels += frame.width * frame.height
        self.interlaced |= frame.interlaced_frame
        _check_frame_size(file.path, frame.width, frame.height, limits)
        check_total(file.path, self.pictures, self.pixels, limits)
        picture = self._timed(frame)
        before_s = picture.timestamp_s if self.last is None else self.last.timestamp_s
        believed_s = max(before_s, self.announced_s or 0.0) + _JUMP_S
        if picture.timestamp_s > believed_s:
            raise file.ffmpeg.error(
                f"{where}: its clock jumps from {before_s:.2f} s to {picture.timestamp_s:.2f} s"
            )
        self.last = picture
        return picture

    def _timed(self, frame: av.VideoFrame) -> Picture:
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
        return Picture(frame, timestamp_s, duration_s)

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
            path, f"pictures of {width}x{height} are over the limit of {most} pixels; {LIFT}"
        )


def check_total(path: Path, frames: int, pixels: int, limits: DecodeLimits) -> None:
    """Raise VideoError for more pictures, or pixels in all of them, than the limits allow."""
    for count, most, what in (
        (frames, limits.max_frames, "pictures"),
        (pixels, limits.max_total_pixels, "pixels in all"),
    ):
        if most is not None and count > most:
            raise VideoError(path, f"{count} {what} are over the limit of {most}; {LIFT}")


# --- Folders of images ---------------------------------------------------------------------------


class ImageFolder:
    """A folder of images, in natural order, as a video of constant frame rate."""

    def __init__(self, path: Path, limits: DecodeLimits, frame_rate_hz: float) -> None:
        self.path, self.limits, self.frame_rate_hz = path, limits, frame_rate_hz
        try:
            files = [f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES]
        except OSError as error:
            raise VideoError(path, f"cannot be listed: {_os_reason(error)}") from error
        self.images = sorted((f for f in files if not f.name.startswith(".")), key=natural_key)
        if not self.images:
            endings = " ".join(sorted(IMAGE_SUFFIXES))
            raise VideoError(
                path, f"a folder without images ({endings}); give a video file instead?"
            )
        check_total(path, len(self.images), 0, limits)

    def __enter__(self) -> ImageFolder:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def length_s(self) -> float:
        """Length of the video: one slot per image."""
        return len(self.images) / self.frame_rate_hz

    def info(self, first: Picture) -> VideoInfo:
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

    def pictures(self, *, from_s: float = 0.0) -> Iterator[Picture]:
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
            check_total(self.path, index + 1, pixels, self.limits)
            yield picture

    def _image(self, index: int) -> Picture:
        image = self.images[index]
        ffmpeg = Ffmpeg(self.path, within=f"{image.name}: ")
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
        return Picture(frame, index / self.frame_rate_hz, 1 / self.frame_rate_hz)


def natural_key(path: Path) -> tuple[list[tuple[bool, int, str]], str]:
    """Sorts frame_2 before frame_10; the plain name decides between 01 and 1."""
    parts = [p for p in re.split(r"(\d+)", path.name) if p]
    return [(not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts], path.name
