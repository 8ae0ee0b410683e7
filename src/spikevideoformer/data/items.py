"""What data sets of all tasks share: items by epoch and number, each with draws of its own."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import torch
from torch.utils.data import Dataset

from spikevideoformer.data.index import DatasetIndex
from spikevideoformer.data.problems import DatasetError
from spikevideoformer.data.specs import Augmentation

Item = TypeVar("Item")


class Items(Dataset[Item]):
    """Clips of an index as model input.

    The key of an item is `(epoch, i)`: the sampler names the epoch, so no state has to reach the
    loader's workers, and neither their number nor a restart changes what is drawn. A plain `i`
    is `(0, i)`, which is all that evaluation needs.
    """

    drawn: ClassVar[str]
    """What is drawn for an item: the same seed gives other tasks other draws."""
    checked_by: ClassVar[str]
    """The function that reports what is wrong with an index."""

    def __init__(
        self, index: DatasetIndex[Any], spec: Any, augmentation: Augmentation | None, seed: int
    ) -> None:
        if index.problems:
            raise DatasetError(
                f"{index.root} has {len(index.problems)} problems that {self.checked_by} reports"
                f" (first: {index.problems[0]}); settle them first",
                index.problems,
            )
        if augmentation is not None and spec.input == "events":  # which have no colours
            augmentation = replace(
                augmentation, brightness=0.0, contrast=0.0, saturation=0.0, rand_augment=0.0
            )
        self.spec, self.augmentation, self.seed = spec, augmentation, seed

    @abstractmethod
    def __len__(self) -> int: ...

    def __getitem__(self, key: int | tuple[int, int]) -> Item:
        """One item, decoded and transformed.

        Args:
            key: `(epoch, i)`, or i for epoch 0.

        Raises:
            ValueError: a file cannot be used (any more); names it.
        """
        epoch, i = (0, key) if isinstance(key, int) else key
        if not 0 <= i < len(self):
            raise IndexError(f"item {i} of {len(self)}")
        if self.augmentation is None:
            return self.item(i, None)
        # Neighbouring numbers give unrelated streams.
        name = f"{self.drawn} {self.seed} {epoch} {i}".encode()
        seed = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1
        return self.item(i, torch.Generator().manual_seed(seed))

    @abstractmethod
    def item(self, i: int, generator: torch.Generator | None) -> Item:
        """Item i, varied by the draws of a generator where there is one."""
