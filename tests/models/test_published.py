"""Reading checkpoints in the published format: forms they come in, and files to refuse."""

import argparse
import io
import pickle
import random
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import spikevideoformer as svf
from spikevideoformer.nn.block_config import E_SPIKEFORMER, E_SPIKEFORMER_LARGE
from spikevideoformer.nn.conv import ChannelScale

from ..payload import Payload

WIDTHS = (8, 16, 24, 40)


def _published_state(model):
    """A state dict as the published code would have saved it."""
    names = svf.published_names(model)
    state = {}
    for key, value in model.state_dict().items():
        module, _, leaf = key.rpartition(".")
        tokens = ".mlp.fc" in key
        if model.config.block.projection == "pair":  # all of its last stage
            tokens = ".blocks." in key and "channel_conv" not in key
        theirs = names[module] if ".layer_scale" in names[module] else f"{names[module]}.{leaf}"
        state[theirs] = value.squeeze(-1) if tokens and value.ndim == 4 else value
    return state


def _model(attention="hamming", design="joint", lively=None, **overrides):
    options = {"widths": WIDTHS, "depths": (1, 1, 1, 2, 1), "readout": "spike", **overrides}
    model = svf.create_model(
        "svf_nano", num_classes=5, design=design, attention=attention, **options
    )
    return (lively(model) if lively else model).double().eval()


@pytest.fixture
def video():
    return torch.rand(2, 3, 3, 32, 48, dtype=torch.float64)


def _same(model, path, video, **options):
    loaded = svf.load_published(path, **options).double()
    assert not loaded.training
    with torch.no_grad():
        expected = model(video)
        assert expected.std() > 0
        return torch.equal(loaded(video), expected)


FORMS = """under_model plain ddp with_training_state float16 legacy compiled compiled_ddp
state_dict model_ema numbers_of_numpy""".split()


@pytest.mark.parametrize(
    ("form", "attention", "design"),
    [
        ("under_model", "joint_dot", "joint"),
        ("under_model", "spatial_dot", "neuron_only"),
        *((form, "joint_hamming", "joint") for form in FORMS),
    ],
)
def test_forms_of_a_checkpoint(tmp_path, video, lively, form, attention, design):
    model = _model(attention.partition("_")[2], design, lively)
    if form == "float16":
        model.half().double()
    state = _published_state(model)
    content = {"model": state}
    if form == "plain":
        content = state
    elif form == "ddp":
        content = {"model": {f"module.{key}": value for key, value in state.items()}}
    elif form.startswith("compiled"):
        prefix = "module._orig_mod." if form == "compiled_ddp" else "_orig_mod."
        content = {"model_state_dict": {prefix + key: value for key, value in state.items()}}
    elif form in ("state_dict", "model_ema"):
        content = {form: state, "epoch": 3}
    elif form == "numbers_of_numpy":
        content |= {"best": np.float64(77.5), "steps": np.int64(3), "data": Path("x"), "f": 1.5}
        content["half"] = np.float16(0.5)
    elif form == "with_training_state":
        args = argparse.Namespace(lr=1e-3, layers=[1, 2], name="x", resume=None)
        content |= {"epoch": 7, "optimizer": {"state": {0: {"step": torch.ones(())}}}, "args": args}
    elif form == "float16":
        content = {"model": {k: v.half() if v.is_floating_point() else v for k, v in state.items()}}
    path = tmp_path / "published.pth"
    torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    assert _same(model, path, video, attention=attention)


@pytest.mark.parametrize(
    ("widths", "heads", "depths"),
    [
        ((6, 14, 15, 35), 5, (1, 1, 1, 1, 1)),  # heads of width 3 and 7
        ((10, 12, 18, 22), 2, (2, 1, 3, 1, 2)),  # other depths
    ],
)
def test_odd_widths_and_depths(tmp_path, video, lively, widths, heads, depths):
    model = _model(lively=lively, widths=widths, heads=heads, depths=depths)
    path = tmp_path / "published.pth"
    torch.save({"model": _published_state(model)}, path)
    assert _same(model, path, video, heads=heads)
    config = svf.load_published(str(path), heads=heads).config
    assert config.widths == widths
    assert config.depths == depths


