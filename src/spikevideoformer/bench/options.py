"""Which rows there are, how they are run, and how one says that there is nothing to time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

ROW_NAMES = (
    "cpu_inference_exact",
    "cpu_inference_float",
    "cpu_inference_int8",
    "cpu_inference_ann",
    "cpu_training_step",
    "cpu_training_ann",
    "neuron_forward",
    "neuron_backward",
    "neuron_stepwise",
    "attention",
    "attention_bytes",
    "clip_scaling",
    "gpu_training_step",
    "gpu_inference",
    "gpu_clip_scaling",
)
"""The keys of ``rows.ROWS``, which needs torch."""


def check_rows(rows: Sequence[str] | None) -> None:
    """Raise ValueError for names that are no rows, and for none at all; None means all."""
    if rows is not None and not rows:
        raise ValueError(
            f"got no rows; choose from {', '.join(ROW_NAMES)}, or leave rows out for all"
        )
    unknown = [name for name in rows or () if name not in ROW_NAMES]
    if unknown:
        raise ValueError(f"row {unknown[0]!r} is unknown; choose from {', '.join(ROW_NAMES)}")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How rows are run.

    Attributes:
        quick: fewer rounds and sizes.
        tiny: sizes that say nothing of speed, to see that a row runs.
        device: cpu or cuda, for the rows that run on either.
        frames, size: of the clips, where a row leaves them open; None for those of the table.
        rounds: a fixed number of rounds instead of each row's own.
        say: takes one line of progress.
    """

    quick: bool = False
    tiny: bool = False
    device: str = "cpu"
    frames: int | None = None
    size: int | None = None
    rounds: int | None = None
    say: Callable[[str], None] = lambda _line: None

    def rounds_of(self, quick: int, full: int) -> int:
        """Rounds to run."""
        return self.rounds or (quick if self.quick else full)


class DifferentError(RuntimeError):
    """The two sides do not compute the same; the message says by how much."""
