"""Recordings of events on disk, read as a stream: memory does not grow with the recording.

A recording (`formats` says of which kinds) is gone through once when it is opened, to see that it
is whole and in order, how long it lasts and how large its sensor is; and again when its events are
asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from spikevideoformer.events.formats import Columns, open_events
from spikevideoformer.events.spec import MOST_PIXELS, EventFiles
from spikevideoformer.events.stream import (
    PER_SECOND,
    EventError,
    EventStream,
    check_events,
    damage_named,
    joined,
)
from spikevideoformer.messages import one_line

_ROUNDING = 1e-9  # of a slice: 0.57 times 100 is a little less than 57

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recording that is whole: in order, inside of its sensor, and not empty.

    Args:
        path: the file.
        height: rows of the sensor.
        width: its columns.
        begin: time of the first event, in the unit of the file.
        per_second: that unit in a second.
        duration_s: from the first event to the last.
        count: of the events.
    """

    path: Path
    height: int
    width: int
    begin: Any
    per_second: float
    duration_s: float
    count: int
    _pieces: Callable[[], Iterator[Columns]] = field(repr=False)

    def streams(self) -> Iterator[EventStream]:
        """The events in pieces, in order; times count from the first event."""
        for t, x, y, p in self._pieces():
            yield EventStream.trusted(
                t_s=(t - t.dtype.type(self.begin)) / self.per_second,
                x=x.astype(np.int16),
                y=y.astype(np.int16),
                polarity=p > 0,
                height=self.height,
                width=self.width,
                path=self.path,
            )

    def slices(self, rate_hz: float, *, first: int = 0) -> Iterator[EventStream]:
        """The events of each slice of time, also of those in which there is none.

        Slice k is from k / rate_hz, included, to (k + 1) / rate_hz seconds after the first event.

        Args:
            rate_hz: slices per second.
            first: the number of the slice to begin with.
        """
        number, parts = first, [self.nothing()]
        for stream in self.streams():
            slot = np.floor(stream.t_s * rate_hz + _ROUNDING).astype(np.int64)
            begin = int(np.searchsorted(slot, first))
            while begin < len(slot):
                while slot[begin] > number:
                    yield joined(parts)
                    number, parts = number + 1, [self.nothing()]
                end = int(np.searchsorted(slot, number, side="right"))
                parts.append(stream.part(begin, end))
                begin = end
        yield joined(parts)

    def nothing(self) -> EventStream:
        """No events, of its sensor."""
        x, polarity = np.zeros(0, np.int16), np.zeros(0, bool)
        return EventStream.trusted(
            t_s=np.zeros(0), x=x, y=x, polarity=polarity, height=self.height, width=self.width,
            path=self.path,
        )  # fmt: skip

    def count_slices(self, rate_hz: float) -> int:
        """How many slices there are."""
        return int(np.floor(self.duration_s * rate_hz + _ROUNDING)) + 1


def open_recording(
    path: str | Path,
    view: EventFiles = EventFiles(),  # noqa: B008 - frozen
    *,
    may_be_empty: bool = False,
) -> Recording:
    """Open a recording; what is guessed of it is said in a line, the same line once.

    Args:
        path: by its ending one of `EVENT_SUFFIXES`.
        view: its time unit, sensor and columns, where they are known.
        may_be_empty: whether it may hold no event, where its sensor is known.

    Raises:
        EventError: no such file, damage, Python objects in it, no events, or events that are
            no numbers, not in order of time, before time 0 or outside of the sensor.
    """
    path = Path(path)
    with damage_named(path):
        about = path.stat()
    recording, guessed = _surveyed(path, view, (about.st_mtime_ns, about.st_size))
    if not (recording.count or may_be_empty):
        raise EventError(path, "holds no events")
    with _SAYING:
        new = [(what, line) for what, line in guessed if what not in _SAID]
        _SAID.update(what for what, _ in new)
    if new:
        log.warning(one_line(f"{path}: {', '.join(line for _, line in new)}"))
    return recording


_SAID, _SAYING = set[str](), Lock()
"""What was told to be guessed: not once more for each file of a data set."""


@lru_cache(maxsize=65536)
def _surveyed(
    path: Path, view: EventFiles, _: tuple[int, int]
) -> tuple[Recording, list[tuple[str, str]]]:
    """A recording, gone through once, and what had to be guessed of it."""
    with damage_named(path):
        file = open_events(path, view.columns)
        height, width = view.height or file.height, view.width or file.width
        first: Any = None
        count, last, most, whole, encoded = 0, 0.0, [0, 0], True, set[int]()
        for t, x, y, p in file.pieces():
            if not len(t):
                continue
            check_events(
                path, t, x, y, p, height=height or MOST_PIXELS, width=width or MOST_PIXELS,
                index=count, after=last if count else None,
            )  # fmt: skip
            encoded |= {value for value in (0, -1) if (p == value).any()}
            if len(encoded) > 1:
                raise EventError(path, "p is 0 and -1 in one file; it is 1 and 0, or 1 and -1")
            first = t[0] if first is None else first
            count, last = count + len(t), t[-1]
            most = [max(most[0], int(y.max())), max(most[1], int(x.max()))]
            whole = whole and (t.dtype.kind != "f" or bool((t == np.floor(t)).all()))
    if first is None:
        if height is None or width is None:
            raise EventError(path, "holds no events")
        first = 0
    if first < 0:
        raise EventError(
            path, f"begins at time {first}, before 0; are the columns in the order "
            f"{view.columns}? (--events.columns), or count times from the begin",
        )  # fmt: skip
    guesses: list[tuple[str, str]] = []
    unit = view.time_unit if view.time_unit != "auto" else file.unit
    if unit is None and not count:
        unit = "s"
    elif unit is None:
        unit = "us" if whole else "s"
        guesses.append((unit, f"times are taken for {_WORDS[unit]} (--events.time-unit)"))
    if height is None or width is None:
        height, width = height or most[0] + 1, width or most[1] + 1
        sensor = f"the sensor for {width}x{height} pixels, its largest coordinates"
        guesses.append(("sensor", f"{sensor} (--events.width and --events.height)"))
    recording = Recording(
        path=path,
        height=height,
        width=width,
        begin=first,
        per_second=PER_SECOND[unit],
        duration_s=float(last - first) / PER_SECOND[unit],
        count=count,
        _pieces=file.pieces,
    )
    return recording, guesses


_WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
