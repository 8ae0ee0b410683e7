"""Training and evaluating a network for segmentation of every frame."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from jaxtyping import UInt8
from lightning.fabric import Fabric
from torch import Tensor, nn

from spikevideoformer.data.specs import Decode
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.models.tiling import class_scores, upsampled
from spikevideoformer.progress import progress_on_stderr
from spikevideoformer.tasks.segmentation.check import SequenceReport, check_sequences, count_pixels
from spikevideoformer.tasks.segmentation.dataset import (
    SegmentationBatch,
    SegmentationClip,
    SegmentationDataset,
    collate_segmentation,
)
from spikevideoformer.tasks.segmentation.index import read_sequences
from spikevideoformer.tasks.segmentation.metrics import (
    SegmentationMetrics,
    SegmentationResult,
    class_weights_from_pixels,
    segmentation_loss,
)
from spikevideoformer.tasks.segmentation.sequence import IGNORED, SequenceIndex
from spikevideoformer.tasks.segmentation.spec import SegmentationSpec
from spikevideoformer.training.batches import clip_loader
from spikevideoformer.training.config import Precision, TrainConfig
from spikevideoformer.training.devices import Device, from_first_process, launch, over_processes
from spikevideoformer.training.evaluate import SilenceWatch
from spikevideoformer.training.run_cache import RunCache
from spikevideoformer.training.segmentation_plots import ContactSheet, plot_iou
from spikevideoformer.training.task import Row, Task

log = logging.getLogger(__name__)


class SegmentationTask(Task):
    """Sequences of frames, some of which have a mask.

    Args:
        config: the run.
        index: the sequences; None: read from `config.data`.
        fabric: launched.

    Raises:
        ValueError: data that cannot be used.
    """

    measure = "pixel_accuracy"
    watched = ("miou", "pixel_accuracy")

    def __init__(self, config: TrainConfig, index: SequenceIndex | None, fabric: Fabric) -> None:
        self.config = config
        training, validation, weights = from_first_process(fabric, lambda: _splits(config, index))
        self._weights = None if weights is None else weights.to(fabric.device)
        options = config.segmentation
        self._cache = RunCache(config, fabric.world_size)
        self._train_set = SegmentationDataset(
            training,
            config.segmentation_spec,
            augmentation=config.augmentation,
            masks=options.augmentation,
            passes=options.passes,
            seed=config.seed,
            cache=self._cache.frames,
        )
        self._val_set = SegmentationDataset(
            validation, config.segmentation_spec, cache=self._cache.frames
        )
        self.classes, self.clips = training.classes, len(self._train_set)
        self.data = _fingerprint(training, validation)

    def create_model(self) -> SpikeVideoFormer:
        model = super().create_model()
        model.clip = self.config.segmentation_spec.to_dict()
        model.palette = self._train_set.index.palette
        return model

    def batches(
        self, keys: Iterable[list[tuple[int, int]]], device: torch.device
    ) -> Iterator[SegmentationBatch]:
        return iter(
            clip_loader(
                self._train_set,
                keys,
                workers=self.config.workers,
                device=device,
                collate=collate_segmentation,
            )
        )

    def loss(self, output: Tensor, batch: SegmentationBatch) -> Tensor:
        options = self.config.segmentation
        return segmentation_loss(
            output,
            batch.labels,
            class_weights=self._weights,
            label_smoothing=self.config.label_smoothing,
            dice_weight=options.dice_weight,
            lovasz_weight=options.lovasz_weight,
        )

    def count(self, output: Tensor, batch: SegmentationBatch) -> tuple[Tensor, Tensor]:
        labelled = batch.labels != IGNORED
        return ((output.argmax(2) == batch.labels) & labelled).sum(), labelled.sum()

    def validate(
        self, model: nn.Module, fabric: Fabric, after_batch: Callable[[], None]
    ) -> SegmentationResult:
        result = evaluate_segmentation(
            model,
            self._val_set,
            sliding_window=self.config.segmentation.sliding_window,
            workers=self.config.workers,
            fabric=fabric,
            after_clip=after_batch,
        )
        self._cache.tell()
        return result

    def row(self, result: SegmentationResult) -> dict[str, float | int]:
        assert result.loss is not None
        return {
            "val_loss": result.loss,
            "val_miou": result.miou,
            "val_pixel_accuracy": result.pixel_accuracy,
        }

    def finish(self, model: SpikeVideoFormer, fabric: Fabric) -> SegmentationResult:
        self._sheet = ContactSheet(self._val_set.index.palette, self.classes)
        return evaluate_segmentation(
            model,
            self._val_set,
            sliding_window=self.config.segmentation.sliding_window,
            workers=self.config.workers,
            fabric=fabric,
            after_frame=self._sheet.offer,
        )

    def report(self, result: SegmentationResult, history: Sequence[Row], out: Path) -> None:
        plot_iou(result, self._val_set.index.palette, out / "iou.png")
        self._sheet.write(out / "contact_sheet.png")


@dataclass(frozen=True, kw_only=True)
class JudgedFrame:
    """One labelled frame of an evaluation, with what the network makes of it.

    Args:
        number: how many labelled frames came before it in this process.
        total: how many this process judges.
        image: the picture file.
        labels: class index of each pixel, or `IGNORED`.
        predicted: class index of each pixel.
    """

    number: int
    total: int
    image: Path
    labels: UInt8[Tensor, "H W"]
    predicted: UInt8[Tensor, "H W"]


@torch.no_grad()
def evaluate_segmentation(
    model: nn.Module,
    dataset: SegmentationDataset,
    *,
    sliding_window: bool = False,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    workers: int = 0,
    fabric: Fabric | None = None,
    after_clip: Callable[[], None] = lambda: None,
    after_frame: Callable[[JudgedFrame], None] = lambda _: None,
) -> SegmentationResult:
    """Metrics of a model on the labelled frames of a data set, over all processes.

    Every labelled frame is judged once, at the size of its mask. Process r of w evaluates the
    sequences r, r + w, ...; then the sums of all are added, so every process returns the same
    result.

    Args:
        model: gives logits; on the device of `fabric`. Its training mode is put back afterwards.
        dataset: clips with masks, unaugmented.
        sliding_window: let windows of the size of a training crop slide over pictures, instead of
            taking them whole.
        scales: factors of the pictures' size over which probabilities are averaged.
        flip: average over the mirrored pictures, too.
        workers: loader processes.
        fabric: device, precision and processes; None: where the model is, in full precision.
        after_clip: called after every clip; may raise to stop.
        after_frame: called with each labelled frame, in the order of the data set.

    Raises:
        ValueError: logits that are NaN or infinite; the same in every process.
    """
    device = next(model.parameters()).device
    if fabric is None:
        fabric = Fabric(accelerator=device.type, devices=1)
    metrics = SegmentationMetrics(dataset.index.classes)
    rank, world_size = fabric.global_rank, fabric.world_size
    keys = [i for i, cut in enumerate(dataset.cuts) if cut.sequence % world_size == rank]
    window = dataset.spec.crop if sliding_window else None
    total = sum(sum(dataset.cuts[i].fresh) for i in keys)
    judge = _Judge(dataset, metrics, total, after_frame)
    was_training = model.training
    model.eval()
    watch = SilenceWatch(model)
    try:
        loader = clip_loader(
            dataset, [[i] for i in keys], workers=workers, device=device, collate=_only_item
        )
        for clip in cast(Iterable[SegmentationClip], loader):
            with fabric.autocast(), watch.first_pass():
                scores = class_scores(
                    model, clip.video.to(device), window=window, scales=scales, flip=flip
                )
            judge.take(clip, scores.float())
            after_clip()
            if not metrics.finite:
                break  # the other processes learn of it from the sums
        else:
            judge.finish()
    finally:
        model.train(was_training)
    metrics.sums = over_processes(fabric, metrics.sums.to(device), "sum").cpu()
    return metrics.compute()


class _Judge:
    """Gives the metrics one frame after the other, though clips may come interleaved (`step`)."""

    def __init__(
        self,
        dataset: SegmentationDataset,
        metrics: SegmentationMetrics,
        total: int,
        after_frame: Callable[[JudgedFrame], None],
    ) -> None:
        self._dataset, self._metrics, self._after_frame = dataset, metrics, after_frame
        self._sequence, self._number, self._total = -1, 0, total
        self._waiting: dict[int, tuple[Tensor, Tensor]] = {}

    def take(self, clip: SegmentationClip, scores: Tensor) -> None:
        """Count the frames of a clip ``[T, K, h, w]`` that no earlier clip showed."""
        if clip.cut.sequence != self._sequence:
            self.finish()
            self._sequence, self._next = clip.cut.sequence, 0
            self._metrics.start_video()
        for k, position in enumerate(clip.cut.positions):
            if clip.cut.fresh[k]:
                labels = clip.labels[k].to(scores.device)
                self._waiting[position] = self._judged(scores[k], labels), labels.cpu()
        self._pass_on()

    def _judged(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The class map of one frame ``[K, h, w]`` at the size of its mask; its loss is counted."""
        H, W = labels.shape
        large = upsampled(scores, (H, W))  # [K, H, W]
        labelled = labels != IGNORED
        own = large.gather(0, labels.where(labelled, 0)[None].long())[0][labelled]
        # An infinite logit can have a finite softmax; as NaN it shows in the sums.
        own = own.clamp_min(torch.finfo(torch.float32).tiny).where(own.isfinite(), math.nan)
        self._metrics.add_loss(float(-own.double().log().sum()), own.numel())
        return large.argmax(0).to(torch.uint8).cpu()

    def _pass_on(self, everything: bool = False) -> None:
        """Frames whose predecessors have all been judged."""
        frames = self._dataset.index.sequences[self._sequence].frames
        while self._waiting:
            position = self._next
            if position in self._waiting:
                predicted, labels = self._waiting.pop(position)
                self._metrics.add_frame(predicted, labels)
                self._after_frame(
                    JudgedFrame(
                        number=self._number,
                        total=self._total,
                        image=frames[position].image,
                        labels=labels,
                        predicted=predicted,
                    )
                )
                self._number += 1
            elif frames[position].label is None:
                self._metrics.start_video()  # which breaks its windows
            else:
                assert not everything
                return  # a later clip shows it
            self._next += 1

    def finish(self) -> None:
        """The sequence is over."""
        self._pass_on(everything=True)


