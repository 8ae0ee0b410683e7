"""Evaluation: each video is judged by the mean of what the network says of several clips of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import nn

from spikevideoformer.data.check import Decode, check_index
from spikevideoformer.data.clip import ClipSpec
from spikevideoformer.data.dataset import ClipDataset
from spikevideoformer.data.index import ClipIndex
from spikevideoformer.data.video import DecodeLimits
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.tasks.classification import ClassificationMetrics, ClassificationResult
from spikevideoformer.training.batches import clip_loader
from spikevideoformer.training.config import Precision
from spikevideoformer.training.devices import Device, launch, over_processes


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

    Args:
        model: gives logits; on the device of `fabric`. Its training mode is put back afterwards.
        dataset: videos with labels, unaugmented; its `clips_per_video` are averaged.
        batch_size: most clips per forward pass (but at least one whole video).
        workers: loader processes.
        fabric: device, precision and processes; None: where the model is, in full precision.
        after_batch: called after every batch; may raise to stop.
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
    try:
        for batch in clip_loader(dataset, keys, workers=workers, device=device):
            with fabric.autocast():
                logits = model(batch.to(device).video)  # [videos * clips, C]
            probabilities = logits.float().softmax(1).unflatten(0, (-1, clips)).mean(1)
            metrics.update(probabilities, batch.labels[::clips])
            after_batch()
    finally:
        model.train(was_training)
    metrics.sums = over_processes(fabric, metrics.sums.to(device), "sum").cpu()
    return metrics.compute()


def evaluate_folder(
    folder: Path,
    index: ClipIndex,
    *,
    clips_per_video: int = 1,
    batch_size: int = 8,
    workers: int = 0,
    device: Device = "auto",
    precision: Precision = "32-true",
    check: Decode = "none",
    skip_bad: bool = False,
    limits: DecodeLimits | None = None,
    out: Path | None = None,
) -> ClassificationResult:
    """Metrics of a released model on clips it was not trained on.

    Args:
        folder: what `save_pretrained` or a training run wrote.
        index: the clips, such as `read_index(root, split="val")`; classes are matched by name.
        clips_per_video: clips in time over which each video is averaged.
        batch_size: most clips per forward pass.
        workers: loader processes.
        device: auto, cpu or cuda.
        precision: as in training.
        check: check of the files beforehand.
        skip_bad: go on without the files that the check refuses.
        limits: against files that unpack to far more than they seem; None: the usual ones.
        out: folder for `skipped.csv` or `problems.csv`; None: what is left out is logged.

    Raises:
        ValueError: a folder that is no model, clips of classes it does not know, bad files.
    """
    model = SpikeVideoFormer.from_pretrained(folder)
    if model.clip is None or model.classes is None:
        raise ValueError(
            f"{folder} does not say how clips become input, or what its classes are; "
            "save the model with classes=... and clip=..."
        )
    report = check_index(index.with_classes(model.classes), decode=check, limits=limits)
    dataset = ClipDataset(
        report.settle(skip_bad=skip_bad, folder=out),
        ClipSpec.from_dict(model.clip),
        clips_per_video=clips_per_video,
        limits=limits,
    )
    fabric = launch(device=device, devices=1, precision=precision)
    fabric.to_device(model)
    return evaluate(model, dataset, batch_size=batch_size, workers=workers, fabric=fabric)
