"""What a network is made of, and the sizes it comes in."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args

from spikevideoformer.messages import require_known
from spikevideoformer.nn.block_config import E_SPIKEFORMER, E_SPIKEFORMER_LARGE, BlockConfig
from spikevideoformer.ops.neuron_config import NeuronConfig
from spikevideoformer.settings import check_types, require
from spikevideoformer.shapes import AttentionKind, Design

STRIDE = 16  # height and width of the last stage are those of the input over this

SpikeMemory = Literal["plain", "packed"]
PoseHeadKind = Literal["grid", "regressor", "heatmap"]
Poses = Literal["frames", "between"]
Readout = Literal["spike", "membrane", "gru", "both"]
Family = Literal["spiking", "espike", "ann", "gru"]
MaskHeadKind = Literal["pyramid", "fpn", "mlp"]


MOST = {
    "widths": 2**14,
    "depths": 256,
    **{"heads": 1024, "mlp_ratio": 64, "in_channels": 1024, "still_frames": 1024},
}
"""Larger numbers are damage: no network has them, and making one would take hours or all memory."""


@dataclass(frozen=True, kw_only=True)
class MaskHeadConfig:
    """How a network for segmentation reads its classes off the maps of the backbone.

    Attributes:
        kind: ``pyramid``, ours, every frame from 1/4 to 1/16; ``fpn``, the feature pyramid of the
            published segmenters, from 1/2 to 1/16; or ``mlp``, like SegFormer's, all stages in one
            width.
        width: channels of the neck of ``fpn``, or of ``mlp``.
        head_width: channels behind the neck of ``fpn``.
        neck_norm: whether the convolutions of that neck have batch norms.
        mean_over_time: whether ``fpn`` reads the mean of membranes over time, and gives one map
            for a clip.

    Raises:
        ValueError: a value outside its range.

    Source: Kirillov et al., "Panoptic feature pyramid networks", 2019, as spiking in Yao et al.,
    ICLR 2024 and TPAMI 2025; Xie et al., SegFormer, 2021.
    """

    kind: MaskHeadKind = "pyramid"
    width: int = 128
    head_width: int = 128
    neck_norm: bool = False
    mean_over_time: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        require(self, "width", "head_width", at_least=1, at_most=MOST["widths"])

    @classmethod
    def of_kind(cls, kind: str, **overrides: Any) -> "MaskHeadConfig":
        """The usual head of a kind, and what is to be different of it."""
        usual: dict[str, Any] = {"width": 768} if kind == "mlp" else {}
        return cls(**{"kind": kind, **usual, **overrides})


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture of a SpikeVideoFormer; the defaults are the published 15 M model.

    A neuron of kind ``relu`` makes it an ordinary network, see :meth:`ann_twin`.

    Attributes:
        widths: channels [e1, e2, e3, e4] at 1/4, 1/8, 1/16, 1/16 of the input; e1 is even, e3
            and e4 are multiples of ``heads``. Without e4 the last stage is e3's.
        depths: blocks at e1/2 (0 leaves them out at half the size of the input, where they cost
            most), e1, e2 (ConvBlocks), e3, e4 (TransformerBlocks; ConvBlocks with
            ``attention="none"``, where these two may be 0); one more than ``widths``.
        heads: attention heads.
        mlp_ratio: widening inside ChannelConv and MLP.
        in_channels: channels of a frame.
        design: how attention spans space and time. Without membranes neuron_only would be
            spatial_only, and is refused.
        attention: hamming, or the dot product it replaces. Of rectifiers: softmax, or none, which
            puts ConvBlocks in place of all TransformerBlocks (design spatial_only).
        constant_term: keep the constant 1/2 of the Hamming similarity.
        neuron: every neuron of the network.
        block: what blocks are made of: Meta-SpikeFormer's or E-SpikeFormer's.
        drop_path: probability at which the last block's residual branches are left out in
            training; it grows linearly from 0 at the first block.
        readout: what the classifier reads, the spikes of a last neuron (published), the mean
            membrane itself, or, of rectifiers only, the last state of a GRU over frames; ``both``:
            membranes in its first linear layer, spikes in the second of ``distilled``.
        residual_gain: initial weight of the last BN of every residual branch. 1 is the published
            initialisation, which does not train from scratch (docs/initialisation.md).
        distilled: the classifier has a second linear layer, and gives the mean of both: what a
            published file with ``head_kd`` is.
        pose_head: how poses are read off: grid, from 4 x 4 cells, the place of the body as it is
            seen; regressor, from the mean over the picture, the place in metres: what was published
            (``readout="membrane"``); heatmap, where each joint is seen, from maps at 1/4.
        poses: a pose for each of T frames, or the T + 1 poses between which they lie.
        mask_head: of a network for segmentation.
        pad_input: pad frames with zeros at the right and bottom to a multiple of 16 instead of
            refusing them.
        any_size: take frames of any size as they are, where the head can: maps are rounded up, as
            in the published code.
        still_frames: for how many equal frames a clip of one frame stands, where the head gives
            one answer for a clip: what the published code does with a picture.

    Raises:
        ValueError: a value outside its range, with what is accepted.
    """

    widths: tuple[int, ...] = (64, 128, 256, 360)
    depths: tuple[int, ...] = (1, 1, 2, 6, 2)
    heads: int = 8
    mlp_ratio: int = 4
    in_channels: int = 3
    design: Design = "joint"
    attention: AttentionKind = "hamming"
    constant_term: bool = False
    neuron: NeuronConfig = field(default_factory=NeuronConfig)
    block: BlockConfig = field(default_factory=BlockConfig)
    drop_path: float = 0.0
    readout: Readout = "spike"
    residual_gain: float = 0.1
    distilled: bool = False
    pose_head: PoseHeadKind = "grid"
    poses: Poses = "frames"
    mask_head: MaskHeadConfig = field(default_factory=MaskHeadConfig)
    pad_input: bool = False
    any_size: bool = False
    still_frames: int = 1

    def __post_init__(self) -> None:
        last = 0 if self.attention == "none" else 1  # the last two stages may go without blocks
        stages = self.depths if isinstance(self.depths, (tuple, list)) else ()
        four = len(stages) != 4  # with 1/4, 1/8, 1/16 there are three
        least_depths = (0, 1, 1, last, last) if four else (0, 1, 1, last)
        for name, least in (("widths", (1,) * (3 + four)), ("depths", least_depths)):
            values = getattr(self, name)
            if not (
                isinstance(values, (tuple, list))
                and len(values) == len(least)
                and all(
                    isinstance(v, int) and v >= low for v, low in zip(values, least, strict=True)
                )
            ):
                free = [str(place) for place, low in enumerate(least, 1) if low == 0]
                hint = f", or 0 in place {', '.join(free)}" if free else ""
                raise ValueError(
                    f"{name} is {values!r}; expected {len(least)} positive integers{hint}"
                )
            object.__setattr__(self, name, tuple(values))  # lists come from JSON
            if max(values) > MOST[name]:
                raise ValueError(f"{name} is {values!r}; expected at most {MOST[name]} each")
        check_types(self)
        for name in ("heads", "mlp_ratio", "in_channels", "still_frames"):
            require(self, name, at_least=1, at_most=MOST[name])
        if self.widths[0] % 2:
            raise ValueError(f"the first width is {self.widths[0]}; it is halved, so must be even")
        for width in self.widths[2:]:
            if width % self.heads:
                raise ValueError(
                    f"width {width} does not divide into {self.heads} heads; give other heads"
                )
        require(self, "drop_path", at_least=0, below=1)
        require(self, "residual_gain", at_least=0, at_most=1)
        if self.constant_term and self.attention != "hamming":
            raise ValueError("constant_term belongs to Hamming attention; set attention='hamming'")
        of_hamming = self.block.threshold_scale, self.block.attention_norm
        if self.attention != "hamming" and of_hamming != ("width", True):
            raise ValueError(
                "threshold_scale and attention_norm belong to Hamming attention; set "
                "attention='hamming'"
            )
        if self.readout == "both" and not self.neuron.spiking:
            raise ValueError("readout 'both' reads spikes; choose membrane or gru")
        self._check_kind()

    def _check_kind(self) -> None:
        """Refuse parts of a spiking network in an ordinary one, and the reverse."""
        ordinary = self.attention in ("softmax", "none")
        if self.neuron.spiking and (ordinary or self.readout == "gru"):
            part = f"attention {self.attention!r}" if ordinary else "readout 'gru'"
            raise ValueError(
                f"{part} is of ordinary networks, and the neuron is {self.neuron.kind}; take a "
                "preset ann_* or gru_*, or attention 'hamming' or 'dot' and another readout"
            )
        if self.neuron.spiking:
            return
        if not ordinary:
            raise ValueError(
                f"attention {self.attention!r} compares spikes, and a neuron of kind relu fires "
                "none; set attention='softmax', or take a preset svf_*"
            )
        if self.design == "neuron_only":
            raise ValueError(
                "design 'neuron_only' passes time through membranes, which a neuron of kind relu "
                "does not have: it would be 'spatial_only'; choose that"
            )
        if self.attention == "none" and self.design != "spatial_only":
            raise ValueError(
                f"design {self.design!r} says what attention spans, and attention is 'none'; set "
                "design='spatial_only'"
            )

    def with_overrides(self, overrides: Mapping[str, Any]) -> "ModelConfig":
        """A copy with some fields replaced.

        ``neuron`` and ``mask_head`` may be kinds, dicts or configs, ``block`` a config, or a
        dict of what is different from this one's.

        Raises:
            ValueError: an unknown field, with the nearest known one.
        """
        values = dict(overrides)
        refuse_unknown(values, ModelConfig, "model option")
        if "neuron" in values:
            values["neuron"] = _neuron(values["neuron"])
        if isinstance(block := values.get("block"), Mapping):
            refuse_unknown(block, BlockConfig, "block option")
            values["block"] = replace(self.block, **block)
        if isinstance(head := values.get("mask_head"), (str, Mapping)):
            head = {"kind": head} if isinstance(head, str) else head
            refuse_unknown(head, MaskHeadConfig, "mask_head option")
            values["mask_head"] = MaskHeadConfig.of_kind(**{"kind": "pyramid", **head})
        return replace(self, **values)

    def ann_twin(self) -> "ModelConfig":
        """The ordinary network of the same shape: rectifiers for neurons, softmax for attention.

        neuron_only becomes spatial_only, which is the same without membranes.
        """
        return replace(
            self,
            neuron=NeuronConfig(kind="relu"),
            attention="softmax",
            constant_term=False,
            block=replace(self.block, threshold_scale="width", attention_norm=True),
            design="spatial_only" if self.design == "neuron_only" else self.design,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Inverse of :meth:`to_dict`; unknown keys are errors."""
        return cls().with_overrides(values)


def _neuron(value: Any) -> NeuronConfig:
    if isinstance(value, Mapping):
        refuse_unknown(value, NeuronConfig, "neuron option")
        return NeuronConfig.of_kind(**{"kind": "lif", **value})
    if isinstance(value, str):
        return NeuronConfig.of_kind(value)
    return value  # ModelConfig refuses what is no NeuronConfig


def refuse_unknown(values: Mapping[str, Any], config: type, what: str) -> None:
    """Raise ValueError for the first key that is no field of the dataclass ``config``."""
    known = [f.name for f in fields(config)]
    for key in values:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"unknown {what} {key!r}; {hint}")


_SPIKING: dict[str, ModelConfig] = {
    # ours, for small data and small machines; pico, micro and mini have no block where pixels are
    # many and channels few, and widths that fill vectors of 16 numbers
    "pico": ModelConfig(widths=(16, 32, 64, 64), depths=(0, 1, 1, 1, 1)),
    "nano": ModelConfig(widths=(16, 32, 64, 80), depths=(1, 1, 1, 2, 1)),
    "micro": ModelConfig(widths=(16, 64, 128, 128), depths=(0, 1, 1, 2, 1)),
    "mini": ModelConfig(widths=(32, 64, 128, 192), depths=(0, 1, 2, 4, 2)),
    "tiny": ModelConfig(widths=(32, 64, 128, 192), depths=(1, 1, 2, 4, 2)),
    # the published sizes
    "15m": ModelConfig(widths=(64, 128, 256, 360)),
    "31m": ModelConfig(widths=(96, 192, 384, 480)),
    "55m": ModelConfig(widths=(128, 256, 512, 640)),
    "124m": ModelConfig(widths=(192, 384, 768, 960)),
}


def _recurrent(config: ModelConfig) -> ModelConfig:
    """Convolutions on each frame and a GRU over frames, with about as many parameters.

    A ConvBlock has 76 C^2 weights where a TransformerBlock has 16 C^2: two of them at e3 (one for
    at most two TransformerBlocks) and none at e4 stand for all TransformerBlocks.
    """
    return replace(
        config.ann_twin(),
        attention="none",
        design="spatial_only",
        readout="gru",
        depths=(*config.depths[:3], 1 if config.depths[3] <= 2 else 2, 0),
    )


def _espike(
    widths: tuple[int, ...], depths: tuple[int, ...], block: BlockConfig, rounding: str
) -> ModelConfig:
    """E-SpikeFormer: normalised integers, attention by the dot product inside each frame."""
    return ModelConfig(
        widths=widths,
        depths=depths,
        block=block,
        neuron=NeuronConfig.of_kind("ni_lif", rounding=rounding),
        design="spatial_only",
        attention="dot",
        any_size=True,
    )


_PAIRED = replace(E_SPIKEFORMER_LARGE, token_conv="pair")
_ESPIKE: dict[str, ModelConfig] = {
    **{
        size: _espike(widths, (1, 1, 2, 6, 2), E_SPIKEFORMER, "half_even")
        for size, widths in {
            "5m": (32, 64, 128, 192),
            "10m": (48, 96, 192, 240),
            "19m": (64, 128, 256, 360),
        }.items()
    },
    "83m": _espike((128, 256, 512), (1, 1, 2, 12), _PAIRED, "half_up"),
    "171m": _espike((196, 384, 768), (1, 1, 2, 12), E_SPIKEFORMER_LARGE, "half_up"),
}

FAMILIES: dict[Family, str] = {
    "spiking": "spiking: LIF neurons, Hamming attention",
    "espike": "E-SpikeFormer, for pictures: normalised integer spikes, dot-product attention",
    "ann": "ordinary, the same shapes: rectifiers, softmax attention",
    "gru": "ordinary, recurrent: rectifiers, convolutions on each frame, a GRU over frames",
}
"""What there is to choose from, and what it is."""

PRESETS: dict[str, ModelConfig] = {
    **{f"svf_{size}": config for size, config in _SPIKING.items()},
    **{f"espike_{size}": config for size, config in _ESPIKE.items()},
    **{f"ann_{size}": config.ann_twin() for size, config in _SPIKING.items()},
    **{f"gru_{size}": _recurrent(config) for size, config in _SPIKING.items()},
}


def list_models(family: Family | Literal["all"] = "spiking") -> list[str]:
    """Names that :func:`create_model` accepts, smallest first in each family.

    Args:
        family: ``spiking`` (svf_*); ``espike``, E-SpikeFormer (espike_*); ``ann``, the shapes of
            svf_* with rectifiers and softmax attention (ann_*); ``gru``, convolutions on each frame
            and a GRU over frames (gru_*); or ``all``.

    Raises:
        ValueError: an unknown family.
    """
    require_known("family", family, [*FAMILIES, "all"])
    if family == "all":
        return list(PRESETS)
    prefix = "svf_" if family == "spiking" else f"{family}_"
    return [name for name in PRESETS if name.startswith(prefix)]


def preset(name: str) -> ModelConfig:
    """The architecture of a preset.

    Raises:
        ValueError: an unknown name, with the known ones.
    """
    require_known("model", name, PRESETS)
    return PRESETS[name]


def check_spike_memory(memory: SpikeMemory, config: ModelConfig) -> None:
    """Raise ValueError where a network of this architecture cannot keep its spikes so."""
    if memory not in get_args(SpikeMemory):
        accepted = " or ".join(get_args(SpikeMemory))
        raise ValueError(f"spike_memory {memory!r} is unknown; choose {accepted}")
    if memory == "packed" and not config.neuron.spiking:
        raise ValueError(
            "spike_memory 'packed' keeps spikes as bits, and neurons of kind relu fire none; "
            "choose plain, and gradient_checkpointing to save memory"
        )
