"""Training a network for classification of clips."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.tasks.classification.calibrate import calibrate
from spikevideoformer.tasks.classification.check import CheckReport, check_index
from spikevideoformer.tasks.classification.dataset import ClipDataset
from spikevideoformer.tasks.classification.evaluate import evaluate
from spikevideoformer.tasks.classification.metrics import (
    ClassificationResult,
    count_correct,
)
from spikevideoformer.tasks.classification.mixing import MixedBatch, mix, mixed_loss
from spikevideoformer.tasks.classification.plots import plot_confusion
from spikevideoformer.tasks.classification.sample import ClipIndex
from spikevideoformer.training.devices import Fabric
from spikevideoformer.training.distillation import Teacher, distillation_loss
from spikevideoformer.training.judging import Judging
from spikevideoformer.training.task_training import Row, TaskTraining
from spikevideoformer.video.clip import ClipBatch, collate_clips
from spikevideoformer.video.frames import DecodeLimits
from spikevideoformer.video.spec import ClipSpec

_GUESSING = 0.97  # of the loss of a network that gives every class the same probability
_REMEMBERED = 0.97  # share of training labels that are met


class ClassificationTraining(TaskTraining[ClipIndex]):
    """Clips with one label each; arguments and errors as of `TaskTraining`."""

    name = "classification"
    index_type = ClipIndex
    collate = seen_as = collate_clips
    labelled = True
    measure = "top1"
    watched = ("top1", "top5")
    teacher: Teacher | None = None

    def check(
        self, index: ClipIndex, required: Sequence[str], progress: Callable[[int, int], None]
    ) -> CheckReport:
        return check_index(
            index,
            required_splits=required,
            decode=self.config.check,
            limits=self._limits,
            spec=self.config.spec,
            progress=progress,
        )

    @property
    def _limits(self) -> DecodeLimits | None:
        return DecodeLimits.unlimited() if self.config.unlimited_decoding else None

    def look_over(self, index: ClipIndex) -> None:
        if len(index.classes) < 2 and not index.problems:
            raise ValueError(
                f"{index.root} has one class only ({', '.join(index.classes) or 'none'}), so there "
                "is nothing to tell apart; add a folder or label of another class"
            )
        if not index.problems:
            self._look_for_teacher(index)  # complains before the long check

    def prepare(self, training: ClipIndex, *_: Any) -> None:
        self._look_for_teacher(training)  # in the other processes

    def _look_for_teacher(self, index: ClipIndex) -> None:
        path = self.config.teacher
        if path is not None and self.teacher is None:
            self.teacher = Teacher(path, index.classes, self.config.spec, self.device)
            self.taught = self.teacher.fingerprint

    def sets_aside(self, index: ClipIndex) -> bool:
        return "val" not in index.splits

    def set_aside(self, index: ClipIndex) -> ClipIndex:
        return index.with_validation(seed=self.config.seed)

    def names(self, index: ClipIndex) -> tuple[str, ...]:
        return index.classes

    def dataset(
        self, index: ClipIndex, *, augmented: bool = False, clips_per_video: int = 1, crops: int = 1
    ) -> ClipDataset:
        return ClipDataset(
            index,
            self.config.spec,
            augmentation=self.config.augmentation if augmented else None,
            clips_per_video=clips_per_video,
            crops=crops,
            seed=self.config.seed if augmented else 0,
            cache=self.cache.frames,
            limits=self._limits,
        )

    def varied(self, batch: ClipBatch) -> ClipBatch:
        mixup, cutmix = self.config.options.mixup, self.config.options.cutmix
        return mix(batch, mixup=mixup, cutmix=cutmix) if mixup or cutmix else batch

    def create_model(self) -> SpikeVideoFormer:
        model = super().create_model()
        model.head.apart = self.config.distillation_head
        return model

    def loss(self, output: Tensor, batch: ClipBatch) -> Tensor:
        config = self.config
        own, pupil = output if config.distillation_head else (output, output)
        loss = mixed_loss(own, batch, label_smoothing=config.label_smoothing)
        if self.teacher is None:
            return loss
        taught = distillation_loss(
            pupil,
            self.teacher(batch.video),
            kind=config.distillation,
            temperature=config.distillation_temperature,
        )
        return torch.lerp(loss, taught, config.distillation_weight)

    def count(self, output: Tensor, batch: ClipBatch) -> tuple[Tensor, int]:
        if self.config.distillation_head:
            output = output.mean(0)  # as it answers
        labels = batch.shown if isinstance(batch, MixedBatch) else batch.labels
        return count_correct(output, labels), len(batch)

    def judge(
        self,
        model: nn.Module,
        fabric: Fabric,
        after_batch: Callable[[], None] = lambda: None,
        *,
        finally_: bool = False,
    ) -> ClassificationResult:
        videos, clips, crops = self.val_set, self.config.eval_clips, self.config.eval_crops
        if finally_ and clips * crops > 1:
            videos = self.dataset(videos.index, clips_per_video=clips, crops=crops)
        return evaluate(
            model,
            videos,
            batch_size=self.config.batch_size,
            workers=self.config.workers,
            fabric=fabric,
            after_batch=after_batch,
        )

    def row(self, result: ClassificationResult) -> dict[str, float | int]:
        return {"val_loss": result.loss, "val_top1": result.top1, "val_top5": result.top5}

    def calibrate(self, model: SpikeVideoFormer) -> str:
        return calibrate(model, *self.seen(model, batch_size=self.config.batch_size))

    @staticmethod
    def signs(result: ClassificationResult, history: Sequence[Row]) -> Iterator[str]:
        share = history[-1]["train_top1"]
        classes = len(result.classes)
        if classes < 2 or result.top1 > (1 + 1 / classes) / 2:
            return
        guess = math.log(classes)
        best = min(row["val_loss"] for row in history)
        if best > _GUESSING * guess:
            learned = share >= _REMEMBERED
            why = (
                "the training clips are known by heart, and new ones are not recognised: more "
                "clips, of other places and people, or --init-from a network that has seen motion"
                if learned
                else "give it more --epochs, or --init-from a network that has seen motion"
            )
            yield (
                f"the validation loss stayed at that of guessing ({best:.2f} at best, "
                f"ln {classes} = {guess:.2f}): {why}"
            )

    def report(self, result: ClassificationResult, history: Sequence[Row], out: Path) -> None:
        plot_confusion(result, out / "confusion.png")

    @staticmethod
    def judge_released(  # type: ignore[override]  # settings of its own
        model: SpikeVideoFormer,
        folder: Path,
        index: ClipIndex,
        judging: Judging,
        *,
        clips_per_video: int = 1,
        crops: int = 1,
        limits: DecodeLimits | None = None,
    ) -> ClassificationResult:
        index = index.with_classes(model.classes or ())
        spec = ClipSpec.from_dict(model.clip or {})
        index = judging.checked(index, check_index, "checked file", limits=limits, spec=spec)
        dataset = ClipDataset(
            index, spec, clips_per_video=clips_per_video, crops=crops, limits=limits
        )
        result = evaluate(
            model,
            dataset,
            batch_size=judging.batch_size,
            workers=judging.workers,
            fabric=judging.fabric,
        )
        if judging.out is not None:
            plot_confusion(result, judging.out / "confusion.png")
        return result
