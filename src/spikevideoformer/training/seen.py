"""What a trained network makes of clips: what those are like that it was trained on."""

from __future__ import annotations

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

_MOST_CLIPS = 256  # of each split, taken evenly
_MOST_PICTURES = 128  # likewise of those that go one by one


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
    labelled: bool = False,
) -> Seen:
    """How a network fires on clips as prediction makes them, and what it says of them.

    Args:
        model: in evaluation mode.
        dataset: unaugmented, one clip of each video.
        batch_size: clips at a time.
        workers: loader processes.
        collate: makes a batch of the items.
        labelled: whether to keep logits and the labels of the batches.
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
            if labelled:
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
