"""Events as a source of pictures: recordings, and videos that a simulated event camera looks at.

Everything that reads pictures reads these, in the place of those of a video. At `EventView.rate_hz`
a picture a slice of time: red shows positive events of a pixel, blue negative ones, both in 4 steps
a doubling; more than 15 events look like 15. A network sees log2(1 + n) of them (`EVENT_MEAN`,
`EVENT_STD`), in three channels as of pictures, the middle one empty.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from spikevideoformer.events.camera import EventSimulator
from spikevideoformer.events.recording import Recording, open_recording
from spikevideoformer.events.spec import EVENT_SUFFIXES, EventView
from spikevideoformer.events.stream import EventError, EventStream, joined
from spikevideoformer.video.interface import (
    DecodeLimits,
    SeenPath,
    Shown,
    Source,
    VideoError,
    VideoInfo,
    VideoName,
    check_total,
    shrunk,
)
from spikevideoformer.video.sources import open_source

MOST_EVENTS = 15
"""Of a pixel and polarity in one picture; more look alike."""
SIMULATED_SHORT = 256
"""Short side, in pixels, of the camera that looks at video; smaller video is seen as it is."""
_BYTE_OF_COUNT = np.round(255 * np.log2(1 + np.arange(MOST_EVENTS + 1)) / 4).astype(np.uint8)


def is_event_file(path: VideoName) -> bool:
    """Whether a path has the ending of a recording."""
    return Path(path).suffix.lower() in EVENT_SUFFIXES


def seen(path: VideoName, spec: Any) -> VideoName:
    """What a network opens at a path: pictures, or pictures of events where its spec says so.

    Args:
        path: of a video or a recording.
        spec: `ClipSpec` and the like; None: of pictures. One with a ``camera`` of its own has its
            own way to simulate events of video, and opens that as it is.
    """
    if getattr(spec, "input", "rgb") != "events" or isinstance(path, EventPath):
        return path
    if hasattr(spec, "camera") and not is_event_file(path):
        return path
    return EventPath(path, spec.events)


@dataclass(frozen=True)
class EventPath(SeenPath):
    """A recording or a video, seen as pictures of events.

    Args:
        path: of either.
        view: how.
    """

    path: VideoName
    view: EventView

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def opened(self, limits: DecodeLimits, sequence_rate_hz: float) -> Source:
        """Open it; errors as of `open_source`."""
        path = Path(self.path)
        if is_event_file(path):
            return RecordedPictures(path, self.view, limits)
        return SimulatedPictures(open_source(self.path, limits, sequence_rate_hz), self.view, path)


@dataclass(frozen=True, eq=False)
class EventPicture:
    """What happened in a slice of time.

    Args:
        events: of the slice.
        timestamp_s: when the slice begins, from the begin of the source.
        duration_s: how long it is.
    """

    events: EventStream
    timestamp_s: float
    duration_s: float

    @property
    def end_s(self) -> float:
        return self.timestamp_s + self.duration_s

    def size(self, resize_short: int | None = None) -> tuple[int, int]:
        """Width and height of the sensor, shrunk to a short side."""
        return shrunk(self.events.width, self.events.height, resize_short)

    def rgb(self, *, width: int, height: int) -> UInt8[np.ndarray, "H W 3"]:
        """The events counted in pixels of this size, which is at most that of the sensor."""
        positive, negative = event_counts(self.events, height, width)
        image = np.zeros((height, width, 3), np.uint8)
        image[..., 0] = _BYTE_OF_COUNT[np.minimum(positive, MOST_EVENTS)]
        image[..., 2] = _BYTE_OF_COUNT[np.minimum(negative, MOST_EVENTS)]
        return image


def event_counts(events: EventStream, height: int, width: int) -> np.ndarray:
    """Positive and negative events in each pixel, int64 [2, H, W]; all times count alike."""
    row = events.y.astype(np.int64) * height // events.height
    column = events.x.astype(np.int64) * width // events.width
    place = ((~events.polarity).astype(np.int64) * height + row) * width + column
    return np.bincount(place, minlength=2 * height * width).reshape(2, height, width)


def read_event_picture(path: Path, view: EventView) -> UInt8[np.ndarray, "H W 3"]:
    """All events of a recording in one picture; a file without any is one where nothing happened.

    Args:
        path: the file.
        view: how it is read; a file without events needs the size of the sensor.

    Raises:
        VideoError: it cannot be used.
    """
    recording = _of_a_frame(path, view)
    with _as_video_error():
        events = joined([recording.nothing(), *recording.streams()])
    picture = EventPicture(events, 0.0, 1.0)
    return picture.rgb(width=recording.width, height=recording.height)


def event_picture_size(path: Path, view: EventView) -> tuple[int, int]:
    """Height and width of `read_event_picture`."""
    recording = _of_a_frame(path, view)
    return recording.height, recording.width


def _of_a_frame(path: Path, view: EventView) -> Recording:
    with _as_video_error():
        return open_recording(path, view, may_be_empty=True)


@contextmanager
def _as_video_error() -> Iterator[None]:
    """What is wrong with a recording, as of any other video."""
    try:
        yield
    except EventError as error:
        raise VideoError(error.path or "events", error.reason) from error


class _EventSource:
    """What recordings and simulated cameras share."""

    path: Path
    view: EventView

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def length_s(self) -> float:
        raise NotImplementedError

    def _count(self) -> int | None:
        raise NotImplementedError

    def info(self, first: EventPicture) -> VideoInfo:
        width, height = first.size()
        return VideoInfo(
            path=self.path,
            codec="events",
            width=width,
            height=height,
            rotation_deg=0,
            frame_rate_hz=self.view.rate_hz,
            duration_s=self.length_s(),
            declared_frames=self._count(),
        )


class RecordedPictures(_EventSource):
    """A recording of events as pictures.

    Args:
        path: the file.
        view: how it is seen.
        limits: of the number of pictures and of their size.

    Raises:
        VideoError: the recording cannot be used.
    """

    def __init__(self, path: Path, view: EventView, limits: DecodeLimits) -> None:
        self.path, self.view = path, view
        with _as_video_error():
            self.recording: Recording = open_recording(path, view)
        pictures = self._count()
        if pictures > (limits.max_frames or math.inf):
            raise VideoError(
                path, f"lasts {self.recording.duration_s:.0f} s, {pictures} pictures at "
                f"{view.rate_hz:g} Hz; give the unit of its times (events.time_unit)",
            )  # fmt: skip
        pixels = self.recording.height * self.recording.width
        check_total(path, pictures, pictures * pixels, limits)

    def _count(self) -> int:
        return self.recording.count_slices(self.view.rate_hz)

    def length_s(self) -> float:
        """Length of all slices."""
        return self._count() / self.view.rate_hz

    def pictures(self, *, from_s: float = 0.0) -> Iterator[EventPicture]:
        """In order, from the slice before that of `from_s`."""
        rate = self.view.rate_hz
        first = min(max(0, math.floor(from_s * rate) - 1), self._count() - 1)
        with _as_video_error():
            for number, events in enumerate(self.recording.slices(rate, first=first), first):
                yield EventPicture(events, number / rate, 1 / rate)


class SimulatedPictures(_EventSource):
    """A video as the simulated event camera sees it; nothing happens before its first picture.

    Args:
        source: the video, opened.
        view: the camera and the rate of its pictures.
        path: of the video.
    """

    def __init__(self, source: Source, view: EventView, path: Path) -> None:
        self.source, self.view, self.path = source, view, path

    def __exit__(self, *error: object) -> None:
        self.source.__exit__(*error)

    def length_s(self) -> float:
        """Length of the video."""
        return self.source.length_s()

    def _count(self) -> int | None:
        return math.ceil(self.length_s() * self.view.rate_hz - 1e-6)

    def pictures(
        self, *, from_s: float = 0.0, watch: Callable[[Shown], None] = lambda _picture: None
    ) -> Iterator[EventPicture]:
        """All pictures in order: what a pixel fires depends on all that it saw.

        `watch` is called with those of the video, which people look at.
        """
        rate, simulator = self.view.rate_hz, EventSimulator(self.view.camera)
        held: deque[EventStream] = deque()
        number, size, end_s = 0, (0, 0), 0.0
        for picture in self.source.pictures():
            watch(picture)
            size = size if size != (0, 0) else picture.size(SIMULATED_SHORT)
            image = picture.rgb(width=size[0], height=size[1])
            held.append(simulator.step(image, picture.timestamp_s))
            while (number + 1) / rate <= picture.timestamp_s:
                yield EventPicture(_until(held, (number + 1) / rate), number / rate, 1 / rate)
                number += 1
            end_s = picture.end_s
        while number / rate < end_s - 1e-6 or number == 0:
            yield EventPicture(_until(held, math.inf), number / rate, 1 / rate)
            number += 1


def _until(held: deque[EventStream], end_s: float) -> EventStream:
    """Take the events before `end_s` out of the streams of a simulated camera."""
    taken = [stream.part(0, int(np.searchsorted(stream.t_s, end_s))) for stream in held]
    rest = [stream.part(len(t), len(stream)) for stream, t in zip(held, taken, strict=True)]
    held.clear()
    held.extend([stream for stream in rest if len(stream)] or rest[-1:])  # it knows the sensor
    return joined(taken)
