"""The formats of recordings: what a file says of itself, and its events in pieces.

Arrays of t, x, y and p in ``.npy`` and ``.npz`` files, tables in ``.csv`` and ``.txt``, ``.dat`` of
Prophesee; and with the package faery (``pip install 'spikevideoformer[events]'``) AEDAT4 of
iniVation, ``.raw`` of Prophesee (EVT2, EVT2.1, EVT3) and Event Stream. Nothing in a file is
executed.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from spikevideoformer.events.spec import CAMERA_SUFFIXES, EVENT_SUFFIXES, TABLE_SUFFIXES
from spikevideoformer.events.stream import EventError

_PIECE = 2**18  # events in memory at a time

Columns = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
"""t, x, y, p of some events."""

_Bytes = IO[bytes] | zipfile.ZipExtFile


@dataclass(frozen=True, kw_only=True)
class EventFile:
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


def open_events(path: Path, columns: str) -> EventFile:
    """What a file says of itself, by its ending; ``columns`` as in `EventFiles`."""
    ending = path.suffix.lower()
    if ending == ".npz":
        return _archive(path, columns)
    if ending == ".npy":
        return _array(path, columns)
    if ending in TABLE_SUFFIXES:
        return _table(path, columns)
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


def _array(path: Path, order: str) -> EventFile:
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

    return EventFile(pieces=pieces, unit=unit)


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


def _archive(path: Path, order: str) -> EventFile:
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

            return EventFile(pieces=pieces, unit=unit, **sizes)
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

    return EventFile(pieces=columns, unit=unit, **sizes)


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


def _table(path: Path, order: str) -> EventFile:
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

    return EventFile(pieces=pieces, unit=unit)


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


def _dat(path: Path) -> EventFile:
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
    return EventFile(pieces=pieces, unit="us", **sides)


def _faery(path: Path) -> EventFile:
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

    return EventFile(pieces=pieces, unit="us", height=int(height), width=int(width))
