"""Folded networks compute what the originals compute, without products on the attention path."""

import copy
import itertools
import json
import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import spikevideoformer as svf
from spikevideoformer.deploy import fold as fold_module
from spikevideoformer.deploy import merge as merge_module
from spikevideoformer.deploy.fold import flipped_spikes, fold_for_inference
from spikevideoformer.deploy.folded import ThresholdNeuron
from spikevideoformer.deploy.merge import (
    bn_affine,
    fold_conv_bn,
    merge_repconv,
    merge_sepconv,
)
from spikevideoformer.models.config import list_models
from spikevideoformer.nn.attention import Attention
from spikevideoformer.nn.conv import RepConv, SepConv
from spikevideoformer.nn.neuron import Neuron, watch_neurons
from spikevideoformer.ops import _stepwise
from spikevideoformer.ops._kernels import SCALARS, neuron_of
from spikevideoformer.ops.lif import NeuronConfig, lif_reference
from spikevideoformer.shapes import Design
from spikevideoformer.synth.motions import standing_skeleton

from ..lively import measured_norms

DESIGNS, ATTENTIONS = get_args(Design), ("hamming", "dot")
FORMS = [("dense", "factorised"), ("factorised", "dense")]  # repconv, sepconv
GOLDEN = {
    "tiny_3d_hamming": "joint_hamming",
    "tiny_3d_dot": "joint_dot",
    "tiny_2d_dot": "spatial_dot",
}
NEURONS = {
    "published": NeuronConfig(),
    "soft_reset": NeuronConfig(v_reset=None),
    "other_reset": NeuronConfig(v_reset=-0.4, tau=3.0),
    "no_decay_of_input": NeuronConfig(decay_input=False, v_reset=0.25, tau=4.0),
    "no_leak": NeuronConfig.from_beta(1.0, decay_input=False, v_threshold=0.7),
    "integer": NeuronConfig.integer(4),
    "integer_of_3": NeuronConfig.integer(3, v_threshold=0.6, decay_input=True, tau=1.5),
}


def _lively(name="svf_nano", **options):
    torch.manual_seed(0)
    return measured_norms(svf.create_model(name, **options), signed=True).double().eval()


def _nano(**overrides):
    return _lively(num_classes=5, **overrides)


def _video(*shape, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape or (2, 2, 3, 32, 32), dtype=dtype, generator=generator)


def _run(model, video):
    """Logits, features, spikes and firing rates of one pass."""
    features, spikes = [], {}
    handle = model.backbone.register_forward_hook(lambda _m, _args, out: features.extend(out))
    with (
        torch.no_grad(),
        svf.record_firing_rates(model) as rates,
        watch_neurons(model, lambda name, fired: spikes.update({name: fired})),
    ):
        logits = model(video)
    handle.remove()
    return logits, features, spikes, rates.mean