def test_distillation_head_is_averaged(tmp_path, video, lively):
    model = _model(lively=lively)
    state = _published_state(model)
    other = {
        f"head_kd.{leaf}": torch.randn_like(state[f"head.{leaf}"]) for leaf in ("weight", "bias")
    }
    path = tmp_path / "published.pth"
    torch.save({"model": {**state, **other}}, path)
    with torch.no_grad():
        first = model(video)
        model.head.fc.weight.copy_(other["head_kd.weight"])
        model.head.fc.bias.copy_(other["head_kd.bias"])
        second = model(video)
        out = svf.load_published(path).double()(video)
    # the published file is read in float32
    torch.testing.assert_close(out, (first + second) / 2, rtol=1e-5, atol=1e-6)


class _Foreign:
    """An object of mmengine, as training of mmseg leaves it beside the weights."""

    def __init__(self):
        self.log = np.arange(3.0)


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.backbone.", "model."])
def test_prefixes_and_objects_of_mmengine(tmp_path, video, lively, monkeypatch, prefix):
    model = _model(lively=lively)
    state = {prefix + key: value for key, value in _published_state(model).items()}
    path = tmp_path / "published.pth"
    with monkeypatch.context() as patch:
        module = types.ModuleType("mmengine.logging.history_buffer")
        module._Foreign = _Foreign
        for name in ("mmengine", "mmengine.logging"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        patch.setitem(sys.modules, module.__name__, module)
        patch.setattr(_Foreign, "__module__", module.__name__)
        torch.save({"message_hub": [_Foreign()], "state_dict": state}, path)
    assert _same(model, path, video)


BASE = {
    "block": E_SPIKEFORMER,
    "neuron": "ni_lif",
    "attention": "dot",
    "design": "spatial_only",
    "heads": 4,
    "widths": (8, 16, 24, 32),
    "any_size": True,
}
LARGE = {
    **BASE,
    "block": E_SPIKEFORMER_LARGE,
    "neuron": {"kind": "ni_lif", "rounding": "half_up"},
    "widths": (8, 12, 28),
    "depths": (1, 1, 1, 3),
    "readout": "both",
}
FPN = {"mask_head": {"kind": "fpn", "width": 12, "head_width": 20, "neck_norm": True}}
SIBLINGS = {
    "base": BASE,
    "base_8": {**BASE, "neuron": {"kind": "ni_lif", "levels": 8}, "widths": (10, 14, 20, 24)},
    "base_3": {**BASE, "neuron": {"kind": "ni_lif", "levels": 3}},
    "base_depths": {**BASE, "depths": (2, 1, 3, 1, 2), "in_channels": 4},
    "base_kernels": {
        **BASE,
        "block": replace(E_SPIKEFORMER, kernel_size=5, token_kernel_size=5, value_ratio=2),
    },
    "base_scaled": {**BASE, "block": replace(E_SPIKEFORMER, layer_scale=True)},
    "large": LARGE,
    "large_kd": {**LARGE, "distilled": True},
    "large_rep_conv": {**LARGE, "block": replace(E_SPIKEFORMER_LARGE, token_conv="pair")},
    "large_8": {
        **LARGE,
        "block": replace(E_SPIKEFORMER_LARGE, token_conv="pair", pair_width=1.25),
        "distilled": True,
        "neuron": {"kind": "ni_lif", "rounding": "half_up", "levels": 8},
    },
    "segmenter_3": {**BASE, **FPN, "block": replace(E_SPIKEFORMER, layer_scale=True)},
    "segmenter_2": {
        "heads": 4,
        "attention": "dot",
        "design": "neuron_only",
        "mask_head": {**FPN["mask_head"], "neck_norm": False, "mean_over_time": True},
        "any_size": True,
        "still_frames": 4,
    },
}


@pytest.mark.parametrize(
    ("name", "prefix"), [*((name, "") for name in SIBLINGS), ("base_scaled", "module.")]
)
def test_what_is_read_off_the_tensors_of_siblings(tmp_path, lively, name, prefix):
    """Widths, depths, kernels, parts: the same network comes back from its published names."""
    overrides = {"widths": WIDTHS, "depths": (1, 1, 1, 2, 1), "readout": "spike"} | SIBLINGS[name]
    task = "segmentation" if "mask_head" in overrides else "classification"
    model = svf.create_model("svf_nano", task, num_classes=5, **overrides)
    model = lively(model).eval()
    scales = [m for m in model.modules() if isinstance(m, ChannelScale)]
    assert bool(scales) == model.config.block.layer_scale
    for scale in scales:
        torch.nn.init.uniform_(scale.weight, 0.5, 1.5)
    model.double()
    state = {prefix + key: value for key, value in _published_state(model).items()}
    torch.save({"model": state}, tmp_path / "sibling.pth")
    options = {"heads": 4, "levels": model.config.neuron.levels}
    loaded = svf.load_published(tmp_path / "sibling.pth", **options)
    told = replace(loaded.config, residual_gain=model.config.residual_gain)
    told = replace(told, block=replace(told.block, pair_width=model.config.block.pair_width))
    assert told == model.config
    video = torch.rand(2, 1, model.config.in_channels, 44, 52, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(loaded.double()(video), model(video))
    wrong = next(key for key in state if key.endswith("mlp.fc1_conv.weight"))
    for change, says in (
        ({wrong: None}, r"lacks the tensor (backbone\.)?block3\.0\.mlp\.fc1_conv\.weight of"),
        ({"block3.0.odd": torch.zeros(2)}, "has no place for"),
        ({wrong: torch.zeros(3, 3, 1)}, "mlp.fc1_conv.weight has shape"),
    ):
        damaged = {k: v for k, v in {**state, **change}.items() if v is not None}
        torch.save({"state_dict": damaged}, tmp_path / "damaged.pth")
        message = _refused(tmp_path / "damaged.pth", says, **options)
        generation = model.config.block.separable
        assert ("V2" if generation == "real" else "E-SpikeFormer") in message


def test_a_backbone_of_e_spikeformer_gets_a_fresh_head(tmp_path):
    model = svf.create_model("svf_nano", num_classes=5, depths=(1, 1, 1, 1, 1), **BASE)
    state = {
        k: v for k, v in _published_state(model).items() if not k.startswith(("head", "spike"))
    }
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in state.items()}}, tmp_path / "b.pth")
    _refused(tmp_path / "b.pth", "num_classes=N", heads=4)
    assert svf.load_published(tmp_path / "b.pth", heads=4, num_classes=3).num_classes == 3
    _refused(tmp_path / "b.pth", "leave attention out", attention="joint_hamming", heads=4)
    _refused(tmp_path / "b.pth", "an integer of at least 1", frames=0)
    _refused(tmp_path / "b.pth", "ni_lif needs an integer", heads=4, levels=0, num_classes=3)


