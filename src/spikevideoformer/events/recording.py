"""Recordings of events on disk, read as a stream: memory does not grow with the recording.

Arrays of t, x, y and p in ``.npy`` and ``.npz`` files, tables in ``.csv`` and ``.txt``, ``.dat`` of
Prophesee; and with the package faery (``pip install 'spikevideoformer[events]'``) AEDAT4 of
iniVation, ``.raw`` of Prophesee (EVT2, EVT2.1, EVT3) and Event Stream. Nothing in a file is
executed. A recording is gone through once when it is opened, to see that it is whole and in order,
how long it lasts and how large its sensor is; and again when its events are asked for.
"""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from spikevideoformer.events.spec import (
    CAMERA_SUFFIXES,
    EVENT_SUFFIXES,
    MOST_PIXELS,
    TABLE_SUFFIXES,
    EventFiles,
)
from spikevideoformer.events.stream import (
    PER_SECOND,
    EventError,
    EventStream,
    check_events,
    damage_named,
    joined,
)
from spikevideoformer.messages import one_line

_PIECE = 2**18  # events in memory at a time
_ROUNDING = 1e-9  # of a slice: 0.57 times 100 is a little less than 57

Columns = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
"""t, x, y, p of some events."""

_Bytes = IO[bytes] | zipfile.ZipExtFile

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _File:
    """What a file says of itself.

    Args:
        pieces: its events, each time from the first on.
        unit: of its times, where it says so.
        height: of the sensor, where it says so.
        width: of the sensor, where it says so.
    """

    pieces: Callable[[], Iterator[Columns]]
    unit: str | None = None
    height: int | None = None
    width: int | None = None


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
        file = _opened(path, view)
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


def _opened(path: Path, view: EventFiles) -> _File:
    ending = path.suffix.lower()
    if ending == ".npz":
        return _archive(path, view.columns)
    if ending == ".npy":
        return _array(path, view.columns)
    if ending in TABLE_SUFFIXES:
        return _table(path, view.columns)
    if ending == ".dat":
        return _dat(path)
    if ending in CAMERA_SUFFIXES:
        return _faery(path)
    raise EventError(path, f"events are read from {' '.join(sorted(EVENT_SUFFIXES))} files")


# --- Names of columns -----------------------------------------------------------------------------

_TIME = re.compile(r"(?:t|ts|times?|timestamps?)(?:[ _]?[\[(]?(ns|us|ms|s)[\])]?)?", re.ASCII)
_OTHERS = {"x": ("x",), "y": ("y",), "p": ("p", "pol", "polarity", "polarities", "on")}


def _named(path: Path, names: Sequence[str]) -> tuple[list[str], str | None]:
    """The names that stand for t, x, y and p, and the unit of time that is in one of them."""
    known = {name.strip().lower(): name for name in reversed(names)}
    found, unit = [], None
    for column in "txyp":
        fits = [
            name for low, name in known.items()
            if (_TIME.fullmatch(low) if column == "t" else low in _OTHERS[column])
        ]  # fmt: skip
        if len(fits) != 1:
            held = ", ".join(map(repr, names)) or "nothing"
            much = "two columns" if fits else "no column"
            raise EventError(path, f"holds {held}, {much} for {column}; name them t, x, y, p")
        found += fits
        if column == "t" and (match := _TIME.fullmatch(fits[0].strip().lower())):
            unit = match[1]
    return found, unit


# --- Arrays ---------------------------------------------------------------------------------------


def _array(path: Path, order: str) -> _File:
    """An array [N, 4], or of N records, mapped and not loaded."""
    with path.open("rb") as file:
        _header(file)  # np.load would also take an archive of that name
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    names, unit = _fields(path, array.dtype, array.shape, order)

    def pieces() -> Iterator[Columns]:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        for begin in range(0, len(mapped), _PIECE):
            part = np.array(mapped[begin : begin + _PIECE])
            yield _split(part, names)

    return _File(pieces=pieces, unit=unit)


def _fields(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], order: str
) -> tuple[list[Any], str | None]:
    """What to take of records or of rows of four numbers."""
    if dtype.names is not None and len(shape) == 1:
        return _named(path, dtype.names)
    if len(shape) != 2 or shape[1] != 4 or dtype.names is not None:
        raise EventError(path, f"is {dtype} {list(shape)}; give [N, 4] or records of t, x, y, p")
    return [order.index(name) for name in "txyp"], None


