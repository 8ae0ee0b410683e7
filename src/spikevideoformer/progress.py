"""Progress on stderr with the time left; imports nothing of ours."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm


class Progress:
    """One line of tqdm on stderr: how far a run is, its pace and the time left.

    On a terminal the line is redrawn in place; in a file or a pipe it is printed now and then. Of
    tqdm only the words are used: its bars would redraw from a thread, which data loaders that fork
    do not bear, and write carriage returns into files.
    """

    def __init__(
        self,
        *,
        total_steps: int | None,
        first_step: int,
        step_name: str = "step",
        stream: TextIO | None = None,
    ) -> None:
        """Start the clock.

        Args:
            total_steps: steps of the whole run; None where nobody knows.
            first_step: steps done by earlier processes; they took none of this one's time.
            step_name: what a step is called.
            stream: where to write; stderr if None.
        """
        self._stream = stream if stream is not None else sys.stderr
        self._live = self._stream.isatty()
        self._interval_s = 0.5 if self._live else 30.0
        self._total, self._first, self._name = total_steps, first_step, step_name
        self._start_s = self._shown_s = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for another line."""
        return time.monotonic() - self._shown_s >= self._interval_s

    def left(self, step: int) -> str:
        """The time left after `step`, as `mm:ss` or `h:mm:ss`, at the mean pace so far."""
        assert self._total is not None
        rate = (time.monotonic() - self._start_s) / max(step - self._first, 1)
        return tqdm.format_interval(rate * max(self._total - step, 0))

    def show(self, step: int, text: str = "") -> None:
        """Write the line of `step`, with what else there is to tell."""
        self._shown_s = time.monotonic()
        line = tqdm.format_meter(
            step,
            self._total,
            self._shown_s - self._start_s,
            ncols=shutil.get_terminal_size().columns - 1 if self._live else 0,
            prefix=self._name,
            postfix=text,
            initial=self._first,
        )
        self._stream.write(f"\r\x1b[2K{line}" if self._live else f"{line}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Make room for other output on a terminal."""
        if self._live:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()


@contextmanager
def progress_on_stderr(step_name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A function to be told (done, total), which now and then shows them with the time left.

    A total of None is unknown, and no time left is shown.

    Args:
        step_name: what is counted.
    """
    progress: Progress | None = None

    def tell(done: int, total: int | None) -> None:
        nonlocal progress
        if progress is None:
            progress = Progress(total_steps=total, first_step=done, step_name=step_name)
        elif progress.due():
            progress.show(done)

    try:
        yield tell
    finally:
        if progress is not None:
            progress.clear()
