"""What a trained classifier knows of its own doubt: a temperature, and what its clips are like."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spikevideoformer.models.familiarity import Familiarity, profile
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.neuron import record_firing_rates
from spikevideoformer.progress import progress_on_stderr
from spikevideoformer.training.batches import clip_loader

_MOST_CLIPS = 512  # of each split, taken evenly
_MOST_PICTURES = 128  # likewise of those that go one by one
_LOW, _HIGH = math.log(0.2), math.log(20.0)  # of temperatures that are tried
_BINS = 10
_FEWEST = 8  # clips that a temperature is fitted to


class Videos(NamedTuple):
    """Clips without their labels, ``[B, T, C, H, W]``."""

    video: Tensor


def only_videos(items: Sequence[Any]) -> Videos:
    """Items of any task as a batch that is only looked at."""
    return Videos(torch.stack([item.video for item in items]))


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a network makes of the clips of a data set.

    Attributes:
        logits: ``[N, K]``, float64.
        labels: int64 ``[N]``.
        profiles: ``[N, P]``, see `profile`.
    """

    logits: Tensor
    labels: Tensor
    profiles: Tensor


@torch.no_grad()
def look_at(
    model: SpikeVideoFormer,
    dataset: Any,
    *,
    batch_size: int,
    workers: int,
    collate: Callable[[Sequence[Any]], Any] = only_videos,
) -> Seen:
    """How a network fires on clips as prediction makes them; of a classifier also its logits.

    Args:
        model: in evaluation mode.
        dataset: unaugmented, one clip of each video.
        batch_size: clips at a time.
        workers: loader processes.
        collate: makes a batch of the items; a classifier needs their labels.
    """
    device = next(model.parameters()).device
    count = min(len(dataset), _MOST_CLIPS if batch_size > 1 else _MOST_PICTURES)
    chosen = [i * len(dataset) // count for i in range(count)]
    keys = [chosen[i : i + batch_size] for i in range(0, count, batch_size)]
    logits, labels, profiles = [], [], []
    loader = clip_loader(dataset, keys, workers=workers, device=device, collate=collate)
    with progress_on_stderr("clip looked at") as progress:
        for done, batch in enumerate(loader, start=1):
            video = batch.video.to(device)
            with record_firing_rates(model) as rates:
                output = model(video)
            if model.task == "classification":
                logits.append(output.double().cpu())
                labels.append(batch.labels)
            profiles.append(profile(video, rates))
            progress(min(done * batch_size, count), count)
    none = torch.empty(0)
    return Seen(
        logits=torch.cat(logits) if logits else none,
        labels=torch.cat(labels) if labels else none,
        profiles=torch.cat(profiles),
    )


def familiarise(model: SpikeVideoFormer, training: Seen, validation: Seen | None) -> str:
    """Set what the training clips of a model are like; a line about it, empty where unknown."""
    seen = None if validation is None else validation.profiles
    model.familiarity = Familiarity.of(training.profiles, seen)
    if model.familiarity is None or model.familiarity.false_alarms is None:
        return ""
    share = model.familiarity.false_alarms
    return f"{share:.0%} of the validation clips would be called unlike the training clips"


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
