"""Networks as a whole: every preset, design, attention and neuron, and every argument."""

import dataclasses
import itertools
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

import spikevideoformer as svf
from spikevideoformer.models.config import preset
from spikevideoformer.models.initialise import made_pictures
from spikevideoformer.nn.block_config import E_SPIKEFORMER, BlockConfig
from spikevideoformer.nn.conv import StochasticDepth
from spikevideoformer.nn.neuron import Neuron
from spikevideoformer.shapes import Design

from .gradients import has_no_gradient_by_mathematics

DESIGNS, ATTENTIONS = get_args(Design), ("hamming", "dot")
SWEEP = list(itertools.product(DESIGNS, ATTENTIONS))
INTEGER = svf.NeuronConfig.integer(4)
ORDINARY = {"neuron": "relu", "attention": "softmax"}
RECURRENT = {"neuron": "relu", "attention": "none", "design": "spatial_only", "readout": "gru"}


def _is_large(name):
    return preset(name).widths[-1] > 360


def _presets(*families):
    """All of them; the large ones, which differ in numbers only, run with the slow tests."""
    names = itertools.chain.from_iterable(map(svf.list_models, families))
    return [pytest.param(n, marks=pytest.mark.slow) if _is_large(n) else n for n in names]


def _nano(name="svf_nano", seed=0, **overrides):
    torch.manual_seed(seed)
    return svf.create_model(name, num_classes=5, **overrides)


def _video(*shape, dtype=torch.float32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape or (2, 2, 3, 32, 32), dtype=dtype, generator=generator)


# --- Sizes ----------------------------------------------------------------------------------------


def test_the_400_class_15m_model_has_exactly_the_published_parameters():
    with torch.device("meta"):
        model = svf.create_model("svf_15m")
    assert model.num_classes == 400
    assert model.num_parameters() == 14_900_120


@pytest.mark.parametrize(
    ("name", "millions"), [("svf_31m", 31), ("svf_55m", 55), ("svf_124m", 124)]
)
def test_the_other_published_sizes_are_what_their_names_say(name, millions):
    with torch.device("meta"):
        model = svf.create_model(name)
    assert model.num_parameters() / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize(
    ("name", "millions"), [("5m", 5.1), ("10m", 10.0), ("19m", 19.0), ("83m", 83), ("171m", 171)]
)
def test_e_spikeformers_of_1000_classes_are_of_the_published_size(name, millions):
    with torch.device("meta"):
        model = svf.create_model(f"espike_{name}", num_classes=1000)
    assert model.num_parameters() / 1e6 == pytest.approx(millions, rel=0.03)


def test_list_of_models():
    assert svf.list_models() == [
        "svf_pico",
        "svf_nano",
        "svf_micro",
        "svf_mini",
        "svf_tiny",
        "svf_15m",
        "svf_31m",
        "svf_55m",
        "svf_124m",
    ]
    everything = []
    for family, prefix in (("spiking", "svf"), ("ann", "ann"), ("gru", "gru")):
        names = svf.list_models(family)
        assert names == [name.replace("svf", prefix) for name in svf.list_models()]
        with torch.device("meta"):
            sizes = [svf.create_model(name).num_parameters() for name in names]
        assert sizes == sorted(sizes)
        everything += names
    espike = svf.list_models("espike")
    assert espike == [f"espike_{size}" for size in ("5m", "10m", "19m", "83m", "171m")]
    assert sorted(svf.list_models("all")) == sorted(everything + espike)
    with pytest.raises(ValueError, match="choose one of spiking, espike, ann, gru, all"):
        svf.list_models("cnn")


@pytest.mark.parametrize("design", DESIGNS)
def test_projection_weights_of_a_whole_network(design):
    """The paper's counts over all blocks: 4, 8 and 7 RepConv of 2 D^2 + 9 D weights a block."""
    units = {"hierarchical": 8, "factorized": 7}.get(design, 4)
    with torch.device("meta"):
        model = svf.create_model("svf_15m", design=design)
    weights = sum(
        p.numel() for n, p in model.named_parameters() if ".attention." in n and p.ndim == 4
    )
    assert weights == sum(n * units * (2 * d**2 + 9 * d) for n, d in ((6, 256), (2, 360)))


