"""Checkpoints of the published family as our models, reproduced number by number.

``published_file.py`` reads them, ``published_names.py`` is the dictionary between their names and
ours; here is what tensors tell of the network that they belong to.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from spikevideoformer.messages import require_known
from spikevideoformer.models.config import MaskHeadConfig, ModelConfig, Poses
from spikevideoformer.models.folder import is_palette
from spikevideoformer.models.published_file import PublishedFile, read_published
from spikevideoformer.models.published_names import published_names as published_names
from spikevideoformer.models.published_names import renamed
from spikevideoformer.models.published_pose import has_pose_head, with_our_pose_head
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, load_state
from spikevideoformer.nn.block_config import E_SPIKEFORMER, E_SPIKEFORMER_LARGE, BlockConfig
from spikevideoformer.ops.neuron_config import NeuronConfig
from spikevideoformer.shapes import AttentionKind, Design

PublishedAttention = Literal["joint_hamming", "joint_dot", "spatial_dot"]

_DESIGNS: dict[str, tuple[Design, AttentionKind]] = {
    "joint_hamming": ("joint", "hamming"),
    "joint_dot": ("joint", "dot"),
    # attention inside each frame; membranes run on through time
    "spatial_dot": ("neuron_only", "dot"),
}

PUBLISHED_FRAMES = 4
"""T of the published segmenters of SDT-V2, over which a picture is repeated."""


def load_published(
    path: str | os.PathLike[str],
    *,
    attention: PublishedAttention | None = None,
    heads: int = 8,
    frames: int | None = None,
    levels: int = 4,
    num_classes: int | None = None,
    poses: Poses = "between",
) -> SpikeVideoFormer:
    """A published checkpoint as one of our models, in evaluation mode.

    Classifiers, segmenters and backbones of Spike-Driven Transformer V2, SpikeVideoFormer and
    E-SpikeFormer (SDT-V3), and pose heads on them. Widths, depths, kernels and the class count are
    read off the tensors. The file is unpickled with ``weights_only=True``: no code in it is run.
    The output of a distillation head (``head_kd``) is averaged with that of the other one, as its
    authors' evaluation does.

    Args:
        path: a ``.pth`` file whose ``model`` or ``state_dict`` entry (or whole content) is a state
            dict.
        attention: what the weights were trained for; the tensors cannot tell joint from spatial.
            None: what was published, ``joint_hamming`` where there is a norm for it (``attn_bn``),
            else ``spatial_dot``.
        heads: attention heads, which the tensors cannot tell either.
        frames: T over which the published code repeats a picture, at least 1; the model does so
            with a clip of one frame. None: 4 for a segmenter of SDT-V2, whose maps are averaged
            over them, else 1. E-SpikeFormers know no time, and do without.
        levels: D of the integer spikes of E-SpikeFormers, 1 to 255; others fire 0 or 1.
        num_classes: of the fresh classifier that a backbone without a head gets; other files say
            it themselves.
        poses: of a pose head: T + 1 poses, between which T frames of events lie (``between``, as
            published), or a pose for each frame (``frames``). The number of joints is read off.

    Raises:
        ValueError: a file that is missing, damaged, carries code, or has tensors that do not fit,
            in one line.

    Source: module names and tensor shapes of the published code (Zou et al., ICML 2025; Yao et al.,
    ICLR 2024 and TPAMI 2025).
    """
    path = Path(path)
    if attention is not None:
        require_known("attention", attention, _DESIGNS)
    if frames is not None and not (isinstance(frames, int) and frames >= 1):
        raise ValueError(f"frames is {frames!r}; expected an integer of at least 1")
    file = read_published(path)
    if (other := _other_family(file.state)) is not None:
        raise ValueError(
            f"{path} is {other}, which is not read; give a classifier, a segmenter or a backbone "
            "of Spike-Driven Transformer V2, V3 or SpikeVideoFormer"
        )
    state, body = file.state, None
    if has_pose_head(state):
        state, body = with_our_pose_head(state, path)
    if "downsample1_1.encode_conv.weight" not in state:
        raise ValueError(f"{path} is not a published SpikeVideoFormer checkpoint; give one")
    try:
        config = _config(path, state, attention, heads, levels)
        segments = any(key.startswith(("neck.", "decode_head.")) for key in state)
        if segments:
            config = replace(config, mask_head=_mask_head(state))
        if body is not None:
            config = replace(config, pose_head="regressor", readout="membrane", poses=poses)
        elif config.neuron.remembers:
            usual = PUBLISHED_FRAMES if segments else 1
            config = replace(config, still_frames=usual if frames is None else frames)
        headless = not segments and not any(key.startswith("head") for key in state)
        place = "decode_head.conv_seg.weight" if segments else "head.weight"
        if body is None:
            num_classes = _classes(path, state, place, headless, num_classes)
    except KeyError as error:
        raise ValueError(
            f"{path} has no tensor {error}; it is not a published SpikeVideoFormer checkpoint"
        ) from None
    except IndexError:
        raise ValueError(
            f"{path} has weights without axes; it is not a published SpikeVideoFormer checkpoint"
        ) from None
    task = "segmentation" if segments else "classification"
    if body is not None:
        task, joints = "pose", len(body.joint_names)
        if num_classes not in (None, joints):
            raise ValueError(f"{path} has a head for {joints} joints; leave num_classes out")
        num_classes = joints
    assert num_classes is not None  # of a body they are its joints
    model = SpikeVideoFormer(config, task=task, num_classes=num_classes, body=body)
    tensors = renamed(state, model)
    if headless:
        tensors |= {f"head.{key}": value for key, value in model.head.state_dict().items()}
    _check_tensors(path, model, tensors)
    load_state(model, tensors, path)
    _name_classes(model, file)
    return model.eval()


def _config(
    path: Path,
    state: Mapping[str, Tensor],
    attention: PublishedAttention | None,
    heads: int,
    levels: int,
) -> ModelConfig:
    """The architecture of a backbone and classifier; KeyError where a tensor is missing."""
    family = _generation(state)
    if family == "meta":
        attention = attention or ("joint_hamming" if _has_attention_bn(state) else "spatial_dot")
        design, kind = _DESIGNS[attention]
        if _has_attention_bn(state) != (kind == "hamming"):
            other = "joint_dot or spatial_dot" if kind == "hamming" else "joint_hamming"
            raise ValueError(f"{path} was not trained with {attention} attention; try {other}")
        of_family: dict[str, Any] = {"design": design, "attention": kind}
    else:
        if attention not in (None, "spatial_dot"):
            raise ValueError(
                f"{path} is an E-SpikeFormer, whose attention is spatial_dot; leave attention out"
            )
        rounding = "half_even" if family == "base" else "half_up"
        of_family = {
            "design": "spatial_only",
            "attention": "dot",
            "block": _base_block(state) if family == "base" else _large_block(state),
            "neuron": NeuronConfig.of_kind("ni_lif", levels=levels, rounding=rounding),
        }
        if family == "large":
            of_family["readout"] = "both"
    downsamples = ["1_1", "1_2", "2", "3", *(() if family == "large" else ("4",))]
    first, *widths = (state[f"downsample{i}.encode_conv.weight"].shape for i in downsamples)
    blocks = ["ConvBlock1_1.{}.", "ConvBlock1_2.{}.", "ConvBlock2_{}.0.", "block3.{}."]
    if family != "large":
        blocks.append("block4.{}.")
    return ModelConfig(
        widths=tuple(shape[0] for shape in widths),
        depths=tuple(_count(state, b, first=int("2_{}" in b)) for b in blocks),
        in_channels=first[1],
        heads=heads,
        distilled="head_kd.weight" in state,
        any_size=True,
        **of_family,
    )


def _generation(state: Mapping[str, Tensor]) -> Literal["meta", "base", "large"]:
    """Which blocks these are: those of Meta-SpikeFormer, or of an E-SpikeFormer of either kind."""
    if any(re.search(r"^ConvBlock1_1\.0\.conv1\.0\.0\.", key) for key in state):
        return "large"
    base = r"^ConvBlock1_1\.0\.Conv\.pwconv1\.0\.|\.attn\.q_conv\.0\.weight$"
    return "base" if any(re.search(base, key) for key in state) else "meta"


def _base_block(state: Mapping[str, Tensor]) -> BlockConfig:
    queries = state["block3.0.attn.q_conv.0.weight"].shape[0]
    return replace(
        E_SPIKEFORMER,
        kernel_size=state["ConvBlock1_1.0.Conv.dwconv.0.weight"].shape[2],
        token_kernel_size=state["block3.0.conv.dwconv.0.weight"].shape[2],
        value_ratio=state["block3.0.attn.v_conv.0.weight"].shape[0] // queries,
        layer_scale="block3.0.layer_scale1" in state,
    )


def _large_block(state: Mapping[str, Tensor]) -> BlockConfig:
    between, channels = state["block3.0.attn.q_conv.0.conv1.0.weight"].shape[:2]
    return replace(
        E_SPIKEFORMER_LARGE,
        token_conv="pair" if any(".rep_conv." in key for key in state) else "none",
        pair_width=between / channels,
        layer_scale="block3.0.layer_scale1" in state,
    )


def _mask_head(state: Mapping[str, Tensor]) -> MaskHeadConfig:
    """The pyramid of a segmenter: V3's has norms in its neck, V2's has none, and knows time."""
    normed = "neck.lateral_convs.0.0.weight" in state
    place = "decode_head.scale_heads.0.0.1.weight"
    return MaskHeadConfig(
        kind="fpn",
        width=state[f"neck.lateral_convs.0.{'0' if normed else '1.0.conv'}.weight"].shape[0],
        head_width=state[place if normed else place.replace(".weight", ".0.conv.weight")].shape[0],
        neck_norm=normed,
        mean_over_time=not normed,
    )


def _classes(
    path: Path,
    state: Mapping[str, Tensor],
    place: str,
    headless: bool,
    num_classes: int | None,
) -> int:
    """How many classes the network tells apart, as the file or the caller says."""
    if not headless:
        found = state[place].shape[0]
        if num_classes not in (None, found):
            raise ValueError(f"{path} has a head of {found} classes; leave num_classes out")
        return found
    if num_classes is None:
        raise ValueError(
            f"{path} is a backbone without a head; give num_classes=N, and train the fresh head"
        )
    return num_classes


def _check_tensors(path: Path, model: SpikeVideoFormer, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError for the first tensor that is missing, odd or of another shape."""
    own, theirs = model.state_dict(), published_names(model)
    family = _FAMILIES[_generation_of(model.config)]
    what = f"a {model.task} network of {family}" if model.task != "classification" else family

    def published(key: str) -> str:
        module, _, leaf = key.rpartition(".")
        scale = ".layer_scale" in f".{theirs.get(module, '')}"
        return key if module not in theirs else theirs[module] + ("" if scale else f".{leaf}")

    for key, value in own.items():
        if key not in tensors:
            raise ValueError(
                f"{path} lacks the tensor {published(key)} of {what}, which it is by its others; "
                "get the file from its authors again"
            )
        if tensors[key].shape != value.shape:
            raise ValueError(
                f"{path}: {published(key)} has shape {tuple(tensors[key].shape)}, and by its other "
                f"tensors it is {what} that needs {tuple(value.shape)}; get the file from its "
                "authors again"
            )
    for key in tensors:
        if key not in own:
            raise ValueError(
                f"{path} has a tensor {key} that {what} has no place for; if it is not of the "
                "network, remove it from the file"
            )


