"""Statistics of batch norms, measured anew: the mean over batches at fixed weights."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # of BatchNorm2d and SyncBatchNorm

from spikevideoformer.nn.conv import StochasticDepth


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch norms of a model that keep statistics, in the order of its modules."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


_LARGE = 2**16  # values


@torch.no_grad()
def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no value of these is NaN or infinite."""
    alike: defaultdict[object, list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        alike[tensor.device, tensor.dtype].append(tensor)
    for same in alike.values():
        # large ones are not copied; of small ones the calls cost more than a copy
        parts = [z for z in same if z.numel() >= _LARGE]
        if small := [z.reshape(-1) for z in same if z.numel() < _LARGE]:
            parts.append(torch.cat(small))
        # a sum is one pass; it may overflow where no value is infinite
        total = float(torch.stack([part.sum() for part in parts]).sum())
        if not (math.isfinite(total) or all(bool(part.isfinite().all()) for part in parts)):
            return False
    return True


@torch.no_grad()
def measure_statistics(
    model: nn.Module,
    videos: Iterable[Tensor],
    gather: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> None:
    """Give every batch norm the statistics of its input over these clips, at its present weights.

    Running averages need tens of batches to forget what they began with, and then lag behind the
    weights. Here each batch is normalised by its own statistics, as in training, and what
    evaluation will use is, over batches b,

    Equation: mean = E_b[mean_b],  var = E_b[var_b] + E_b[mean_b^2] - E_b[mean_b]^2

    RepConv pads with the running statistics of its first batch norm. While this runs these are the
    ones of the batch at hand, so the border that the later norms see is the one that belongs to it,
    as in evaluation. Branches that stochastic depth would drop are kept. The training mode of each
    module is put back.

    Args:
        model: changed in place: running means and variances, nothing else.
        videos: input of the model, ``[B, T, C, H, W]``; every batch weighs the same.
        gather: makes of the sums of this process, float64 ``[batches, 2, channels of all norms]``,
            those of all processes, in an order that does not depend on how many there are.

    Raises:
        ValueError: no batches, or statistics that are not finite.

    Source: Wu & Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3 (PreciseBN).
    """
    norms = batch_norms(model)
    if not norms:
        return
    rows = []
    with _own_statistics_of_each_batch(model, norms):
        for video in videos:
            model(video)
            means = torch.cat([_known(norm.running_mean) for norm in norms]).double()
            variances = torch.cat([_known(norm.running_var) for norm in norms]).double()
            rows.append(torch.stack([means, variances]))
    if not rows:
        raise ValueError("no batch to measure the statistics of batch norms on")
    means, variances = gather(torch.stack(rows)).unbind(1)  # [batches, channels] each
    mean = means.mean(0)
    variance = variances.mean(0) + (means - mean).square().mean(0)
    if not bool((mean.isfinite() & variance.isfinite()).all()):
        raise ValueError(
            "the statistics of batch norms are not finite, activations overflow; lower "
            "learning_rate"
        )
    sizes = [norm.num_features for norm in norms]
    for norm, m, v in zip(norms, mean.split(sizes), variance.split(sizes), strict=True):
        _known(norm.running_mean).copy_(m)
        _known(norm.running_var).copy_(v)


@contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    """Running statistics are as before when this is left, whatever was measured inside."""
    buffers = [_known(z) for n in batch_norms(model) for z in (n.running_mean, n.running_var)]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)


@contextmanager
def _own_statistics_of_each_batch(model: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    training = [(module, module.training) for module in model.modules()]
    model.train()
    for module in model.modules():
        if isinstance(module, StochasticDepth):
            module.eval()
    try:
        with momentum_of(norms, 1.0):
            yield
    finally:
        for module, mode in training:
            module.training = mode


@contextmanager
def momentum_of(norms: Iterable[_BatchNorm], momentum: float) -> Iterator[None]:
    """Batch norms take so much of each batch into their statistics, and count none."""
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, _, _ in before:
        norm.momentum, norm.num_batches_tracked = momentum, None
    try:
        yield
    finally:
        for norm, own, count in before:
            norm.momentum, norm.num_batches_tracked = own, count


def _known(statistics: Tensor | None) -> Tensor:
    assert statistics is not None  # batch_norms leaves out those without
    return statistics
