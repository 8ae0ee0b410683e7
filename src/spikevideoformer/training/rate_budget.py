"""A budget of spikes: a term of the loss that holds the firing rate at a target."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from spikevideoformer.energy.rates import operations_by_neurons
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.neuron import watch_neurons


class RateBudget:
    """``max(0, log(r / target))^2`` of the mean firing rate r of a training batch.

    r is weighted by the operations that the spikes of a layer cause, as `svf energy` prints it, so
    that the budget is one of energy: a layer before few operations may fire more. The logarithm
    pulls as hard at one per cent as at ten, and the square lets go near the target.

    Args:
        model: the network, whose layers of neurons are watched.
        target: spikes a neuron and frame (0..D of Integer-LIF), above 0.
    """

    def __init__(self, model: SpikeVideoFormer, target: float) -> None:
        self.model, self.target = model, target
        self._fired = torch.zeros(())
        self._work: dict[str, float] = {}

    @contextmanager
    def watch(self, video: Tensor) -> Iterator[None]:
        """Watch the forward pass of ``video`` ``[B, T, C, H, W]`` in the context."""
        if not self._work:
            self._work = _in_evaluation(self.model, video)
        rates: dict[str, Tensor] = {}

        def see(name: str, spikes: Tensor) -> None:
            if name in self._work:
                rates[name] = spikes.float().mean()

        with watch_neurons(self.model, see):
            yield
        work = sum(self._work.values())
        self._fired = torch.stack([rates[n] * (w / work) for n, w in self._work.items()]).sum()

    @property
    def rate(self) -> float:
        """That of the pass that was watched last; 0 before the first."""
        return float(self._fired.detach())

    def penalty(self) -> Tensor:
        """The term of the loss, of the pass that was watched last."""
        # A silent network is within any budget; its logarithm would be minus infinity.
        return (self._fired.clamp(min=self.target) / self.target).log().square()


def _in_evaluation(model: SpikeVideoFormer, video: Tensor) -> dict[str, float]:
    was_training = model.training
    try:
        with torch.autocast(video.device.type, enabled=False):
            return operations_by_neurons(model.eval(), video[:1].float())
    finally:
        model.train(was_training)
