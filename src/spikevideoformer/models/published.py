"""Checkpoints in the published format: read safely, and reproduced number by number.

The published code names modules otherwise than we do; :func:`published_names` is the dictionary
between the two.
"""

import argparse
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path, PosixPath
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from spikevideoformer.models.config import ModelConfig, Poses
from spikevideoformer.models.published_pose import has_pose_head, with_our_pose_head
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, load_state, unusable
from spikevideoformer.shapes import AttentionKind, Design

PublishedAttention = Literal["joint_hamming", "joint_dot", "spatial_dot"]

_DESIGNS: dict[str, tuple[Design, AttentionKind]] = {
    "joint_hamming": ("joint", "hamming"),
    "joint_dot": ("joint", "dot"),
    # attention inside each frame; membranes run on through time
    "spatial_dot": ("neuron_only", "dot"),
}

_DOWNSAMPLE = {"neuron": "encode_lif", "conv": "encode_conv", "bn": "encode_bn"}
_CONV_BLOCK = {
    "sep_conv.neuron1": "Conv.lif1",
    "sep_conv.pw1": "Conv.pwconv1",
    "sep_conv.bn1": "Conv.bn1",
    "sep_conv.neuron2": "Conv.lif2",
    "sep_conv.dw": "Conv.dwconv",
    "sep_conv.pw2": "Conv.pwconv2",
    "sep_conv.bn2": "Conv.bn2",
    "channel_conv.neuron1": "lif1",
    "channel_conv.conv1": "conv1",
    "channel_conv.bn1": "bn1",
    "channel_conv.neuron2": "lif2",
    "channel_conv.conv2": "conv2",
    "channel_conv.bn2": "bn2",
}
_REP_CONV = {
    "pw1": "0.body.0",
    "bn1": "0.body.1.bn",
    "dw": "0.body.2.0",
    "pw2": "0.body.2.1",
    "bn2": "0.body.2.2",
    "bn_out": "1",
}
_TRANSFORMER_BLOCK = {
    "attention.0": "attn",
    "mlp": "mlp",
    "attention.0.neuron": "attn.head_lif",
    **{f"attention.0.steps.0.{z}_neuron": f"attn.{z}_lif" for z in "qkv"},
    **{
        f"attention.0.steps.0.{z}_conv.{ours}": f"attn.{z}_conv.{theirs}"
        for z in "qkv"
        for ours, theirs in _REP_CONV.items()
    },
    "attention.0.steps.0.bn": "attn.attn_bn",
    "attention.0.steps.0.out_neuron": "attn.attn_lif",
    **{
        f"attention.0.proj.{ours}": f"attn.proj_conv.{theirs}" for ours, theirs in _REP_CONV.items()
    },
    "mlp.neuron1": "mlp.fc1_lif",
    "mlp.fc1": "mlp.fc1_conv",
    "mlp.bn1": "mlp.fc1_bn",
    "mlp.neuron2": "mlp.fc2_lif",
    "mlp.fc2": "mlp.fc2_conv",
    "mlp.bn2": "mlp.fc2_bn",
}
# our stage -> their Downsample, their name of block i
_STAGES = {
    "stage1a": ("downsample1_1", "ConvBlock1_1.{}"),
    "stage1b": ("downsample1_2", "ConvBlock1_2.{}"),
    "stage2": ("downsample2", "ConvBlock2_{}.0"),
    "stage3": ("downsample3", "block3.{}"),
    "stage4": ("downsample4", "block4.{}"),
}


def published_names(model: SpikeVideoFormer) -> dict[str, str]:
    """Published name of each of our modules that has a counterpart.

    Covers convolutions, norms, neurons, whole blocks and downsamplings. A parameter has the name
    of its module and the same ending in both worlds.

    Args:
        model: a network of the joint or neuron-only design (the others were not published).

    Returns:
        ``{our module name: published module name}``.
    """
    names = {"head.neuron": "lif", "head.fc": "head", "head.fc_kd": "head_kd"}
    for stage_name, (downsample, block) in _STAGES.items():
        ours = f"backbone.{stage_name}"
        names[f"{ours}.downsample"] = downsample
        for inner, theirs in _DOWNSAMPLE.items():
            names[f"{ours}.downsample.{inner}"] = f"{downsample}.{theirs}"
        table = _TRANSFORMER_BLOCK if stage_name in ("stage3", "stage4") else _CONV_BLOCK
        for i in range(len(getattr(model.backbone, stage_name).blocks)):
            their_block = block.format(i + 1 if stage_name == "stage2" else i)
            names[f"{ours}.blocks.{i}"] = their_block
            for inner, theirs in table.items():
                names[f"{ours}.blocks.{i}.{inner}"] = f"{their_block}.{theirs}"
    modules = dict(model.named_modules())
    return {ours: theirs for ours, theirs in names.items() if ours in modules}