def _generation_of(config: ModelConfig) -> str:
    return {"real": "meta", "spiking": "base", "none": "large"}[config.block.separable]


_FAMILIES = {
    "meta": "SpikeVideoFormer or Spike-Driven Transformer V2",
    "base": "E-SpikeFormer (SDT-V3)",
    "large": "E-SpikeFormer (SDT-V3), large",
}


def family_of(config: ModelConfig) -> str:
    """Of which networks a published one is, in words."""
    if (generation := _generation_of(config)) != "meta":
        return _FAMILIES[generation]
    return "SpikeVideoFormer" if config.design == "joint" else "Spike-Driven Transformer V2"


def sees_pictures(model: SpikeVideoFormer) -> bool:
    """Whether it was published for pictures; else for clips of video or of events."""
    return model.config.design != "joint" and model.body is None


def untold(model: SpikeVideoFormer) -> dict[str, Any]:
    """What the tensors of a published network do not tell, by the arguments of `load_published`."""
    config = model.config
    values: dict[str, Any] = {"heads": config.heads}
    if _generation_of(config) != "meta":
        values["levels"] = config.neuron.levels
    elif config.attention == "dot":
        values["attention"] = "joint_dot" if config.design == "joint" else "spatial_dot"
    if config.neuron.remembers and sees_pictures(model):
        values["frames"] = config.still_frames
    if model.body is not None:
        values["poses"] = config.poses
    return values


