"""What the blocks of a network are made of, in numbers that check themselves, without torch."""

from dataclasses import dataclass
from typing import Literal

from spikevideoformer.settings import check_types, require

Separable = Literal["real", "spiking", "none"]
TokenConv = Literal["none", "spiking", "pair"]
Projection = Literal["rep", "plain", "pair"]
ThresholdScale = Literal["width", "head"]


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """The parts of ConvBlocks and TransformerBlocks; the defaults are Meta-SpikeFormer's.

    Attributes:
        separable: the first part of a ConvBlock: ``real``, a depthwise convolution whose real
            values a pointwise one reads; ``spiking``, with a BN and a neuron between them; or
            ``none``.
        kernel_size: of that depthwise convolution, odd.
        conv_bias: whether the 3x3 convolutions of a ConvBlock have biases.
        token_conv: a part of a TransformerBlock in front of attention: none; ``spiking`` as above;
            or ``pair``, two pointwise convolutions C -> C in a row.
        token_kernel_size: of its depthwise convolution, odd.
        projection: what makes q, k, v and the output of attention: ``rep``, 1x1, depthwise 3x3 and
            1x1; ``plain``, one 1x1; or ``pair``, two 1x1 in a row.
        pair_width: channels between those two, as a multiple of C.
        value_ratio: channels of v, as a multiple of those of q and k.
        threshold_scale: s of Hamming attention, which multiplies its sums: 1/(2D) with D the
            ``width`` C, as published, or that of a ``head``; or a number, such as 1/8.
        attention_norm: whether a BN follows it, as in the published code, which takes s in. Without
            one, as the paper writes it, s belongs to the threshold of the neuron.
        dot_scale: of attention by the dot product; None: 2 / sqrt(width of a head).
        dot_threshold: of the neuron behind it, as a multiple of the threshold of others.
        layer_scale: whether a factor of each channel, learnt, stands before each part of a
            TransformerBlock is added (not before a ``pair``).

    Raises:
        ValueError: a value outside its range.

    Source: Yao et al., ICLR 2024 (defaults); Yao et al., "Scaling spike-driven Transformer with
    efficient spike firing approximation training", TPAMI 2025, and its code (the others).
    """

    separable: Separable = "real"
    kernel_size: int = 7
    conv_bias: bool = False
    token_conv: TokenConv = "none"
    token_kernel_size: int = 3
    projection: Projection = "rep"
    pair_width: float = 1.5
    value_ratio: int = 1
    threshold_scale: ThresholdScale | float = "width"
    attention_norm: bool = True
    dot_scale: float | None = 0.125
    dot_threshold: float = 0.5
    layer_scale: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("kernel_size", "token_kernel_size"):
            value = getattr(self, name)
            if not (value % 2 and 0 < value < 64):
                raise ValueError(f"{name} is {value!r}; expected an odd integer below 64")
        if self.projection == "rep" and self.value_ratio != 1:
            raise ValueError("value_ratio belongs to projections 'plain' and 'pair'; set it to 1")
        require(self, "value_ratio", at_least=1, at_most=64)
        numbers = ["pair_width", "dot_scale", "dot_threshold"]
        if not isinstance(self.threshold_scale, str):
            numbers.append("threshold_scale")
        require(self, *numbers, above=0, below=64)

    def between_pair(self, channels: int) -> int:
        """Channels between the two convolutions of a ``pair``, at least 1."""
        return max(1, int(self.pair_width * channels + 1e-6))  # 1e-6: of a ratio that was rounded


E_SPIKEFORMER = BlockConfig(
    separable="spiking",
    token_conv="spiking",
    projection="plain",
    value_ratio=4,
    dot_scale=None,
    dot_threshold=1.0,
)
"""Of E-SpikeFormer (SDT-V3), 5.1 M to 19 M."""

E_SPIKEFORMER_LARGE = BlockConfig(
    separable="none",
    conv_bias=True,
    projection="pair",
    dot_threshold=1.0,
    layer_scale=True,
)
"""Of E-SpikeFormer, 171 M; of 83 M with ``token_conv="pair"``."""
