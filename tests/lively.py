"""Batch norms as after training: in a fresh network neurons are nearly silent."""

from __future__ import annotations

import torch
from torch import nn

from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.conv import StochasticDepth


def random_norms(module: nn.Module) -> nn.Module:
    """Batch norms with parameters and statistics under which neurons fire at every depth."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0.2, 0.3)
            nn.init.normal_(norm.running_mean, 0, 0.2)
            nn.init.uniform_(norm.running_var, 0.1, 0.6)
    return module


def measured_norms(model: SpikeVideoFormer, *, signed: bool = False) -> SpikeVideoFormer:
    """Batch norms with the statistics of what they see; with gains of either sign if ``signed``.

    Residual branches, which a fresh network has closed (``residual_gain`` 0), are open: tests of
    what passes through it would hold for the wrong reason.
    """
    generator = torch.Generator().manual_seed(7)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            sign = torch.where(noise(norm.num_features) < -1, -1.0, 1.0) if signed else 1.0
            norm.weight.copy_(sign * (1 + 0.2 * noise(norm.num_features)))
            norm.bias.copy_(1.5 + noise(norm.num_features))
            norm.momentum = 1.0  # statistics of one batch
        model.train()
        for module in model.modules():
            if isinstance(module, StochasticDepth):
                module.eval()
        model(noise(2, 2, model.config.in_channels, 32, 32))
        for norm in norms:
            norm.momentum = 0.1
            norm.num_batches_tracked.zero_()
    return model.train()
