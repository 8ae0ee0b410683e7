"""Segmentation of every frame: the loss, and metrics as sums that can be added over processes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from spikevideoformer.messages import one_line, require_finite
from spikevideoformer.tasks.outputs import one_class_for_all
from spikevideoformer.tasks.segmentation.sequence import IGNORED
from spikevideoformer.tasks.segmentation.spec import Weighting


def segmentation_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    dice_weight: float = 0.0,
    lovasz_weight: float = 0.0,
) -> Tensor:
    """Weighted cross entropy over the labelled pixels, with Dice and Lovász terms where asked for.

    Equation: ``sum_i w[l_i] nll_i / sum_i w[l_i] + dice_weight * dice + lovasz_weight * lovasz``
    over the labelled pixels i of the whole batch. Half precision is computed in float32.

    Args:
        logits: [B, T, K, H, W].
        labels: class indices or `IGNORED`, uint8 or int64 [B, T, H, W]. A frame without a mask is
            one that is ignored throughout.
        class_weights: w, [K], at least 0; None: 1 each. A common factor changes nothing.
        label_smoothing: in [0, 1), as in `torch.nn.functional.cross_entropy`.
        dice_weight: at least 0.
        lovasz_weight: at least 0.

    Returns:
        Scalar, the cross entropy in nats. Zero, with zero gradient, where no pixel is labelled.

    Raises:
        ValueError: a label that is neither a class nor `IGNORED`.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, 1)
    labels = labels.long().flatten(0, 1)  # [BT, H, W]
    pixels = _count_labels(labels, logits.shape[1])
    if dice_weight or lovasz_weight:
        known = labels != IGNORED
        logits, labels = logits.movedim(1, -1)[known], labels[known]  # [N, K] and [N]
    loss = F.cross_entropy(
        logits,
        labels,
        weight=None if class_weights is None else class_weights.to(logits.dtype),
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    total = pixels.sum() if class_weights is None else (pixels * class_weights).sum()
    loss = loss / total if total > 0 else 0 * loss  # torch's own mean would be 0 / 0
    if (dice_weight or lovasz_weight) and len(labels):
        probabilities = logits.softmax(1)
        if dice_weight:
            loss = loss + dice_weight * dice_loss(probabilities, labels)
        if lovasz_weight:
            loss = loss + lovasz_weight * lovasz_loss(probabilities, labels)
    return loss


def dice_loss(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Soft Dice loss, averaged over the classes that have pixels.

    Equation: ``1 - 2 sum_i p_ic g_ic / (sum_i p_ic + sum_i g_ic)`` for class c, with g the labels
    as 0 and 1.

    Args:
        probabilities: p, [N, K].
        labels: int64 [N], N at least 1.

    Returns:
        Scalar, in [0, 1].

    Source: Milletari et al., "V-Net" (3DV 2016), section 3; without squares in the denominator, as
        Sudre et al. (DLMIA 2017).
    """
    losses = []
    for c in labels.unique().tolist():
        own, p = labels == c, probabilities[:, c]
        losses.append(1 - 2 * (p * own).sum() / (p.sum() + own.sum()))
    return torch.stack(losses).mean()


def lovasz_loss(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Lovász-softmax: a loss piecewise linear in the probabilities that is 1 - IoU at 0 and 1.

    For each class the errors ``e_i = |g_i - p_i|`` are sorted downwards. Pixel by pixel in that
    order the Jaccard loss grows to that of a prediction wrong at just these pixels, and each error
    is weighted by the step that its pixel adds. Averaged over the classes that have pixels.

    Args:
        probabilities: p, [N, K].
        labels: int64 [N], N at least 1.

    Returns:
        Scalar, in [0, 1].

    Source: Berman et al., "The Lovász-Softmax loss" (CVPR 2018), equations 8, 9 and 12.
    """
    losses = []
    for c in labels.unique().tolist():
        own, p = labels == c, probabilities[:, c]
        # Stable: among equal errors the order decides the gradient.
        errors, order = torch.where(own, 1 - p, p).sort(descending=True, stable=True)
        own = own[order]
        size = own.sum()
        missed, added = own.cumsum(0), (~own).cumsum(0)
        # In float64: the steps are differences, each about 1 / N.
        jaccard = 1 - (size - missed).double() / (size + added)
        steps = jaccard.diff(prepend=jaccard.new_zeros(1)).to(errors.dtype)
        losses.append((errors * steps).sum())
    return torch.stack(losses).mean()


def class_weights_from_pixels(pixels: Sequence[int], scheme: Weighting) -> Tensor | None:
    """Weights of the classes for `segmentation_loss`, larger for rare ones.

    "inverse_log" is ``1 / ln(1.02 + p_c)`` with p the share of pixels: 1.4 for the only class and
    50.5 for one without pixels. "median_frequency" is ``median(p) / p_c`` over the classes that
    have pixels; the shares are those of the whole training split, where the source takes them over
    the pictures that show the class. A class without pixels gets the largest weight of the others,
    as its own would be infinite. Weights are not normalised: the loss divides by their sum.

    Args:
        pixels: of each class in the training split.
        scheme: "none" weighs all alike.

    Returns:
        float32 [K], above 0; None for "none".

    Raises:
        ValueError: an unknown scheme, a negative count, or no pixel at all.

    Source: Paszke et al., "ENet" (2016), section 4 (1.02); Eigen and Fergus (ICCV 2015), section
        6.2 (median frequency).
    """
    if scheme not in get_args(Weighting):
        raise ValueError(
            f"class weights must be one of {', '.join(get_args(Weighting))}, got {scheme!r}"
        )
    if scheme == "none":
        return None
    if min(pixels, default=0) < 0 or not any(pixels):
        raise ValueError(
            f"class weights {scheme} need labelled pixels, got counts {list(pixels)}; use none"
        )
    if scheme == "inverse_log":
        return torch.tensor([1 / math.log(1.02 + n / sum(pixels)) for n in pixels])
    present = [n for n in pixels if n]
    median = statistics.median(present)
    return torch.tensor([median / (n or min(present)) for n in pixels])


class VideoConsistency:
    """Whether predictions hold still where the labels do, over the windows of one video.

    Equation: for every n frames in a row, the share of pixels with one predicted class in all n,
    among those with one label (not `IGNORED`) in all n. Windows without such pixels are left out,
    and a frame without labels breaks every window that it is in.

    Predictions must be constant, not right: that is how the published script counts, as we remember
    it (it also leaves out the last window of a video and counts pixels without a label, which is
    not done here). The paper's formula may also be read as intersecting the predictions with the
    labels, which would mix accuracy in.

    Memory does not grow with the video: for each pixel two counters say for how many frames, this
    one included, its label and its prediction have been what they are.

    Source: Miao et al., "VSPW" (CVPR 2021), video consistency VC_n.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        """Start a video.

        Args:
            lengths: n, each at least 1.
        """
        self._lengths = tuple(lengths)
        self._last: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def add(self, predicted: Tensor, labels: Tensor | None) -> Tensor:
        """Look at the next frame.

        Args:
            predicted: class indices [H, W].
            labels: class indices or `IGNORED`, [H, W] of the same size; None: not labelled.

        Returns:
            The window of each length that ends with this frame, float64 [lengths, 2]: its share
            and 1, or 0 and 0 where there is none.

        Raises:
            ValueError: the size differs from that of the frame before.
        """
        sums = torch.zeros(len(self._lengths), 2, dtype=torch.float64)
        if labels is None:
            self._last = None
            return sums
        label_run = torch.zeros_like(labels, dtype=torch.int32)
        predicted_run = torch.zeros_like(label_run)
        if self._last is not None:
            last_predicted, last_labels, last_predicted_run, last_label_run = self._last
            if last_labels.shape != labels.shape:
                raise ValueError(
                    f"a frame of {list(labels.shape)} pixels follows one of "
                    f"{list(last_labels.shape)}; start a new video first"
                )
            label_run = last_label_run * (labels == last_labels)
            predicted_run = last_predicted_run * (predicted == last_predicted)
        label_run = (label_run + 1) * (labels != IGNORED)
        predicted_run = predicted_run + 1
        for i, n in enumerate(self._lengths):
            still = label_run >= n
            if count := int(still.sum()):
                sums[i, 0] = int((still & (predicted_run >= n)).sum()) / count
                sums[i, 1] = 1
        # Copies: the caller may write the next frame into the same memory.
        self._last = (predicted.clone(), labels.clone(), predicted_run, label_run)
        return sums


@dataclass(frozen=True, kw_only=True)
class SegmentationResult:
    """Metrics of one evaluation.

    A class that is neither in the labels nor predicted at a labelled pixel has no IoU and no part
    in the mean, as in mmsegmentation. Torchmetrics' mean leaves it out as well, though its list per
    class says 0.

    Attributes:
        frames: number of frames with a labelled pixel.
        pixels: number of labelled pixels.
        loss: mean negative log likelihood of the label, in nats; None where it was not measured.
        miou: mean of `class_iou` over the classes that have one.
        pixel_accuracy: share of labelled pixels whose class is predicted.
        mean_class_accuracy: mean over the classes that have labelled pixels of the share of them
            whose class is predicted.
        classes: class names, in index order.
        class_iou: intersection over union of labels and predictions; None for a class in neither.
        class_pixels: labelled pixels of each class.
        confusion: pixels, rows the true class, columns the predicted one.
        mvc8: mean `VideoConsistency` over the windows of 8 frames; None where there is no window.
        mvc16: the same over 16 frames.
    """

    frames: int
    pixels: int
    loss: float | None
    miou: float
    pixel_accuracy: float
    mean_class_accuracy: float
    mvc8: float | None
    mvc16: float | None
    class_iou: tuple[float | None, ...]
    class_pixels: tuple[int, ...]
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]

    def __repr__(self) -> str:
        return (
            f"SegmentationResult(mIoU {self.miou:.1%}, pixel accuracy {self.pixel_accuracy:.1%} of "
            f"{self.frames} frames, {len(self.classes)} classes)"
        )

    def _repr_html_(self) -> str:
        from spikevideoformer import notebook

        shares = zip(self.classes, self.class_iou, strict=True)
        rows = [(name, iou) for name, iou in shares if iou is not None]
        drawing = notebook.bars(
            rows, show="{:.1%}".format, largest=1.0, caption="IoU of each class"
        )
        return notebook.card(repr(self), drawing)

    def signs(self) -> Iterator[str]:
        """Lines about answers that do not depend on the input; none where they do."""
        return one_class_for_all(self.confusion, self.classes, "pixel")

    def lines(self) -> list[str]:
        """The metrics as a command prints them."""
        means = [f"mean over classes {self.mean_class_accuracy:.1%}"]
        if self.loss is not None:
            means.append(f"loss {self.loss:.3f} nats")
        held = (("mVC8", self.mvc8), ("mVC16", self.mvc16))
        means += [f"{name} {share:.1%}" for name, share in held if share is not None]
        width = max(map(len, self.classes))
        rows = zip(self.classes, self.class_iou, self.class_pixels, strict=True)
        return [
            f"mIoU {self.miou:.1%}, pixel accuracy {self.pixel_accuracy:.1%} of "
            f"{self.frames} frames",
            ", ".join(means),
            *(
                one_line(
                    f"  {name:<{width}}  IoU {iou:6.1%}  ({pixels / self.pixels:.1%} of pixels)"
                )
                for name, iou, pixels in rows
                if iou is not None
            ),
        ]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain lists, dicts and numbers, ready for JSON."""
        return asdict(self) | {
            "class_iou": dict(zip(self.classes, self.class_iou, strict=True)),
            "class_pixels": dict(zip(self.classes, self.class_pixels, strict=True)),
            "classes": list(self.classes),
            "confusion": [list(row) for row in self.confusion],
        }


class SegmentationMetrics:
    """Running sums over frames; `sums` is one tensor, so processes agree by adding theirs.

    Where consistency in time is wanted, whole videos are walked frame by frame, each by one
    process: `start_video`, then `add_frame` in order. `update` takes frames in any order.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        """Start at zero, in the first video.

        Args:
            classes: class names, in index order.
        """
        self.classes = tuple(classes)
        # float64 holds counts up to 2^53 exactly: [loss, its pixels, frames, share and number of
        # windows of 8 frames, the same of 16, confusion row by row].
        self.sums = torch.zeros(7 + len(self.classes) ** 2, dtype=torch.float64)
        self.start_video()

    @property
    def finite(self) -> bool:
        """Whether every loss was a number; after one that was not, there are no metrics.

        Class maps do not show it: the highest of outputs that are NaN is still some class.
        """
        return bool(self.sums[0].isfinite())

    def start_video(self) -> None:
        """Say that the next frame does not follow the last one."""
        self._consistency = VideoConsistency((8, 16))

    def add_frame(self, predicted: Tensor, labels: Tensor | None) -> None:
        """Count the next frame of a video, its consistency with the frames before included.

        Args:
            predicted: class indices, uint8 or int64 [H, W].
            labels: class indices or `IGNORED`, uint8 or int64 [H, W]; None: not labelled, which
                breaks the windows of consistency.

        Raises:
            ValueError: as `update`; the size differs from that of the frame before.
        """
        if labels is not None:
            self.update(predicted, labels)
        self.sums[3:7] += self._consistency.add(predicted, labels).flatten()

    def update(self, predicted: Tensor, labels: Tensor) -> None:
        """Count frames for all but consistency.

        Args:
            predicted: class indices, uint8 or int64 [..., H, W]; anything at ignored pixels.
            labels: class indices or `IGNORED`, uint8 or int64 [..., H, W].

        Raises:
            ValueError: the sizes differ, or an index at a labelled pixel is not of a class.
        """
        if predicted.shape != labels.shape:
            raise ValueError(
                f"predictions are {list(predicted.shape)} and labels {list(labels.shape)}; bring "
                "the predictions to the size of the labels first"
            )
        known = labels != IGNORED
        self.sums[2] += known.flatten(-2).any(-1).sum().cpu()
        self.sums[7:] += _confusion(predicted[known], labels[known], len(self.classes)).flatten()

    def add_loss(self, total_nll: float, pixels: int) -> None:
        """Count a loss.

        Args:
            total_nll: sum of the negative log likelihoods of labelled pixels, in nats, without
                weights. NaN spoils the sums: `finite`.
            pixels: how many.
        """
        self.sums[0] += total_nll
        self.sums[1] += pixels

    def compute(self) -> SegmentationResult:
        """Turn the sums into metrics.

        Raises:
            ValueError: no labelled pixel has been counted, or the loss was NaN.
        """
        require_finite(self.finite)
        loss, loss_pixels, frames, share8, windows8, share16, windows16 = self.sums[:7].tolist()
        confusion = self.sums[7:].reshape(len(self.classes), -1)
        total = float(confusion.sum())
        if total == 0:
            raise ValueError(
                "no labelled pixel was evaluated; give a split that holds at least one mask"
            )
        hits, truth = confusion.diag(), confusion.sum(1)
        union = truth + confusion.sum(0) - hits
        iou = [h / u if u else None for h, u in zip(hits.tolist(), union.tolist(), strict=True)]
        measured = [value for value in iou if value is not None]
        return SegmentationResult(
            frames=int(frames),
            pixels=int(total),
            loss=loss / loss_pixels if loss_pixels else None,
            miou=sum(measured) / len(measured),
            pixel_accuracy=float(hits.sum() / total),
            mean_class_accuracy=float((hits / truth)[truth > 0].mean()),
            classes=self.classes,
            class_iou=tuple(iou),
            class_pixels=tuple(int(n) for n in truth.tolist()),
            confusion=tuple(tuple(int(n) for n in row) for row in confusion.tolist()),
            mvc8=share8 / windows8 if windows8 else None,
            mvc16=share16 / windows16 if windows16 else None,
        )


def _count_labels(labels: Tensor, classes: int) -> Tensor:
    """Pixels of each class, int64 [K], without those that are ignored."""
    counts = torch.bincount(labels.flatten(), minlength=IGNORED + 1)
    found = (counts[classes:].nonzero().flatten() + classes).tolist()
    if strange := set(found) - {IGNORED}:
        raise ValueError(
            f"labels hold {min(strange)}, which is none of {classes} classes; use 0 to "
            f"{classes - 1}, or {IGNORED} for pixels to ignore"
        )
    return counts[:classes]


def _confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts int64 [K, K] on the CPU of labelled pixels [N], rows the label."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    _count_labels(labels, classes)
    if len(predicted) and not 0 <= int(predicted.min()) <= int(predicted.max()) < classes:
        raise ValueError(
            f"predictions range from {int(predicted.min())} to {int(predicted.max())}; they must "
            f"be indices of {classes} classes, 0 to {classes - 1}"
        )
    # Sums of whole numbers need no fixed order. In deterministic mode torchmetrics would compare
    # each pixel with each of the K^2 cells, gigabytes for a large frame.
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    try:
        counts = multiclass_confusion_matrix(predicted, labels, classes, validate_args=False)
    finally:
        torch.set_deterministic_debug_mode(before)
    return counts.cpu()
