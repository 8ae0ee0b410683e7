"""Neurons with a threshold of each channel fire on ties what the rounding says; see `test_fold`."""

import pytest
import torch

from spikevideoformer.deploy.folded import ThresholdNeuron
from spikevideoformer.ops.lif import NeuronConfig, lif_reference


@pytest.mark.parametrize("rounding", ["half_even", "half_up"])
@pytest.mark.parametrize("kind", ["integer_lif", "ni_lif"])
def test_ties(kind, rounding):
    config = NeuronConfig.of_kind(kind, levels=4, rounding=rounding)
    gain = torch.tensor([0.5, -0.25, 1.0], dtype=torch.float64)
    shift = torch.tensor([0.0, 0.5, -1.0], dtype=torch.float64)
    neuron = ThresholdNeuron(config, False, gain=gain, shift=shift, dtype=torch.float64)
    sums = torch.randint(-24, 25, (3, 2, 3, 4, 4)).double()
    current = gain[:, None, None] * sums + shift[:, None, None]
    expected, _ = lif_reference(current, config)
    assert torch.equal(neuron(sums), expected)
    ties = (current * 2).round() == current * 2
    assert bool((ties & (current != current.round())).any())
