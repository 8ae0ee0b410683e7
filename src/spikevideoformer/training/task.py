"""What the training loop asks of a task, and nothing else of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, create_model
from spikevideoformer.training.config import TrainConfig
from spikevideoformer.training.plots import SPOKEN

Row = Mapping[str, float | int]


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


class Task(ABC):
    """The data, loss and metrics of one run.

    Attributes:
        config: the run.
        classes: their names.
        clips: training items of an epoch.
        data: fingerprint of what is trained and validated on.
        measure: the name of the share that training counts, such as top1.
        watched: the names of two validation metrics in a row that are shares, drawn over the
            epochs.
        loss_unit: of the loss, for plots; empty where it has none.
    """

    config: TrainConfig
    classes: tuple[str, ...]
    clips: int
    data: str
    measure: str
    watched: tuple[str, str]
    loss_unit: str = "nats"

    def create_model(self) -> SpikeVideoFormer:
        """The network at its beginning, with all that it takes to use it later."""
        model = create_model(
            self.config.model,
            task=self.config.task,
            num_classes=len(self.classes),
            **self.config.model_options,
        )
        model.classes = self.classes
        return model

    @abstractmethod
    def batches(
        self, keys: Iterable[list[tuple[int, int]]], device: torch.device
    ) -> Iterator[Batch]:
        """Training batches of these (epoch, item) keys."""

    @abstractmethod
    def loss(self, output: Any, batch: Any) -> Tensor:
        """Scalar to minimise."""

    @abstractmethod
    def count(self, output: Any, batch: Any) -> tuple[Tensor, Tensor | int]:
        """How many of the batch's labels the output gets right, and of how many."""

    @abstractmethod
    def validate(self, model: nn.Module, fabric: Fabric, after_batch: Callable[[], None]) -> Any:
        """Metrics of the model as it is."""

    @abstractmethod
    def row(self, result: Any) -> dict[str, float | int]:
        """What metrics.csv gets of a validation."""

    def rank(self, row: Row) -> tuple[float, ...]:
        """What is larger for a better epoch: the first watched metric, then a smaller loss."""
        return row[f"val_{self.watched[0]}"], -row["val_loss"]

    def told(self, row: Row) -> str:
        """The validation metric of an epoch, in words."""
        name = self.watched[0]
        return f"{SPOKEN[name]} {100 * row[f'val_{name}']:.1f} %"

    @abstractmethod
    def finish(self, model: SpikeVideoFormer, fabric: Fabric) -> Any:
        """Metrics of the best weights."""

    def calibrate(self, model: SpikeVideoFormer) -> str | None:
        """Measure on the best weights what they know of their doubt; a line about it, if any."""
        return None

    @abstractmethod
    def report(self, result: Any, history: Sequence[Row], out: Path) -> None:
        """Write what there is to look at of a finished run."""