def load_published(
    path: str | os.PathLike[str],
    *,
    attention: PublishedAttention | None = None,
    heads: int = 8,
    num_classes: int | None = None,
    poses: Poses = "between",
) -> SpikeVideoFormer:
    """A published checkpoint as one of our models, in evaluation mode.

    Widths, depths and the class count are read off the tensors. The file is unpickled with
    ``weights_only=True``: no code in it is run. The output of a distillation head (``head_kd``) is
    averaged with that of the other one, as its authors' evaluation does.

    Args:
        path: a ``.pth`` file whose ``model`` entry (or whole content) is a state dict.
        attention: what the weights were trained for; the tensors cannot tell joint from spatial.
            None: what was published, ``joint_hamming`` where there is a norm for it (``attn_bn``),
            else ``spatial_dot``.
        heads: attention heads, which the tensors cannot tell either.
        num_classes: of the fresh classifier that a backbone without a head gets; other files say
            it themselves.
        poses: of a pose head: T + 1 poses, between which T frames of events lie (``between``, as
            published), or a pose for each frame (``frames``). The number of joints is read off.

    Raises:
        ValueError: a file that is missing, damaged, carries code, or has tensors that do not fit,
            in one line.

    Source: module names and tensor shapes of the published code (Zou et al., ICML 2025).
    """
    path = Path(path)
    if attention is not None and attention not in _DESIGNS:
        raise ValueError(
            f"attention {attention!r} is unknown; choose one of "
            f"{', '.join(get_args(PublishedAttention))}"
        )
    state = _read_state(path)
    if (fault := unusable(state)) is not None:
        raise ValueError(f"{path}: {fault}; get the file from its authors again")
    if (other := _other_family(state)) is not None:
        raise ValueError(
            f"{path} is {other}, which is not read; give a classifier or a backbone of "
            "Spike-Driven Transformer V2 or SpikeVideoFormer"
        )
    body = None
    if has_pose_head(state):
        state, body = with_our_pose_head(state, path)
    if "downsample1_1.encode_conv.weight" not in state:
        raise ValueError(f"{path} is not a published SpikeVideoFormer checkpoint; give one")
    if attention is None:
        attention = "joint_hamming" if _has_attention_bn(state) else "spatial_dot"
    design, kind = _DESIGNS[attention]
    if _has_attention_bn(state) != (kind == "hamming"):
        other = "joint_dot or spatial_dot" if kind == "hamming" else "joint_hamming"
        raise ValueError(f"{path} was not trained with {attention} attention; try {other}")
    try:
        config = ModelConfig(
            widths=(
                state["downsample1_2.encode_conv.weight"].shape[0],
                state["downsample2.encode_conv.weight"].shape[0],
                state["downsample3.encode_conv.weight"].shape[0],
                state["downsample4.encode_conv.weight"].shape[0],
            ),
            depths=(
                _count(state, "ConvBlock1_1.{}."),
                _count(state, "ConvBlock1_2.{}."),
                _count(state, "ConvBlock2_{}.0.", first=1),
                _count(state, "block3.{}."),
                _count(state, "block4.{}."),
            ),
            in_channels=state["downsample1_1.encode_conv.weight"].shape[1],
            heads=heads,
            design=design,
            attention=kind,
            distilled="head_kd.weight" in state,
            **({} if body is None else dict(_POSE, poses=poses)),
        )
        headless = not any(key.startswith("head") for key in state)
        num_classes = _classes(path, state, headless, num_classes)
    except KeyError as error:
        raise ValueError(
            f"{path} has no tensor {error}; it is not a published SpikeVideoFormer checkpoint"
        ) from None
    except IndexError:
        raise ValueError(
            f"{path} has weights without axes; it is not a published SpikeVideoFormer checkpoint"
        ) from None
    if body is None:
        model = SpikeVideoFormer(config, task="classification", num_classes=num_classes)
    else:
        num_joints = len(body.joint_names)
        model = SpikeVideoFormer(config, task="pose", num_classes=num_joints, body=body)
    tensors = _renamed(state, model)
    if headless:
        tensors |= {f"head.{key}": value for key, value in model.head.state_dict().items()}
    load_state(model, tensors, path)
    return model.eval()


def _classes(
    path: Path, state: Mapping[str, Tensor], headless: bool, num_classes: int | None
) -> int:
    """How many classes the network tells apart, as the file or the caller says."""
    if not headless:
        found = state["head.weight"].shape[0]
        if num_classes not in (None, found):
            raise ValueError(f"{path} has a head of {found} classes; leave num_classes out")
        return found
    if num_classes is None:
        raise ValueError(
            f"{path} is a backbone without a head; give num_classes=N, and train the fresh head"
        )
    return num_classes


def _other_family(state: Mapping[str, Tensor]) -> str | None:
    """The relative of SpikeVideoFormer that these weights belong to; None where there is none."""
    for has, what in _FAMILY:
        if any(re.search(has, key) for key in state):
            return what
    return None


