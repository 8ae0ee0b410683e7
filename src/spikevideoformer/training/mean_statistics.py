"""Running statistics of batch norms where several micro-batches make a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.fabric import Fabric
from torch import Tensor

from spikevideoformer.training.devices import over_processes


class MeanStatistics:
    """Makes a step change the running statistics of batch norm by the mean over its micro-batches.

    Left alone, accumulation would apply the changes one after the other, and processes would drift
    apart. Here every micro-batch starts from the statistics that the step began with, and the
    results are averaged, over micro-batches and over processes: both ways to split a batch agree,
    ranks always hold the same statistics, and these are the running average of batch statistics
    that they are meant to be. (RepConv reads them in training, so they do matter for gradients.)

    Args:
        buffers: running means and variances.
    """

    def __init__(self, buffers: list[Tensor]) -> None:
        self._buffers = buffers
        self._start = [b.clone() for b in buffers]
        self._sum: list[Tensor] = []
        self._count = 0

    @contextmanager
    def micro_batch(self) -> Iterator[None]:
        """Around one forward and backward pass."""
        if self._count:
            for buffer, start in zip(self._buffers, self._start, strict=True):
                buffer.copy_(start)
        yield
        self._count += 1
        if not self._sum:
            self._sum = [b.clone() for b in self._buffers]
        else:
            for total, buffer in zip(self._sum, self._buffers, strict=True):
                total.add_(buffer)

    def apply(self, fabric: Fabric) -> None:
        """Put the mean in place."""
        if not self._buffers:
            return
        mean = torch.cat([s.flatten() for s in self._sum]) / self._count
        mean = over_processes(fabric, mean, "mean")
        parts = mean.split([b.numel() for b in self._buffers])
        for buffer, part in zip(self._buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))
