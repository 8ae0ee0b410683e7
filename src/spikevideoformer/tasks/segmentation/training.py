"""Training and evaluating a network for segmentation of every frame."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.progress import progress_on_stderr
from spikevideoformer.tasks.segmentation.check import SequenceReport, check_sequences, count_pixels
from spikevideoformer.tasks.segmentation.dataset import (
    SegmentationBatch,
    SegmentationClip,
    SegmentationDataset,
    collate_segmentation,
)
from spikevideoformer.tasks.segmentation.metrics import (
    SegmentationMetrics,
    SegmentationResult,
    class_weights_from_pixels,
    segmentation_loss,
)
from spikevideoformer.tasks.segmentation.plots import ContactSheet, JudgedFrame, plot_iou
from spikevideoformer.tasks.segmentation.sequence import IGNORED, SequenceIndex
from spikevideoformer.tasks.segmentation.spec import SegmentationOptions, SegmentationSpec
from spikevideoformer.tasks.segmentation.tiling import class_scores, most_likely, upsampled
from spikevideoformer.training.batches import clip_loader
from spikevideoformer.training.devices import Fabric, over_processes
from spikevideoformer.training.judging import Judging, SilenceWatch
from spikevideoformer.training.task_training import Row, TaskTraining

log = logging.getLogger(__name__)


class SegmentationTraining(TaskTraining[SequenceIndex]):
    """Sequences of frames, some of which have a mask; arguments and errors as of `TaskTraining`."""

    name = "segmentation"
    index_type = SequenceIndex
    collate = collate_segmentation
    measure = "pixel_accuracy"
    watched = ("miou", "pixel_accuracy")

    def check(
        self, index: SequenceIndex, required: Sequence[str], progress: Callable[[int, int], None]
    ) -> SequenceReport:
        return check_sequences(
            index,
            required_splits=required,
            decode=self.config.check,
            spec=self.config.spec,
            progress=progress,
        )

    def prepared(self, training: SequenceIndex) -> Tensor | None:
        """Weights of the classes, of all that is trained on and of nothing else."""
        if self.config.options.class_weights == "none":
            return None
        with progress_on_stderr("counted mask") as progress:
            pixels = count_pixels(training, progress=progress)
        weights = class_weights_from_pixels(pixels.tolist(), self.config.options.class_weights)
        assert weights is not None
        shown = zip(training.classes, weights.tolist(), strict=True)
        log.info("class weights: %s", ", ".join(f"{name} {w:.2f}" for name, w in shown))
        return weights

    def prepare(
        self,
        training: SequenceIndex,
        validation: SequenceIndex,
        prepared: Tensor | None,
        device: torch.device,
    ) -> None:
        self._weights = None if prepared is None else prepared.to(device)

    def names(self, index: SequenceIndex) -> tuple[str, ...]:
        return index.classes

    def dataset(self, index: SequenceIndex, *, augmented: bool = False) -> SegmentationDataset:
        options: SegmentationOptions = self.config.options
        varied: dict[str, Any] = {
            "augmentation": self.config.augmentation,
            "masks": options.augmentation,
            "passes": options.passes,
            "seed": self.config.seed,
        }
        return SegmentationDataset(
            index,
            self.config.spec,
            cache=self.cache.frames,
            **varied if augmented else {},
        )

    def create_model(self) -> SpikeVideoFormer:
        model = super().create_model()
        model.palette = self.train_set.index.palette
        return model

    def loss(self, output: Tensor, batch: SegmentationBatch) -> Tensor:
        options = self.config.options
        return segmentation_loss(
            _of_each_frame(output, batch),
            batch.labels,
            class_weights=self._weights,
            label_smoothing=self.config.label_smoothing,
            dice_weight=options.dice_weight,
            lovasz_weight=options.lovasz_weight,
        )

    def count(self, output: Tensor, batch: SegmentationBatch) -> tuple[Tensor, Tensor]:
        labelled = batch.labels != IGNORED
        found = most_likely(_of_each_frame(output, batch), 2) == batch.labels
        return (found & labelled).sum(), labelled.sum()

    def judge(
        self,
        model: nn.Module,
        fabric: Fabric,
        after_batch: Callable[[], None] = lambda: None,
        *,
        finally_: bool = False,
    ) -> SegmentationResult:
        self._sheet = ContactSheet(self.val_set.index.palette, self.classes, self.config.spec)
        return evaluate_segmentation(
            model,
            self.val_set,
            sliding_window=self.config.options.sliding_window,
            workers=self.config.workers,
            fabric=fabric,
            after_clip=after_batch,
            after_frame=self._sheet.offer if finally_ else lambda _: None,
        )

    def row(self, result: SegmentationResult) -> dict[str, float | int]:
        assert result.loss is not None
        return {
            "val_loss": result.loss,
            "val_miou": result.miou,
            "val_pixel_accuracy": result.pixel_accuracy,
        }

    def report(self, result: SegmentationResult, history: Sequence[Row], out: Path) -> None:
        plot_iou(result, self.val_set.index.palette, out / "iou.png")
        self._sheet.write(out / "contact_sheet.png")

    @staticmethod
    def judge_released(  # type: ignore[override]  # settings of its own
        model: SpikeVideoFormer,
        folder: Path,
        index: SequenceIndex,
        judging: Judging,
        *,
        sliding_window: bool = False,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ) -> SegmentationResult:
        """As `evaluate_folder` has it done; options as of `evaluate_segmentation`."""
        if model.classes != index.classes:
            raise ValueError(
                f"the classes of {index.root} are {', '.join(index.classes)}, those of {folder} "
                f"{', '.join(model.classes or ())}; evaluate on data with the same classes in the "
                "same order"
            )
        spec = SegmentationSpec.from_dict(model.clip or {})
        index = judging.checked(index, check_sequences, "checked file", spec=spec)
        sheet = ContactSheet(index.palette, index.classes, spec)
        with progress_on_stderr("frame") as progress:

            def after_frame(frame: JudgedFrame) -> None:
                sheet.offer(frame)
                progress(frame.number + 1, frame.total)

            result = evaluate_segmentation(
                model,
                SegmentationDataset(index, spec),
                sliding_window=sliding_window,
                scales=scales,
                flip=flip,
                workers=judging.workers,
                fabric=judging.fabric,
                after_frame=after_frame,
            )
        if judging.out is not None:
            plot_iou(result, index.palette, judging.out / "iou.png")
            sheet.write(judging.out / "contact_sheet.png")
        return result


def _of_each_frame(output: Tensor, batch: SegmentationBatch) -> Tensor:
    """Logits ``[B, T, K, H, W]``, where a network gives one map for all frames, too."""
    return output.expand(-1, batch.labels.shape[1], -1, -1, -1)


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
        return most_likely(large, 0).to(torch.uint8).cpu()

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
