"""The neuron module: stateless calls, explicit state, firing-rate recording."""

import pytest
import torch
from torch import nn

from spikevideoformer.nn.neuron import Neuron, record_firing_rates
from spikevideoformer.ops.lif import NeuronConfig, lif

CONFIGS = [NeuronConfig(), NeuronConfig(v_reset=-0.5), NeuronConfig.integer(4)]


def _currents():
    return 1.5 * torch.randn(5, 2, 3, 4, 4)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_is_lif_and_keeps_no_state(config):
    neuron, x = Neuron(config), _currents()
    expected, _ = lif(x, config)
    for _ in range(2):
        assert torch.equal(neuron(x), expected)
    assert not neuron.state_dict()
    assert not list(neuron.parameters())


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_reset_each_frame_forgets_the_past(config):
    neuron, x = Neuron(config, reset_each_frame=True), _currents()
    alone = torch.stack([lif(frame.unsqueeze(0), config)[0][0] for frame in x])
    assert torch.equal(neuron(x), alone)
    assert not torch.equal(neuron(x), lif(x, config)[0])


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_run_passes_the_state(config):
    neuron, x = Neuron(config), _currents()
    first, v = neuron.run(x[:2])
    second, v = neuron.run(x[2:], v)
    whole, v_whole = lif(x, config)
    assert torch.equal(torch.cat([first, second]), whole)
    assert torch.equal(v, v_whole)


def test_no_state_to_pass_where_each_frame_resets():
    with pytest.raises(ValueError, match="use forward"):
        Neuron(NeuronConfig(), reset_each_frame=True).run(_currents())


def test_recorded_rates():
    model = nn.Sequential(Neuron(NeuronConfig()), nn.Identity(), Neuron(NeuronConfig.integer(4)))
    x = 5 * _currents()
    plain = model(x)
    with record_firing_rates(model) as rates:
        model(_currents())  # the last pass counts
        assert torch.equal(model(x), plain)
    first = lif(x, NeuronConfig())[0]
    assert list(rates.per_frame) == ["0", "2"]
    assert torch.equal(rates.per_frame["0"], first.double().mean((2, 3, 4)))
    assert rates.per_frame["2"].shape == (5, 2)
    assert rates.mean["2"] == pytest.approx(plain.double().mean().item())
    assert rates.mean["2"] > 0
    # nothing is recorded once the context is closed, even by an error
    with pytest.raises(RuntimeError), record_firing_rates(model):
        raise RuntimeError
    before = rates.per_frame["0"].clone()
    model(_currents())
    assert torch.equal(rates.per_frame["0"], before)
    assert not model[0]._forward_hooks


def test_rates_of_neurons_without_space():
    neuron = Neuron(NeuronConfig())
    with record_firing_rates(neuron) as rates:
        out = neuron(2 * torch.randn(6, 3))
    assert torch.equal(rates.per_frame[""], out.double())


def test_repr_says_what_it_is():
    assert "tau=2.0" in repr(Neuron(NeuronConfig()))
    assert "reset_each_frame" in repr(Neuron(NeuronConfig(), reset_each_frame=True))