# --- Spikes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", _presets("spiking"))
@pytest.mark.parametrize("neuron", ["lif", "integer_lif"])
def test_every_neuron_of_every_preset_emits_spikes_only(name, neuron, lively):
    model = lively(svf.create_model(name, num_classes=4, neuron=neuron, readout="spike")).eval()
    levels = model.config.neuron.levels
    assert levels == {"lif": 1, "integer_lif": 4}[neuron]
    neurons = {n: m for n, m in model.named_modules() if isinstance(m, Neuron)}
    fired: dict[str, Tensor] = {}
    for n, m in neurons.items():
        m.register_forward_hook(
            lambda _m, _args, out, n=n: (
                fired.update({n: torch.bincount(out.long().flatten())})
                if torch.equal(out, out.round().clamp(0, levels))
                else pytest.fail(f"{n} emits something else than 0..{levels}")
            )
        )
    with torch.no_grad():
        model(_video(1, 2, 3, 32, 32))
    assert fired.keys() == neurons.keys()
    depths = model.config.depths
    assert len(neurons) == 4 * (sum(depths[:3])) + 7 * sum(depths[3:]) + 4 + 1
    assert all(len(count) <= levels + 1 for count in fired.values())
    assert sum(len(count) > 1 for count in fired.values()) > 0.9 * len(fired)  # they do fire
    if levels > 1:
        assert any(len(count) > 2 for count in fired.values())


# --- One sweep over designs and attentions --------------------------------------------------------


def _check_all_learn(model, video, without=()):
    """Finite logits, and a gradient of every parameter but those that cannot have one."""
    logits = model(video)
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.tensor([1, 3])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if not (has_no_gradient_by_mathematics(name) or name.endswith(without)):
            assert parameter.grad.norm() > 1e-12, name


@pytest.mark.parametrize(
    ("design", "attention", "neuron"),
    [
        *((design, "hamming", "lif") for design in DESIGNS),
        *((design, "dot", "integer_lif") for design in DESIGNS),
        ("joint", "hamming", "integer_lif"),
        ("joint", "dot", "lif"),
    ],
)
def test_forward_shape_and_gradients(design, attention, neuron, lively):
    """Every parameter learns; branches are open here (a small residual gain nearly closes them)."""
    model = lively(_nano(design=design, attention=attention, neuron=neuron)).double()
    _check_all_learn(model, _video(dtype=torch.float64))


def _gates(model):
    """Weights of the norms that close the residual branches."""
    return [
        norm.weight
        for stage in model.backbone.stages()
        for block in stage.blocks
        for norm in block.last_norms()
    ]


@pytest.mark.parametrize("design", DESIGNS)
def test_residual_gain_is_where_branches_start(design):
    model = _nano(design=design, residual_gain=0.3)
    assert all((gate == 0.3).all() for gate in _gates(model))
    others = {
        name: p
        for name, p in model.named_parameters()
        if p.ndim == 1 and name.endswith(".weight") and not any(p is g for g in _gates(model))
    }
    assert others
    assert all((p == 1).all() for p in others.values())


@pytest.mark.parametrize("design", DESIGNS)
def test_closed_branches_can_open(design, lively):
    """A residual gain of 0 closes every branch at the start; its weight still learns."""
    model = _nano(design=design, residual_gain=0.0)
    branches = 6 + {"hierarchical": 3}.get(design, 2) * 3
    assert len(_gates(model)) == branches
    assert all(gate.count_nonzero() == 0 for gate in _gates(model))
    lively(model)
    for gate in _gates(model):
        nn.init.zeros_(gate)
    model(_video()).square().sum().backward()
    assert all(gate.grad.norm() > 0 for gate in _gates(model))


def _check_calls_are_independent(model, *shape):
    """No state between calls, and none between the clips of a batch. Returns video and logits."""
    video = _video(*(shape or (2, 4, 3, 32, 32)), dtype=torch.float64)
    with torch.no_grad():
        first = model(video)
        model(_video(1, 2, 3, 16, 32, dtype=torch.float64, seed=5))
        assert torch.equal(model(video), first)
        alone = torch.cat([model(clip) for clip in video.split(1)])
    torch.testing.assert_close(alone, first, rtol=1e-9, atol=1e-9)
    assert first.std(0).min() > 0
    return video, first


