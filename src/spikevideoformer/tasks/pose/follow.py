"""A square that goes with a person: found by the person mask of the box, kept by the joints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from spikevideoformer.inference.base import Predictor
from spikevideoformer.models.box import OF_TASK
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.task import get_task
from spikevideoformer.tasks.pose.square import Square

LOOK_S = 0.5
"""Seconds of video from one look at the whole picture to the next."""
SAME = 0.3
"""Intersection over union of two squares around one person, at least."""
LEAST_AREA = 0.002
"""Share of the picture that a person takes, at least; smaller patches are noise of a mask."""
_MASK_SIDE = 96  # pixels; patches are told apart in a mask of this size
_MOST_CHANGE = 1.5  # of the side, from one window to the next
_LEAST = 0.5  # of the side when somebody was last seen or told: joints alone make it no smaller
_MOST_LONG = 4  # longer pictures show no person whom the mask could know

Finder = Callable[[UInt8[np.ndarray, "H W 3"]], list[Square]]
"""Squares around the people of a picture, the largest first."""


def person_finder(device: str) -> Finder:
    """Find people by `svf/person-mask`, the network of the box.

    Raises:
        ValueError: it is not there.
    """
    model = SpikeVideoFormer.from_pretrained(OF_TASK["segmentation"])
    segmenter: Predictor[Any] = get_task(model.task).predictor()(model, device=device)
    person = segmenter.classes.index("person")

    def find(image: UInt8[np.ndarray, "H W 3"]) -> list[Square]:
        if max(image.shape[:2]) > _MOST_LONG * min(image.shape[:2]):
            return []
        return squares_of(segmenter.predict(image[None], frame_rate_hz=1.0).masks[0] == person)

    return find


def squares_of(mask: Bool[np.ndarray, "H W"]) -> list[Square]:
    """A square around each patch of a mask that is no noise, the largest patch first."""
    stride = max(1, math.ceil(max(mask.shape) / _MASK_SIDE))
    found = []
    for patch in _patches(mask[::stride, ::stride]):
        y, x = np.nonzero(patch)
        if len(y) >= LEAST_AREA * patch.size:
            corners = np.array([[x.min(), y.min()], [x.max() + 1, y.max() + 1]]) * stride
            found.append((len(y), Square.of_person(corners.astype(float))))
    return [square for _, square in sorted(found, key=lambda f: -f[0]) if square is not None]


def _patches(mask: Bool[np.ndarray, "h w"]) -> Iterable[Bool[np.ndarray, "h w"]]:
    """The connected parts of a mask: the largest number in reach spreads until nothing changes."""
    inside = torch.from_numpy(mask)
    numbers = torch.arange(1.0, mask.size + 1).view(mask.shape) * inside
    while True:
        spread = torch.nn.functional.max_pool2d(numbers[None], 3, 1, 1)[0] * inside
        if torch.equal(spread, numbers):
            break
        numbers = spread
    for number in numbers.unique().tolist():
        if number:
            yield (numbers == number).numpy()


def overlap(a: Square, b: Square) -> float:
    """Intersection over union of two squares."""
    width, height = (
        max(0, min(s + a.side, t + b.side) - max(s, t))
        for s, t in ((a.left, b.left), (a.top, b.top))
    )
    shared = width * height
    return shared / (a.side**2 + b.side**2 - shared)


class Follower:
    """Where the person is, from one window of frames to the next.

    Begins at `start`, or where `find` sees somebody; from then on the square is that of the joints
    as the network found them in the last frame. Every `LOOK_S` the whole picture is looked at. Who
    is in the square (their squares overlap by `SAME` at least) draws it half of the way, as joints
    that are wrong would lead it away. Where somebody was seen in the square before, and now only
    elsewhere, it jumps to the nearest one.

    Args:
        find: sees people.
        start: None: the largest person, or until there is one the whole picture.
    """

    def __init__(self, find: Finder, start: Square | None) -> None:
        self._find, self._square = find, start
        self._least = 0.0 if start is None else _LEAST * start.side
        self._looked_s, self._seen = -math.inf, False

    @property
    def sees_somebody(self) -> bool:
        """Whether a person was ever found, or told."""
        return self._square is not None

    def square(self, image: UInt8[np.ndarray, "H W 3"], timestamp_s: float) -> Square:
        """What to look at in a window that begins with this picture."""
        if timestamp_s - self._looked_s >= LOOK_S:
            self._looked_s = timestamp_s
            if found := self._find(image):
                self._look_at(found)
        return self._square or Square.of_picture(*image.shape[:2])

    def _look_at(self, found: list[Square]) -> None:
        here = self._square
        if here is None:
            self._square = found[0]
        elif overlap(near := max(found, key=lambda f: overlap(f, here)), here) >= SAME:
            self._square = Square(
                left=(near.left + here.left) // 2,
                top=(near.top + here.top) // 2,
                side=(near.side + here.side) // 2,
            )
        elif self._seen:
            self._square = min(found, key=lambda f: _distance(f, here))
        else:  # somebody else than the one of the box
            return
        self._seen = True
        self._least = _LEAST * self._square.side

    def saw(self, points: Float[np.ndarray, "J 2"], height: int, width: int) -> None:
        """The joints of the last frame of that window, in pixels of the picture."""
        if self._square is None:
            return
        inside = ((points >= 0) & (points < [width, height])).all(-1)
        if (found := Square.of_person(points[inside])) is None:
            return
        least = max(self._least, self._square.side / _MOST_CHANGE)
        most = max(least, self._square.side * _MOST_CHANGE)
        side = min(max(found.side, least), most)
        self._square = found.moved(side / found.side, 0, 0)


def _distance(a: Square, b: Square) -> float:
    return math.hypot(
        a.left + a.side / 2 - b.left - b.side / 2, a.top + a.side / 2 - b.top - b.side / 2
    )
