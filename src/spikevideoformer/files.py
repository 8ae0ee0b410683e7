"""Files that are either whole or absent; imports nothing of ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from matplotlib.figure import Figure

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".tmp"  # what the name of a file that is being written ends in


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Have `write` fill a temporary file beside `path`, then put it in place in one rename.

    Args:
        path: the final name; its folder exists.
        write: called with the open binary file.

    Raises:
        OSError: that names `path`; nothing is left behind.
    """
    temporary = path.with_name(f"{_end(path.name)}.{os.getpid()}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else writes into a folder meanwhile; it is free again however the process ends.

    Raises:
        ValueError: another process does.
    """
    if fcntl is None:  # no such locks on this system
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    _LOCKS.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"{folder} is in use by another process; wait for it, or choose another --out"
            ) from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        _LOCKS.discard(handle)
        os.close(handle)


_LOCKS: set[int] = set()


def _let_go() -> None:
    """A forked process does not hold what its parent locked: loaders outlive a killed one."""
    while _LOCKS:
        os.close(_LOCKS.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def hidden_part(path: Path) -> Path:
    """A name of this process beside `path`, for a file of its kind that is being written."""
    return path.with_name(f".{_end(path.stem)}.{os.getpid()}.part{path.suffix}")


def _end(name: str) -> str:
    """What fits into a name with something added: names have 255 bytes at most."""
    return name.encode("utf-8", "surrogateescape")[-160:].decode("utf-8", "ignore").lstrip(".")


def part_of(path: Path) -> Path:
    """Where a video is while it is written in pieces that can be played: ``NAME.part.mp4``."""
    return path.with_name(f"{path.stem}.part{path.suffix}")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, as :func:`write_atomically` does."""
    write_atomically(path, lambda file: file.write(text.encode()))


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure of matplotlib as PNG, as :func:`write_atomically` does."""
    # The Agg canvas is named rather than chosen by pyplot: no display and no global state needed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    write_atomically(path, lambda file: canvas.print_png(file))