@pytest.mark.parametrize(("design", "attention"), SWEEP)
def test_calls_order_of_frames_and_state_dict(design, attention, lively):
    """Only spatial_only is a bag of frames; the state dict is all that a network is."""
    model = lively(_nano(design=design, attention=attention)).double().eval()
    video, first = _check_calls_are_independent(model)
    other = _nano(design=design, attention=attention, seed=3).double().eval()
    with torch.no_grad():
        difference = (model(video[:, [3, 0, 2, 1]]) - first).abs().max().item()
        assert not torch.equal(other(video), first)
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(video), first)
    assert difference < 1e-12 if design == "spatial_only" else difference > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precisions(dtype, lively):
    model = lively(_nano()).to(dtype)
    out = model(_video(dtype=dtype))
    assert out.dtype == dtype
    out.sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("name", "options"),
    [("svf_nano", {}), ("svf_nano", {"attention": "dot"}), ("ann_nano", {}), ("gru_nano", {})],
    ids=str,
)
def test_autocast(name, options, dtype, lively):
    model = lively(svf.create_model(name, num_classes=5, **options))
    with torch.autocast("cpu", dtype=dtype):
        out = model(_video())
    out.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


# --- Every argument changes something -------------------------------------------------------------

# A value of each argument, and what it changes: "shapes", "start" (initial parameters), "output"
# (evaluation), "training" (output while training), "gradient", or "accepts" (other input sizes).
MODEL_ARGUMENTS = {
    "widths": ((8, 32, 64, 80), "shapes"),
    "depths": ((1, 1, 2, 2, 1), "shapes"),
    "heads": (4, "output"),
    "mlp_ratio": (2, "shapes"),
    "in_channels": (1, "shapes"),
    "design": ("neuron_only", "output"),
    "attention": ("dot", "shapes"),
    "constant_term": (True, "output"),
    "neuron": ("integer_lif", "output"),
    "drop_path": (0.5, "training"),
    "readout": ("spike", "output"),
    "distilled": (True, "shapes"),
    "residual_gain": (0.5, "start"),
    "pad_input": (True, "accepts"),
    "any_size": (True, "accepts"),
    "block": ({"projection": "plain"}, "shapes"),
    "still_frames": (3, "still"),
}
BLOCK_ARGUMENTS = {  # of the base block below
    "separable": ("none", "shapes"),
    "kernel_size": (5, "shapes"),
    "conv_bias": (True, "shapes"),
    "token_conv": ("pair", "shapes"),
    "token_kernel_size": (5, "shapes"),
    "projection": ("pair", "shapes"),
    "pair_width": (1.25, "shapes"),
    "value_ratio": (2, "shapes"),
    "threshold_scale": (0.5, "output"),
    "attention_norm": (False, "shapes"),
    "dot_scale": (0.5, "output"),
    "dot_threshold": (2.0, "output"),
    "layer_scale": (True, "shapes"),
}
MASK_ARGUMENTS = {"mask_head"}  # tests/tasks/segmentation/test_other_heads.py
POSE_ARGUMENTS = {"pose_head", "poses"}  # tests/tasks/pose/test_head.py
NEURON_ARGUMENTS = {
    "kind": (svf.NeuronConfig(kind="integer_lif", v_reset=None, levels=2), "output"),
    "tau": (svf.NeuronConfig(tau=3.0), "output"),
    "v_threshold": (svf.NeuronConfig(v_threshold=0.7), "output"),
    "v_reset": (svf.NeuronConfig(v_reset=None), "output"),
    "decay_input": (svf.NeuronConfig(decay_input=False), "output"),
    "detach_reset": (svf.NeuronConfig(detach_reset=False), "gradient"),
    "surrogate": (svf.NeuronConfig(surrogate="arctan"), "gradient"),
    "surrogate_alpha": (svf.NeuronConfig(surrogate_alpha=2.0), "gradient"),
    "levels": (svf.NeuronConfig.integer(2), "output"),
    "rounding": (svf.NeuronConfig.integer(4, rounding="half_up"), "ties"),
}


@pytest.fixture(scope="module")
def effects_of(lively):
    """What a configuration gives, by kind of effect; found out once for each."""
    found = {}

    def effects(**overrides):
        key = str(overrides)
        if key not in found:
            found[key] = _effects(lively, overrides)
        return found[key]

    return effects