def _name_classes(model: SpikeVideoFormer, file: PublishedFile) -> None:
    """Names and colours that mmengine keeps beside the weights, where they are such."""
    names, palette = (file.about.get(key) for key in ("classes", "palette"))
    n = model.num_classes
    if isinstance(names, (list, tuple)) and len(names) == n == len({str(name) for name in names}):
        model.classes = tuple(str(name) for name in names)
    if is_palette(palette, n):
        model.palette = tuple(tuple(colour) for colour in palette)


def _other_family(state: Mapping[str, Tensor]) -> str | None:
    """The relative of SpikeVideoFormer that these weights belong to; None where there is none."""
    for has, what in _FAMILY:
        if any(re.search(has, key) for key in state):
            return what
    return None


_FAMILY = (
    (r"(^|\.)tranformer_encoder\.|^body\.", "a HumanPoseTracking_SNN with a SEW-ResNet backbone"),
    (r"^decode_head\.(pixel_decoder|transformer_decoder|query)", "a Spike2Former segmenter"),
    (r"^(mask_token$|decoder_)", "an E-SpikeFormer (SDT-V3) in pre-training (MAE)"),
)
"""What a name of some tensor says of the families that are not read, the first that fits."""


def _has_attention_bn(state: Mapping[str, Tensor]) -> bool:
    return any(".attn.attn_bn." in key for key in state)


def _count(state: Mapping[str, Tensor], pattern: str, first: int = 0) -> int:
    n = 0
    while any(key.startswith(pattern.format(first + n)) for key in state):
        n += 1
    if n == 0:
        raise KeyError(pattern.format(first))
    return n
