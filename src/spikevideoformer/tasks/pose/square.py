"""The square of a picture that a network for poses sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from spikevideoformer.data.transforms import resized

PERSON_MARGIN = 1.25
"""Side of the square around a person, over the larger extent of the labelled joints."""
MOST_SIDE = 4
"""Side of a square over the longer side of the picture, at most: a cut holds all of it in memory,
and points that are labelled wrongly can ask for any."""


@dataclass(frozen=True, kw_only=True)
class Square:
    """The part of a picture that the network sees, in whole pixels; may reach over its borders."""

    left: int
    top: int
    side: int

    @classmethod
    def of_picture(cls, height: int, width: int) -> Square:
        """The smallest square, in the middle, that shows the whole picture."""
        side = max(height, width)
        return cls(left=(width - side) // 2, top=(height - side) // 2, side=side)

    @classmethod
    def of_person(cls, points: Float[np.ndarray, "*n 2"]) -> Square | None:
        """Around points (x, y) in pixels, those that are NaN left out; None where there are none.

        Its side is `PERSON_MARGIN` times their larger extent.
        """
        known = points[np.isfinite(points).all(-1)]
        if not len(known):
            return None
        low, high = known.min(0), known.max(0)
        side = max(2, round(float((high - low).max()) * PERSON_MARGIN))
        left, top = (round(float(middle) - side / 2) for middle in (low + high) / 2)
        return cls(left=left, top=top, side=side)

    def moved(self, zoom: float, right: float, down: float) -> Square:
        """Another one, its side times `zoom`, its middle moved by parts of the side."""
        side = max(2, round(self.side * zoom))
        left = round(self.left + self.side * (0.5 + right) - side / 2)
        return Square(
            left=left, top=round(self.top + self.side * (0.5 + down) - side / 2), side=side
        )

    def to_input(self, points: Float[np.ndarray, "*n 2"], size: int) -> Float[np.ndarray, "*n 2"]:
        """Points of the picture as points of an input of `size` pixels."""
        return (points - np.array([self.left, self.top])) * (size / self.side)

    def cut(self, pictures: Tensor, size: int, margin: Tensor) -> Tensor:
        """The square as pictures of `size` pixels.

        Args:
            pictures: [T, H, W, C], uint8.
            size: height and width of the result.
            margin: colour [C] of what lies outside of the picture.

        Returns:
            [T, C, size, size].
        """
        return resized(self.part(pictures, margin), (size, size))

    def part(self, pictures: Tensor, margin: Tensor) -> Tensor:
        """The same as `cut`, in the pixels of the pictures and any type: [T, side, side, C]."""
        bottom, right = self.top + self.side, self.left + self.side
        inside = pictures[:, max(0, self.top) : max(0, bottom), max(0, self.left) : max(0, right)]
        if inside.shape[1:3] == (self.side, self.side):
            return inside
        whole = margin.to(pictures).expand(len(pictures), self.side, self.side, -1).clone()
        if inside.numel():
            y, x = max(0, -self.top), max(0, -self.left)
            whole[:, y : y + inside.shape[1], x : x + inside.shape[2]] = inside
        return whole
