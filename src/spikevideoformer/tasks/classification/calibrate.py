"""What a trained classifier knows of its own doubt: a temperature, and what its clips are like."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.training.seen import Seen, familiarise

_LOW, _HIGH = math.log(0.2), math.log(20.0)  # of temperatures that are tried
_BINS = 10
_FEWEST = 8  # clips that a temperature is fitted to


def calibrate(model: SpikeVideoFormer, training: Seen, validation: Seen | None) -> str:
    """Set the temperature of a model, and what its training clips are like.

    Args:
        model: changed in place.
        training: what it makes of clips it was trained on.
        validation: and of others; without them there is no temperature.

    Returns:
        A line about it.
    """
    about = familiarise(model, training, validation)
    if validation is None or len(validation.labels) < _FEWEST:
        model.temperature = None
        return "too few validation clips to calibrate probabilities on"
    model.temperature = fit_temperature(validation.logits, validation.labels)
    before, after = (
        calibration_error((validation.logits / t).softmax(1), validation.labels)
        for t in (1.0, model.temperature)
    )
    line = (
        f"temperature {model.temperature:.2f}: probabilities are off by {after:.1%} on average on "
        f"{len(validation.labels)} validation clips ({before:.1%} without)"
    )
    return f"{line}; {about}" if about else line


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature at which these logits say best what the labels are.

    Equation: the T that minimises the mean of ``-sum_c q_c log softmax(logits / T)_c`` with
    ``q = (N onehot(label) + 1 / K) / (N + 1)``: few clips that are all right do not make it
    certain.

    Args:
        logits: ``[N, K]``.
        labels: int64 ``[N]``.

    Returns:
        Between 0.2 and 20.

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017, section 4.2; targets as
    in Platt, "Probabilistic Outputs for Support Vector Machines", 1999.
    """
    count, classes = logits.shape
    target = torch.full_like(logits, 1 / (classes * (count + 1)))
    target[torch.arange(count), labels] += count / (count + 1)

    def loss(log_t: float) -> float:
        return float(-(target * (logits / math.exp(log_t)).log_softmax(1)).sum(1).mean())

    # The loss is convex in 1 / T, so it has one valley in log T: a golden section finds it.
    low, high, ratio = _LOW, _HIGH, (math.sqrt(5) - 1) / 2
    for _ in range(60):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        if loss(a) < loss(b):
            high = b
        else:
            low = a
    return math.exp((low + high) / 2)


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Expected calibration error: how far confidence is from accuracy, over ten bins.

    Args:
        probabilities: ``[N, K]``.
        labels: int64 ``[N]``.

    Source: Guo et al. 2017, equation 3.
    """
    confidence, predicted = probabilities.max(1)
    right = (predicted == labels).double()
    bins = (confidence * _BINS).long().clamp(max=_BINS - 1)
    error = 0.0
    for b in range(_BINS):
        inside = bins == b
        if inside.any():
            gap = (right[inside].mean() - confidence[inside].mean()).abs()
            error += float(gap * inside.double().mean())
    return error