def _only_item(items: Sequence[SegmentationClip]) -> SegmentationClip:
    (item,) = items  # pictures of a data set may differ in size
    return item


def evaluate_segmentation_folder(
    folder: Path,
    index: SequenceIndex,
    *,
    sliding_window: bool = False,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    workers: int = 0,
    device: Device = "auto",
    precision: Precision = "32-true",
    check: Decode = "none",
    skip_bad: bool = False,
    out: Path | None = None,
) -> SegmentationResult:
    """Metrics of a released model on sequences it was not trained on.

    Args:
        folder: what `save_pretrained` or a training run wrote.
        index: the sequences, such as `read_sequences(root, split="val")`, of the same classes.
        sliding_window: as in `evaluate_segmentation`.
        scales: as in `evaluate_segmentation`.
        flip: as in `evaluate_segmentation`.
        workers: loader processes.
        device: auto, cpu or cuda.
        precision: as in training.
        check: check of the files beforehand.
        skip_bad: go on without the files that the check refuses.
        out: folder for iou.png and contact_sheet.png, and `skipped.csv` or `problems.csv`; None:
            what is left out is logged.

    Raises:
        ValueError: a folder that is no segmentation model, other classes, bad files, logits that
            are NaN or infinite.
    """
    model = SpikeVideoFormer.from_pretrained(folder)
    if model.task != "segmentation" or model.clip is None or model.classes is None:
        raise ValueError(
            f"{folder} is no segmentation model that knows its classes and clips; give one that "
            "svf train --task segmentation wrote"
        )
    if model.classes != index.classes:
        raise ValueError(
            f"the classes of {index.root} are {', '.join(index.classes)}, those of {folder} "
            f"{', '.join(model.classes)}; evaluate on data with the same classes in the same order"
        )
    report = _checked(index, check, [])
    dataset = SegmentationDataset(
        report.settle(skip_bad=skip_bad, folder=out), SegmentationSpec.from_dict(model.clip)
    )
    fabric = launch(device=device, devices=1, precision=precision)
    fabric.to_device(model)
    sheet = ContactSheet(index.palette, index.classes)
    with progress_on_stderr("frame") as progress:

        def after_frame(frame: JudgedFrame) -> None:
            sheet.offer(frame)
            progress(frame.number + 1, frame.total)

        result = evaluate_segmentation(
            model,
            dataset,
            sliding_window=sliding_window,
            scales=scales,
            flip=flip,
            workers=workers,
            fabric=fabric,
            after_frame=after_frame,
        )
    if out is not None:
        plot_iou(result, index.palette, out / "iou.png")
        sheet.write(out / "contact_sheet.png")
    return result


