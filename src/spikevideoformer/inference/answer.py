"""What the answers of all tasks share: how they tell of themselves, and what stays of frames."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from spikevideoformer.messages import one_line

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


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SeenFrame:
    """One picture of a video; a task adds what there is in it.

    Attributes:
        timestamp_s: when it appears.
        duration_s: how long it is shown, until the next frame.
        image: RGB, uint8 [H, W, 3].
        firing_rate: spikes per neuron in this frame, mean over all layers of neurons; None for an
            ordinary network, which has no spikes.
        distance: how unlike the training clips the clip is that it was seen in, about 1 for one of
            them; None for a model that does not know.
    """

    timestamp_s: float
    duration_s: float
    image: np.ndarray
    firing_rate: float | None
    distance: float | None = None

    def __repr__(self) -> str:
        H, W, _ = self.image.shape
        return f"{type(self).__name__}({self.timestamp_s:.3f} s, [H={H}, W={W}])"


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What a network says of the frames of one video; a task adds what that is.

    Attributes:
        path: as it was given; None for an array.
        duration_s: of the video.
        timestamps_s: when each frame that the network saw appears in the video.
        firing_rate: spikes per neuron and frame, mean over all layers of neurons and all frames;
            None for an ordinary network, which has no spikes.
        firing_rate_per_frame: the same for each frame, or None.
        engine: what ran the network: exact, float, int16, int8 or model.
        distance: how unlike the training clips the video is, about 1 for one of them; None for a
            model that does not know (:class:`~spikevideoformer.models.familiarity.Familiarity`).
        unlike_training: whether that is beyond the model's limit, so that the answer says little;
            None where it does not know.
    """

    path: str | None
    duration_s: float
    timestamps_s: tuple[float, ...] = field(repr=False)
    firing_rate: float | None
    firing_rate_per_frame: tuple[float, ...] | None = field(repr=False)
    engine: str
    distance: float | None = None
    unlike_training: bool | None = None

    def says(self) -> str:
        """What there is in the video, in a few words."""
        raise NotImplementedError

    def __repr__(self) -> str:
        about = about_run(self.duration_s, self.firing_rate, self.engine)
        said = f"{doubt(self.unlike_training)}{self.says()}"
        frames = f"{len(self.timestamps_s)} frames"
        return one_line(f"{type(self).__name__}({self.path!r}, {said}, {frames}, {about})")

    def lines(self) -> list[str]:
        """The prediction as a command prints it."""
        about = f"{len(self.timestamps_s)} frames in "
        about += about_run(self.duration_s, self.firing_rate, self.engine)
        return [one_line(f"{self.path}: {doubt(self.unlike_training)}{self.says()} ({about})")]

    def about(self) -> dict[str, Any]:
        """What JSON has of every prediction."""
        return {
            "path": self.path,
            "duration_s": self.duration_s,
            "engine": self.engine,
            "firing_rate": self.firing_rate,
            "distance": self.distance,
            "unlike_training": self.unlike_training,
            "timestamps_s": list(self.timestamps_s),
        }


F = TypeVar("F", bound=SeenFrame)


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