def _assert_same(model, folded, video):
    """Logits, features and spikes in float64. Returns the share of layers that fire."""
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in folded.modules())
    logits, features, spikes, rates = _run(model, video)
    folded_logits, folded_features, folded_spikes, folded_rates = _run(folded, video)
    assert list(folded_spikes) == list(spikes) == list(folded_rates) == list(rates)
    for name, expected in spikes.items():
        assert torch.equal(folded_spikes[name], expected), name
    assert len(features) == 4
    for expected, got in zip(features, folded_features, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(folded_logits, logits, rtol=1e-9, atol=1e-9)
    assert folded_rates == pytest.approx(rates, rel=1e-12)
    return sum(rate > 0 for rate in rates.values()) / len(rates)


# --- Whole networks -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "repconv", "sepconv"),
    [
        ("tiny_3d_hamming", *FORMS[0]),
        ("tiny_3d_hamming", *FORMS[1]),
        ("tiny_3d_dot", *FORMS[0]),
        ("tiny_2d_dot", *FORMS[1]),
    ],
)
def test_golden(name, repconv, sepconv, golden):
    """Against what an independent implementation of the published network computed."""
    with safe_open(golden / f"{name}.io.safetensors", "pt") as file:
        stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        meta = json.loads(file.metadata()["meta"])
    model = svf.load_published(golden / f"{name}.pth", attention=GOLDEN[name]).double()
    names = svf.published_names(model)
    video = stored["input"].double().transpose(0, 1)
    folded = fold_for_inference(model, repconv=repconv, sepconv=sepconv)
    features = {}
    for ours, module in folded.named_modules():
        theirs = names.get(ours)
        if f"feat_mean_TB.{theirs}" in stored:
            module.register_forward_hook(
                lambda _m, _args, out, theirs=theirs: features.update({theirs: out})
            )
    with torch.no_grad(), svf.record_firing_rates(folded) as rates:
        logits = folded(video)
    torch.testing.assert_close(logits, stored["logits_f64"], rtol=0, atol=1e-9)
    wanted = {k.removeprefix("feat_mean_TB.") for k in stored if k.startswith("feat_mean_TB.")}
    assert features.keys() == wanted
    for theirs, feature in features.items():
        expected = stored[f"feat_mean_TB.{theirs}"]
        if expected.ndim == 4:  # stored as a mean over T and B, in float32
            feature, expected = feature.mean((0, 1)), expected.double()
        torch.testing.assert_close(feature, expected, rtol=0, atol=1e-9, msg=theirs)
    mean = {names[ours]: rate for ours, rate in rates.mean.items()}
    expected = dict(zip(meta["firing_rate_names"], stored["firing_rate_f64"].tolist(), strict=True))
    assert mean == pytest.approx(expected, rel=0, abs=1e-12)
    _assert_same(model, folded, video)


@pytest.mark.parametrize(
    ("design", "attention", "neuron", "form"),
    [
        *((design, "hamming", "lif", FORMS[0]) for design in DESIGNS),
        *((design, "dot", "integer_lif", FORMS[1]) for design in DESIGNS),
        ("joint", "hamming", "integer_lif", FORMS[1]),
        ("joint", "dot", "lif", FORMS[0]),
    ],
)
def test_every_design(design, attention, neuron, form):
    model = _nano(design=design, attention=attention, neuron=neuron)
    folded = fold_for_inference(model, repconv=form[0], sepconv=form[1])
    assert _assert_same(model, folded, _video()) > 0.9


@pytest.mark.parametrize("neuron", ["lif", "integer_lif"])
@pytest.mark.parametrize("design", ["joint", "factorized"])
def test_constant_term(design, neuron):
    model = _nano(design=design, constant_term=True, neuron=neuron)
    assert _assert_same(model, fold_for_inference(model), _video()) > 0.9


@pytest.mark.parametrize("scale", ["head", 0.125])
def test_scale_in_the_threshold(scale):
    model = _nano(block={"attention_norm": False, "threshold_scale": scale})
    assert _assert_same(model, fold_for_inference(model), _video()) > 0.9


@pytest.mark.parametrize("neuron", list(NEURONS))
def test_every_neuron(neuron):
    model = _nano(neuron=NEURONS[neuron])
    assert _assert_same(model, fold_for_inference(model), _video()) > 0.8


@pytest.mark.parametrize(
    "overrides",
    [
        {"readout": "membrane"},
        {"residual_gain": 0.0},
        {"drop_path": 0.5},
        {"mlp_ratio": 2, "heads": 4, "in_channels": 1},
        {"pad_input": True},
    ],
    ids=str,
)
def test_other_options(overrides):
    model = _nano(**overrides)
    video = _video(2, 3, overrides.get("in_channels", 3), 32, 32)
    _assert_same(model, fold_for_inference(model), video)
    if "pad_input" in overrides:
        odd = _video(1, 2, 3, 30, 19)
        folded = fold_for_inference(model)
        torch.testing.assert_close(folded(odd), model(odd), rtol=1e-9, atol=1e-9)


