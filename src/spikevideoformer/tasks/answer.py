"""What the answers of all tasks share: how they tell of themselves, and what stays of frames."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

Tell = Callable[[int, int | None], None]
"""Is told how many frames are done, and of how many, or None where the video does not say."""


@dataclass(frozen=True, kw_only=True)
class FailedPrediction:
    """A video that could not be read, and why, in one line."""

    path: str
    reason: str


def about_run(duration_s: float, firing_rate: float | None, engine: str) -> str:
    """What all predictions say of themselves, in a few words."""
    rate = "" if firing_rate is None else f"firing rate {firing_rate:.3f}, "
    return f"{duration_s:.2f} s, {rate}engine {engine}"


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return math.fsum(values) / len(values) if values else None


def is_beyond(distance: float | None, limit: float | None) -> bool | None:
    """Whether a distance is above its limit; None where either is not known."""
    return None if distance is None or limit is None else distance > limit


def doubt(unlike_training: bool | None) -> str:
    """What stands before a prediction that says little."""
    return "UNLIKE THE TRAINING CLIPS: " if unlike_training else ""


def rate_curve(timestamps_s: Sequence[float], rates: Sequence[float] | None) -> str:
    """Firing rates over time for a notebook; nothing for a network without spikes."""
    from spikevideoformer import notebook

    if not rates:
        return ""
    return notebook.curve(timestamps_s, rates, caption="firing rate, spikes per neuron and frame")


class Frame(Protocol):
    """One picture of a video and what a network says of it."""

    @property
    def timestamp_s(self) -> float:
        """When it appears."""

    @property
    def duration_s(self) -> float:
        """How long it is shown."""

    @property
    def image(self) -> np.ndarray:
        """RGB, uint8 [H, W, 3]."""

    @property
    def firing_rate(self) -> float | None:
        """Spikes per neuron in this frame; None of a network without spikes."""

    @property
    def distance(self) -> float | None:
        """How unlike the training clips the clip is that it was seen in; None where unknown."""


F = TypeVar("F", bound=Frame)


class Tally(Generic[F]):
    """What stays of the frames that pass: times, firing rates, and numbers that a task names.

    They are blocks of numbers: small objects that stay, strewn between the pictures that go, would
    keep the allocator from using their room again.

    Args:
        names: attributes of a frame, arrays of float32 that have one shape in all frames.
        progress: told about each frame.
        total: frames that are announced.
        limit: distance from which a video is unlike the training clips; None: not known.
    """

    def __init__(
        self,
        names: Sequence[str],
        progress: Tell | None,
        total: int | None,
        limit: float | None = None,
    ) -> None:
        self._progress, self._total, self._limit = progress, total, limit
        self._timestamps_s, self._rates, self._distances = array("d"), array("d"), array("d")
        self._values = {name: array("f") for name in names}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.picture = (0, 0)
        self._end_s = 0.0

    def watch(self, frames: Iterable[F]) -> Iterator[F]:
        """The same frames."""
        for frame in frames:
            self._timestamps_s.append(frame.timestamp_s)
            for name, values in self._values.items():
                value = getattr(frame, name)
                values.frombytes(value.astype(np.float32).tobytes())
                self._shapes[name] = value.shape
            if frame.firing_rate is not None:
                self._rates.append(frame.firing_rate)
            if frame.distance is not None:
                self._distances.append(frame.distance)
            self.picture = frame.image.shape[:2]
            self._end_s = frame.timestamp_s + frame.duration_s
            if self._progress is not None:
                self._progress(len(self._timestamps_s), self._total)
            yield frame

    def values(self, name: str) -> np.ndarray:
        """What was kept under a name, float32 [T, ...]."""
        return np.frombuffer(self._values[name], np.float32).reshape(-1, *self._shapes[name])

    def about(self) -> dict[str, Any]:
        """Times, firing rates and doubt, as every prediction has them."""
        distance = mean(self._distances)
        return {
            "duration_s": self._end_s,
            "timestamps_s": tuple(self._timestamps_s),
            "firing_rate": mean(self._rates),
            "firing_rate_per_frame": tuple(self._rates) or None,
            "distance": distance,
            "unlike_training": is_beyond(distance, self._limit),
        }
