"""WebP, AVIF and TIFF, of which FFmpeg reads one picture at most: animations and stacks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from spikevideoformer.video.interface import (
    DecodeLimits,
    VideoError,
    VideoInfo,
    check_frame_size,
    check_total,
)
from spikevideoformer.video.picture import Picture, Turn
from spikevideoformer.video.stills import IMAGE_DAMAGE, as_rgb, exif_orientation

_FORMATS = ("WEBP", "AVIF", "TIFF")
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_SHORTEST_MS, _USUAL_MS = 10, 100
"""Browsers show a picture that is to stay for up to 10 ms for 100 ms."""


def _brands(head: bytes) -> set[bytes]:
    """Brands of an ISO file, from its first box."""
    if head[4:8] != b"ftyp":
        return set()
    size = min(int.from_bytes(head[:4]), len(head))
    return {head[8:12], *(head[at : at + 4] for at in range(16, size - 3, 4))}


def shows_pages(head: bytes) -> bool:
    """Whether a file begins like WebP, AVIF or TIFF."""
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    tiff = head[:4] in (b"II*\0", b"MM\0*")
    return webp or tiff or bool(_brands(head) & {b"avif", b"avis"})


def refuse_heif(path: Path, head: bytes) -> None:
    """HEIC pictures are mosaics, of which FFmpeg gives the first tile.

    Raises:
        VideoError: it is one.
    """
    if _brands(head) & _HEIF_BRANDS and head[8:12] in _HEIF_BRANDS:
        raise VideoError(path, "a HEIF picture (HEIC); save it as JPEG or PNG")


class PagedImage:
    """One opened file of pictures, read by Pillow; one without times plays at a given rate."""

    def __init__(self, path: Path, limits: DecodeLimits, rate_hz: float) -> None:
        self.path, self.limits, self.rate_hz = path, limits, rate_hz
        with self._reading("cannot be opened"):
            self.image = Image.open(path, formats=_FORMATS)
        try:
            with self._reading("cannot be opened"):
                self.count = int(getattr(self.image, "n_frames", 1))
                self.turn = Turn()
                if self.image.format == "WEBP":  # Pillow turns the others
                    self.turn = Turn.of_exif(exif_orientation(self.image))
                    if self.count > 1:
                        # Where no picture covers the canvas it is clear, though no picture is.
                        webp: Any = self.image
                        webp._mode = webp.rawmode = "RGBA"
            width, height = self.image.size
            check_frame_size(path, width, height, limits)
            check_total(path, self.count, self.count * width * height, limits)
        except BaseException:
            self.image.close()
            raise

    def __enter__(self) -> PagedImage:
        return self

    def __exit__(self, *_: object) -> None:
        self.image.close()

    def length_s(self) -> float:
        """Length of the video, by what each picture says."""
        if self.image.format == "TIFF" or self.count == 1:  # they say nothing
            return sum([1 / self.rate_hz] * self.count)
        return sum(duration_s for _, duration_s in self._decoded())

    def info(self, first: Picture) -> VideoInfo:
        width, height = first.size()
        return VideoInfo(
            path=self.path,
            codec=str(self.image.format).lower(),
            width=width,
            height=height,
            rotation_deg=first.turn.quarters * 90,
            frame_rate_hz=1 / first.duration_s,
            duration_s=None,
            declared_frames=self.count,
        )

    def pictures(self, *, from_s: float = 0.0) -> Iterator[Picture]:
        """Decode in order, from the first picture."""
        at_s, size = 0.0, None
        for rgb, duration_s in self._decoded():
            picture = Picture(av.VideoFrame.from_ndarray(rgb), at_s, duration_s, self.turn)
            size = size or picture.size()
            if picture.size() != size:
                raise VideoError(
                    self.path,
                    f"its pictures have different sizes, {'x'.join(map(str, size))} and "
                    f"{'x'.join(map(str, picture.size()))}; save them one by one",
                )
            yield picture
            at_s += duration_s

    def _decoded(self) -> Iterator[tuple[UInt8[np.ndarray, "H W 3"], float]]:
        """Pictures as they are stored, and how long each is shown, in seconds."""
        for index in range(self.count):
            with self._reading(f"decoding fails after {index} pictures"):
                self.image.seek(index)
                self.image.load()
                rgb = as_rgb(self.image)
            yield rgb, self._duration_s()

    def _duration_s(self) -> float:
        told = self.image.info.get("duration")  # in ms
        if self.image.format == "TIFF" or self.count == 1 or not isinstance(told, (int, float)):
            return 1 / self.rate_hz
        return told / 1000 if told > _SHORTEST_MS else _USUAL_MS / 1000

    @contextmanager
    def _reading(self, doing: str) -> Iterator[None]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Pillow's own limit; ours is looked at
                yield
        except IMAGE_DAMAGE as error:
            if isinstance(error, VideoError):
                raise
            raise VideoError(self.path, f"{doing}: {error or type(error).__name__}") from error