def test_closed_branches():
    """Gains of exactly zero, as training from closed branches starts with."""
    model = _nano()
    for stage in model.backbone.stages():
        for block in stage.blocks:
            for norm in block.last_norms():
                nn.init.zeros_(norm.weight)
                nn.init.zeros_(norm.bias)
    _assert_same(model, fold_for_inference(model), _video())


def test_a_fresh_network():
    torch.manual_seed(0)
    model = svf.create_model("svf_nano", num_classes=5).double().eval()
    _assert_same(model, fold_for_inference(model), _video())


@pytest.mark.parametrize("preset", ["svf_nano", "svf_tiny"])
def test_small_presets(preset):
    _check_preset(preset)


@pytest.mark.parametrize(
    ("neuron", "repconv", "sepconv"), [("lif", *FORMS[0]), ("integer_lif", *FORMS[1])]
)
@pytest.mark.parametrize("preset", ["svf_nano", pytest.param("svf_tiny", marks=pytest.mark.slow)])
def test_segmentation(preset, neuron, repconv, sepconv):
    options = {"task": "segmentation", "num_classes": 5, "pad_input": True, "neuron": neuron}
    model = _lively(preset, **options)
    model.palette = tuple((i, i, i) for i in range(5))
    folded = fold_for_inference(model, repconv=repconv, sepconv=sepconv)
    assert (folded.task, folded.palette) == ("segmentation", model.palette)
    video = _video(2, 3, 3, 40, 44)
    assert _assert_same(model, folded, video) > 0.9
    assert folded(video).shape == (2, 3, 5, 40, 44)


@pytest.mark.parametrize("readout", ["membrane", "spike"])
def test_pose(readout):
    body = standing_skeleton()
    model = _lively(task="pose", body=body, readout=readout)
    folded = fold_for_inference(model)
    assert (folded.task, folded.body) == ("pose", body)
    assert _assert_same(model, folded, _video(2, 3, 3, 32, 48)) > 0.9


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("preset", [name for name in list_models() if name.endswith("m")])
def test_published_sizes(preset):
    _check_preset(preset)


def _check_preset(preset):
    model = _lively(preset, num_classes=4)
    for repconv, sepconv in FORMS:
        folded = fold_for_inference(model, repconv=repconv, sepconv=sepconv)
        assert _assert_same(model, folded, _video(1, 2, 3, 32, 48)) > 0.9


# --- What folding leaves alone, and what it leaves --------------------------------------------


def test_the_original_is_untouched():
    model = _nano().train()
    model.classes, model.clip = ("a", "b", "c", "d", "e"), {"frames": 4}
    before = copy.deepcopy(model.state_dict())
    random_state = torch.get_rng_state()
    folded = fold_for_inference(model)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert model.training
    assert not any(m.training for m in folded.modules())
    assert (folded.classes, folded.clip) == (model.classes, model.clip)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    own = {p.data_ptr() for p in itertools.chain(model.parameters(), model.buffers())}
    theirs = itertools.chain(folded.parameters(), folded.buffers())
    assert not own & {p.data_ptr() for p in theirs}
    # the running statistics count, in whichever mode the model was
    assert torch.equal(folded(_video()), fold_for_inference(model.eval())(_video()))


