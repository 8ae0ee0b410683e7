"""The neuron module: stateless calls, explicit state, firing-rate recording."""

import copy

import pytest
import torch
from torch import nn

from spikevideoformer.nn.neuron import (
    Neuron,
    Rectifier,
    layer_name,
    make_neuron,
    record_firing_rates,
)
from spikevideoformer.ops.lif import NeuronConfig, lif, lif_reference

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


# --- A batch norm in front ------------------------------------------------------------------------


def _norm(**options):
    norm = nn.BatchNorm2d(6, **options)
    if norm.affine:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0.8, 0.5)
    if norm.track_running_stats:
        nn.init.normal_(norm.running_mean, 0.0, 0.5)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return norm


def _images(dtype=torch.float32, layout=torch.channels_last):
    frames = torch.randn(5 * 3, 6, 5, 3, dtype=dtype).contiguous(memory_format=layout)
    return frames.unflatten(0, (5, 3))


def _unfused(norm, config, x, reset=False):
    y = norm(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    if reset:
        return torch.stack([lif_reference(y_t.unsqueeze(0), config)[0][0] for y_t in y])
    return lif_reference(y, config)[0]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_norm_in_evaluation_has_the_same_bits(config, layout, reset, affine):
    norm = _norm(affine=affine).eval()
    for _ in range(20):
        x = _images(layout=layout)
        fired = Neuron(config, reset)(x, norm=norm)
        assert torch.equal(fired, _unfused(norm, config, x, reset))
    assert 0 < fired.mean() < config.levels


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": None}, {"track_running_stats": False}, {"affine": False}, "frozen"],
    ids=str,
)
def test_norm_in_training(config, reset, options):
    """Spikes, gradients, running statistics and the count of batches over three passes."""
    norm = _norm(**(options if isinstance(options, dict) else {})).double()
    if options == "frozen":  # as recomputed blocks have it
        norm.momentum, norm.num_batches_tracked = 0.0, None
    other = copy.deepcopy(norm)
    neuron = Neuron(config, reset)
    for _ in range(3):
        x = _images(torch.float64)
        outcomes = []
        for module, fire in (
            (norm, lambda m, z: neuron(z, norm=m)),
            (other, lambda m, z: _unfused(m, config, z, reset)),
        ):
            z = x.clone(memory_format=torch.preserve_format).requires_grad_()
            fired = fire(module, z)
            wanted = [z, *module.parameters()]
            upstream = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape)
            outcomes.append((fired, *torch.autograd.grad(fired, wanted, upstream)))
        assert torch.equal(outcomes[0][0], outcomes[1][0])
        assert 0 < outcomes[0][0].mean() < config.levels
        for a, b in zip(*outcomes, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
        for a, b in zip(norm.buffers(), other.buffers(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_norm_and_bfloat16():
    """What a convolution under autocast gives: normalised and integrated in float32."""
    norm, neuron = _norm(), Neuron(NeuronConfig())
    x = _images().bfloat16()
    expected = neuron(x.float(), norm=copy.deepcopy(norm))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fired = neuron(x, norm=norm)
    assert fired.dtype == torch.bfloat16
    assert (fired != expected).double().mean() < 1e-3
    norm.eval()
    assert torch.equal(neuron(x, norm=norm).float(), neuron(x.float(), norm=norm))


class _Doubled(nn.BatchNorm2d):
    def forward(self, x):
        return 2 * super().forward(x)


def test_other_norms_are_called_themselves():
    config, x = NeuronConfig(), _images()
    neuron = Neuron(config)
    doubled = _Doubled(6).eval()
    assert torch.equal(neuron(x, norm=doubled), lif(2 * x / (1 + 1e-5) ** 0.5, config)[0])
    assert torch.equal(neuron(x, norm=nn.Identity()), neuron(x))
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(_norm()).eval()
    assert torch.equal(neuron(x, norm=synchronised), _unfused(synchronised, config, x))


@pytest.mark.parametrize("training", [False, True])
def test_hooks_of_a_norm_run(training):
    norm, neuron, x = _norm().train(training), Neuron(NeuronConfig()), _images()
    expected, seen = neuron(x, norm=copy.deepcopy(norm)), []
    norm.register_forward_hook(lambda _m, _args, out: seen.append(out))
    assert (neuron(x, norm=norm) != expected).double().mean() < (1e-3 if training else 1e-12)
    assert seen[0].shape == (15, 6, 5, 3)


def test_a_norm_needs_more_than_one_value_in_training():
    norm = _norm()
    x = torch.randn(1, 1, 6, 1, 1)
    with pytest.raises(ValueError, match="value per channel"):
        Neuron(NeuronConfig())(x, norm=norm)
    Neuron(NeuronConfig())(x, norm=norm.eval())


# --- Rectifiers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_rectifier_is_relu_after_the_norm(training):
    """The same values, gradients and running statistics, and frames that do not see each other."""
    rectifier, norm, x = Rectifier(NeuronConfig(kind="relu")), _norm().train(training), _images()
    other = copy.deepcopy(norm)
    z = x.clone(memory_format=torch.preserve_format).requires_grad_()
    expected = torch.stack([other(frame).relu() for frame in z.flatten(0, 1).split(15)]).flatten(
        0, 1
    )
    upstream = torch.randn_like(expected)
    (expected_gradient,) = torch.autograd.grad(expected, z, upstream)
    out = rectifier(z, norm=norm)
    assert torch.equal(out.flatten(0, 1), expected)
    (gradient,) = torch.autograd.grad(out.flatten(0, 1), z, upstream)
    assert torch.equal(gradient, expected_gradient)
    assert torch.equal(norm.running_mean, other.running_mean)
    assert torch.equal(rectifier(x), x.clamp(min=0))
    assert torch.equal(rectifier(x.flip(0)), rectifier(x).flip(0))


def test_what_stands_in_a_neurons_place():
    assert isinstance(make_neuron(NeuronConfig(kind="relu"), True), Rectifier)
    neuron = make_neuron(NeuronConfig.integer(4), True)
    assert isinstance(neuron, Neuron)
    assert neuron.reset_each_frame
    assert not make_neuron(NeuronConfig()).reset_each_frame
    with pytest.raises(ValueError, match="has no membrane"):
        Neuron(NeuronConfig(kind="relu"))


# --- Firing rates ---------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("backbone.stage1a.blocks.0.sep_conv.neuron1", "stage 1a, block 1, SepConv: input"),
        ("backbone.stage2.blocks.0.channel_conv.neuron2", "stage 2, block 1, ChannelConv: hidden"),
        ("backbone.stage2.downsample.neuron", "stage 2, downsampling"),
        ("backbone.stage3.blocks.1.attention.0.neuron", "stage 3, block 2, attention: input"),
        ("backbone.stage3.blocks.1.attention.0.steps.0.q_neuron", "stage 3, block 2, attention: q"),
        (
            "backbone.stage4.blocks.0.attention.0.steps.1.out_neuron",
            "stage 4, block 1, attention, step 2: output",
        ),
        (
            "backbone.stage4.blocks.0.attention.1.steps.0.v_neuron",
            "stage 4, block 1, attention 2: v",
        ),
        ("backbone.stage4.blocks.2.mlp.neuron1", "stage 4, block 3, MLP: input"),
        ("head.neuron", "head"),
        ("head.lateral4.neuron", "head, lateral 4"),
        ("0.features.3", "0, features 4"),
    ],
)
def test_layers_have_names_for_people(module: str, name: str) -> None:
    assert layer_name(module) == name
