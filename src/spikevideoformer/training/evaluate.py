"""Evaluation: each video is judged by the mean of what the network says of several clips of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from spikevideoformer.data.specs import Decode
from spikevideoformer.nn.neuron import record_firing_rates, silence
from spikevideoformer.tasks.classification.dataset import ClipDataset
from spikevideoformer.tasks.classification.metrics import (
    ClassificationMetrics,
    ClassificationResult,
)
from spikevideoformer.training.batches import clip_loader
from spikevideoformer.training.devices import over_processes

log = logging.getLogger(__name__)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    dataset: ClipDataset,
    *,
    batch_size: int = 8,
    workers: int = 0,
    fabric: Fabric | None = None,
    after_batch: Callable[[], None] = lambda: None,
) -> ClassificationResult:
    """Metrics of a model on a data set, over all processes.

    Equation: p(video) = mean over its clips of softmax(logits).

    Process r of w evaluates the videos r, r + w, ...; then the sums of all are added, so every
    process returns the same result, and no video is counted twice.

    What the model says of a clip does not depend on the other clips: every forward pass has the
    same shape (the last one is filled up), because sums of another shape round differently, and a
    spike more or less follows from that. What is left is rounding by the place in the batch; to be
    free of that too, and to agree with prediction on a CPU, evaluate with `batch_size` 1.

    Args:
        model: gives logits; on the device of `fabric`. Its training mode is put back afterwards.
        dataset: videos with labels, unaugmented; its `clips_per_video` are averaged.
        batch_size: most clips per forward pass (but at least one whole video). Another number
            means sums of another shape.
        workers: loader processes.
        fabric: device, precision and processes; None: where the model is, in full precision.
        after_batch: called after every batch; may raise to stop.

    Raises:
        ValueError: logits that are NaN or infinite; the same in every process.
    """
    device = next(model.parameters()).device
    if fabric is None:
        fabric = Fabric(accelerator=device.type, devices=1)
    classes, clips = dataset.index.classes, dataset.clips_per_video
    metrics = ClassificationMetrics(classes)
    videos = range(fabric.global_rank, len(dataset) // clips, fabric.world_size)
    per_batch = max(batch_size // clips, 1)
    keys = [
        [video * clips + clip for video in videos[i : i + per_batch] for clip in range(clips)]
        for i in range(0, len(videos), per_batch)
    ]
    was_training = model.training
    model.eval()
    watch = SilenceWatch(model)
    try:
        for batch in clip_loader(dataset, keys, workers=workers, device=device):
            with fabric.autocast(), watch.first_pass():
                video = _filled_up(batch.to(device).video, per_batch * clips)
                logits = model(video)[: len(batch)].float()  # [videos * clips, C]
            # An infinite logit can have a finite softmax; as NaN it shows in the sums.
            logits = logits.masked_fill(~logits.isfinite(), math.nan)
            probabilities = logits.softmax(1).unflatten(0, (-1, clips)).mean(1)
            metrics.update(probabilities, batch.labels[::clips])
            after_batch()
            if not metrics.finite:
                break  # the other processes learn of it from the sums
    finally:
        model.train(was_training)
    metrics.sums = over_processes(fabric, metrics.sums.to(device), "sum").cpu()
    return metrics.compute()


class SilenceWatch:
    """Warns when a network fires next to nothing on the first batch that it is given.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model, self._waiting = model, True

    @contextmanager
    def first_pass(self) -> Iterator[None]:
        """Around every forward pass; only the first one is looked at."""
        if not self._waiting:
            yield
            return
        self._waiting = False
        with record_firing_rates(self._model) as rates:
            yield
        if (line := silence(rates.overall)) is not None:
            log.warning(line)


def _filled_up(video: Tensor, clips: int) -> Tensor:
    """The batch [B, T, 3, H, W] with its first clip repeated at the end until there are `clips`."""
    return torch.cat([video, video[:1].expand(clips - len(video), -1, -1, -1, -1)])


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How a released model is evaluated: `released.evaluate_folder` says what each field is."""

    fabric: Fabric
    batch_size: int
    workers: int
    check: Decode
    skip_bad: bool
    out: Path | None
