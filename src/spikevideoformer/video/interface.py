"""What reading video is made of: what is announced, limited and raised, and what a source gives."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict, runtime_checkable

import numpy as np

VIDEO_SUFFIXES = frozenset(
    ".avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv .3gp".split()
)
"""Endings by which a video is found in a folder; a file named outright may have any ending."""
IMAGE_SUFFIXES = frozenset(".bmp .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split())
"""Endings of the pictures of an image-sequence folder."""
SEQUENCE_RATE_HZ = 25.0
"""Frame rate of an image-sequence folder where none is given: FFmpeg's own default."""


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


class Reading(TypedDict, total=False):
    """How a video is read, for all that reads one.

    Attributes:
        limits: against files that unpack to far more than they seem.
        sequence_rate_hz: frame rate of a folder of images, `SEQUENCE_RATE_HZ` where nobody says.
    """

    limits: DecodeLimits
    sequence_rate_hz: float


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


LIFT = "lift the limits with --no-decode-limits (DecodeLimits.unlimited()) if you trust the file"
"""What a refusal for a limit ends with."""


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


class SeekMissedError(Exception):
    """The first picture after a seek lies behind the wanted time."""


def shrunk(width: int, height: int, resize_short: int | None) -> tuple[int, int]:
    """Width and height brought to a short side; what is smaller, or not to be resized, stays."""
    short = min(width, height)
    if resize_short is None or short <= resize_short:
        return width, height
    scale = resize_short / short
    return max(1, round(width * scale)), max(1, round(height * scale))


def check_frame_size(path: Path, width: int, height: int, limits: DecodeLimits) -> None:
    """Raise VideoError for pictures that are larger than the limits allow."""
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


def natural_key(path: Path) -> tuple[list[tuple[bool, int, str]], str]:
    """Sorts frame_2 before frame_10; the plain name decides between 01 and 1."""
    parts = [p for p in re.split(r"(\d+)", path.name) if p]
    return [(not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts], path.name