_POSE: dict[str, Any] = {"pose_head": "regressor", "readout": "membrane"}

_FAMILY = (
    (r"(^|\.)tranformer_encoder\.|^body\.", "a HumanPoseTracking_SNN with a SEW-ResNet backbone"),
    (r"^decode_head\.(pixel_decoder|transformer_decoder|query)", "a Spike2Former segmenter"),
    (r"^neck\.lateral_convs\.\d+\.1\.0\.conv\.", "a segmenter of SDT-V2"),
    (r"^(neck|decode_head)\.", "a segmenter of E-SpikeFormer (SDT-V3)"),
    (r"^(mask_token$|decoder_)", "an E-SpikeFormer (SDT-V3) in pre-training (MAE)"),
    (r"^ConvBlock1_1\.0\.conv1\.0\.0\.", "a large E-SpikeFormer (SDT-V3, 83 M or 171 M)"),
    (
        r"^ConvBlock1_1\.0\.Conv\.pwconv1\.0\.|\.attn\.q_conv\.0\.weight$",
        "an E-SpikeFormer (SDT-V3)",
    ),
)
"""What a name of some tensor says of the family, the first that fits."""


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"{path} does not exist or is no file; give a published .pth checkpoint")
    try:
        # Training scripts of this field store their arguments and best metrics beside the weights.
        # What torch warns about, it then refuses, or reads all the same: one line is enough.
        with (
            torch.serialization.safe_globals([*_HARMLESS, *_foreign(path)]),
            warnings.catch_warnings(action="ignore"),
        ):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and plain values, or is damaged; it was refused "
            "without running anything in it: get the file from its authors again"
        ) from error
    except Exception as error:  # a damaged pickle can fail in any way
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "damaged"
        raise ValueError(f"{path} is no readable checkpoint ({reason}); copy it again") from error
    entries = content if isinstance(content, Mapping) else {}
    state: Any = next((entries[key] for key in _WRAPPED if key in entries), content)
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise ValueError(
            f"{path} is no state dict of tensors, nor has it one under "
            f"{', '.join(map(repr, _WRAPPED))}"
        )
    bare = {_PREFIXES.sub("", key): value for key, value in state.items()}
    if len(bare) != len(state):
        raise ValueError(f"{path} holds several networks under different prefixes; keep one")
    return bare


_WRAPPED = ("model", "state_dict", "model_state_dict", "module", "model_ema")
"""Where a state dict may stand in a file; the first that is there."""

_PREFIXES = re.compile(r"^((module|_orig_mod|model|backbone)\.)+")
"""What DistributedDataParallel, torch.compile, and networks around a backbone put before names."""


def _scalar(dtype: np.dtype[Any], content: bytes) -> Any:
    """A number of numpy, from its bytes."""
    if dtype.kind not in "biufc" or len(content) != dtype.itemsize:
        raise pickle.UnpicklingError("no number")
    return np.frombuffer(content, dtype)[0]


def _bytes(text: str, encoding: str) -> bytes:
    """Bytes as old pickles hold them."""
    if encoding != "latin1":
        raise pickle.UnpicklingError("no bytes")
    return text.encode("latin1")


class _Inert:
    """Stands for an object of another library: takes what it is made of, and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _foreign(path: Path) -> list[Any]:
    """Classes of OpenMMLab in a file, which training leaves beside the weights, as inert ones."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # noqa: BLE001 - damaged, or of the old format: the reader itself says so
        return []
    return [(_Inert, name) for name in names if re.match(r"(mmengine|mmcv|mmseg|mmdet)\.", name)]


_HARMLESS: list[Any] = [
    argparse.Namespace,
    PosixPath,
    np.dtype,
    *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type)),
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    (_bytes, "_codecs.encode"),
    (_Inert, "numpy.ndarray"),
    *((_Inert, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]
"""Plain values that are no tensors: arguments, paths, numbers and arrays of numpy."""


def _has_attention_bn(state: Mapping[str, Tensor]) -> bool:
    return any(".attn.attn_bn." in key for key in state)


def _count(state: Mapping[str, Tensor], pattern: str, first: int = 0) -> int:
    n = 0
    while any(key.startswith(pattern.format(first + n)) for key in state):
        n += 1
    if n == 0:
        raise KeyError(pattern.format(first))
    return n


def _renamed(state: Mapping[str, Tensor], model: SpikeVideoFormer) -> dict[str, Tensor]:
    theirs_to_ours = {theirs: ours for ours, theirs in published_names(model).items()}
    own = model.state_dict()
    renamed = {}
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        # a name without counterpart is kept, so that load_state reports it
        name = f"{theirs_to_ours[module]}.{leaf}" if module in theirs_to_ours else key
        if name in own and own[name].ndim == 4 and value.ndim == 3:
            value = value.unsqueeze(-1)  # 1-d convolutions of the published MLP
        renamed[name] = value
    return renamed
