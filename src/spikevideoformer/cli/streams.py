"""Standard streams of a process, also where one is closed, full or no longer read."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class _Lossy(io.RawIOBase):
    """Stderr as far as anyone takes it: a run does not end for want of a reader."""

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(2)

    def fileno(self) -> int:
        return 2

    def write(self, content: Any) -> int:
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[os.write(2, rest) :]
        except OSError:
            pass
        return len(content)


def prepare_streams() -> None:
    """Results on stdout, notes on stderr, in letters that any terminal can show.

    A stream that is closed (cron, daemons) is one into nothing: else the next file that is opened
    would get its number, and what libraries print would go there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - as long as the process
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    sys.stderr = io.TextIOWrapper(
        _Lossy(),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=True,
        write_through=True,
    )


def write_result(text: str) -> None:
    """Print at once.

    Raises:
        OSError: that names stdout.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        error.filename = "stdout"
        raise


def discard_results() -> None:
    """What could not be written goes into nothing: Python would complain once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
