"""Networks in which every neuron has something to do."""

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture(scope="session")
def lively() -> Callable[[nn.Module], nn.Module]:
    """Give batch norms the parameters of a trained network, so that neurons fire.

    A fresh network is nearly silent, with residual branches closed (``residual_gain`` 0): tests
    of what passes through it would hold for the wrong reason.
    """

    def prepare(model: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(7)

        def noise(x: torch.Tensor) -> torch.Tensor:
            return torch.randn(x.shape, dtype=x.dtype, generator=generator)

        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.weight.copy_(1 + 0.2 * noise(module.weight))
                    module.bias.copy_(0.7 + 0.7 * noise(module.bias))
                    module.running_mean.copy_(0.2 * noise(module.running_mean))
                    module.running_var.copy_(1 + 0.2 * noise(module.running_var).abs())
        return model

    return prepare
