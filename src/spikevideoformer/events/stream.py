"""Events of an event camera: the stream, and frames for the network.

An event says that the light at one pixel rose (positive) or fell (negative) by a fixed factor, and
when. A network that takes one frame per time step gets them as sums over the stretches between
given times (`EventAccumulator`), in as many channels as `EventChannels` says; a model for them has
that number as its `in_channels`. Recordings on disk are in `recording`, events made from ordinary
video in `camera`.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from spikevideoformer.events.spec import MODES as MODES
from spikevideoformer.events.spec import MOST_PIXELS
from spikevideoformer.events.spec import POLARITIES as POLARITIES
from spikevideoformer.events.spec import EventChannels as EventChannels
from spikevideoformer.messages import one_line

PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}

# What numpy raises for files that are damaged, depending on where the damage is.
_DAMAGE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    MemoryError,
    SyntaxError,
    RuntimeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


class EventError(ValueError):
    """Events that cannot be used: ``str`` gives ``path: reason`` on one line.

    Args:
        path: the file; None for events that come from none.
        reason: what is wrong and what is accepted.
    """

    # `reason` may be left out because a loader worker's error is rebuilt from its text alone.
    def __init__(self, path: str | Path | None, reason: str = "") -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = one_line(" ".join(reason.split()))

    def __str__(self) -> str:
        where = "events" if self.path is None else self.path
        return one_line(f"{where}: {self.reason}" if self.reason else str(where))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EventStream:
    """Events in order of time. There may be none: nothing moved.

    Arrays of other number types are taken, checked and converted to those named here.

    Args:
        t_s: time in seconds, on any clock; never falls. float64 [N].
        x: column, 0 at the left, below `width`. int16 [N].
        y: row, 0 at the top, below `height`. int16 [N].
        polarity: whether the light rose; as numbers 1 and 0, or 1 and -1. bool [N].
        height: rows of the sensor, 1 to 32767.
        width: its columns, 1 to 32767.
        path: the file that they come from, for messages.

    Raises:
        EventError: arrays that are no events of such a sensor, or not in order.
    """

    t_s: NDArray[Any]
    x: NDArray[Any]
    y: NDArray[Any]
    polarity: NDArray[Any]
    height: int
    width: int
    path: Path | None = None

    def __post_init__(self) -> None:
        path = self.path
        for name, pixels in (("height", self.height), ("width", self.width)):
            if not 1 <= pixels <= MOST_PIXELS:
                raise EventError(path, f"{name} must be 1 to {MOST_PIXELS} pixels, got {pixels}")
        columns = (self.t_s, self.x, self.y, self.polarity)
        t, x, y, p = check_events(path, *columns, height=self.height, width=self.width)
        object.__setattr__(self, "t_s", t.astype(np.float64))
        object.__setattr__(self, "x", x.astype(np.int16))
        object.__setattr__(self, "y", y.astype(np.int16))
        object.__setattr__(self, "polarity", p > 0)

    @classmethod
    def trusted(cls, **values: Any) -> EventStream:
        """A stream of arrays that were checked before, and have the types named here."""
        stream = object.__new__(cls)
        for name, value in values.items():
            object.__setattr__(stream, name, value)
        return stream

    def part(self, begin: int, end: int) -> EventStream:
        """The events from one number up to another one."""
        columns = {name: getattr(self, name)[begin:end] for name in ("t_s", "x", "y", "polarity")}
        sides = {"height": self.height, "width": self.width, "path": self.path}
        return self.trusted(**columns, **sides)

    def __len__(self) -> int:
        return len(self.t_s)

    def __repr__(self) -> str:
        when = f"{self.t_s[0]:.3f}-{self.t_s[-1]:.3f} s, " if len(self) else ""
        return f"EventStream({len(self)} events, {when}[H={self.height}, W={self.width}])"


def joined(streams: Sequence[EventStream]) -> EventStream:
    """Streams of one sensor that follow each other, at least one."""
    if len(streams) == 1:
        return streams[0]
    columns = {
        name: np.concatenate([getattr(stream, name) for stream in streams])
        for name in ("t_s", "x", "y", "polarity")
    }
    first = streams[0]
    return EventStream.trusted(**columns, height=first.height, width=first.width, path=first.path)


def check_events(
    path: Path | None,
    *columns: Any,
    height: int,
    width: int,
    index: int = 0,
    after: Any = None,
) -> list[NDArray[Any]]:
    """Refuse arrays that are no events of a sensor.

    Args:
        path: the file that they come from, for messages.
        *columns: t, x, y and p.
        height: rows of the sensor.
        width: its columns.
        index: number of the first of the events, for messages.
        after: time of the event ahead of them, if there is one.

    Returns:
        The columns as arrays of numbers.

    Raises:
        EventError: what is wrong with which event.
    """
    t, x, y, p = arrays = [
        _numbers(path, name, array) for name, array in zip("txyp", columns, strict=True)
    ]
    if len({len(column) for column in arrays}) > 1:
        raise EventError(
            path, f"t, x, y and p have {len(t)}, {len(x)}, {len(y)} and {len(p)} values; "
            "each event needs all four",
        )  # fmt: skip

    def refuse(wrong: NDArray[np.bool_], column: NDArray[Any], what: str) -> None:
        if wrong.any():
            at = int(wrong.argmax())
            said = what.format(column[at])
            raise EventError(path, f"event {index + at} (from 0): {said}")

    for name, column in zip("txyp", arrays, strict=True):
        if column.dtype.kind == "f":
            refuse(~np.isfinite(column), column, f"{name} is {{}}, not a finite number")
    for name, column, pixels in (("x", x, width), ("y", y, height)):
        refuse(
            (column < 0) | (column >= pixels),
            column,
            f"{name} is {{}}, outside of 0 to {pixels - 1}; give the height and width of the "
            "sensor, and the order of the columns",
        )
        refuse(column != np.floor(column), column, f"{name} is {{}}, not a whole number")
    wrong = ~np.isin(p, (0, 1) if (p == 0).any() else (-1, 1))
    refuse(wrong, p, "p is {}; polarity is 1 and 0, or 1 and -1")
    if len(t):
        before = np.concatenate(([t[0] if after is None else after], t[:-1]))
        refuse(t < before, t, "time {}, before that of the event ahead of it; sort them by time")
    return arrays


def _numbers(path: Path | None, name: str, values: Any) -> NDArray[Any]:
    column = np.asarray(values)
    if column.ndim != 1 or column.dtype.kind not in "biuf":
        raise EventError(
            path, f"{name} is {column.dtype} {list(column.shape)}; give a row of numbers [N]"
        )
    return column.astype(np.int8) if column.dtype.kind == "b" else column


# --- Reading ------------------------------------------------------------------------------------


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """What readers say about a file, as an `EventError`."""
    if not path.is_file():
        raise EventError(path, "does not exist or is no file")
    try:
        yield
    except EventError:
        raise
    except _DAMAGE as error:
        if "allow_pickle" in str(error):
            reason = "holds Python objects, which are not loaded; save arrays of numbers"
        else:
            reason = f"cannot be read ({type(error).__name__}: {error}); is it damaged?"
        raise EventError(path, reason) from error


def _array(path: Path) -> NDArray[Any]:
    """The one array of a file, or of an archive."""
    with damage_named(path), path.open("rb") as file:
        if path.suffix.lower() != ".npz":  # not np.load, which would also take an archive
            return np.lib.format.read_array(file, allow_pickle=False)
        with zipfile.ZipFile(file) as archive:
            there = archive.namelist()
            if len(there) != 1:
                held = ", ".join(name.removesuffix(".npy") for name in there) or "nothing"
                raise EventError(path, f"should hold one array; it holds {held}")
            with archive.open(there[0]) as member:
                return np.lib.format.read_array(member, allow_pickle=False)


def read_packed_frames(
    path: str | Path,
    *,
    height: int,
    width: int,
    channels: int,
) -> Float[Tensor, "T C H W"]:
    """Read event frames of yes and no whose bits were packed by `numpy.packbits`.

    Four layouts are told apart by their number of axes: frames [H, W, C] packed as a whole, one
    [n] or T of them [T, n], with n = ceil(H W C / 8); and frames packed along their channels,
    [H, W, c] or [T, H, W, c], with c = ceil(C / 8).

    MMHPSD stores its events as packed frames, but its own files were not at hand when this was
    written: compare a picture of what is read with the grey image of the same moment.

    Args:
        path: ``.npy``, or ``.npz`` of one array, of uint8.
        height: H, rows of a frame.
        width: W, columns.
        channels: C.

    Returns:
        Frames of 0 and 1.

    Raises:
        EventError: no such file, damage, another type or shape, or bits set beyond the frame.
        ValueError: sizes below 1.
    """
    path = Path(path)
    if min(height, width, channels) < 1:
        raise ValueError(f"a frame is {height}x{width}x{channels}; each must be at least 1")
    packed = _array(path)
    whole = packed.ndim in (1, 2)
    bits = height * width * channels if whole else channels
    inner = (-(-bits // 8),) if whole else (height, width, -(-bits // 8))
    of_frames = packed.ndim in (len(inner), len(inner) + 1) and packed.shape[-len(inner) :] == inner
    if packed.dtype != np.uint8 or not of_frames:
        raise EventError(
            path,
            f"is {packed.dtype} {list(packed.shape)}; frames {height}x{width}x{channels} are uint8 "
            f"[T, {-(-height * width * channels // 8)}] or "
            f"[T, {height}, {width}, {-(-channels // 8)}]",
        )
    values = np.unpackbits(packed.reshape(-1, *inner), axis=-1)
    if values[..., bits:].any():
        raise EventError(path, "has bits set beyond the frame; is it another size?")
    frames = values[..., :bits].reshape(-1, height, width, channels)
    # [T, H, W, C] -> [T, C, H, W]
    return torch.from_numpy(frames).permute(0, 3, 1, 2).to(torch.float32).contiguous()


# --- Frames -------------------------------------------------------------------------------------


class EventAccumulator:
    """Event frames from streams that come piece by piece; frames are all it holds.

    Args:
        borders_s: T + 1 rising times. Frame i has what happened after border i, up to and
            including border i + 1; events at or before the first border, or after the last, are
            left out.
        channels: what the frames hold.
        height: H of the frames.
        width: W of the frames.

    Raises:
        ValueError: fewer than two borders, borders that do not rise, or sizes below 1.
    """

    def __init__(
        self, borders_s: Sequence[float], channels: EventChannels, *, height: int, width: int
    ) -> None:
        borders = np.asarray(borders_s, np.float64)
        if len(borders) < 2 or not np.isfinite(borders).all() or (np.diff(borders) <= 0).any():
            raise ValueError(
                f"borders_s must be at least two rising times, got {borders.tolist()[:20]}"
            )
        if height < 1 or width < 1:
            raise ValueError(f"event frames are {height}x{width}; each must be at least 1 pixel")
        self.channels = channels
        # Voxels are weighed inside their stretch; the bins of counts are stretches themselves.
        parts = 1 if channels.mode == "voxel" else channels.bins
        starts = np.linspace(borders[:-1], borders[1:], parts, endpoint=False, axis=1)
        self._borders = np.append(starts.reshape(-1), borders[-1])
        T, B = len(borders) - 1, channels.bins
        self._sums = np.zeros((T, channels.count // B, B, height, width), np.float32)

    def add(self, stream: EventStream) -> None:
        """Count the events of a stream; a pixel falls into that of the frame that covers it.

        Raises:
            EventError: the sensor has fewer pixels than the frames, which would leave holes.
        """
        _, _, B, H, W = self._sums.shape
        if stream.height < H or stream.width < W:
            raise EventError(
                stream.path, f"the sensor has {stream.height}x{stream.width} pixels, fewer than "
                f"event frames of {H}x{W}; ask for smaller ones",
            )  # fmt: skip
        part = np.searchsorted(self._borders, stream.t_s, side="left") - 1
        kept = (part >= 0) & (part < len(self._borders) - 1)
        if self.channels.polarity in ("positive", "negative"):
            kept &= stream.polarity == (self.channels.polarity == "positive")
        part, t_s, positive = part[kept], stream.t_s[kept], stream.polarity[kept]
        y = stream.y[kept].astype(np.int64) * H // stream.height
        x = stream.x[kept].astype(np.int64) * W // stream.width
        row = np.where(positive, 0, 1) if self.channels.polarity == "both" else 0
        sign = np.where(positive, 1, -1) if self.channels.polarity == "signed" else 1
        if self.channels.mode == "voxel":
            start, end = self._borders[part], self._borders[part + 1]
            place = (t_s - start) / (end - start) * (B - 1)
            low = place.astype(np.int64)
            high = np.minimum(low + 1, B - 1)
            self._sum((part, row, low, y, x), sign * (1 - (place - low)))
            self._sum((part, row, high, y, x), sign * (place - low))
        else:
            self._sum((part // B, row, part % B, y, x), sign)

    def _sum(self, index: tuple[Any, ...], values: NDArray[Any] | int) -> None:
        # numpy is quick with one index only; the shape is never empty, and the row is contiguous.
        np.add.at(self._sums.reshape(-1), np.ravel_multi_index(index, self._sums.shape), values)

    def frames(self) -> Float[Tensor, "T C H W"]:
        """The frames of all events until now."""
        sums = torch.from_numpy(self._sums).flatten(1, 2)  # [T, P, B, H, W] -> [T, C, H, W]
        return sums.sign() if self.channels.mode == "binary" else sums.clone()
