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
        watched: the names of two validation metrics in a row, drawn over the epochs; the first of
            them chooses the best one.
    """

    config: TrainConfig
    classes: tuple[str, ...]
    clips: int
    data: str
    measure: str
    watched: tuple[str, str]

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
    def loss(self, output: Tensor, batch: Any) -> Tensor:
        """Scalar to minimise."""

    @abstractmethod
    def count(self, output: Tensor, batch: Any) -> tuple[Tensor, Tensor | int]:
        """How many of the batch's labels the output gets right, and of how many."""

    @abstractmethod
    def validate(self, model: nn.Module, fabric: Fabric, after_batch: Callable[[], None]) -> Any:
        """Metrics of the model as it is."""

    @abstractmethod
    def row(self, result: Any) -> dict[str, float | int]:
        """What metrics.csv gets of a validation."""

    @abstractmethod
    def finish(self, model: SpikeVideoFormer, fabric: Fabric) -> Any:
        """Metrics of the best weights."""

    @abstractmethod
    def report(self, result: Any, history: Sequence[Row], out: Path) -> None:
        """Write what there is to look at of a finished run."""