def _effects(lively, overrides):
    model = _nano(**overrides)
    effects = {
        "shapes": {name: p.shape for name, p in model.named_parameters()},
        "start": torch.cat([p.detach().flatten() for p in model.parameters()]),
    }
    lively(model).double()
    video = _video(2, 2, model.config.in_channels, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        effects["output"] = model.eval()(video)
    torch.manual_seed(2)
    logits = model.train()(video)
    logits.square().sum().backward()
    effects["training"] = logits.detach()
    effects["gradient"] = model.backbone.stage1a.downsample.conv.weight.grad
    with torch.no_grad():
        effects["still"] = model.eval()(video[:, :1])
    # a neuron on exact ties
    ties = torch.arange(9.0).reshape(1, 1, 9) / 2
    effects["ties"] = model.backbone.stage2.downsample.neuron(ties)
    try:
        model(video[..., :-3])
        effects["accepts"] = True
    except ValueError:
        effects["accepts"] = False
    return effects


def _same(a, b):
    if isinstance(a, Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    return a == b


def test_every_argument_is_covered():
    named = MODEL_ARGUMENTS.keys() | POSE_ARGUMENTS | MASK_ARGUMENTS
    assert {f.name for f in dataclasses.fields(svf.ModelConfig)} == named
    assert {f.name for f in dataclasses.fields(svf.NeuronConfig)} == NEURON_ARGUMENTS.keys()
    assert {f.name for f in dataclasses.fields(BlockConfig)} == BLOCK_ARGUMENTS.keys()


@pytest.mark.parametrize("name", MODEL_ARGUMENTS)
def test_every_model_argument_changes_what_it_should(name, effects_of):
    value, effect = MODEL_ARGUMENTS[name]
    base, changed = effects_of(), effects_of(**{name: value})
    assert not _same(base[effect], changed[effect])
    if effect in ("training", "start", "accepts", "still"):  # and nothing else
        assert _same(base["output"], changed["output"])
        assert _same(base["shapes"], changed["shapes"])


@pytest.mark.parametrize("name", BLOCK_ARGUMENTS)
def test_every_block_argument_changes_what_it_should(name, effects_of):
    value, effect = BLOCK_ARGUMENTS[name]
    base = dataclasses.asdict(E_SPIKEFORMER)
    if name == "pair_width":
        base["projection"] = "pair"
    of_hamming = name in ("threshold_scale", "attention_norm")
    common = {"attention": "hamming" if of_hamming else "dot", "neuron": "ni_lif"}
    before = effects_of(block=base, **common)
    after = effects_of(block={**base, name: value}, **common)
    assert not _same(before[effect], after[effect])


@pytest.mark.parametrize("name", NEURON_ARGUMENTS)
def test_every_neuron_argument_changes_what_it_should(name, effects_of):
    neuron, effect = NEURON_ARGUMENTS[name]
    before = effects_of(neuron=INTEGER) if name in ("levels", "rounding") else effects_of()
    after = effects_of(neuron=neuron)
    assert not _same(before[effect], after[effect])
    if effect == "gradient":
        assert _same(before["training"], after["training"])


# --- E-SpikeFormers -------------------------------------------------------------------------------

LARGE_NETWORK = {"widths": (16, 32, 48), "depths": (1, 1, 1, 2)}
SMALL_NETWORK = {"widths": (16, 32, 48, 64), "depths": (1, 1, 1, 2, 1)}


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("espike_5m", SMALL_NETWORK),
        ("espike_5m", {**SMALL_NETWORK, "design": "joint", "attention": "hamming"}),
        ("espike_5m", {**SMALL_NETWORK, "design": "hierarchical"}),
        ("espike_83m", LARGE_NETWORK),
        ("espike_171m", {**LARGE_NETWORK, "readout": "both", "distilled": True}),
    ],
    ids=str,
)
def test_e_spikeformers_learn_and_keep_clips_and_calls_apart(name, overrides, lively):
    torch.manual_seed(0)
    model = lively(svf.create_model(name, num_classes=5, **overrides)).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.bias.data += 0.5
    # a bias before a norm; of two 1x1 in a row the one before both norms, too
    without = ("conv1.bias", "conv2.bias", "bn2.bias", "conv.bn1.bias", "proj.bn1.bias")
    _check_all_learn(model, _video(2, 3, 3, 32, 48, dtype=torch.float64), without)
    # no multiples of 16
    video, first = _check_calls_are_independent(model.eval(), 2, 3, 3, 36, 44)
    with torch.no_grad():
        frames = torch.stack([model(video[:, t : t + 1]) for t in range(3)]).mean(0)
    alike = model.config.design == "spatial_only"  # a video is as many pictures
    assert torch.allclose(frames, first, rtol=0, atol=1e-9) == alike


@pytest.mark.parametrize("name", [f"espike_{size}" for size in ("5m", "10m", "19m")])
def test_fresh_e_spikeformers_fire_on_pictures(name):
    model = svf.create_model(name, num_classes=3).eval()
    with torch.no_grad(), svf.record_firing_rates(model) as rates:
        logits = model(made_pictures(3)[:1, :1])
    assert logits.shape == (1, 3)
    assert 0.1 < rates.overall < 1.5


