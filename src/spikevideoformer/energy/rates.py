"""The firing rate of a network as its energy has it: each layer counts by the work it causes."""

from collections.abc import Iterable

from torch import Tensor, nn

from spikevideoformer.energy.count import count_clips
from spikevideoformer.energy.record import LAYERS, OperationCount


def operations_by_neurons(model: nn.Module, video: Tensor) -> dict[str, float]:
    """How many multiply-accumulates the spikes of each layer of neurons stand before, in a clip.

    Args:
        model: in evaluation mode.
        video: normalised clips ``[B, T, C, H, W]``; only the first one is run.

    Returns:
        By the name of the layer of neurons; those that nothing multiplies are left out, as are
        products of spikes that several layers fired.
    """
    work: dict[str, float] = {}
    for operation in _behind_spikes(count_clips(model, video[:1]).operations):
        if operation.fired_by:
            work[operation.fired_by] = work.get(operation.fired_by, 0.0) + operation.paper_macs
    return work


def rate_by_operations(operations: Iterable[OperationCount]) -> float | None:
    """Mean firing rate of what convolutions, linear layers and attention read, by their MACs.

    It is the paper's count of accumulations over its count of multiply-accumulates, the layer of
    pixels left out; None without spikes.
    """
    behind = _behind_spikes(operations)
    macs = sum(o.paper_macs for o in behind)
    return sum(o.paper_macs * (o.paper_rate or 0.0) for o in behind) / macs if macs else None


def _behind_spikes(operations: Iterable[OperationCount]) -> list[OperationCount]:
    return [o for o in operations if o.kind in LAYERS and o.paper_rate is not None]