def test_sizes():
    """Biases take the place of batch norms; dense kernels have more weights."""
    model = _nano()
    sizes = {
        forms: fold_for_inference(model, repconv=forms[0], sepconv=forms[1]).num_parameters()
        for forms in itertools.product(("dense", "factorised"), repeat=2)
    }
    assert sizes["factorised", "factorised"] < model.num_parameters()
    # one stage of two blocks of 64 channels and one of 80; four RepConvs in a block
    extra = sum(n * 4 * (9 * c**2 - 2 * c**2 - 9 * c - c) for n, c in ((2, 64), (1, 80)))
    assert sizes["dense", "factorised"] - sizes["factorised", "factorised"] == extra
    extra = sum(49 * 2 * c**2 - 2 * c**2 - 49 * 2 * c for c in (8, 16, 32))
    assert sizes["factorised", "dense"] - sizes["factorised", "factorised"] == extra


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_is_kept(dtype):
    folded = fold_for_inference(_nano().to(dtype))
    assert {p.dtype for p in folded.parameters()} == {dtype}
    # thresholds are compared with integer sums, which 8 bits do not hold
    finest = torch.promote_types(dtype, torch.float32)
    assert {b.dtype for b in folded.buffers()} == {finest}
    assert folded(_video(dtype=dtype)).dtype == dtype
    assert folded.backbone.stage2.blocks[0].sep_conv.pw1.weight.is_contiguous(
        memory_format=torch.channels_last
    )


def test_thresholds_stay_exact_when_a_folded_network_is_cast():
    folded = fold_for_inference(_nano().float())
    before = copy.deepcopy(dict(folded.named_buffers()))
    for name, value in folded.to(torch.bfloat16).named_buffers():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])


def test_evaluation_is_its_only_mode():
    folded = fold_for_inference(_nano())
    assert folded.eval() is folded
    assert folded.train(False) is folded
    with pytest.raises(ValueError, match="train the original"):
        folded.train()
    assert not any(m.training for m in folded.modules())
    assert not any(p.requires_grad for p in folded.parameters())


def test_it_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="save the original"):
        fold_for_inference(_nano()).save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_copies():
    folded = fold_for_inference(_nano())
    assert torch.equal(copy.deepcopy(folded)(_video()), folded(_video()))


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "options", "says"),
    [
        (lambda: nn.Linear(2, 2), {}, "got Linear"),
        (lambda: fold_for_inference(_nano()), {}, "folded already"),
        (_nano, {"repconv": "sparse"}, "repconv 'sparse' is unknown; choose one of dense"),
        (_nano, {"sepconv": None}, "sepconv None is unknown"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(make, options, says):
    with pytest.raises(ValueError, match=says):
        fold_for_inference(make(), **options)


def test_an_ordinary_network_is_refused():
    with pytest.raises(ValueError, match="folding is for spiking networks"):
        svf.fold_for_inference(svf.create_model("ann_nano"))


def test_unknown_parts_are_refused():
    model = _nano()
    model.backbone.stage2.blocks[0] = nn.Identity()
    with pytest.raises(ValueError, match=r"backbone\.stage2\.blocks\.0 is a Identity"):
        fold_for_inference(model)
    model = _nano()
    model.head.fc = nn.Sequential(model.head.fc, nn.BatchNorm1d(5))
    model.head.fc.weight = model.head.fc[0].weight
    with pytest.raises(ValueError, match=r"head\.fc\.1 is a batch norm"):
        fold_for_inference(model)


def test_batch_norms_without_statistics_are_refused():
    with pytest.raises(ValueError, match="running statistics"):
        bn_affine(nn.BatchNorm2d(3, track_running_stats=False))
    with pytest.raises(ValueError, match="got Identity"):
        bn_affine(nn.Identity())


# --- Every merge is checked -----------------------------------------------------------------------

FIRST_BLOCK = "backbone.stage3.blocks.0"
MERGES = {
    "merge_repconv": ("dense", "factorised", rf"{FIRST_BLOCK}.attention.0.steps.0.q_conv"),
    "merge_sepconv": ("dense", "dense", "backbone.stage1a.blocks.0.sep_conv.dw"),
    "fold_conv_bn": ("dense", "factorised", "backbone.stage1a.downsample"),
}


@pytest.mark.parametrize("function", list(MERGES))
@pytest.mark.parametrize("which", [0, 1])
def test_a_wrong_merge_is_noticed(function, which, monkeypatch):
    """One weight or one bias, by a millionth."""
    repconv, sepconv, name = MERGES[function]
    places = [module for module in (fold_module, merge_module) if hasattr(module, function)]
    right = getattr(merge_module, function)

    def wrong(*args):
        merged = right(*args)
        first = (0,) * merged[which].ndim
        merged[which][first] += 1e-6
        return merged

    for place in places:
        monkeypatch.setattr(place, function, wrong)
    model = _nano()
    with pytest.raises(RuntimeError, match=f"^{name}: merged and original differ"):
        fold_for_inference(model, repconv=repconv, sepconv=sepconv)
    fold_for_inference(model, repconv=repconv, sepconv=sepconv, check=False)


@pytest.mark.parametrize("buffer", ["sign", "bias", "threshold"])
@pytest.mark.parametrize("neuron", ["lif", "integer_lif"])
def test_wrong_thresholds_are_noticed(buffer, neuron, monkeypatch):
    right = ThresholdNeuron.__init__

    def wrong(self, *args, **kwargs):
        right(self, *args, **kwargs)
        getattr(self, buffer)[3].mul_(-1 if buffer == "sign" else 1 + 1e-6)

    monkeypatch.setattr(ThresholdNeuron, "__init__", wrong)
    with pytest.raises(RuntimeError, match=rf"^{FIRST_BLOCK}.attention.0.steps.0.out_neuron"):
        fold_for_inference(_nano(neuron=neuron))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_broken_statistics_are_noticed(value):
    model = _nano()
    model.backbone.stage4.blocks[0].mlp.bn2.running_mean[3] = value
    with pytest.raises(RuntimeError, match=r"^backbone\.stage4\.blocks\.0\.mlp\.fc2: "):
        fold_for_inference(model)


# --- Parts ----------------------------------------------------------------------------------------


def _with_random_norms(module):
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.weight)
            nn.init.normal_(m.bias, 0.3, 0.5)
            nn.init.normal_(m.running_mean, 0.0, 0.5)
            nn.init.uniform_(m.running_var, 0.5, 2.0)
    return module.double().eval()


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 5), (7, 6)])
@torch.no_grad()
def test_repconv_is_exact_at_the_borders(size):
    rep = _with_random_norms(RepConv(6))
    x = torch.randint(5, (3, 6, *size)).double()
    weight, bias = merge_repconv(rep)
    expected = rep(x)
    torch.testing.assert_close(
        F.conv2d(x, weight, bias, padding=1), expected, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (9, 8)])