def test_the_ordinary_twin_of_an_e_spikeformer(lively):
    config = preset("espike_5m").ann_twin().with_overrides(SMALL_NETWORK)
    model = lively(svf.SpikeVideoFormer(config, task="classification", num_classes=5))
    model(_video()).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


# --- Ordinary networks ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["nano", "tiny", "15m", "31m", "55m", "124m"])
def test_ordinary_presets_are_of_the_size_of_the_spiking_one(size):
    """The twin lacks one batch norm for each attention; the recurrent one has up to 24 % more."""
    with torch.device("meta"):
        svf_, ann, gru = (svf.create_model(f"{f}_{size}") for f in ("svf", "ann", "gru"))
    config = svf_.config
    norms = sum(2 * n * c for n, c in zip(config.depths[3:], config.widths[2:], strict=True))
    assert ann.num_parameters() == svf_.num_parameters() - norms
    convs = [
        sorted(tuple(m.weight.shape) for m in model.modules() if isinstance(m, nn.Conv2d))
        for model in (svf_, ann)
    ]
    assert convs[0] == convs[1]
    assert 1 <= gru.num_parameters() / svf_.num_parameters() < (1.24 if size == "nano" else 1.13)
    for model in (ann, gru):
        assert not any(isinstance(m, Neuron) for m in model.modules())
        assert model.config.widths == config.widths
        assert model.config.residual_gain == config.residual_gain


ORDINARY_NETWORKS = [
    *({"design": d} for d in DESIGNS if d != "neuron_only"),
    {"readout": "membrane"},
    {"readout": "gru"},
    {"attention": "none", "design": "spatial_only"},
    RECURRENT | {"depths": (1, 1, 1, 1, 0)},
]


@pytest.mark.parametrize("overrides", ORDINARY_NETWORKS, ids=str)
def test_ordinary_networks_learn_and_keep_clips_apart(overrides, lively):
    """Shape, finite gradients of all parameters, no state between calls or clips of a batch."""
    model = lively(_nano("ann_nano", **overrides)).double()
    # What is added to all keys alike, softmax takes away again; what is added to all values
    # alike is added to the output, and the batch norm of the next projection takes it away.
    without = ("k_conv.bn_out.bias", "v_conv.bn_out.bias")
    _check_all_learn(model, _video(dtype=torch.float64), without)
    # Attention over frames sees their order by its time code, a GRU by itself; nothing else does.
    video, first = _check_calls_are_independent(model.eval())
    with torch.no_grad():
        difference = (model(video[:, [3, 0, 2, 1]]) - first).abs().max().item()
    blind = model.config.design == "spatial_only" and model.config.readout != "gru"
    assert difference < 1e-12 if blind else difference > 1e-5


@pytest.mark.parametrize("name", _presets("ann", "gru"))
def test_every_ordinary_preset_runs(name):
    model = svf.create_model(name, num_classes=4).eval()
    assert all((gate == svf.ModelConfig().residual_gain).all() for gate in _gates(model))
    with torch.no_grad():
        logits = model(_video(1, 2, 3, 32, 32))
    assert logits.shape == (1, 4)
    assert logits.isfinite().all()


def test_an_ordinary_network_has_no_firing_rate():
    model = _nano("ann_nano")
    with svf.record_firing_rates(model) as rates:
        model(_video())
    assert rates.per_frame == rates.mean == {}


def test_the_twin_of_a_configuration():
    config = svf.ModelConfig(constant_term=True, design="factorized", neuron=INTEGER, heads=4)
    twin = config.ann_twin()
    assert (twin.attention, twin.neuron.kind, twin.design) == ("softmax", "relu", "factorized")
    assert (twin.widths, twin.depths, twin.heads) == (config.widths, config.depths, 4)
    assert svf.ModelConfig(design="neuron_only").ann_twin().design == "spatial_only"
    assert preset("svf_15m").ann_twin() == preset("ann_15m")
    assert svf.ModelConfig.from_dict(twin.to_dict()) == twin


# --- What passes through time ---------------------------------------------------------------------


def test_neuron_only_attends_inside_frames():
    """Its attention sees as many tokens as a frame has; the joint one sees all frames'."""
    for design, axes in (("neuron_only", "space"), ("joint", "space_time")):
        block = _nano(design=design).backbone.stage3.blocks[0]
        assert [step.axes for step in block.attention[0].steps] == [axes]


