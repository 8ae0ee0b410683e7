"""What the training loop asks of a task."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, cast

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from spikevideoformer.data.check import Report, check_videos
from spikevideoformer.data.index import DatasetIndex
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, create_model
from spikevideoformer.progress import progress_on_stderr
from spikevideoformer.task import get_task
from spikevideoformer.training.batches import clip_loader
from spikevideoformer.training.config import TrainConfig
from spikevideoformer.training.devices import from_first_process
from spikevideoformer.training.judging import Judging, judged_batches
from spikevideoformer.training.plots import spoken
from spikevideoformer.training.run_cache import RunCache
from spikevideoformer.training.seen import Seen, familiarise, look_at, only_videos

log = logging.getLogger(__name__)

Row = Mapping[str, float | int]
Index = TypeVar("Index", bound=DatasetIndex[Any])


class Batch(Protocol):
    """Clips of one forward pass."""

    @property
    def video(self) -> Tensor:
        """Normalised clips [B, T, C, H, W]."""
        ...

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str) -> Self:
        """The batch on `device`."""
        ...


class TaskTraining(ABC, Generic[Index]):
    """The data, loss and metrics of one run.

    Args:
        config: the run.
        index: of the data set; None: read from `config.data`.
        fabric: launched.

    Attributes:
        config: the run.
        device: where the network runs.
        classes: their names.
        clips: training items of an epoch.
        data: fingerprint of what is trained and validated on.
        taught: fingerprint of the teacher; None without one.
        measure: the name of the share that training counts, such as top1.
        watched: the names of two validation metrics in a row that are shares, drawn over the
            epochs.
        loss_unit: of the loss, for plots; empty where it has none.

    Raises:
        ValueError: data that cannot be used.
    """

    name: ClassVar[str]
    index_type: ClassVar[type[DatasetIndex[Any]]]
    checked: ClassVar[str] = "checked file"
    collate: ClassVar[Callable[[Sequence[Any]], Any]]
    labelled: ClassVar[bool] = False  # whether a clip has one label, and the network logits of it
    seen_as: ClassVar[Callable[[Sequence[Any]], Any]] = only_videos
    measure: str
    watched: tuple[str, str]
    loss_unit: str = "nats"
    taught: str | None = None

    def __init__(self, config: TrainConfig, index: Index | None, fabric: Fabric) -> None:
        self.config, self.of_task, self.device = config, get_task(self.name), fabric.device
        training, validation, prepared = from_first_process(fabric, lambda: self._splits(index))
        self.prepare(training, validation, prepared, fabric.device)
        self.cache = RunCache(config, fabric.world_size)
        self.train_set = self.dataset(training, augmented=True)
        self.val_set = self.dataset(validation)
        self.classes, self.clips = self.names(training), len(self.train_set)
        digest = hashlib.blake2b(digest_size=16)
        for part in (training, validation):
            for content in part.content():
                digest.update(content)
        self.data = digest.hexdigest()

    def _splits(self, index: Index | None) -> tuple[Index, Index, Any]:
        """The checked items to train and to validate on, and what is prepared of them."""
        config = self.config
        if index is None:
            if config.data is None:
                raise ValueError("no data is given; set --data to the folder of the data set")
            index = cast(
                Index, self.of_task.read(config.data, layout=config.layout, fold=config.fold)
            )
        self.look_over(index)
        val_split = config.val_split if config.validates else config.train_split
        set_aside = val_split == "val" and self.sets_aside(index)
        wanted = list(dict.fromkeys([config.train_split, val_split]))
        wanted = wanted[: 1 if set_aside else None]
        for split in wanted:
            index.select(split)  # complains of a name that is not there before the long check
        with progress_on_stderr(self.checked) as progress:
            report = self.check(index, wanted, progress)
        index = report.settle(skip_bad=config.skip_bad, folder=config.out)
        if set_aside:
            index = self.set_aside(index)
            log.info("the data set has no split val: a fifth of its training clips is set aside")
        training = index.select(config.train_split)
        return training, index.select(val_split), self.prepared(training)

    def check(
        self, index: Index, required: Sequence[str], progress: Callable[[int, int], None]
    ) -> Report[Any]:
        """What is wrong with the data."""
        return check_videos(index, required=required, decode=self.config.check, progress=progress)

    def look_over(self, index: Index) -> None:
        """Refuse data that nothing can be learned from, before the long check."""
        return

    def sets_aside(self, index: Index) -> bool:
        """Whether validation clips are taken from those to train on."""
        return False

    def set_aside(self, index: Index) -> Index:
        """The index with a part of its training clips to validate on."""
        raise NotImplementedError

    def prepared(self, training: Index) -> Any:
        """What the first process works out of the training data for all."""
        return None

    def prepare(
        self, training: Index, validation: Index, prepared: Any, device: torch.device
    ) -> None:
        """Take that over, and refuse what shows before the first step."""
        return

    def dataset(self, index: Index, *, augmented: bool = False) -> Any:
        """The torch data set of a part of the data."""
        return self.plain_dataset(index, self.config.spec)

    @staticmethod
    def plain_dataset(index: Any, spec: Any) -> Any:
        """The same without a run: nothing is varied, nothing cached."""
        raise NotImplementedError

    @abstractmethod
    def names(self, index: Index) -> tuple[str, ...]:
        """Of the outputs of the network."""

    def create_model(self) -> SpikeVideoFormer:
        """The network at its beginning, with all that it takes to use it later."""
        model = create_model(
            self.config.model,
            task=self.name,
            num_classes=len(self.classes),
            **self.config.model_options,
        )
        model.classes = self.classes
        model.clip = self.config.spec.to_dict()
        return model

    def batches(
        self, keys: Iterable[list[tuple[int, int]]], device: torch.device
    ) -> Iterator[Batch]:
        """Training batches of these (epoch, item) keys."""
        workers, collate = self.config.workers, type(self).collate
        return iter(
            clip_loader(self.train_set, keys, workers=workers, device=device, collate=collate)
        )

    def varied(self, batch: Any) -> Any:
        """A training batch, on its device, changed as a whole by draws of torch's generator."""
        return batch

    @abstractmethod
    def loss(self, output: Any, batch: Any) -> Tensor:
        """Scalar to minimise."""

    @abstractmethod
    def count(self, output: Any, batch: Any) -> tuple[Tensor, Tensor | int]:
        """How many of the batch's labels the output gets right, and of how many."""

    def weight(self, batch: Any, labels: Tensor | int) -> Tensor | int:
        """What the loss of a batch counts for in the mean of an epoch, by default its labels."""
        return labels

    def validate(self, model: nn.Module, fabric: Fabric, after_batch: Callable[[], None]) -> Any:
        """Metrics of the model as it is."""
        result = self.judge(model, fabric, after_batch)
        self.cache.tell()
        return result

    def judge(
        self,
        model: nn.Module,
        fabric: Fabric,
        after_batch: Callable[[], None] = lambda: None,
        *,
        finally_: bool = False,
    ) -> Any:
        """Metrics of the model on the validation data; `finally_` of the weights to release."""
        config = self.config
        return self.judged(
            judged_batches(
                model,
                self.val_set,
                type(self).collate,
                fabric,
                config.batch_size,
                config.workers,
                after_batch,
            ),
            fabric,
        )

    @staticmethod
    def judged(batches: Iterator[tuple[Any, Any]], fabric: Fabric) -> Any:
        """Metrics over all processes, of outputs and batches of this one."""
        raise NotImplementedError

    @classmethod
    def judge_released(
        cls, model: SpikeVideoFormer, folder: Path, index: Any, judging: Judging, **settings: Any
    ) -> Any:
        """Metrics of a released model, as `released.evaluate_folder` has them.

        Args:
            model: in evaluation mode.
            folder: it is from.
            index: one split, not yet checked.
            judging: how.
            **settings: of the task.
        """
        dataset = cls.plain_dataset(
            judging.checked(index, check_videos, cls.checked),
            get_task(cls.name).spec_type.from_dict(model.clip or {}),  # type: ignore[attr-defined]
        )
        fabric, size = judging.fabric, judging.batch_size
        return cls.judged(
            judged_batches(model, dataset, cls.collate, fabric, size, judging.workers), fabric
        )

    @abstractmethod
    def row(self, result: Any) -> dict[str, float | int]:
        """What metrics.csv gets of a validation."""

    def rank(self, row: Row) -> tuple[float, ...]:
        """What is larger for a better epoch: the first watched metric, then a smaller loss."""
        return row[f"val_{self.watched[0]}"], -row["val_loss"]

    def told(self, row: Row) -> str:
        """The validation metric of an epoch, in words."""
        name = self.watched[0]
        return f"{spoken(name)} {100 * row[f'val_{name}']:.1f} %"

    def calibrate(self, model: SpikeVideoFormer) -> str | None:
        """Measure on the best weights what they know of their doubt; a line about it, if any."""
        seen = self.seen(model, batch_size=1)  # pictures may differ in size
        return familiarise(model, *seen) or None

    def seen(self, model: SpikeVideoFormer, *, batch_size: int) -> tuple[Seen, Seen | None]:
        """What the network makes of the clips that it was trained on, and of others."""
        sets = [self.dataset(self.train_set.index)]
        if self.config.validates:
            sets.append(self.val_set)
        found = [
            look_at(
                model.eval(),
                dataset,
                batch_size=batch_size,
                workers=self.config.workers,
                collate=type(self).seen_as,
                labelled=self.labelled,
            )
            for dataset in sets
        ]
        return found[0], found[1] if self.config.validates else None

    @staticmethod
    def signs(result: Any, history: Sequence[Row]) -> Iterator[str]:
        """Lines about a run of this task that did not learn."""
        yield from ()

    def report(self, result: Any, history: Sequence[Row], out: Path) -> None:
        """Write what there is to look at of a finished run, besides the curves."""
        return
