"""What the published code of the family calls our modules.

It names modules otherwise than we do, and each generation otherwise than the one before:
:func:`published_names` is the dictionary.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from spikevideoformer.models.config import ModelConfig
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer

_CHANNEL_CONV = {
    **{f"channel_conv.conv{i}": f"conv{i}" for i in (1, 2)},
    **{f"channel_conv.bn{i}": f"bn{i}" for i in (1, 2)},
}
_REP_CONV = {
    "pw1": "0.body.0",
    "bn1": "0.body.1.bn",
    "dw": "0.body.2.0",
    "pw2": "0.body.2.1",
    "bn2": "0.body.2.2",
    "bn_out": "1",
}
_PLAIN = {"conv": "0", "bn_out": "1"}
_PAIR = {
    "conv1": "0.conv1.0",
    "bn1": "0.conv1.1",
    "conv2": "0.conv2.0",
    "bn2": "0.conv2.1",
    "bn_out": "1",
}
_PROJECTIONS = {"rep": _REP_CONV, "plain": _PLAIN, "pair": _PAIR}


def _spiking_sep_conv(ours: str, theirs: str) -> dict[str, str]:
    parts = {"pw1": "pwconv1.0", "bn1": "pwconv1.1", "dw": "dwconv.0", "bn2": "dwconv.1"}
    parts |= {"pw2": "pwconv2.0", "bn3": "pwconv2.1", "": ""}
    parts |= {f"neuron{i}": f"spike{i}" for i in (1, 2, 3)}
    return {f"{ours}.{a}".rstrip("."): f"{theirs}.{b}".rstrip(".") for a, b in parts.items()}


# name of our part of a block -> theirs, in the three generations
_META = {
    **_CHANNEL_CONV,
    **{f"channel_conv.neuron{i}": f"lif{i}" for i in (1, 2)},
    "sep_conv": "Conv",
    **{f"sep_conv.neuron{i}": f"Conv.lif{i}" for i in (1, 2)},
    **{f"sep_conv.bn{i}": f"Conv.bn{i}" for i in (1, 2)},
    "sep_conv.pw1": "Conv.pwconv1",
    "sep_conv.dw": "Conv.dwconv",
    "sep_conv.pw2": "Conv.pwconv2",
}
_BASE = {
    **_CHANNEL_CONV,
    **{f"channel_conv.neuron{i}": f"spike{i}" for i in (1, 2)},
    **_spiking_sep_conv("sep_conv", "Conv"),
    **_spiking_sep_conv("token_conv", "conv"),
    "conv_scale": "layer_scale1",
    "attention_scales.0": "layer_scale2",
    "mlp_scale": "layer_scale3",
}
_LARGE = {
    **{f"channel_conv.neuron{i}": f"neuron{i}" for i in (1, 2)},
    **{f"channel_conv.conv{i}": f"conv{i}.0.0" for i in (1, 2)},
    **{f"channel_conv.bn{i}": f"conv{i}.0.1" for i in (1, 2)},
    "token_conv.neuron": "lif",
    "token_conv.conv": "rep_conv",
    **{f"token_conv.conv.conv{i}": f"rep_conv.conv{i}.0" for i in (1, 2)},
    "token_conv.conv.bn1": "rep_conv.conv1.1",
    "token_conv.conv.bn_out": "rep_conv.conv2.1",
    "attention_scales.0": "layer_scale1",
    "mlp_scale": "layer_scale2",
}
# our stage -> their Downsample, their name of block i
_STAGES = {
    "stage1a": ("downsample1_1", "ConvBlock1_1.{}"),
    "stage1b": ("downsample1_2", "ConvBlock1_2.{}"),
    "stage2": ("downsample2", "ConvBlock2_{}.0"),
    "stage3": ("downsample3", "block3.{}"),
    "stage4": ("downsample4", "block4.{}"),
}


def _block_names(config: ModelConfig) -> dict[str, str]:
    """Of the parts of a block, whichever they are."""
    parts, neuron = config.block, neuron_word(config)
    table = {"real": _META, "spiking": _BASE, "none": _LARGE}[parts.separable]
    step = "attention.0.steps.0"
    return {
        **table,
        "attention.0": "attn",
        "attention.0.neuron": f"attn.head_{neuron}",
        f"{step}.bn": "attn.attn_bn",
        f"{step}.out_neuron": f"attn.attn_{neuron}",
        **{f"{step}.{z}_neuron": f"attn.{z}_{neuron}" for z in "qkv"},
        **{
            f"{place}.{ours}": f"attn.{z}_conv.{theirs}"
            for z, place in [
                *((z, f"{step}.{z}_conv") for z in "qkv"),
                ("proj", "attention.0.proj"),
            ]
            for ours, theirs in _PROJECTIONS[parts.projection].items()
        },
        "mlp": "mlp",
        **{f"mlp.neuron{i}": f"mlp.fc{i}_{neuron}" for i in (1, 2)},
        **{f"mlp.fc{i}": f"mlp.fc{i}_conv" for i in (1, 2)},
        **{f"mlp.bn{i}": f"mlp.fc{i}_bn" for i in (1, 2)},
    }


def neuron_word(config: ModelConfig) -> str:
    """What neurons are called."""
    return "spike" if config.block.separable == "spiking" else "lif"


def _mask_head_names(config: ModelConfig) -> Iterator[tuple[str, str]]:
    """Of the parts of a published segmenter behind its backbone."""
    normed = config.mask_head.neck_norm
    for ours, theirs in (("lateral", "lateral_convs"), ("smooth", "fpn_convs")):
        for i in range(4):
            place = f"neck.{theirs}.{i}"
            yield f"head.{ours}.{i}", place
            yield f"head.{ours}.{i}.neuron", f"neck.{theirs}_spikes.{i}" if normed else f"{place}.0"
            yield f"head.{ours}.{i}.conv", f"{place}.0" if normed else f"{place}.1.0.conv"
            yield f"head.{ours}.{i}.bn", f"{place}.1"
    for i in range(4):
        for k in range(max(1, i)):
            # in V3 the enlargement after each unit counts, too
            place = f"decode_head.scale_heads.{i}.{2 * k if normed else k}"
            yield f"head.scales.{i}.{k}.neuron", f"{place}.0"
            yield f"head.scales.{i}.{k}.conv", f"{place}.1" if normed else f"{place}.1.0.conv"
            yield f"head.scales.{i}.{k}.bn", f"{place}.2" if normed else f"{place}.1.0.bn"
    yield "head.neuron", f"decode_head.{'out_spike' if normed else 'decode_lif'}"
    yield "head.fc", "decode_head.conv_seg"


def published_names(model: SpikeVideoFormer) -> dict[str, str]:
    """Published name of each of our modules that has a counterpart.

    Covers convolutions, norms, neurons, whole blocks and downsamplings. A parameter has the name
    of its module and the same ending in both worlds (a factor of each channel has none in theirs).

    Args:
        model: a network of the joint, neuron-only or spatial-only design (the others were not
            published).

    Returns:
        ``{our module name: published module name}``.
    """
    config, modules = model.config, dict(model.named_modules())
    segments = model.task == "segmentation" and config.mask_head.kind == "fpn"
    before = "backbone." if segments else ""
    neuron = neuron_word(config)
    names = dict(
        _mask_head_names(config)
        if segments
        else (("head.neuron", neuron), ("head.fc", "head"), ("head.fc_kd", "head_kd"))
    )
    of_block = _block_names(config)
    for stage_name, (downsample, block) in _STAGES.items():
        ours = f"backbone.{stage_name}"
        stage: Any = modules.get(ours)
        if stage is None:
            continue
        names[f"{ours}.downsample"] = f"{before}{downsample}"
        for inner, theirs in (("neuron", neuron), ("conv", "conv"), ("bn", "bn")):
            names[f"{ours}.downsample.{inner}"] = f"{before}{downsample}.encode_{theirs}"
        for i in range(len(stage.blocks)):
            their_block = before + block.format(i + 1 if stage_name == "stage2" else i)
            names[f"{ours}.blocks.{i}"] = their_block
            for inner, theirs in of_block.items():
                names[f"{ours}.blocks.{i}.{inner}"] = f"{their_block}.{theirs}"
    return {ours: theirs for ours, theirs in names.items() if ours in modules}


def renamed(state: Mapping[str, Tensor], model: SpikeVideoFormer) -> dict[str, Tensor]:
    """Published tensors under our names; those without a counterpart keep theirs."""
    ours_of = {
        theirs.removeprefix("backbone."): ours for ours, theirs in published_names(model).items()
    }
    own = model.state_dict()
    found = {}
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        name = f"{ours_of[module]}.{leaf}" if module in ours_of else key
        if f"{ours_of.get(key)}.weight" in own:  # the factors of a layer scale
            name = f"{ours_of[key]}.weight"
        if name in own and own[name].ndim == 4 and value.ndim == 3:
            value = value.unsqueeze(-1)  # 1-d convolutions over tokens
        found[name] = value
    return found