# --- Input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("design", DESIGNS)
def test_any_frames_and_multiples_of_16(design):
    model = _nano(design=design).eval()
    for frames, height, width in ((1, 16, 16), (1, 16, 80), (2, 48, 16), (7, 32, 32)):
        video = _video(1, frames, 3, height, width)
        with torch.no_grad():
            assert model(video).shape == (1, 5)
            shapes = [tuple(f.shape) for f in model.backbone(video.transpose(0, 1))]
        assert shapes == [
            (frames, 1, width_, height // stride, width // stride)
            for width_, stride in zip(model.config.widths, (4, 8, 16, 16), strict=True)
        ]


@pytest.mark.parametrize(("height", "width"), [(17, 16), (16, 33), (1, 1), (40, 50)])
def test_other_sizes_are_refused_or_padded_with_zeros(height, width, lively):
    video = _video(1, 2, 3, height, width)
    with pytest.raises(ValueError, match="pad_input=True") as error:
        _nano()(video)
    assert f"{height}x{width}" in str(error.value)
    model = lively(_nano(pad_input=True)).eval()
    padded = torch.zeros(1, 2, 3, -(-height // 16) * 16, -(-width // 16) * 16)
    padded[..., :height, :width] = video
    with torch.no_grad():
        assert torch.equal(model(video), model(padded))


WRONG_INPUT = {
    "no_batch": (_video(3, 3, 32, 32), "add the missing axes"),
    "channels_last": (_video(1, 2, 32, 32, 3), "got 32 channels"),
    "grey": (_video(1, 2, 1, 32, 32), "got 1 channels"),
    "bytes": (torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8), "normalise"),
    "complex": (torch.zeros(1, 2, 3, 32, 32, dtype=torch.complex64), "expected a float video"),
    "no_frame": (torch.zeros(1, 0, 3, 32, 32), "no empty axis"),
    "no_clip": (torch.zeros(0, 2, 3, 32, 32), "no empty axis"),
    "no_pixel": (torch.zeros(1, 2, 3, 0, 32), "no empty axis"),
    "nan": (_video(1, 2, 3, 32, 32).index_fill(4, torch.tensor(3), float("nan")), "NaN"),
    "inf": (_video(1, 2, 3, 32, 32).index_fill(4, torch.tensor(3), float("inf")), "infinite"),
    "no_tensor": (_video(1, 2, 3, 32, 32).numpy(), "torch tensor"),
    "nothing": (None, "torch tensor"),
}


@pytest.mark.parametrize("pad_input", [False, True])
def test_wrong_input_is_refused_in_one_line(pad_input):
    model = _nano(pad_input=pad_input)
    for video, says in WRONG_INPUT.values():
        with pytest.raises(ValueError, match=says):
            model(video)


@pytest.mark.parametrize("memory", ["strided", "channels_last", "expanded"])
def test_memory_layout_of_the_input_does_not_matter(memory, lively):
    model = lively(_nano()).double().eval()
    if memory == "expanded":
        video = _video(1, 1, 3, 32, 32, dtype=torch.float64).expand(2, 3, 3, 32, 32)
    else:
        video = _video(2, 3, 32, 32, 3, dtype=torch.float64).permute(0, 1, 4, 2, 3)
        if memory == "strided":
            video = torch.cat([video, video], dim=1)[:, ::2]
    with torch.no_grad():
        torch.testing.assert_close(model(video), model(video.contiguous()), rtol=1e-9, atol=1e-9)


# --- Wrong configuration --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"desing": "joint"}, "did you mean 'design'"),
        ({"design": "diagonal"}, "expected joint or hierarchical"),
        ({"attention": "cosine"}, "expected hamming or dot"),
        ({"readout": "mean"}, "expected spike or membrane"),
        ({"neuron": "if"}, "choose lif, integer_lif, ni_lif or relu"),
        ({"neuron": {"taau": 3.0}}, "did you mean 'tau'"),
        ({"neuron": 3}, "expected NeuronConfig"),
        ({"widths": (16, 32, 64)}, "4 positive integers"),
        ({"widths": (15, 32, 64, 80)}, "must be even"),
        ({"widths": (16, 32, 63, 80)}, "8 heads"),
        ({"widths": 16}, "4 positive integers"),
        ({"depths": (1, 1, 1, 0, 1)}, "5 positive integers"),
        ({"heads": 0}, "a number at least 1 and at most 1024"),
        ({"mlp_ratio": 0.5}, "a whole number"),
        ({"in_channels": -3}, "a number at least 1"),
        ({"drop_path": 1.0}, "a number at least 0 and below 1"),
        ({"drop_path": "a"}, "expected a number"),
        ({"pad_input": "yes"}, "true or false"),
        ({"residual_gain": -0.1}, "a number at least 0 and at most 1"),
        ({"constant_term": True, "attention": "dot"}, "attention='hamming'"),
        ({"num_classes": 0}, "at least 1"),
        ({"num_classes": 2.5}, "at least 1"),
        ({"task": "tracking"}, "classification"),
        ({"pose_head": "mean"}, "pose_head is 'mean'; expected grid or regressor"),
        ({"poses": 3}, "poses is 3; expected frames or between"),
        ({"poses": "between"}, "are for pose, and the task is classification"),
        ({"pose_head": "regressor", "task": "segmentation"}, "are for pose, and the task is seg"),
        ({"mask_head": "mlp"}, "mask_head is for segmentation, and the task is classification"),
        ({"mask_head": "unet", "task": "segmentation"}, "expected pyramid or fpn or mlp"),
        ({"mask_head": {"wide": 3}, "task": "segmentation"}, "unknown mask_head option 'wide'"),
        ({"still_frames": 4, "task": "segmentation"}, "answers for each frame"),
        ({"still_frames": 0}, "still_frames is 0; give a number at least 1"),
        ({"any_size": 1}, "any_size is 1; expected true or false"),
        ({"block": 3}, "expected BlockConfig"),
        ({"block": {"projektion": "pair"}}, "did you mean 'projection'"),
        ({"block": {"value_ratio": 4}}, "belongs to projections 'plain' and 'pair'"),
        ({"widths": (16, 32, 64), "depths": (1, 1, 1)}, "4 positive integers"),
        ({"widths": (16, 32, 64, 80), "depths": (1, 1, 1, 1)}, "3 positive integers"),
        ({**ORDINARY, "readout": "both"}, "readout 'both' reads spikes"),
        (
            {"design": "factorized", "block": {"projection": "plain", "value_ratio": 2}},
            "values as wide as queries",
        ),
        # parts of an ordinary network in a spiking one, and the reverse
        ({"attention": "softmax"}, "neuron is lif; take a preset ann_"),
        ({"attention": "none", "neuron": "integer_lif"}, "neuron is integer_lif; take a preset"),
        ({"readout": "gru"}, "readout 'gru' is of ordinary networks"),
        ({"neuron": "relu"}, "'hamming' compares spikes.*set attention='softmax'"),
        ({"neuron": "relu", "attention": "dot"}, "'dot' compares spikes"),
        ({"neuron": {"kind": "relu", "tau": 3.0}}, "tau is 3.0, which a rectifier"),
        ({"neuron": {"kind": "relu", "levels": 4}}, "levels is 4, which a rectifier"),
        ({**ORDINARY, "design": "neuron_only"}, "it would be 'spatial_only'"),
        ({**ORDINARY, "constant_term": True}, "belongs to Hamming"),
        ({**ORDINARY, "attention": "none"}, "set design='spatial_only'"),
        ({**ORDINARY, "depths": (1, 1, 1, 1, 0)}, "5 positive integers"),
        ({**RECURRENT, "depths": (1, 1, 0, 1, 0)}, "or 0 in place 1, 4, 5"),
        ({**RECURRENT, "depths": (1, 1, 1, 1, -1)}, "or 0 in place 1, 4, 5"),
    ],
    ids=str,
)
def test_wrong_configurations_are_refused_in_one_line(overrides, says):
    with pytest.raises(ValueError, match=says):
        svf.create_model("svf_nano", **overrides)


