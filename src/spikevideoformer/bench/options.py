"""How rows are run, and how one says that there is nothing to time."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Options:
    """How rows are run.

    Attributes:
        quick: fewer rounds and sizes.
        device: cpu or cuda, for the rows that run on either.
        frames, size: of the clips, where a row leaves them open; None for those of the table.
        rounds: a fixed number of rounds instead of each row's own.
        say: takes one line of progress.
    """

    quick: bool = False
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
