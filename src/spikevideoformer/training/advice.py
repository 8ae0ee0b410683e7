"""Signs that a network does not work, and what to try."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from spikevideoformer.messages import one_line
from spikevideoformer.tasks.classification.metrics import ClassificationResult
from spikevideoformer.tasks.segmentation.metrics import SegmentationResult
from spikevideoformer.training.config import TrainConfig
from spikevideoformer.training.pose import PoseEvaluation
from spikevideoformer.training.task import Row

Evaluation = ClassificationResult | SegmentationResult | PoseEvaluation

_SAME_POSE = 0.1  # spread of predicted poses beside that of labelled ones
_GUESSING = 0.97  # of the loss of a network that gives every class the same probability
_RISING = 0.9  # loss at the end beside that at two thirds of a run
_LEARNED, _REMEMBERED = 0.9, 0.97  # share of training labels that are met


def about_answers(evaluation: Evaluation) -> Iterator[str]:
    """Lines about answers that do not depend on the input; none where they do."""
    if isinstance(evaluation, PoseEvaluation):
        if evaluation.variation is not None and evaluation.variation < _SAME_POSE:
            yield (
                "nearly the same pose is found in every frame (it varies "
                f"{evaluation.variation:.0%} as much as the labels): the network does not see the "
                "body; train it longer, or show it larger (--pose.crop person)"
            )
        return
    confusion = evaluation.confusion
    asked = sum(any(row) for row in confusion)
    given = [k for k in range(len(confusion)) if any(row[k] for row in confusion)]
    if asked > 1 and len(given) == 1:
        what = "pixel" if isinstance(evaluation, SegmentationResult) else "video"
        name = evaluation.classes[given[0]]
        yield one_line(
            f"every {what} is given the class {name!r}: the network tells nothing apart; train it "
            "longer or from another network (--init-from), and look whether the labels are right"
        )


def about_training(
    config: TrainConfig, evaluation: Evaluation, history: Sequence[Row], measure: str
) -> Iterator[str]:
    """The same, and lines about a run that was too short or learned its clips by heart.

    Args:
        config: the run.
        evaluation: of its best weights.
        history: its rows of metrics.csv.
        measure: the share that training counts, such as top1.
    """
    yield from about_answers(evaluation)
    if not config.validates:
        yield (
            "no clips were set aside: these figures are of the training clips themselves, and say "
            "nothing of new ones"
        )
    last, share = history[-1], history[-1][f"train_{measure}"]
    if isinstance(evaluation, ClassificationResult):
        yield from _about_classes(evaluation, history, share)
    early = history[(2 * len(history) - 1) // 3]
    still_falling = last["train_loss"] < _RISING * early["train_loss"]
    if len(history) >= 3 and still_falling and share < _LEARNED:
        yield (
            f"training was cut short: its loss was still falling ({early['train_loss']:.2f} in "
            f"epoch {early['epoch']:.0f}, {last['train_loss']:.2f} at the end); give more --epochs"
        )


def _about_classes(
    evaluation: ClassificationResult, history: Sequence[Row], share: float
) -> Iterator[str]:
    classes = len(evaluation.classes)
    if classes < 2 or evaluation.top1 > (1 + 1 / classes) / 2:
        return
    guess = math.log(classes)
    best = min(row["val_loss"] for row in history)
    if best > _GUESSING * guess:
        learned = share >= _REMEMBERED
        why = (
            "the training clips are known by heart, and new ones are not recognised: more clips, "
            "of other places and people, or --init-from a network that has seen motion"
            if learned
            else "give it more --epochs, or --init-from a network that has seen motion"
        )
        yield (
            f"the validation loss stayed at that of guessing ({best:.2f} at best, ln {classes} = "
            f"{guess:.2f}): {why}"
        )
