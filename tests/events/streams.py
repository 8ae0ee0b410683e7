"""A short stream of events."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from spikevideoformer.events.stream import EventStream

# t in microseconds, x, y, p
ROWS = np.array([[0, 0, 1, 1], [250_000, 3, 0, 0], [250_000, 2, 1, 1], [2_000_000, 3, 1, 0]])


def stream(rows: Any = ROWS, height: int = 2, width: int = 4, **replaced: Any) -> EventStream:
    t, x, y, p = np.asarray(rows, float).reshape(-1, 4).T
    columns = {"t_s": t / 1e6, "x": x, "y": y, "polarity": p} | replaced
    return EventStream(height=height, width=width, **columns)


def saved(path: Path, save: Callable[..., object], *args: Any, **kwargs: Any) -> Path:
    save(path, *args, **kwargs)
    return path


def assert_same(got: EventStream, want: EventStream) -> None:
    for name in ("t_s", "x", "y", "polarity"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
        assert getattr(got, name).dtype == getattr(want, name).dtype
    assert (got.height, got.width) == (want.height, want.width)