def test_names_and_colours_of_the_classes_are_kept(tmp_path):
    options = {"widths": WIDTHS, "depths": (1, 1, 1, 2, 1)} | SIBLINGS["segmenter_2"]
    model = svf.create_model("svf_nano", "segmentation", num_classes=2, **options)
    about = {"classes": ["road", "sky"], "palette": [[0, 0, 0], [1, 2, 255]]}
    content = {"meta": {"dataset_meta": about}, "state_dict": _published_state(model)}
    torch.save(content, tmp_path / "seg.pth")
    loaded = svf.load_published(tmp_path / "seg.pth", heads=4)
    assert (loaded.classes, loaded.palette) == (("road", "sky"), ((0, 0, 0), (1, 2, 255)))
    about |= {"classes": ["road"], "palette": [[0, 0, 0], [1, 2, 256]]}
    torch.save(content, tmp_path / "seg.pth")
    loaded = svf.load_published(tmp_path / "seg.pth", heads=4)
    assert (loaded.classes, loaded.palette) == (None, None)


def test_a_picture_stands_for_equal_frames(tmp_path, video, lively):
    model = _model("dot", "neuron_only", lively)
    torch.save(_published_state(model), tmp_path / "image.pth")
    loaded = svf.load_published(tmp_path / "image.pth", frames=3).double()
    picture = video[:, :1]
    with torch.no_grad():
        assert torch.equal(loaded(picture), model(picture.expand(-1, 3, -1, -1, -1)))
        assert torch.equal(loaded(video), model(video))
        alone = svf.load_published(tmp_path / "image.pth").double()(picture)
        assert torch.equal(alone, model(picture))


