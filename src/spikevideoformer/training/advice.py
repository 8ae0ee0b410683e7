"""Signs that a network does not work, and what to try."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from spikevideoformer.training.config import TrainConfig
from spikevideoformer.training.task_training import Row

_RISING = 0.9  # loss at the end beside that at two thirds of a run
_LEARNED = 0.9  # share of training labels that are met


class Evaluation(Protocol):
    """Metrics of a network."""

    def lines(self) -> list[str]:
        """As a command prints them."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        ...

    def signs(self) -> Iterator[str]:
        """Lines about answers that do not depend on the input; none where they do."""
        ...


def about_training(
    config: TrainConfig, evaluation: Evaluation, history: Sequence[Row]
) -> Iterator[str]:
    """The signs of an evaluation, and of a run that was too short or learned its clips by heart.

    Args:
        config: the run.
        evaluation: of its best weights.
        history: its rows of metrics.csv.
    """
    yield from evaluation.signs()
    if not config.validates:
        yield (
            "no clips were set aside: these figures are of the training clips themselves, and say "
            "nothing of new ones"
        )
    training = config.of_task.training()
    last, share = history[-1], history[-1][f"train_{training.measure}"]
    yield from training.signs(evaluation, history)
    early = history[(2 * len(history) - 1) // 3]
    still_falling = last["train_loss"] < _RISING * early["train_loss"]
    if len(history) >= 3 and still_falling and share < _LEARNED:
        yield (
            f"training was cut short: its loss was still falling ({early['train_loss']:.2f} in "
            f"epoch {early['epoch']:.0f}, {last['train_loss']:.2f} at the end); give more --epochs"
        )