def test_unknown_preset():
    with pytest.raises(ValueError, match="svf_mini, svf_tiny, svf_15m"):
        svf.create_model("svf_16m")


def test_config_round_trip_and_immutability():
    config = svf.ModelConfig(design="factorized", neuron=INTEGER, drop_path=0.1)
    assert svf.ModelConfig.from_dict(config.to_dict()) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.heads = 4
    with pytest.raises(ValueError, match="unknown model option"):
        svf.ModelConfig.from_dict({"breadth": 3})


# --- Training aids --------------------------------------------------------------------------------


def test_stochastic_depth_grows_linearly_over_the_blocks():
    model = svf.create_model("svf_nano", depths=(1, 1, 2, 6, 2), drop_path=0.22, num_classes=2)
    rates = [m.rate for m in model.modules() if isinstance(m, StochasticDepth)]
    assert rates == pytest.approx([0.22 * i / 11 for i in range(12)])


def test_stochastic_depth_works_in_training_only(lively):
    model = lively(_nano(drop_path=0.6))
    video = _video()
    outputs = {tuple(model(video)[0].tolist()) for _ in range(6)}
    assert len(outputs) > 1
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(video), model(video))


@pytest.mark.parametrize(
    "overrides",
    [
        *({"design": d} for d in DESIGNS),
        {"neuron": "integer_lif"},
        {"neuron": "ni_lif", "attention": "dot", "block": E_SPIKEFORMER},
        {"neuron": "ni_lif", "block": {"token_conv": "pair", "layer_scale": True}},
        ORDINARY,
        RECURRENT,
    ],
    ids=str,
)
def test_gradient_checkpointing_is_bitwise_the_same(overrides, lively):
    """Loss, gradients, running statistics and batch counters, over two accumulated steps."""
    results = []
    for on in (False, True):
        model = lively(_nano(drop_path=0.5, **overrides))
        assert not model.backbone.gradient_checkpointing
        model.backbone.gradient_checkpointing = on
        assert model.backbone.gradient_checkpointing == on
        torch.manual_seed(4)
        losses = []
        for seed in (1, 2):
            with svf.record_firing_rates(model):
                logits = model(_video(seed=seed))
                loss = nn.functional.cross_entropy(logits, torch.tensor([0, 4]))
                loss.backward()
            losses.append(loss.detach())
        gradients = {name: p.grad for name, p in model.named_parameters()}
        buffers = dict(model.named_buffers())
        assert all(b == 2 for name, b in buffers.items() if name.endswith("num_batches_tracked"))
        assert all(m.track_running_stats for m in model.modules() if isinstance(m, nn.BatchNorm2d))
        results.append(({"loss": torch.stack(losses)}, gradients, buffers))
    for plain, checkpointed in zip(*results, strict=True):
        assert plain.keys() == checkpointed.keys()
        for name in plain:
            assert torch.equal(plain[name], checkpointed[name]), name


