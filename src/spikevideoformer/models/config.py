"""What a network is made of, and the sizes it comes in."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args

from spikevideoformer.ops.lif import NeuronConfig
from spikevideoformer.shapes import AttentionKind, Design

STRIDE = 16  # height and width of the last stage are those of the input over this

Readout = Literal["spike", "membrane"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture of a SpikeVideoFormer; the defaults are the published 15 M model.

    Attributes:
        widths: channels [e1, e2, e3, e4] at 1/4, 1/8, 1/16, 1/16 of the input; e1 is even, e3
            and e4 are multiples of ``heads``.
        depths: blocks at e1/2, e1, e2 (ConvBlocks), e3, e4 (TransformerBlocks).
        heads: attention heads.
        mlp_ratio: widening inside ChannelConv and MLP.
        in_channels: channels of a frame.
        design: how attention spans space and time.
        attention: hamming, or the dot product it replaces.
        constant_term: keep the constant 1/2 of the Hamming similarity.
        neuron: every neuron of the network.
        drop_path: probability at which the last block's residual branches are left out in
            training; it grows linearly from 0 at the first block.
        readout: what the classifier reads, the spikes of a last neuron (published) or the mean
            membrane itself.
        residual_gain: initial weight of the last BN of every residual branch. 1 is the published
            initialisation, which does not train from scratch (docs/initialisation.md).
        pad_input: pad frames with zeros at the right and bottom to a multiple of 16 instead of
            refusing them.

    Raises:
        ValueError: a value outside its range, with what is accepted.
    """

    widths: tuple[int, int, int, int] = (64, 128, 256, 360)
    depths: tuple[int, int, int, int, int] = (1, 1, 2, 6, 2)
    heads: int = 8
    mlp_ratio: int = 4
    in_channels: int = 3
    design: Design = "joint"
    attention: AttentionKind = "hamming"
    constant_term: bool = False
    neuron: NeuronConfig = field(default_factory=NeuronConfig)
    drop_path: float = 0.0
    readout: Readout = "spike"
    residual_gain: float = 0.1
    pad_input: bool = False

    def __post_init__(self) -> None:
        for name, length in (("widths", 4), ("depths", 5)):
            values = getattr(self, name)
            if not (
                isinstance(values, (tuple, list))
                and len(values) == length
                and all(isinstance(v, int) and v > 0 for v in values)
            ):
                raise ValueError(f"{name} is {values!r}; expected {length} positive integers")
            object.__setattr__(self, name, tuple(values))  # lists come from JSON
        for name in ("heads", "mlp_ratio", "in_channels"):
            if not (isinstance(getattr(self, name), int) and getattr(self, name) > 0):
                raise ValueError(f"{name} is {getattr(self, name)}; expected a positive integer")
        if self.widths[0] % 2:
            raise ValueError(f"the first width is {self.widths[0]}; it is halved, so must be even")
        for width in self.widths[2:]:
            if width % self.heads:
                raise ValueError(f"width {width} does not divide into {self.heads} heads")
        for name, choices in (
            ("design", get_args(Design)),
            ("attention", get_args(AttentionKind)),
            ("readout", get_args(Readout)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} {getattr(self, name)!r} is unknown; choose one of {', '.join(choices)}"
                )
        if not isinstance(self.neuron, NeuronConfig):
            raise ValueError(f"neuron is {self.neuron!r}; expected a NeuronConfig")
        if not (isinstance(self.drop_path, (int, float)) and 0 <= self.drop_path < 1):
            raise ValueError(f"drop_path is {self.drop_path!r}; expected a probability in [0, 1)")
        if not (isinstance(self.residual_gain, (int, float)) and 0 <= self.residual_gain <= 1):
            raise ValueError(f"residual_gain is {self.residual_gain!r}; expected a value in [0, 1]")
        for name in ("constant_term", "pad_input"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected true or false")
        if self.constant_term and self.attention == "dot":
            raise ValueError("constant_term belongs to Hamming attention; set attention='hamming'")

    def with_overrides(self, overrides: Mapping[str, Any]) -> "ModelConfig":
        """A copy with some fields replaced; ``neuron`` may be a kind, a dict or a config.

        Raises:
            ValueError: an unknown field, with the nearest known one.
        """
        values = dict(overrides)
        refuse_unknown(values, ModelConfig, "model option")
        if "neuron" in values:
            values["neuron"] = _neuron(values["neuron"])
        return replace(self, **values)

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
        if value.get("kind") == "integer_lif":
            return NeuronConfig.integer(**{k: v for k, v in value.items() if k != "kind"})
        return NeuronConfig(**value)
    if value == "integer_lif":
        return NeuronConfig.integer()
    if isinstance(value, str):
        return NeuronConfig(kind=value)  # type: ignore[arg-type]  # NeuronConfig refuses others
    return value  # ModelConfig refuses what is no NeuronConfig


def refuse_unknown(values: Mapping[str, Any], config: type, what: str) -> None:
    """Raise ValueError for the first key that is no field of the dataclass ``config``."""
    known = [f.name for f in fields(config)]
    for key in values:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"unknown {what} {key!r}; {hint}")


PRESETS: dict[str, ModelConfig] = {
    # two that are ours, for small data and small machines
    "svf_nano": ModelConfig(widths=(16, 32, 64, 80), depths=(1, 1, 1, 2, 1)),
    "svf_tiny": ModelConfig(widths=(32, 64, 128, 192), depths=(1, 1, 2, 4, 2)),
    # the published sizes
    "svf_15m": ModelConfig(widths=(64, 128, 256, 360)),
    "svf_31m": ModelConfig(widths=(96, 192, 384, 480)),
    "svf_55m": ModelConfig(widths=(128, 256, 512, 640)),
    "svf_124m": ModelConfig(widths=(192, 384, 768, 960)),
}


def list_models() -> list[str]:
    """Names that :func:`create_model` accepts, smallest first."""
    return list(PRESETS)


def preset(name: str) -> ModelConfig:
    """The architecture of a preset.

    Raises:
        ValueError: an unknown name, with the known ones.
    """
    if name not in PRESETS:
        raise ValueError(f"model {name!r} is unknown; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