def _checked(index: SequenceIndex, decode: Decode, required_splits: list[str]) -> SequenceReport:
    with progress_on_stderr("checked file") as progress:
        return check_sequences(
            index, required_splits=required_splits, decode=decode, progress=progress
        )


def _splits(
    config: TrainConfig, index: SequenceIndex | None
) -> tuple[SequenceIndex, SequenceIndex, Tensor | None]:
    """The checked sequences to train and to validate on, and the weights of classes."""
    if index is None:
        if config.data is None:
            raise ValueError("no data is given; set --data to the folder of the data set")
        index = read_sequences(config.data, layout=config.layout)
    val_split = config.val_split if config.validates else config.train_split
    for split in (config.train_split, val_split):
        index.select(split)  # complains of a name that is not there before the long check
    report = _checked(index, config.check, [config.train_split, val_split])
    index = report.settle(skip_bad=config.skip_bad, folder=config.out)
    training, validation = index.select(config.train_split), index.select(val_split)
    weights = None
    if config.segmentation.class_weights != "none":
        # Of all that is trained on and of nothing else, whatever was checked and left out.
        with progress_on_stderr("counted mask") as progress:
            pixels = count_pixels(training, progress=progress)
        weights = class_weights_from_pixels(pixels.tolist(), config.segmentation.class_weights)
        assert weights is not None
        shown = zip(training.classes, weights.tolist(), strict=True)
        log.info("class weights: %s", ", ".join(f"{name} {w:.2f}" for name, w in shown))
    return training, validation, weights


def _fingerprint(*indices: SequenceIndex) -> str:
    """What a run learns from: files by name, not by where the data set lies."""
    digest = hashlib.blake2b(digest_size=16)
    for index in indices:
        digest.update(repr((index.classes, sorted(map(str, index.code.values.items())))).encode())
        for sequence in index.sequences:
            for frame in sequence.frames:
                paths = [
                    p.relative_to(index.root) if p is not None and p.is_relative_to(index.root)
                    else p for p in (frame.image, frame.label)
                ]  # fmt: skip
                digest.update(repr((sequence.name, *map(str, paths))).encode())
    return digest.hexdigest()