@torch.no_grad()
def test_sepconv_is_exact_at_the_borders(size):
    sep = _with_random_norms(SepConv(4, NeuronConfig(), False))
    x = torch.randint(2, (3, 8, *size)).double()
    weight, bias = merge_sepconv(sep)
    expected = sep.bn2(sep.pw2(sep.dw(x)))
    torch.testing.assert_close(
        F.conv2d(x, weight, bias, padding=3), expected, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_convolution_and_norm(affine, bias):
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=bias)
    norm = nn.BatchNorm2d(6, affine=affine)
    nn.Sequential(conv, norm)(torch.randn(4, 4, 8, 8))  # statistics
    norm.eval().double()
    conv.double()
    weight, merged_bias = fold_conv_bn(conv, norm)
    x = torch.randn(2, 4, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(
        F.conv2d(x, weight, merged_bias, 2, 1, 1, 2), norm(conv(x)), rtol=1e-12, atol=1e-12
    )


# no decimals of one digit: with integer sums they would hit thresholds exactly
GAINS = torch.tensor([0.3137, -0.2971, 0.0, 1.0, -2.0, 1.0371e-3], dtype=torch.float64)
SHIFTS = torch.tensor([0.1173, 0.4391, 1.7, 0.0, 0.875, -0.2119], dtype=torch.float64)


def _threshold_neuron(config, reset_each_frame=False, dtype=torch.float64):
    return ThresholdNeuron(config, reset_each_frame, gain=GAINS, shift=SHIFTS, dtype=dtype)


def _sums():
    """Sums that bring each channel to about its threshold, ``[T, B, C, H, W]``."""
    spread = torch.tensor([10.0, 10.0, 10.0, 4.0, 4.0, 5000.0], dtype=torch.float64)
    sums = torch.randn(7, 2, 6, 3, 5, dtype=torch.float64) * spread.reshape(-1, 1, 1)
    return sums.round()


@pytest.mark.parametrize("name", list(NEURONS))
def test_threshold_neuron_is_the_neuron_behind_a_gain(name):
    config, sums = NEURONS[name], _sums()
    neuron = _threshold_neuron(config)
    current = GAINS.reshape(-1, 1, 1) * sums + SHIFTS.reshape(-1, 1, 1)
    expected, v = lif_reference(current, config)
    assert torch.equal(neuron(sums), expected)
    assert len(expected.unique()) == config.levels + 1
    spikes, own_v = neuron.run(sums)
    unit = torch.where(GAINS == 0, 1, GAINS.abs()).reshape(-1, 1, 1)
    torch.testing.assert_close(own_v * unit, v, rtol=1e-12, atol=1e-12)
    # time in pieces, each with the membrane of the one before
    first, v_first = neuron.run(sums[:3])
    second, v_second = neuron.run(sums[3:], v_first)
    assert torch.equal(torch.cat([first, second]), spikes)
    assert torch.equal(v_second, own_v)
    # and what kernels with multipliers are given
    scale, shift = neuron.as_affine()
    torch.testing.assert_close(scale, GAINS, rtol=1e-14, atol=0)
    torch.testing.assert_close(shift, SHIFTS, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", list(NEURONS))
def test_threshold_neuron_that_is_reset_each_frame(name):
    config, sums = NEURONS[name], _sums()
    neuron = _threshold_neuron(config, reset_each_frame=True)
    current = GAINS.reshape(-1, 1, 1) * sums + SHIFTS.reshape(-1, 1, 1)
    assert torch.equal(neuron(sums), Neuron(config, True)(current))
    with pytest.raises(ValueError, match="no state"):
        neuron.run(sums)


def test_ties_fire_as_rounding_does():
    """Half levels go to the even neighbour: 0.5 -> 0, 1.5 -> 2, 2.5 -> 2, 3.5 -> 4."""
    config = NeuronConfig.integer(4)
    halves = torch.arange(-2, 11, dtype=torch.float64) / 2
    sums = (4 * halves).reshape(1, 1, 1, 1, -1)
    neuron = ThresholdNeuron(
        config,
        False,
        gain=torch.tensor([0.25], dtype=torch.float64),
        shift=torch.zeros(1, dtype=torch.float64),
        dtype=torch.float64,
    )
    assert torch.equal(neuron(sums).flatten(), halves.round().clamp(0, 4))


def test_gains_too_small_for_the_dtype_count_as_none():
    gain = torch.tensor([1e-44, -1e-38, 1e-20, 1.0], dtype=torch.float64)
    shift = torch.tensor([2.5, 2.5, 2.5, 0.0], dtype=torch.float64)
    neuron = ThresholdNeuron(
        NeuronConfig(), False, gain=gain, shift=shift, dtype=torch.float32
    ).float()
    assert neuron.sign.tolist() == [0, 0, 1, 1]
    assert all(b.isfinite().all() for b in neuron.buffers())
    sums = torch.full((3, 1, 4, 1, 1), 1e6)
    expected, _ = lif_reference(
        (gain.reshape(-1, 1, 1) * sums + shift.reshape(-1, 1, 1)).float(), NeuronConfig()
    )
    assert torch.equal(neuron(sums), expected)


def test_a_folded_neuron_takes_no_norm():
    with pytest.raises(ValueError, match="pass no norm"):
        _threshold_neuron(NeuronConfig())(_sums(), norm=nn.BatchNorm2d(6))


# --- The attention path has no products -----------------------------------------------------------

# Operations that move, compare, add or select.
FREE = set(
    """
    _reshape_alias _to_copy _unsafe_view add add_ alias as_strided cat clamp clamp_ clone copy_
    detach empty empty_like empty_strided eq expand fill_ full full_like ge gt le lt masked_fill ne
    neg new_empty new_empty_strided new_zeros ones_like permute promote_types round rsub
    scalar_tensor select sign slice split squeeze stack sub sub_ sum t transpose unbind unsqueeze
    view where zeros zeros_like
    """.split()
)
# Positions of the two factors.
PRODUCTS = {
    "mul": (0, 1),
    "mul_": (0, 1),
    "div": (0, 1),
    "div_": (0, 1),
    "mm": (0, 1),
    "bmm": (0, 1),
    "addmm": (1, 2),
    "baddbmm": (1, 2),
    "addcmul": (1, 2),
    "addcmul_": (1, 2),
    "convolution": (0, 1),
    "_convolution": (0, 1),
    "mkldnn_convolution": (0, 1),
}


class Products(TorchDispatchMode):
    """Looks at the operands of every operation that runs; collects those that need a multiplier.

    Args:
        levels: integers up to it are taken as sub-steps of 0 and 1.
    """

    def __init__(self, levels: int = 1) -> None:
        super().__init__()
        self.levels = levels
        self.faults: list[str] = []
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.__name__.split(".")[0]
        with self:
            if func is torch.ops.spikevideoformer.affine_lif.default:  # look inside
                spikes, v, y = _stepwise.forward(*args[:6], neuron_of(*args[6 : 6 + len(SCALARS)]))
                return spikes, v, spikes.new_empty(0) if y is None else y
            if (out := func.decompose(*args, **kwargs)) is not NotImplemented:
                return out  # made of others, which were looked at
        out = func(*args, **kwargs)
        self.seen.add(name)
        if func.namespace != "aten" or name not in FREE | PRODUCTS.keys():
            self.faults.append(f"{func.namespace}::{name} (unknown)")
        elif name in PRODUCTS and not any(self.is_simple(args[i]) for i in PRODUCTS[name]):
            self.faults.append(name)
        for factor in ("alpha", "beta", "value"):  # of the second term, as in add(x, y, alpha=2)
            if factor in kwargs and not self.is_simple(kwargs[factor]):
                term = args[0] if factor == "beta" else args[1]
                if name in PRODUCTS or not self.is_simple(term):
                    self.faults.append(f"{name} with {factor}")
        return out

    def is_simple(self, x) -> bool:
        """All in {-1, 0, 1} or powers of two."""
        if isinstance(x, torch.Tensor):
            values = x.detach().double().abs().flatten()
            mantissa = torch.frexp(values).mantissa
            simple = (values == 0) | (mantissa == 0.5)
            if self.levels > 1:
                simple |= (values <= self.levels) & (values == values.round())
            return bool(simple.all())
        return self.is_simple(torch.tensor(float(x)))


def _faults(model, kind, levels=1):
    """Products on the attention paths of a network, on what really reaches them."""
    inputs = []
    for module in model.modules():
        if isinstance(module, kind):
            module.register_forward_hook(
                lambda m, args, _out: inputs.append((m, args[0].detach().clone()))
            )
    with torch.no_grad():
        model(_video())
        faults = []
        assert inputs
        for module, u in list(inputs):
            with Products(levels) as products:
                module(u)
            faults += products.faults
            assert {"convolution", "bmm"} <= products.seen
    return faults


# tau of 2 and 4, a threshold of its own, both resets
PATH_NEURONS = {
    "published": NeuronConfig(),
    "soft_reset": NeuronConfig(v_reset=None, v_threshold=0.7),
    "other_reset": NeuronConfig(v_reset=-0.4, tau=4.0),
}


@pytest.mark.parametrize("neuron", list(PATH_NEURONS))
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_attention_path_needs_additions_and_shifts_only(neuron, attention):
    """From the membrane that enters the module to the output of its projection."""
    model = _nano(neuron=PATH_NEURONS[neuron], attention=attention)
    assert _faults(fold_for_inference(model), Attention) == []


@pytest.mark.parametrize(
    ("design", "constant_term"), [*((design, False) for design in DESIGNS), ("joint", True)]
)
def test_attention_path_of_every_design(design, constant_term):
    model = _nano(design=design, constant_term=constant_term)
    assert _faults(fold_for_inference(model), Attention) == []


@pytest.mark.parametrize("constant_term", [False, True])
def test_attention_path_of_integer_neurons(constant_term):
    """Integers 0..D are D sub-steps of 0 and 1 (``unroll_integer_spikes``)."""
    model = _nano(neuron="integer_lif", constant_term=constant_term)
    assert _faults(fold_for_inference(model), Attention, levels=4) == []


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_trace_finds_the_products_of_the_original(attention):
    faults = _faults(_nano(attention=attention), Attention)
    assert any("convolution" in fault for fault in faults)  # inside RepConv
    assert any("batch_norm" in fault for fault in faults)


def test_the_trace_finds_the_products_of_factorised_repconvs():
    faults = _faults(fold_for_inference(_nano(), repconv="factorised"), Attention)
    assert set(faults) == {"convolution"}


NEEDS_MULTIPLIERS = {
    "times_0.3": lambda x: x * 0.3,
    "third": lambda x: x / 3,
    "sub_with_factor": lambda x: torch.sub(x, x, alpha=0.3),
    "addcmul": lambda x: torch.addcmul(x, x, x),
    "scaled_product": lambda x: torch.addmm(x, x, x.sign(), alpha=0.3),
    "square": lambda x: x.square(),
    "mean": lambda x: x.mean(),
    "linear": lambda x: F.linear(x, x),
}
NEEDS_NONE = {
    "signs": lambda x: x @ x.sign(),
    "half": lambda x: x * 0.5,
    "quarter": lambda x: x / -4,
    "sign_times": lambda x: x.sign() * 0.3,
    "sub_of_signs": lambda x: torch.sub(x, x.sign(), alpha=0.3),
    "where": lambda x: torch.where(x > 0, x, -x),
}


@pytest.mark.parametrize("name", [*NEEDS_MULTIPLIERS, *NEEDS_NONE])
def test_what_the_trace_takes_for_a_product(name):
    x = torch.randn(4, 4)
    with Products() as products:
        (NEEDS_MULTIPLIERS | NEEDS_NONE)[name](x)
    assert bool(products.faults) == (name in NEEDS_MULTIPLIERS), products.faults


# --- float32 --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("repconv", "sepconv"), FORMS)
def test_float32_flips_few_spikes(repconv, sepconv):
    """In float32 rounding differs, so the odd spike flips, and later ones with it."""
    model = _nano().float()
    folded = fold_for_inference(model, repconv=repconv, sepconv=sepconv)
    flips = flipped_spikes(model, folded, _video(dtype=torch.float32))
    assert flips.keys() == {*_neurons(model), "all"}
    assert flips["all"] < 0.1


def _neurons(model):
    return {name for name, m in model.named_modules() if isinstance(m, Neuron)}


def test_flipped_spikes_counts():
    model = _nano()
    video = _video()
    assert set(flipped_spikes(model, model, video).values()) == {0.0}
    other = copy.deepcopy(model)
    nn.init.constant_(other.backbone.stage4.blocks[0].mlp.bn1.bias, -100.0)  # silences one layer
    with torch.no_grad(), svf.record_firing_rates(model) as rates:
        model(video)
    flips = flipped_spikes(model, other, video)
    silenced = "backbone.stage4.blocks.0.mlp.neuron2"
    assert flips[silenced] == pytest.approx(rates.mean[silenced], rel=1e-12)
    assert {name for name, share in flips.items() if share} <= {silenced, "head.neuron", "all"}
    assert 0 < flips["all"] < flips[silenced]
    with pytest.raises(ValueError, match="different neurons"):
        flipped_spikes(model, _nano(readout="spike"), video)
