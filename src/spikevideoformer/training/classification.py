"""Training a network for classification of clips."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.progress import progress_on_stderr
from spikevideoformer.tasks.classification.check import check_index
from spikevideoformer.tasks.classification.dataset import ClipDataset
from spikevideoformer.tasks.classification.index import read_index
from spikevideoformer.tasks.classification.metrics import (
    ClassificationResult,
    classification_loss,
    count_correct,
)
from spikevideoformer.tasks.classification.sample import ClipIndex
from spikevideoformer.training.batches import clip_loader
from spikevideoformer.training.calibrate import calibrate, look_at
from spikevideoformer.training.config import TrainConfig
from spikevideoformer.training.devices import from_first_process
from spikevideoformer.training.evaluate import evaluate
from spikevideoformer.training.plots import plot_confusion
from spikevideoformer.training.run_cache import RunCache
from spikevideoformer.training.task import Row, Task
from spikevideoformer.video.clip import ClipBatch
from spikevideoformer.video.frames import DecodeLimits

log = logging.getLogger(__name__)


class ClassificationTask(Task):
    """Clips with one label each.

    Args:
        config: the run.
        index: the clips; None: read from `config.data`.
        fabric: launched.

    Raises:
        ValueError: data that cannot be used.
    """

    measure = "top1"
    watched = ("top1", "top5")

    def __init__(self, config: TrainConfig, index: ClipIndex | None, fabric: Fabric) -> None:
        self.config = config
        training, self._validation = from_first_process(fabric, lambda: _splits(config, index))
        self._limits = DecodeLimits.unlimited() if config.unlimited_decoding else None
        self._cache = RunCache(config, fabric.world_size)
        self._train_set = ClipDataset(
            training,
            config.clip_spec,
            augmentation=config.augmentation,
            seed=config.seed,
            cache=self._cache.frames,
            limits=self._limits,
        )
        self._val_set = ClipDataset(
            self._validation, config.clip_spec, cache=self._cache.frames, limits=self._limits
        )
        self.classes, self.clips = training.classes, len(self._train_set)
        self.data = _fingerprint(training, self._validation)

    def create_model(self) -> SpikeVideoFormer:
        model = super().create_model()
        model.clip = self.config.clip_spec.to_dict()
        return model

    def batches(
        self, keys: Iterable[list[tuple[int, int]]], device: torch.device
    ) -> Iterator[ClipBatch]:
        loader = clip_loader(self._train_set, keys, workers=self.config.workers, device=device)
        return iter(loader)

    def loss(self, output: Tensor, batch: ClipBatch) -> Tensor:
        return classification_loss(
            output, batch.labels, label_smoothing=self.config.label_smoothing
        )

    def count(self, output: Tensor, batch: ClipBatch) -> tuple[Tensor, int]:
        return count_correct(output, batch.labels), len(batch)

    def validate(
        self, model: nn.Module, fabric: Fabric, after_batch: Callable[[], None]
    ) -> ClassificationResult:
        result = evaluate(
            model,
            self._val_set,
            batch_size=self.config.batch_size,
            workers=self.config.workers,
            fabric=fabric,
            after_batch=after_batch,
        )
        self._cache.tell()
        return result

    def row(self, result: ClassificationResult) -> dict[str, float | int]:
        return {"val_loss": result.loss, "val_top1": result.top1, "val_top5": result.top5}

    def finish(self, model: SpikeVideoFormer, fabric: Fabric) -> ClassificationResult:
        dataset = ClipDataset(
            self._validation,
            self.config.clip_spec,
            clips_per_video=self.config.eval_clips,
            cache=self._cache.frames,
            limits=self._limits,
        )
        return evaluate(
            model,
            dataset,
            batch_size=self.config.batch_size,
            workers=self.config.workers,
            fabric=fabric,
        )

    def calibrate(self, model: SpikeVideoFormer) -> str:
        index = self._train_set.index
        training = ClipDataset(
            index, self.config.clip_spec, cache=self._cache.frames, limits=self._limits
        )
        seen = [
            look_at(
                model.eval(),
                dataset,
                batch_size=self.config.batch_size,
                workers=self.config.workers,
            )
            for dataset in (training, self._val_set)[: 1 + self.config.validates]
        ]
        return calibrate(model, seen[0], seen[1] if self.config.validates else None)

    def report(self, result: ClassificationResult, history: Sequence[Row], out: Path) -> None:
        plot_confusion(result, out / "confusion.png")


def _splits(config: TrainConfig, index: ClipIndex | None) -> tuple[ClipIndex, ClipIndex]:
    """The checked clips to train and to validate on."""
    if index is None:
        if config.data is None:
            raise ValueError("no data is given; set --data to the folder of the data set")
        index = read_index(config.data, layout=config.layout, fold=config.fold)
    if len(index.classes) < 2 and not index.problems:
        raise ValueError(
            f"{index.root} has one class only ({', '.join(index.classes) or 'none'}), so there is "
            "nothing to tell apart; add a folder or label of another class"
        )
    for split in (config.train_split, config.val_split):
        if split not in ("val", "none") or split in index.splits:
            index.select(split)  # complains of a name that is not there before the long check
    with progress_on_stderr("checked file") as progress:
        report = check_index(
            index,
            required_splits=[config.train_split],
            decode=config.check,
            limits=DecodeLimits.unlimited() if config.unlimited_decoding else None,
            progress=progress,
        )
    index = report.settle(skip_bad=config.skip_bad, folder=config.out)
    if not config.validates:
        return index.select(config.train_split), index.select(config.train_split)
    if config.val_split == "val" and "val" not in index.splits:
        index = index.with_validation(seed=config.seed)
        log.info("the data set has no split val: a fifth of its training clips is set aside")
    return index.select(config.train_split), index.select(config.val_split)


def _fingerprint(*indices: ClipIndex) -> str:
    """What a run learns from: files by name, not by where the data set lies."""
    digest = hashlib.blake2b(digest_size=16)
    for index in indices:
        digest.update(repr(index.classes).encode())
        for s in index.samples:
            path = s.path.relative_to(index.root) if s.path.is_relative_to(index.root) else s.path
            digest.update(repr((str(path), s.label, s.start_s, s.end_s)).encode())
    return digest.hexdigest()
