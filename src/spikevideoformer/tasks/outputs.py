"""What every task asks of the outputs of a network."""

from collections.abc import Iterator, Sequence

from spikevideoformer.messages import one_line


def one_class_for_all(
    confusion: Sequence[Sequence[int]], classes: Sequence[str], what: str
) -> Iterator[str]:
    """A line where all are given one class, whatever they are; `what` says of what it is given."""
    asked = sum(any(row) for row in confusion)
    given = [k for k in range(len(confusion)) if any(row[k] for row in confusion)]
    if asked > 1 and len(given) == 1:
        yield one_line(
            f"every {what} is given the class {classes[given[0]]!r}: the network tells nothing "
            "apart; train it longer or from another network (--init-from), and look whether the "
            "labels are right"
        )
