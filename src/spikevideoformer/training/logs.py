"""What a run tells: metrics.csv, TensorBoard events, and progress with the time left."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from spikevideoformer.files import write_text

Row = Mapping[str, float | int]


def write_metrics(history: Sequence[Row], path: Path) -> None:
    """Write metrics.csv anew from the rows of all epochs.

    The rows live in the checkpoint and the file is only their print-out, so a resumed run never
    repeats or loses a row.

    Args:
        history: one row an epoch, all with the same keys.
        path: the file.
    """
    text = io.StringIO()
    if history:
        writer = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
    write_text(path, text.getvalue())


class TensorBoardLog:
    """Scalars for TensorBoard, in the run folder."""

    def __init__(self, folder: Path, *, first_step: int) -> None:
        """Open a new event file.

        Args:
            folder: the run folder.
            first_step: events of earlier processes at this step or later are hidden: they belong
                to work that was lost in a kill and is done again.
        """
        # Imported here because it takes a second, and only a training run needs it.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(folder, purge_step=first_step)

    def add(self, values: Row, *, step: int, prefix: str) -> None:
        """Log each value as `prefix/name` at `step`."""
        for name, value in values.items():
            self._writer.add_scalar(f"{prefix}/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class Progress:
    """One line on stderr with how far a run is, its loss and the time left.

    On a terminal the line is redrawn in place; in a file or a pipe it is printed now and then.
    """

    def __init__(
        self,
        *,
        total_steps: int,
        first_step: int,
        step_name: str = "step",
        stream: TextIO | None = None,
    ) -> None:
        """Start the clock.

        Args:
            total_steps: steps of the whole run.
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
        """The time left after `step`, as `h:mm:ss`, at the mean pace so far."""
        rate = (time.monotonic() - self._start_s) / max(step - self._first, 1)
        return format_duration(rate * (self._total - step))

    def show(self, step: int, text: str = "") -> None:
        """Write the line of `step`, with what else there is to tell."""
        self._shown_s = time.monotonic()
        parts = (f"{self._name} {step}/{self._total}", text, f"ETA {self.left(step)}")
        line = "  ".join(part for part in parts if part)
        self._stream.write(f"\r\x1b[2K{line}" if self._live else f"{line}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Make room for other output on a terminal."""
        if self._live:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()


@contextmanager
def progress_on_stderr(step_name: str) -> Iterator[Callable[[int, int], None]]:
    """A function to be told (done, total), which now and then shows them with the time left.

    Args:
        step_name: what is counted.
    """
    progress: Progress | None = None

    def tell(done: int, total: int) -> None:
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


def format_duration(seconds: float) -> str:
    """`h:mm:ss`, rounded up.

    Args:
        seconds: at least 0.
    """
    whole = int(-(-seconds // 1))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def shortened(names: Sequence[str]) -> str:
    """The first few names and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more if names else "none"