def _split(part: NDArray[Any], names: Sequence[Any]) -> Columns:
    t, x, y, p = (
        np.ascontiguousarray(part[name] if part.dtype.names else part[:, name]) for name in names
    )
    return t, x, y, p


def _header(file: _Bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and type of an array in NumPy's format."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0}
    shape, by_column, dtype = read.get(version, np.lib.format.read_array_header_2_0)(file)
    if dtype.hasobject:
        raise ValueError("allow_pickle: an array of objects")
    return shape, by_column, dtype


def _archive(path: Path, order: str) -> _File:
    """An archive of arrays t, x, y, p, or with one array as in ``.npy``; height and width if told.

    Members are unpacked side by side as they are read: none is in memory as a whole.
    """
    with zipfile.ZipFile(path) as archive:
        names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
        sizes = {}
        for side in ("height", "width"):
            if side in names:
                with archive.open(f"{side}.npy") as member:
                    sizes[side] = int(np.lib.format.read_array(member, allow_pickle=False))
        others = [name for name in names if name not in sizes]
        if len(others) == 1:
            (single,) = others
            with archive.open(f"{single}.npy") as member:
                shape, by_column, dtype = _header(member)
            taken, unit = _fields(path, dtype, shape, order)

            def pieces() -> Iterator[Columns]:
                with zipfile.ZipFile(path) as archive:
                    if by_column:  # [N, 4] that lies in memory as [4, N]
                        starts = [column * shape[0] for column in taken]
                        yield from _side_by_side(path, archive, [single] * 4, starts, shape[0])
                        return
                    with archive.open(f"{single}.npy") as member:
                        _header(member)
                        row = dtype.itemsize * (1 if dtype.names else 4)
                        for n in _steps(shape[0]):
                            part = np.frombuffer(_exactly(member, n * row), dtype)
                            yield _split(part if dtype.names else part.reshape(-1, 4), taken)

            return _File(pieces=pieces, unit=unit, **sizes)
        members, unit = _named(path, others)
        lengths = []
        for name, column in zip(members, "txyp", strict=True):
            with archive.open(f"{name}.npy") as member:
                shape, _, dtype = _header(member)
            if len(shape) != 1 or dtype.kind not in "biuf":
                raise EventError(
                    path, f"{column} is {dtype} {list(shape)}; give a row of numbers [N]"
                )
            lengths.append(shape[0])
    if len(set(lengths)) > 1:
        raise EventError(
            path, f"t, x, y and p have {', '.join(map(str, lengths[:3]))} and {lengths[3]} values; "
            "each event needs all four",
        )  # fmt: skip

    def columns() -> Iterator[Columns]:
        with zipfile.ZipFile(path) as archive:
            yield from _side_by_side(path, archive, members, [0] * 4, lengths[0])

    return _File(pieces=columns, unit=unit, **sizes)


def _side_by_side(
    path: Path,
    archive: zipfile.ZipFile,
    members: Sequence[str],
    starts: Sequence[int],
    count: int,
) -> Iterator[Columns]:
    """Events whose columns lie one after the other, each beginning at a value of its member."""
    with ExitStack() as stack:
        opened = []
        for name, start in zip(members, starts, strict=True):
            member = stack.enter_context(archive.open(f"{name}.npy"))
            _, _, dtype = _header(member)
            member.seek(start * dtype.itemsize, 1)
            opened.append((member, dtype))
        for n in _steps(count):
            t, x, y, p = (
                np.frombuffer(_exactly(member, n * dtype.itemsize), dtype)
                for member, dtype in opened
            )
            yield t, x, y, p


def _steps(count: int) -> Iterator[int]:
    for begin in range(0, count, _PIECE):
        yield min(_PIECE, count - begin)


def _exactly(file: _Bytes, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError("it is cut short")
    return data


# --- Tables ---------------------------------------------------------------------------------------


def _table(path: Path, order: str) -> _File:
    """A line an event: numbers between commas, semicolons or blanks, perhaps under their names."""
    number, words = next(_lines(path), (0, []))
    if not number:
        raise EventError(path, "holds no events")
    count, used, unit, titled = 4, [order.index(name) for name in "txyp"], None, False
    if not _are_numbers(words):
        titled, count = True, len(words)
        try:
            names, unit = _named(path, words)
        except EventError as error:
            raise EventError(path, f"line {number}: {error.reason}, or give four numbers") from None
        used = [words.index(name) for name in names]

    def pieces() -> Iterator[Columns]:
        lines = islice(_lines(path), int(titled), None)
        while block := list(islice(lines, max(1, _PIECE // 4))):
            for number, words in block:
                if len(words) != count or "_" in "".join(words):  # 1_0 is a number to Python
                    raise _bad_line(path, number, words, count)
            try:
                array = np.array([words for _, words in block], np.float64)
            except ValueError:
                number, words = next((n, w) for n, w in block if not _are_numbers(w))
                raise _bad_line(path, number, words, count) from None
            yield _split(array, used)

    return _File(pieces=pieces, unit=unit)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The words of each line that is not blank or a comment, with its number from 1."""
    # A byte that is no text makes a value that is no number, and the message names its line.
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if (text := line.strip()) and text[0] != "#":
                yield number, re.split(r"\s*[,;]\s*|\s+", text)


def _bad_line(path: Path, number: int, words: Sequence[str], count: int) -> EventError:
    return EventError(
        path, f"line {number} is {' '.join(words)[:60]!r}; it should be {count} numbers"
    )


def _are_numbers(words: Sequence[str]) -> bool:
    try:
        [float(word) for word in words]
    except ValueError:
        return False
    return True


# --- Files of cameras -----------------------------------------------------------------------------

_CD_EVENTS = (0x00, 0x0C)  # "contrast detection"; the only type whose records are these
_DAT_RECORD = np.dtype([("t", "<u4"), ("xyp", "<u4")])


def _dat(path: Path) -> _File:
    """Prophesee's DAT, version 2: a text header, the type and size of an event, and the events.

    Source: Prophesee's documentation of file formats, "DAT file format".
    """
    about: dict[str, str] = {}
    with path.open("rb") as file:
        while (start := file.tell()) >= 0 and (line := file.readline(4096)).startswith(b"%"):
            key, _, value = line[1:].decode("latin-1").strip().partition(" ")
            about[key.lower()] = value.strip()
        file.seek(start)
        kind, size = _exactly(file, 2)
        begin = file.tell()
        body = file.seek(0, 2) - begin
    if about.get("version", "2") != "2" or kind not in _CD_EVENTS or size != _DAT_RECORD.itemsize:
        raise EventError(
            path, f"is version {about.get('version', '?')} with events of type {kind} and {size} "
            "bytes; DAT of version 2 with CD events is read",
        )  # fmt: skip
    if body % size:
        raise EventError(path, "ends inside an event; is it cut short?")
    origin = int(about["t0"]) if about.get("t0", "").isdecimal() else 0

    def pieces() -> Iterator[Columns]:
        if not body:
            return
        mapped = np.memmap(path, _DAT_RECORD, "r", begin, (body // size,))
        for first in range(0, len(mapped), _PIECE):
            part = np.array(mapped[first : first + _PIECE])
            place = part["xyp"]
            # 14 bits of x, 14 of y, 4 of polarity
            x, y = (place & 0x3FFF).astype(np.int32), (place >> 14 & 0x3FFF).astype(np.int32)
            yield part["t"].astype(np.int64) + origin, x, y, (place >> 28 & 1).astype(np.int8)

    sides = {
        side: int(about[side]) for side in ("height", "width") if about.get(side, "").isdecimal()
    }
    return _File(pieces=pieces, unit="us", **sides)


def _faery(path: Path) -> _File:
    """What the package faery reads."""
    if find_spec("faery") is None:
        raise EventError(
            path, f"{path.suffix} files are read by faery; pip install 'spikevideoformer[events]'"
        )
    faery = import_module("faery")

    def opened() -> Any:
        return faery.events_stream_from_file(path)

    width, height = opened().dimensions()

    def pieces() -> Iterator[Columns]:
        for part in opened():
            yield part["t"].astype(np.int64), part["x"], part["y"], part["on"]

    return _File(pieces=pieces, unit="us", height=int(height), width=int(width))
