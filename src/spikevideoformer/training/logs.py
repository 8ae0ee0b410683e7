"""What a run tells: metrics.csv and TensorBoard events."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

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


def shortened(names: Sequence[str]) -> str:
    """The first few names and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more if names else "none"
