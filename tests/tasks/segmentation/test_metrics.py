import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from spikevideoformer.tasks.segmentation import sequence
from spikevideoformer.tasks.segmentation.metrics import (
    IGNORED,
    SegmentationMetrics,
    VideoConsistency,
    class_weights_from_pixels,
    dice_loss,
    lovasz_loss,
    segmentation_loss,
)

TERMS = [{}, {"dice_weight": 0.5}, {"lovasz_weight": 2.0}, {"dice_weight": 1, "lovasz_weight": 1}]


def maps(*size: int, classes: int, ignored: float = 0.0, seed: int = 0) -> Tensor:
    """Random class map, uint8, with a share of ignored pixels."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(classes, size, generator=generator, dtype=torch.uint8)
    return drawn.masked_fill(torch.rand(size, generator=generator) < ignored, IGNORED)


def test_the_ignored_label_is_that_of_the_data():
    assert IGNORED == sequence.IGNORED


# --- Loss ------------------------------------------------------------------------------------


def test_cross_entropy_by_hand():
    # One clip, one frame, two classes, three pixels in a row; the last is ignored.
    logits = torch.tensor([[2.0, 0.0, 9.0], [0.0, 0.0, -9.0]])[None, None, :, None]
    labels = torch.tensor([[[[0, 1, IGNORED]]]], dtype=torch.uint8)
    nll = [math.log(1 + math.exp(-2)), math.log(2)]
    assert segmentation_loss(logits, labels).item() == pytest.approx(sum(nll) / 2)
    weighted = segmentation_loss(logits, labels, class_weights=torch.tensor([1.0, 3.0]))
    assert weighted.item() == pytest.approx((nll[0] + 3 * nll[1]) / 4)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 0.0, 1.0])])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_cross_entropy_is_torchs_mean(weights, smoothing, dtype):
    logits = torch.randn(2, 3, 4, 5, 6)
    labels = maps(2, 3, 5, 6, classes=4, ignored=0.3)
    expected = F.cross_entropy(
        logits.flatten(0, 1),
        labels.flatten(0, 1).long(),
        weight=weights,
        ignore_index=IGNORED,
        label_smoothing=smoothing,
    )
    options = {"class_weights": weights, "label_smoothing": smoothing}
    loss = segmentation_loss(logits, labels.to(dtype), **options)
    torch.testing.assert_close(loss, expected)
    # The terms select the labelled pixels first, which leaves the cross entropy as it is.
    loss = segmentation_loss(logits, labels.to(dtype), **options, dice_weight=1e-30)
    torch.testing.assert_close(loss, expected)


def test_terms_add_with_their_weights():
    logits, labels = torch.randn(1, 2, 3, 4, 4), maps(1, 2, 4, 4, classes=3, ignored=0.2)
    known = labels != IGNORED
    p, target = logits.movedim(2, -1)[known].softmax(1), labels[known].long()
    expected = segmentation_loss(logits, labels)
    expected = expected + 0.5 * dice_loss(p, target) + 2 * lovasz_loss(p, target)
    loss = segmentation_loss(logits, labels, dice_weight=0.5, lovasz_weight=2.0)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("terms", TERMS)
def test_ignored_pixels_change_neither_loss_nor_gradient(terms):
    labels = maps(1, 3, 4, 5, classes=3, ignored=0.4)
    labels[:, 1] = IGNORED  # a frame without a mask
    logits = torch.randn(1, 3, 3, 4, 5)
    hidden = (labels == IGNORED)[:, :, None].expand_as(logits)
    other = torch.where(hidden, torch.randn(1, 3, 3, 4, 5), logits)
    losses, gradients = [], []
    for values in (logits, other):
        values.requires_grad_()
        losses.append(segmentation_loss(values, labels, label_smoothing=0.1, **terms))
        gradients += torch.autograd.grad(losses[-1], values)
    assert losses[0].equal(losses[1])
    assert gradients[0].equal(gradients[1])
    assert (gradients[0][hidden] == 0).all()
    assert (gradients[0][~hidden] != 0).any()


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("weights", [None, torch.ones(3)])
def test_without_labelled_pixels_loss_and_gradient_are_zero(terms, weights):
    logits = torch.randn(1, 2, 3, 4, 4, requires_grad=True)
    labels = torch.full((1, 2, 4, 4), IGNORED, dtype=torch.uint8)
    loss = segmentation_loss(logits, labels, class_weights=weights, label_smoothing=0.1, **terms)
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_pixels_of_weight_zero_give_no_nan():
    logits = torch.randn(1, 1, 2, 3, 3, requires_grad=True)
    labels = torch.zeros(1, 1, 3, 3, dtype=torch.uint8)
    loss = segmentation_loss(logits, labels, class_weights=torch.tensor([0.0, 1.0]))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("terms", TERMS)
def test_gradients(terms):
    logits = torch.randn(1, 2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    labels = maps(1, 2, 2, 3, classes=3, ignored=0.2)
    weights = torch.tensor([1.0, 2.0, 0.5])

    def loss(x: Tensor) -> Tensor:
        return segmentation_loss(x, labels, class_weights=weights, label_smoothing=0.1, **terms)

    assert torch.autograd.gradcheck(loss, logits)


def test_every_operation_has_a_deterministic_form():
    labels = maps(2, 2, 8, 8, classes=4, ignored=0.3)
    logits = torch.randn(2, 2, 4, 8, 8)
    gradients = []
    before = torch.get_deterministic_debug_mode()
    torch.use_deterministic_algorithms(True)
    try:
        for terms in (TERMS[0], TERMS[3]) * 2:
            x = logits.clone().requires_grad_()
            weights = torch.rand(4, generator=torch.Generator().manual_seed(0))
            loss = segmentation_loss(x, labels, class_weights=weights, label_smoothing=0.1, **terms)
            gradients += torch.autograd.grad(loss, x)
    finally:
        torch.set_deterministic_debug_mode(before)
    assert gradients[0].equal(gradients[2])
    assert gradients[1].equal(gradients[3])


@pytest.mark.parametrize("terms", TERMS)
def test_half_precision_is_computed_in_float32(terms):
    logits = torch.randn(1, 2, 3, 16, 16).bfloat16()
    labels = maps(1, 2, 16, 16, classes=3, ignored=0.2)
    expected = segmentation_loss(logits.float(), labels, **terms)
    with torch.autocast("cpu", torch.bfloat16):
        loss = segmentation_loss(logits, labels, **terms)
    assert loss.dtype == torch.float32
    assert loss.equal(expected)


@pytest.mark.parametrize("terms", TERMS)
def test_a_label_that_is_no_class_is_refused(terms):
    labels = torch.tensor([[[[0, 7, IGNORED]]]], dtype=torch.uint8)
    with pytest.raises(ValueError, match="labels hold 7, which is none of 3 classes; use 0 to 2"):
        segmentation_loss(torch.randn(1, 1, 3, 1, 3), labels, **terms)


def test_dice_by_hand():
    # Class 2 has no pixel: it is not in the mean, though its probability counts in no other way.
    p = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.9, 0.0]])
    labels = torch.tensor([0, 0, 1])
    first = 1 - 2 * (0.7 + 0.5) / (0.7 + 0.5 + 0.1 + 2)
    second = 1 - 2 * 0.9 / (0.2 + 0.4 + 0.9 + 1)
    assert dice_loss(p, labels).item() == pytest.approx((first + second) / 2)


def test_lovasz_by_hand():
    # Class 0: errors 0.7 (a miss), 0.4 (a false alarm), 0.1 (a miss). Wrong at the first pixel
    # only: 1 of 2 missed, loss 1/2; at the first two: IoU 1/3, loss 2/3; at all three: loss 1.
    # Class 1: errors 0.7 (a false alarm), 0.4 (a miss): loss 1/2, then 1.
    p0 = torch.tensor([0.3, 0.4, 0.9])
    p, labels = torch.stack([p0, 1 - p0], 1), torch.tensor([0, 1, 0])
    first = 0.7 * 1 / 2 + 0.4 * (2 / 3 - 1 / 2) + 0.1 * (1 - 2 / 3)
    second = 0.7 * 1 / 2 + 0.4 * (1 - 1 / 2)
    assert lovasz_loss(p, labels).item() == pytest.approx((first + second) / 2)


@pytest.mark.parametrize("seed", range(10))
def test_lovasz_of_hard_predictions_is_the_jaccard_loss(seed):
    labels = maps(40, classes=4, seed=seed).long()
    predicted = maps(40, classes=5, seed=seed + 100).long()
    losses = []
    for c in labels.unique():
        both = ((labels == c) & (predicted == c)).sum()
        losses.append(1 - both / ((labels == c) | (predicted == c)).sum())
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(lovasz_loss(F.one_hot(predicted, 5).float(), labels), expected)


@pytest.mark.parametrize("loss", [dice_loss, lovasz_loss])
def test_right_predictions_cost_nothing_and_wrong_ones_all(loss):
    labels = torch.tensor([0, 1, 1])
    assert loss(F.one_hot(labels, 2).float(), labels).item() == pytest.approx(0)
    assert loss(F.one_hot(1 - labels, 2).float(), labels).item() == pytest.approx(1)


# --- Class weights ---------------------------------------------------------------------------


def test_no_weights():
    assert class_weights_from_pixels([3, 0], "none") is None


def test_inverse_log_by_hand():
    weights = class_weights_from_pixels([1, 3, 0], "inverse_log")
    expected = [1 / math.log(1.27), 1 / math.log(1.77), 1 / math.log(1.02)]
    torch.testing.assert_close(weights, torch.tensor(expected))


def test_median_frequency_by_hand():
    weights = class_weights_from_pixels([2, 8, 4, 0], "median_frequency")
    assert weights.tolist() == [2, 0.5, 1, 2]  # the last has no pixel: the largest of the others


def test_weights_need_pixels_and_a_known_scheme():
    with pytest.raises(ValueError, match=r"inverse_log need labelled pixels.*\[0, 0\]; use none"):
        class_weights_from_pixels([0, 0], "inverse_log")
    with pytest.raises(ValueError, match="median_frequency need labelled pixels"):
        class_weights_from_pixels([4, -1], "median_frequency")
    with pytest.raises(ValueError, match="one of none, inverse_log, median_frequency, got 'log'"):
        class_weights_from_pixels([1], "log")


# --- Metrics ---------------------------------------------------------------------------------


def test_metrics_by_hand():
    metrics = SegmentationMetrics(("road", "car", "sky", "dog"))
    # Two frames of 2 x 2 pixels; the second has one labelled pixel. Nobody speaks of dogs.
    labels = torch.tensor([[[0, 0], [1, 1]], [[0, 255], [255, 255]]], dtype=torch.uint8)
    predicted = torch.tensor([[[0, 1], [1, 2]], [[0, 3], [3, 3]]])
    metrics.update(predicted, labels)
    metrics.update(predicted[:1], torch.full((1, 2, 2), IGNORED))  # counts for nothing
    metrics.add_loss(3.0, 4)
    metrics.add_loss(1.0, 1)
    result = metrics.compute()
    assert result.confusion == ((2, 1, 0, 0), (0, 1, 1, 0), (0, 0, 0, 0), (0, 0, 0, 0))
    assert (result.frames, result.pixels, result.class_pixels) == (2, 5, (3, 2, 0, 0))
    # road: 2 of 3; car: 1 of 3; sky: predicted once, never there.
    assert result.class_iou == (pytest.approx(2 / 3), pytest.approx(1 / 3), 0, None)
    assert result.miou == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
    assert result.pixel_accuracy == pytest.approx(3 / 5)
    assert result.mean_class_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert result.loss == pytest.approx(4 / 5)
    assert (result.mvc8, result.mvc16) == (None, None)
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["class_iou"]["dog"] is None
    assert plain["class_pixels"] == {"road": 3, "car": 2, "sky": 0, "dog": 0}


@pytest.mark.parametrize("seed", range(3))
def test_metrics_agree_with_torchmetrics(seed):
    """Six classes; of these the last is absent, and the one before is predicted only."""
    labels = maps(3, 4, 5, classes=4, ignored=0.3, seed=seed)
    predicted = maps(3, 4, 5, classes=5, seed=seed + 100)
    metrics = SegmentationMetrics("abcdef")
    metrics.update(predicted, labels)
    result = metrics.compute()

    def theirs(metric, **options):
        return metric(num_classes=6, ignore_index=IGNORED, **options)(predicted, labels).tolist()

    iou = theirs(MulticlassJaccardIndex, average="none")
    assert result.class_iou[-1] is None
    assert result.class_iou[:-1] == pytest.approx(iou[:-1])
    assert result.miou == pytest.approx(theirs(MulticlassJaccardIndex, average="macro"))
    assert result.pixel_accuracy == pytest.approx(theirs(MulticlassAccuracy, average="micro"))
    recall = theirs(MulticlassAccuracy, average="none")
    assert result.mean_class_accuracy == pytest.approx(sum(recall[:4]) / 4)


def test_predictions_at_ignored_pixels_do_not_count():
    labels, predicted = maps(9, 4, 4, classes=3, ignored=0.4), maps(9, 4, 4, classes=3, seed=1)
    labels[:, 0] = labels[0, 0]  # a row that holds still
    results = []
    for filling in (0, 2, IGNORED):
        metrics = SegmentationMetrics("abc")
        for frame, label in zip(predicted, labels, strict=True):
            metrics.add_frame(frame.where(label != IGNORED, filling), label)
        results.append(metrics.compute())
    assert results[0] == results[1] == results[2]
    assert results[0].mvc8 is not None


def test_sums_of_two_processes_add_up_to_those_of_one():
    labels = maps(2, 10, 4, 4, classes=2, ignored=0.2).where(
        torch.tensor([True, False, True, True]), 1
    )
    predicted = maps(2, 10, 4, 4, classes=2, seed=1)
    predicted[:, :, 0, 1] = 0
    whole, *parts = (SegmentationMetrics("ab") for _ in range(3))
    for video, part in enumerate(parts):
        for metrics in (whole, part):
            metrics.start_video()
            for frame, label in zip(predicted[video], labels[video], strict=True):
                metrics.add_frame(frame, label)
            metrics.add_loss(1.5 + video, 10 + video)
    assert whole.compute().mvc8 is not None
    parts[0].sums += parts[1].sums
    assert parts[0].compute() == whole.compute()


def test_in_deterministic_mode_the_same_is_counted():
    labels, predicted = maps(2, 8, 8, classes=3, ignored=0.2), maps(2, 8, 8, classes=3, seed=1)
    free, strict = SegmentationMetrics("abc"), SegmentationMetrics("abc")
    free.update(predicted, labels)
    before = torch.get_deterministic_debug_mode()
    torch.use_deterministic_algorithms(True)
    try:
        strict.update(predicted, labels)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_deterministic_debug_mode(before)
    assert strict.compute() == free.compute()


def test_one_class_is_enough():
    metrics = SegmentationMetrics(("all",))
    metrics.update(torch.zeros(2, 2, dtype=torch.uint8), torch.zeros(2, 2, dtype=torch.uint8))
    assert metrics.compute().miou == 1


def test_nothing_labelled_is_an_error():
    metrics = SegmentationMetrics("ab")
    metrics.add_frame(torch.zeros(2, 2), None)
    metrics.add_frame(torch.zeros(2, 2), torch.full((2, 2), IGNORED))
    with pytest.raises(ValueError, match="at least one mask"):
        metrics.compute()


def test_nan_loss_gives_no_metrics():
    metrics, other = SegmentationMetrics("ab"), SegmentationMetrics("ab")
    metrics.update(torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.uint8))
    assert metrics.finite
    other.add_loss(math.nan, 1)
    assert not other.finite
    metrics.sums += other.sums
    with pytest.raises(ValueError, match="NaN or infinite; use precision 32-true, or other"):
        metrics.compute()


def test_maps_that_do_not_fit_are_refused():
    metrics = SegmentationMetrics("ab")
    zeros = torch.zeros(2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"\[2, 3\] and labels \[2, 2\]; bring the predictions"):
        metrics.update(torch.zeros(2, 3), zeros)
    with pytest.raises(ValueError, match="labels hold 2, which is none of 2 classes"):
        metrics.update(zeros, zeros + 2)
    with pytest.raises(ValueError, match="range from 0 to 2; they must be indices of 2 classes"):
        metrics.update(torch.tensor([[0, 2], [1, 1]]), zeros)
    assert not metrics.sums[7:].any()


# --- Consistency in time ---------------------------------------------------------------------


def window_shares(predicted: list[Tensor], labels: list[Tensor | None], n: int) -> list[float]:
    """Share of every window that has one, by the definition."""
    shares = []
    for start in range(len(labels) - n + 1):
        window = labels[start : start + n]
        if any(label is None for label in window):
            continue
        still = (window[0] != IGNORED).clone()
        constant = torch.ones_like(still)
        for k in range(n):
            still &= window[k] == window[0]
            constant &= predicted[start + k] == predicted[start]
        if still.any():
            shares.append(int((still & constant).sum()) / int(still.sum()))
    return shares


def test_consistency_by_hand():
    # Three pixels over three frames, windows of two. Labels hold still at pixels 0 and 1, then at
    # pixel 0 only. The prediction at pixel 0 is wrong throughout, but holds still.
    labels = torch.tensor([[[0, 1, 1]], [[0, 1, 0]], [[0, 255, 1]]])
    predicted = torch.tensor([[[1, 1, 1]], [[1, 0, 1]], [[1, 0, 1]]])
    video = VideoConsistency((2, 3))
    ends = [video.add(*frame).tolist() for frame in zip(predicted, labels, strict=True)]
    assert ends == [[[0, 0], [0, 0]], [[0.5, 1], [0, 0]], [[1, 1], [1, 1]]]


def test_consistency_is_the_mean_over_the_windows_of_all_videos():
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        metrics, shares = SegmentationMetrics("ab"), {8: [], 16: []}
        for video, length in enumerate((7, 20, 33)):
            noise = torch.rand(2, length, 3, 4, generator=generator)
            frames = list((noise[0] < 0.04).long())
            labels = list((noise[1] < 0.04).long() + 254 * (noise[1] > 0.98))
            for label in labels:
                label[label == 254] = IGNORED
            if video == 2:
                labels[int(torch.randint(length, (), generator=generator))] = None
            metrics.start_video()
            for frame, label in zip(frames, labels, strict=True):
                metrics.add_frame(frame, label)
            for n, values in shares.items():
                values += window_shares(frames, labels, n)
        result = metrics.compute()
        for n, measured in ((8, result.mvc8), (16, result.mvc16)):
            assert measured == (
                pytest.approx(sum(shares[n]) / len(shares[n])) if shares[n] else None
            )


def test_windows_do_not_reach_across_videos_or_unlabelled_frames():
    frame = torch.zeros(2, 2, dtype=torch.uint8)
    metrics = SegmentationMetrics("ab")
    for step in range(23):
        if step == 7:
            metrics.start_video()
        metrics.add_frame(frame, None if step == 15 else frame)
    assert metrics.sums[3:7].tolist() == [1, 1, 0, 0]  # frames 7 to 14
    assert metrics.sums[2] == 22


def test_a_frame_may_be_written_over_the_one_before():
    predicted, labels = torch.zeros(1, 1), torch.zeros(1, 1)
    video = VideoConsistency((2,))
    video.add(predicted, labels)
    predicted += 1
    assert video.add(predicted, labels).tolist() == [[0, 1]]
    labels += 1
    assert video.add(predicted, labels).tolist() == [[0, 0]]


def test_a_change_of_size_within_a_video_is_refused():
    metrics = SegmentationMetrics("ab")
    metrics.add_frame(torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.uint8))
    other = torch.zeros(2, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"\[2, 3\] pixels follows one of \[2, 2\]; start a new"):
        metrics.add_frame(other, other)
    metrics.start_video()
    metrics.add_frame(other, other)
