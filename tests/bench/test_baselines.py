"""The baselines compute what ours computes, or are what they claim to be."""

import importlib.util

import pytest
import torch
from torch import nn

from spikevideoformer.bench import baselines
from spikevideoformer.bench.baselines import (
    BaselineMissingError,
    ann_model,
    reset_spikingjelly,
    spikingjelly_model,
    spikingjelly_neuron,
    spikingjelly_version,
)
from spikevideoformer.bench.inputs import firing_rate, lively_model, random_video
from spikevideoformer.bench.network_rows import check_same_function, check_same_gradients
from spikevideoformer.bench.options import DifferentError
from spikevideoformer.models.config import preset
from spikevideoformer.models.spikevideoformer import create_model
from spikevideoformer.nn.neuron import Neuron
from spikevideoformer.ops.lif import NeuronConfig, lif_reference

pytestmark = pytest.mark.timeout(300)


@pytest.mark.usefixtures("spikingjelly")
def test_published_structure_fires_the_same_spikes() -> None:
    model = lively_model("svf_nano", num_classes=7).double()
    said = check_same_function(model, spikingjelly_model(model), frames=3)
    assert said.startswith("float64: none of")


@pytest.mark.usefixtures("spikingjelly")
def test_published_structure_has_the_same_gradients() -> None:
    model = lively_model("svf_nano", num_classes=7).double()
    check_same_gradients(model, spikingjelly_model(model))


@pytest.mark.usefixtures("spikingjelly")
def test_the_checks_see_a_changed_weight() -> None:
    model = lively_model("svf_nano", num_classes=7).double()
    other = spikingjelly_model(model)
    with torch.no_grad():
        model.backbone.stage1b.blocks[0].sep_conv.pw1.weight[0] += 0.1  # type: ignore[union-attr, operator, index]
    with pytest.raises(DifferentError, match="no ratio"):
        check_same_function(model, other, frames=2)
    with pytest.raises(DifferentError, match="no ratio"):
        check_same_gradients(model, other)


@pytest.mark.usefixtures("spikingjelly")
def test_calls_of_the_baseline_do_not_depend_on_each_other() -> None:
    model = lively_model("svf_nano", num_classes=7)
    baseline = spikingjelly_model(model)
    video = random_video(1, 3, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(baseline(video), baseline(video))


@pytest.mark.usefixtures("spikingjelly")
def test_baseline_works_on_contiguous_frames() -> None:
    baseline = spikingjelly_model(create_model("svf_nano"))
    seen = []
    for module in baseline.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, args, _out: seen.append(args[0]))
    baseline.eval()(random_video(1, 2, 3, 32, 32))
    assert seen and all(x.is_contiguous() for x in seen)


@pytest.mark.usefixtures("spikingjelly")
@pytest.mark.parametrize(
    "config",
    [
        NeuronConfig(),
        NeuronConfig(tau=3.0, v_threshold=0.5),
        NeuronConfig(v_reset=None),
        NeuronConfig(decay_input=False, v_reset=0.25),
    ],
)
def test_their_neuron_is_ours(config: NeuronConfig) -> None:
    x = torch.randn(6, 5, 4, dtype=torch.float64) + 1
    node = spikingjelly_neuron(config)
    expected, _ = lif_reference(x, config)
    assert 0 < expected.mean() < 1
    assert torch.equal(node(x), expected)
    reset_spikingjelly(node)
    assert torch.equal(node(x), expected)


def test_what_was_not_published_is_refused() -> None:
    for options in ({"design": "factorized"}, {"attention": "dot"}, {"constant_term": True}):
        with pytest.raises(ValueError, match="the baseline is joint Hamming"):
            spikingjelly_model(create_model("svf_nano", **options))
    with pytest.raises(ValueError, match="drop_path"):
        spikingjelly_model(create_model("svf_nano", drop_path=0.1))
    with pytest.raises(ValueError, match="integer_lif"):
        spikingjelly_neuron(NeuronConfig.integer())


def test_missing_spikingjelly_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(BaselineMissingError, match="pip install"):
        spikingjelly_version()
    with pytest.raises(BaselineMissingError, match="pip install"):
        baselines.spikingjelly_model(create_model("svf_nano"))


@pytest.mark.usefixtures("spikingjelly")
def test_unknown_backend_is_refused() -> None:
    with pytest.raises((BaselineMissingError, NotImplementedError, AssertionError)):
        spikingjelly_neuron(NeuronConfig(), "no such back end")


def test_ann_has_the_convolutions_of_the_network_and_no_neuron() -> None:
    model, ann = create_model("svf_nano", num_classes=5), ann_model(preset("svf_nano"), 5)
    shapes = [
        sorted(tuple(m.weight.shape) for m in net.modules() if isinstance(m, nn.Conv2d))
        for net in (model, ann)
    ]
    assert shapes[0] == shapes[1]
    assert not any(isinstance(m, Neuron) for m in ann.modules())
    assert ann.config == preset("ann_nano")
    video = random_video(2, 3, 3, 32, 32)
    logits = ann(video)
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert all(p.grad is not None for p in ann.parameters())


def test_ann_stays_channels_last() -> None:
    ann = ann_model(preset("svf_nano")).eval()
    strays = []

    def look(module: nn.Module, _args: object, out: torch.Tensor) -> None:
        if not out.is_contiguous(memory_format=torch.channels_last):
            strays.append(module)

    for module in ann.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(look)
    ann(random_video(1, 2, 3, 32, 32))
    assert not strays


def test_lively_networks_fire() -> None:
    model = lively_model("svf_nano")
    assert 0.05 < firing_rate(model, random_video(1, 4, 3, 64, 64, seed=3)) < 0.4


def test_random_video_is_reproducible_and_moves() -> None:
    video = random_video(1, 3, 3, 32, 32)
    assert torch.equal(video, random_video(1, 3, 3, 32, 32))
    assert not torch.equal(video[:, 0], video[:, 1])
    assert 0.5 < video.std() < 2
