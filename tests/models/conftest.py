"""Networks in which every neuron has something to do."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.conv import StochasticDepth


@pytest.fixture(scope="session")
def lively() -> Callable[[SpikeVideoFormer], SpikeVideoFormer]:
    """Give batch norms the parameters of a trained network, so that neurons fire.

    A fresh network is nearly silent, with residual branches closed (``residual_gain`` 0): tests
    of what passes through it would hold for the wrong reason.
    """

    def prepare(model: SpikeVideoFormer) -> SpikeVideoFormer:
        generator = torch.Generator().manual_seed(7)

        def noise(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator)

        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        with torch.no_grad():
            for norm in norms:
                norm.weight.copy_(1 + 0.2 * noise(norm.num_features))
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

    return prepare