def test_gradient_checkpointing_keeps_less(lively):
    """Blocks are indeed recomputed, in training only: neurons run twice."""
    model = lively(_nano())
    model.backbone.gradient_checkpointing = True
    calls = []
    block = model.backbone.stage3.blocks[0]
    block.mlp.neuron1.register_forward_hook(lambda *_: calls.append(1))
    model(_video()).sum().backward()
    assert len(calls) == 2
    model.eval()(_video())
    with torch.no_grad():
        model.train()(_video())
    assert len(calls) == 4


@pytest.mark.parametrize("neuron", ["lif", "integer_lif"])
def test_firing_rates_of_a_network(neuron, lively):
    model = lively(_nano(neuron=neuron, readout="spike")).eval()
    with torch.no_grad(), svf.record_firing_rates(model) as rates:
        model(_video(2, 3, 3, 32, 32))
    neurons = [name for name, m in model.named_modules() if isinstance(m, Neuron)]
    assert sorted(rates.mean) == sorted(neurons)
    assert list(rates.per_frame)[-1] == "head.neuron"
    levels = model.config.neuron.levels
    for rate in rates.per_frame.values():
        assert rate.shape == (3, 2)
        assert rate.min() >= 0
        assert rate.max() <= levels
    assert max(rates.mean.values()) > 0.2


def test_a_video_in_another_precision_is_refused():
    with pytest.raises(ValueError, match=r"float64 for a model in torch\.float32"):
        _nano()(_video(dtype=torch.float64))


def test_integer_neurons_given_as_a_dict_are_those_of_the_paper():
    by_dict = svf.create_model("svf_nano", neuron={"kind": "integer_lif", "levels": 3})
    assert by_dict.config.neuron == svf.NeuronConfig.integer(3)


@pytest.mark.parametrize(
    ("task", "dtype", "options"),  # each pair of values is there
    [
        (task, dtype, ({}, {"attention": "dot", "neuron": "integer_lif"})[(i + j) % 2])
        for i, task in enumerate(("classification", "segmentation", "pose"))
        for j, dtype in enumerate((torch.bfloat16, torch.float16))
    ],
)
def test_a_network_in_half_precision_answers(task, dtype, options):
    model = svf.create_model("svf_nano", task=task, num_classes=3, **options).eval().to(dtype)
    output = model(torch.randn(1, 2, 3, 32, 32, dtype=dtype))
    for part in output if isinstance(output, tuple) else (output,):
        assert part.dtype == dtype and bool(part.isfinite().all())