def test_two_networks_in_one_file_are_refused(tmp_path):
    state = _published_state(_model())
    torch.save({**state, **{f"module.{k}": v for k, v in state.items()}}, tmp_path / "two.pth")
    _refused(tmp_path / "two.pth", "several networks")


def test_a_backbone_gets_a_fresh_head(tmp_path):
    model = _model().float()
    state = {k: v for k, v in _published_state(model).items() if not k.startswith("head")}
    torch.save(state, tmp_path / "bare.pth")
    _refused(tmp_path / "bare.pth", "num_classes=N")
    loaded = svf.load_published(tmp_path / "bare.pth", num_classes=9)
    assert loaded.num_classes == 9
    found = loaded.backbone.state_dict()
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(found[key], value)
    torch.save(_published_state(model), tmp_path / "whole.pth")
    _refused(tmp_path / "whole.pth", "head of 5 classes", num_classes=9)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mask_token", "pre-training"),
        ("decode_head.pixel_decoder.0.weight", "Spike2Former"),
        ("tranformer_encoder.0.weight", "SEW-ResNet"),
    ],
)
def test_relatives_are_refused_by_their_family(tmp_path, name, says):
    torch.save({"model": {name: torch.zeros(2)}}, tmp_path / "other.pth")
    assert "is not read" in _refused(tmp_path / "other.pth", says)


def test_two_heads_are_for_classification():
    with pytest.raises(ValueError, match="distilled is for classification"):
        svf.create_model("svf_nano", task="segmentation", distilled=True)


def test_engines_run_both_heads(video, lively):
    model = _model(lively=lively, distilled=True).float()
    with torch.no_grad():
        logits = model(video.float())
        model.head.fc_kd.bias += 1
        moved = model(video.float())
    torch.testing.assert_close(moved, logits + 0.5)
    exact = svf.InferenceEngine(model)(video.float())
    assert torch.equal(exact, moved)
    alone = svf.InferenceEngine(model, precision="float")
    together, first = alone(video.float()), alone(video[:1].float())
    assert torch.equal(together[:1], first)
    torch.testing.assert_close(together, moved, rtol=0, atol=0.05)


def test_loading_is_untouched_by_our_initialisation(tmp_path):
    """A residual gain is a start for training; every loaded tensor is the file's."""
    model = _model(residual_gain=0.0).float()
    state = _published_state(model)
    for value in state.values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    path = tmp_path / "published.pth"
    torch.save({"model": state}, path)
    loaded = _published_state(svf.load_published(path))
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


# --- Refusals -------------------------------------------------------------------------------------


def _refused(path, says, **options):
    with pytest.raises(ValueError, match=says) as error:
        svf.load_published(path, **options)
    return str(error.value)


@pytest.mark.parametrize(
    ("kind", "attention", "says"),
    [
        ("hamming", "joint_dot", "try joint_hamming"),
        ("hamming", "spatial_dot", "try joint_hamming"),
        ("dot", "joint_hamming", "try joint_dot or spatial_dot"),
    ],
)
def test_wrong_attention(tmp_path, kind, attention, says):
    path = tmp_path / "published.pth"
    torch.save({"model": _published_state(_model(kind))}, path)
    _refused(path, says, attention=attention)


def test_unknown_attention_and_wrong_heads(tmp_path):
    path = tmp_path / "published.pth"
    torch.save({"model": _published_state(_model())}, path)
    _refused(path, "choose one of joint_hamming, joint_dot, spatial_dot", attention="softmax")
    _refused(path, "7 heads", heads=7)
    _refused(path, "heads", heads=0)


def _edited(key=None, value=None, extra=None):
    state = _published_state(_model())
    if key is not None:
        assert key in state
        if value is None:
            del state[key]
        else:
            state[key] = value
    return {"model": {**state, **(extra or {})}}


