"""One decoded picture as viewers show it: upright, with square pixels, on white where clear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import av
import av.logging
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from jaxtyping import UInt8

from spikevideoformer.video.interface import VideoError, shrunk

WIDEST_PIXEL = 10.0
"""Widest or highest pixel that is believed, in its other side; HDV has 1.33, wide DVD 1.42."""


@dataclass(frozen=True)
class Turn:
    """One of the eight ways in which a stored picture is turned and mirrored to be upright.

    Args:
        quarters: turns counterclockwise by 90 degrees, 0 to 3.
        mirrored: whether left and right are exchanged, after the turn.
    """

    quarters: int = 0
    mirrored: bool = False

    @classmethod
    def of_exif(cls, orientation: int) -> Turn:
        """Of the tag Orientation (Exif 2.32, table 6); what is no such number turns nothing."""
        return _TURN_OF_EXIF.get(orientation, cls())

    @classmethod
    def of_frame(cls, frame: av.VideoFrame, path: Path) -> Turn:
        """Of the display matrix that comes with a picture.

        Raises:
            VideoError: it asks for something else than quarter turns and mirrors.
        """
        if (matrix := _display_matrix(frame)) is None:
            return cls(round(frame.rotation / 90) % 4)
        a, b, c, d = matrix
        if a * d == b * c:
            return cls()  # players take a matrix that flattens the picture for none
        # Where x and y (downwards) of the stored picture go; their lengths are in the pixel ratio.
        x, y = math.hypot(a, b), math.hypot(c, d)
        signs = [a / x, b / x, c / y, d / y]
        nearest = [round(sign) for sign in signs]
        off = max(abs(s - n) for s, n in zip(signs, nearest, strict=True))
        if off > 0.02 or tuple(nearest) not in _TURN_OF_MATRIX:
            raise VideoError(
                path,
                "it is to be shown turned by an angle that is no multiple of 90 degrees, or skewed;"
                " turn its pictures themselves, for example with ffmpeg",
            )
        return _TURN_OF_MATRIX[tuple(nearest)]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The upright picture of a stored one [H, W, C]."""
        image = np.rot90(image, self.quarters)
        return np.ascontiguousarray(image[:, ::-1] if self.mirrored else image)


_TURN_OF_EXIF = {
    1: Turn(0), 2: Turn(0, True), 3: Turn(2), 4: Turn(2, True),
    5: Turn(3, True), 6: Turn(3), 7: Turn(1, True), 8: Turn(1),
}  # fmt: skip


def _matrices() -> dict[tuple[int, ...], Turn]:
    """The matrix (a, b, c, d), x' = a x + c y and y' = b x + d y, of each turn."""
    found: dict[tuple[int, ...], Turn] = {}
    for quarters, (a, b, c, d) in enumerate([(1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1),
                                             (0, 1, -1, 0)]):  # fmt: skip
        found[a, b, c, d] = Turn(quarters)
        found[-a, b, -c, d] = Turn(quarters, True)
    return found


_TURN_OF_MATRIX = _matrices()


def _display_matrix(frame: av.VideoFrame) -> Sequence[int] | None:
    try:
        # Not `frame.side_data`, which the frame keeps and which keeps the frame: a circle of
        # megabytes, until the collector of garbage comes by, which counts objects.
        data = cast(Any, SideDataContainer)(frame).get(Type.DISPLAYMATRIX)
    except ValueError:  # side data of a kind that PyAV does not know, such as Exif
        return None
    if data is None:
        return None
    matrix = np.frombuffer(memoryview(data), np.int32)
    a, b, c, d = (int(matrix[place]) for place in (0, 1, 3, 4))
    return a, b, c, d


def on_white(rgba: UInt8[np.ndarray, "H W 4"]) -> UInt8[np.ndarray, "H W 3"]:
    """A picture with alpha, laid on white as a page does; what it hides does not show."""
    alpha = rgba[..., 3:].astype(np.uint16)
    mixed = rgba[..., :3] * alpha + 255 * (255 - alpha)  # at most 255 * 255: it fits 16 bits
    return ((mixed + 127) // 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture, still in FFmpeg's memory and format.

    Args:
        frame: as it is stored.
        timestamp_s: when it appears, from the first picture on.
        duration_s: how long it is shown.
        turn: what makes it upright.
        pixel_ratio: width of its pixels by their height.
    """

    frame: av.VideoFrame
    timestamp_s: float
    duration_s: float
    turn: Turn = Turn()
    pixel_ratio: float = 1.0

    @property
    def end_s(self) -> float:
        return self.timestamp_s + self.duration_s

    def size(self, resize_short: int | None = None) -> tuple[int, int]:
        """Width and height as it is shown, shrunk to a short side."""
        width, height = square(self.frame.width, self.frame.height, self.pixel_ratio)
        if self.turn.quarters % 2:
            width, height = height, width
        return shrunk(width, height, resize_short)

    def rgb(self, *, width: int, height: int) -> np.ndarray:
        """The picture as it is shown, in this size, uint8 [H, W, 3]."""
        if self.turn.quarters % 2:
            width, height = height, width
        shrinks = width < self.frame.width or height < self.frame.height
        frame = self.frame
        with av.logging.Capture():
            if any(component.is_alpha for component in frame.format.components):
                # On white before it is scaled: colours that are hidden do not run out.
                frame = av.VideoFrame.from_ndarray(on_white(frame.to_ndarray(format="rgba")))
            image = frame.to_ndarray(
                format="rgb24",
                width=width,
                height=height,
                interpolation="AREA" if shrinks else "BILINEAR",
                threads=1,  # a picture this small is converted sooner than threads wake up
            )
        return self.turn(image)


def square(width: int, height: int, pixel_ratio: float) -> tuple[int, int]:
    """Size with square pixels, none of them lost: the narrow side of a pixel is drawn out."""
    if pixel_ratio >= 1:
        return round(width * pixel_ratio), height
    return width, round(height / pixel_ratio)
