"""Classification of clips: the loss, and metrics as sums that can be added over processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spikevideoformer.messages import one_line, require_finite
from spikevideoformer.tasks.outputs import one_class_for_all


def classification_loss(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy against smoothed labels.

    Equation: ``-sum_c q_c log softmax(logits)_c`` with ``q = (1 - e) onehot(label) + e / C``.

    Args:
        logits: [B, C].
        labels: class indices, int64 [B].
        label_smoothing: e, in [0, 1).

    Returns:
        Scalar, in nats.

    Source: Szegedy et al., "Rethinking the Inception Architecture" (2016), section 7.
    """
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)


def count_correct(scores: Tensor, labels: Tensor, *, k: int = 1) -> Tensor:
    """How many clips have their label among the k highest scores (all, where k >= C).

    A label counts as found when fewer than k classes score strictly higher, or equal with a lower
    index: the answer does not depend on how `topk` orders ties.

    Args:
        scores: logits or probabilities [B, C].
        labels: int64 [B].
        k: at least 1.

    Returns:
        Scalar int64 tensor on the device of `scores`.
    """
    own = scores.gather(1, labels[:, None])  # [B, 1]
    index = torch.arange(scores.shape[1], device=scores.device)
    ahead = (scores > own) | ((scores == own) & (index < labels[:, None]))  # [B, C]
    # A NaN compares false with everything and would count as correct.
    return ((ahead.sum(1) < k) & ~scores.isnan().any(1)).sum()


@dataclass(frozen=True, kw_only=True)
class ClassificationResult:
    """Metrics of one evaluation.

    Attributes:
        clips: number of videos counted.
        loss: mean negative log likelihood of the label, in nats.
        top1: share of videos whose label has the highest probability.
        top5: share of videos whose label is among the five highest (1 where there are at most five
            classes).
        mean_class_accuracy: mean of `class_accuracy` over the classes that have videos.
        classes: class names, in index order.
        class_accuracy: top-1 within each class; None where the class has no video.
        confusion: counts, rows the true class, columns the predicted one.
    """

    clips: int
    loss: float
    top1: float
    top5: float
    mean_class_accuracy: float
    class_accuracy: tuple[float | None, ...]
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]

    def __repr__(self) -> str:
        return (
            f"ClassificationResult(top-1 {self.top1:.1%}, top-5 {self.top5:.1%} of {self.clips} "
            f"videos, {len(self.classes)} classes, loss {self.loss:.3f} nats)"
        )

    def _repr_html_(self) -> str:
        from spikevideoformer import notebook

        shares = zip(self.classes, self.class_accuracy, strict=True)
        rows = [(name, share) for name, share in shares if share is not None]
        drawing = notebook.bars(
            rows, show="{:.1%}".format, largest=1.0, caption="top-1 within each class"
        )
        return notebook.card(repr(self), drawing)

    def signs(self) -> Iterator[str]:
        """Lines about answers that do not depend on the input; none where they do."""
        return one_class_for_all(self.confusion, self.classes, "video")

    def lines(self) -> list[str]:
        """The metrics as a command prints them."""
        width = max(map(len, self.classes))
        rows = zip(self.classes, self.class_accuracy, self.confusion, strict=True)
        return [
            f"top-1 {self.top1:.1%}, top-5 {self.top5:.1%} of {self.clips} videos",
            f"mean over classes {self.mean_class_accuracy:.1%}, loss {self.loss:.3f} nats",
            *(
                one_line(f"  {name:<{width}}  {share:6.1%} of {sum(row)}")
                for name, share, row in rows
                if share is not None
            ),
        ]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain lists, dicts and numbers, ready for JSON."""
        return asdict(self) | {
            "class_accuracy": dict(zip(self.classes, self.class_accuracy, strict=True)),
            "classes": list(self.classes),
            "confusion": [list(row) for row in self.confusion],
        }


class ClassificationMetrics:
    """Running sums over videos; `sums` is one tensor, so processes agree by adding theirs."""

    def __init__(self, classes: Sequence[str]) -> None:
        """Start at zero.

        Args:
            classes: class names, in index order.
        """
        self.classes = tuple(classes)
        # float64 holds counts up to 2^53 exactly: [loss, top-5 hits, confusion row by row].
        self.sums = torch.zeros(2 + len(self.classes) ** 2, dtype=torch.float64)

    @property
    def finite(self) -> bool:
        """Whether every probability was a number; after one that was not, there are no metrics."""
        return bool(self.sums[0].isfinite())

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            probabilities: [B, C], in [0, 1], rows summing to 1. NaN spoils the sums: `finite`.
            labels: int64 [B].
        """
        probabilities, labels = probabilities.detach().cpu().double(), labels.cpu()
        count = len(self.classes)
        own = probabilities.gather(1, labels[:, None]).clamp_min(torch.finfo(torch.float32).tiny)
        cells = labels * count + probabilities.argmax(1)
        self.sums[0] -= own.log().sum()
        self.sums[1] += count_correct(probabilities, labels, k=5)
        self.sums[2:] += torch.bincount(cells, minlength=count**2)

    def compute(self) -> ClassificationResult:
        """Turn the sums into metrics.

        Raises:
            ValueError: nothing has been counted, or probabilities were NaN.
        """
        require_finite(self.finite)
        confusion = self.sums[2:].reshape(len(self.classes), -1)
        per_class, total = confusion.sum(1), float(confusion.sum())
        if total == 0:
            raise ValueError("no clip was evaluated; give a split that holds at least one clip")
        accuracy = [
            float(confusion[c, c] / n) if n > 0 else None for c, n in enumerate(per_class.tolist())
        ]
        present = [a for a in accuracy if a is not None]
        return ClassificationResult(
            clips=int(total),
            loss=float(self.sums[0] / total),
            top1=float(confusion.trace() / total),
            top5=float(self.sums[1] / total),
            mean_class_accuracy=sum(present) / len(present),
            classes=self.classes,
            class_accuracy=tuple(accuracy),
            confusion=tuple(tuple(int(n) for n in row) for row in confusion.tolist()),
        )