OTHER_CONTENTS = {
    "without_a_weight": (
        lambda: _edited("block3.0.attn.q_conv.0.body.0.weight"),
        "lacks the tensor",
    ),
    "without_a_stage": (lambda: _edited("downsample2.encode_conv.weight"), "no tensor"),
    "without_a_head": (lambda: _edited("head.weight"), "no tensor"),
    "scalar_head": (lambda: _edited("head.weight", torch.tensor(1.0)), "not a published"),
    "wrong_shape": (lambda: _edited("head.bias", torch.zeros(6)), "has shape"),
    "one_too_many": (lambda: _edited(extra={"pos_embed": torch.zeros(3)}), "no place for"),
    "empty": (lambda: {"model": {}}, "not a published"),
    "numbered": (lambda: {"model": {1: torch.zeros(2)}}, "no state dict"),
    "text": (lambda: {"model": {"a": "b"}}, "no state dict"),
    "number": (lambda: {"model": 3}, "no state dict"),
    "list": (lambda: [torch.zeros(2)], "no state dict"),
    "tensor": (lambda: torch.zeros(2), "no state dict"),
}


@pytest.mark.parametrize("name", OTHER_CONTENTS)
def test_other_contents(tmp_path, name):
    content, says = OTHER_CONTENTS[name]
    path = tmp_path / "other.pth"
    torch.save(content(), path)
    assert str(path) in _refused(path, says)


def test_missing_file_and_folder(tmp_path):
    _refused(tmp_path / "nowhere.pth", "does not exist")
    _refused(tmp_path, "no file")


OTHER_FILES = {
    "empty": b"",
    "text": b"weights: 3\n",
    "start_of_a_pickle": b"\x80",
    "start_of_a_zip": b"PK\x03\x04",
    "zeros": b"\x00" * 4096,
    "noise": bytes(range(256)) * 9,
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_other_files(tmp_path, name):
    path = tmp_path / "other.pth"
    path.write_bytes(OTHER_FILES[name])
    assert str(path) in _refused(path, "no readable checkpoint|refused|no state dict")


def test_damaged_files(tmp_path):
    """Truncated at many places, and with flipped bits: refused in one line, or read as it was."""
    buffer = io.BytesIO()
    torch.save({"model": _published_state(_model().float())}, buffer)
    whole = buffer.getvalue()
    path = tmp_path / "damaged.pth"
    for share in (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.9999):
        path.write_bytes(whole[: int(share * len(whole))])
        _refused(path, "no readable checkpoint|refused")
    dice = random.Random(0)
    for _ in range(60):
        damaged = bytearray(whole)
        # half of the flips in the pickle at the front, where they matter most
        end = len(whole) if dice.random() < 0.5 else 30_000
        for _ in range(3):
            damaged[dice.randrange(end)] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        message = ""
        try:
            svf.load_published(path)
        except ValueError as error:
            message = str(error)
        assert "\n" not in message


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    state = _published_state(_model().float())
    state["block3.0.attn.q_conv.0.body.0.weight"].view(-1)[3] = float("nan")
    torch.save({"model": state}, tmp_path / "nan.pth")
    _refused(tmp_path / "nan.pth", r"nan\.pth: block3.* holds NaN or infinite values")


@pytest.mark.parametrize("place", ["beside", "in_state", "whole", "legacy", "bare_pickle", "eval"])
def test_a_pickle_payload_is_refused_without_running_it(tmp_path, place):
    dead = tmp_path / "canary"
    payload = Payload(dead)
    path = tmp_path / "payload.pth"
    state = _published_state(_model().float())
    if place == "in_state":
        torch.save({"model": {**state, "head.extra": payload}}, path)
    elif place == "whole":
        torch.save(payload, path)
    elif place == "legacy":
        content = {"model": state, "args": payload}
        torch.save(content, path, _use_new_zipfile_serialization=False)
    elif place == "bare_pickle":
        path.write_bytes(pickle.dumps(payload))
    elif place == "eval":
        code = f"__import__('os').mkdir({str(dead)!r})"
        path.write_bytes(b"cbuiltins\neval\n(V" + code.encode() + b"\ntR.")
    else:
        torch.save({"model": state, "args": payload}, path)
    _refused(path, "refused without running anything|no readable checkpoint")
    assert not dead.exists()
    # the canary works: a careless reader would have run it
    pickle.loads(pickle.dumps(payload))
    assert dead.exists()
