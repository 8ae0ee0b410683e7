"""Evaluation: each video is judged by the mean of what the network says of several views of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing

import torch
from torch import nn

from spikevideoformer.tasks.classification.dataset import ClipDataset
from spikevideoformer.tasks.classification.metrics import (
    ClassificationMetrics,
    ClassificationResult,
)
from spikevideoformer.training.devices import Fabric, over_processes
from spikevideoformer.training.judging import fabric_for, judged_batches
from spikevideoformer.video.clip import collate_clips


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

    Equation: p(video) = mean over its views of softmax(logits).

    Process r of w evaluates the videos r, r + w, ...; then the sums of all are added, so every
    process returns the same result, and no video is counted twice.

    What the model says of a clip does not depend on the other clips, but for rounding by the place
    in the batch; to be free of that too, and to agree with prediction on a CPU, evaluate with
    `batch_size` 1.

    Args:
        model: gives logits; on the device of `fabric`. Its training mode is put back afterwards.
        dataset: videos with labels, unaugmented; its `views` are averaged.
        batch_size: most clips per forward pass (but at least one whole video). Another number
            means sums of another shape.
        workers: loader processes.
        fabric: device, precision and processes; None: where the model is, in full precision.
        after_batch: called after every batch; may raise to stop.

    Raises:
        ValueError: logits that are NaN or infinite; the same in every process.
    """
    fabric = fabric_for(model, fabric)
    classes, clips = dataset.index.classes, dataset.views
    metrics = ClassificationMetrics(classes)
    videos = range(fabric.global_rank, len(dataset) // clips, fabric.world_size)
    per_batch = max(batch_size // clips, 1)
    groups = [
        [video * clips + clip for video in videos[i : i + per_batch] for clip in range(clips)]
        for i in range(0, len(videos), per_batch)
    ]
    judged = judged_batches(
        model,
        dataset,
        collate_clips,
        fabric,
        per_batch * clips,
        workers,
        after_batch,
        groups=groups,
    )
    with closing(judged):
        for output, batch in judged:
            logits = output.float()  # [videos * clips, C]
            # An infinite logit can have a finite softmax; as NaN it shows in the sums.
            logits = logits.masked_fill(~logits.isfinite(), math.nan)
            probabilities = logits.softmax(1).unflatten(0, (-1, clips)).mean(1)
            metrics.update(probabilities, batch.labels[::clips])
            if not metrics.finite:
                break  # the other processes learn of it from the sums
    metrics.sums = over_processes(fabric, metrics.sums.to(fabric.device), "sum").cpu()
    return metrics.compute()
