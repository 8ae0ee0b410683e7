"""Parts of a folded network that are no parts of ``nn``; ``fold.py`` makes them.

The network is the one of ``nn``: merged convolutions stand in the places of their originals, and
identities in those of batch norms. Only the neuron that ends an attention, and the attention, are
others.
"""

import copy
import math
from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.attention import SpikeAttention, from_tokens, to_tokens
from spikevideoformer.nn.neuron import SteppedNeuron
from spikevideoformer.ops.hamming import dot_attention, hamming_attention
from spikevideoformer.ops.lif import NeuronConfig

Form = Literal["dense", "factorised"]


class ThresholdNeuron(SteppedNeuron):
    """A neuron with a sign, a bias and a threshold of each channel, for inference.

    It fires what a neuron of ``config`` fires on ``gain * A + shift``, without the product. Where
    that neuron has the membrane V, this one has V / |gain|:

        X[t] = sign * A[t] + bias         bias = shift / |gain|
        threshold = v_threshold / |gain|, rest = v_reset / |gain|

    and the rest is :func:`lif_reference` with these. A channel without gain keeps the thresholds
    of ``config`` and sees its shift only. An Integer-LIF fires the number of levels that its
    membrane reaches, (k - 1/2) thresholds for k = 1..D, and subtracts a threshold for each:
    comparisons and subtractions instead of a division and a product.

    Thresholds stay in float32 at least, also where the model is cast to half precision: the sums
    they are compared with need more than 8 bits.

    Args:
        config, reset_each_frame: as :class:`Neuron`.
        gain, shift: ``[C]``, float64.
        dtype: of the model; a gain so small that a threshold overflows in it counts as none.
    """

    sign: Tensor
    bias: Tensor
    threshold: Tensor
    rest: Tensor

    def __init__(
        self,
        config: NeuronConfig,
        reset_each_frame: bool,
        *,
        gain: Tensor,
        shift: Tensor,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(config, reset_each_frame)
        finest = torch.promote_types(dtype, torch.float32)
        largest = torch.finfo(finest).max / 2  # a membrane may lie above what it is made of
        size = gain.abs()
        values = torch.stack([torch.full_like(shift, config.v_threshold), shift.abs()])
        values = torch.cat([values, torch.full_like(values[:1], abs(config.v_start))])
        usable = (size > 0) & (values.amax(0) * config.levels <= size * largest)
        unit = torch.where(usable, size, 1.0)
        self.register_buffer("sign", gain.sign() * usable)
        self.register_buffer("bias", shift / unit)
        self.register_buffer("threshold", config.v_threshold / unit)
        self.register_buffer("rest", config.v_start / unit)

    def as_affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift ``[C]`` for kernels that have multipliers.

        An ordinary neuron of ``config`` fires the same on ``scale * A + shift``.
        """
        unit = self.config.v_threshold / self.threshold
        return self.sign * unit, self.bias * unit

    def forward(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        """Spikes ``[T, B, C, ...]`` for integer sums ``[T, B, C, ...]``."""
        if norm is not None:
            raise ValueError("a folded neuron has its batch norm in its thresholds; pass no norm")
        return super().forward(x)

    def start(self, x: Tensor) -> Tensor:
        return self.rest.to(x.dtype).reshape(-1, 1, 1).expand_as(x)

    def step(self, v: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and membrane, in units of the sums (V / |gain|), for sums ``[B, C, H, W]``."""
        config = self.config
        # channels are followed by space
        sign, bias, threshold, rest = (
            z.to(x.dtype).reshape(-1, 1, 1)
            for z in (self.sign, self.bias, self.threshold, self.rest)
        )
        x = x * sign + bias
        gap = v - rest if config.v_start else v
        if config.decay_input:
            h = v + (x - gap) / config.tau
        elif not config.remembers:
            h = x
        else:  # v - v/tau is beta*v without a factor that is no power of two
            h = (gap if math.isinf(config.tau) else gap - gap / config.tau) + x
            h = h + rest if config.v_start else h
        if config.fires_integers:
            return self._fire_levels(h, threshold)
        fires = h >= threshold
        v = torch.where(fires, h - threshold if config.v_reset is None else rest, h)
        return fires.to(x.dtype), v

    def _fire_levels(self, h: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        spikes, v = torch.zeros_like(h), h
        level = threshold / 2
        for k in range(1, self.config.levels + 1):
            # round() sends k - 1/2 to the even neighbour, which is k for even k
            up = k % 2 == 0 or self.config.rounding == "half_up"
            fires = h >= level if up else h > level
            spikes = spikes + fires
            v = torch.where(fires, v - threshold, v)
            level = level + threshold
        return spikes, v

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, kept in before.items():
            now = self._buffers[name]
            assert now is not None and kept is not None
            if now.dtype in (torch.float16, torch.bfloat16):
                self._buffers[name] = kept.to(now.device, torch.float32)
        return self


class FoldedSpikeAttention(SpikeAttention):
    """q, k, v projections and neurons, integer sums, and a neuron with thresholds per channel."""

    def __init__(
        self, part: SpikeAttention, projections: list[nn.Module], out_neuron: ThresholdNeuron
    ) -> None:
        nn.Module.__init__(self)  # not the parent's, which would make convolutions
        self.heads, self.axes, self.kind = part.heads, part.axes, part.kind
        self.constant_term, self.levels = part.constant_term, part.levels
        self.channels, self.value_channels = part.channels, part.value_channels
        self.packed, self.backend = False, part.backend
        for name, projection in zip("qkv", projections, strict=True):
            self.add_module(f"{name}_conv", projection)
        self.q_neuron, self.k_neuron, self.v_neuron = part.q_neuron, part.k_neuron, part.v_neuron
        self.out_neuron = out_neuron

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.out_neuron(self.sums(*self.fired(x)))
        return spikes.to(x.dtype)

    def sums(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The integers of the attention, before any scale; spikes and sums ``[T, B, C, H, W]``.

        Equation (D = ``levels``):
            (2Q-D) [ (2K-D)^T V ]                      hamming
            Q [ K^T V ] + (D-Q) [ (D-K)^T V ]          with constant term: half of the above plus
                                                       D^2 d sum_j V_j, without a factor d
            Q [ K^T V ]                                dot
        """
        q_, k_, v_ = (to_tokens(z, self.heads, self.axes) for z in (q, k, v))
        # the ops divide by the scale: what remains is a factor 1
        options: dict[str, Any] = {"scale": float(self.levels**2), "backend": self.backend}
        if self.kind == "hamming" and not self.constant_term:
            sums = hamming_attention(q_, k_, v_, levels=self.levels, **options)
        else:
            if self.constant_term:  # bits that are equal because both are 1, or both are 0
                q_, k_ = (torch.cat([z, self.levels - z], dim=-1) for z in (q_, k_))
            sums = dot_attention(q_, k_, v_, levels=self.levels, **options)
        return from_tokens(sums, v.shape, self.axes)


class FoldedSpikeVideoFormer(SpikeVideoFormer):
    """A network for inference only, made by :func:`fold_for_inference`.

    Modules keep their names where they still exist (neurons all do), and neurons keep their
    firing rates. It cannot be trained or saved: keep the original for that.
    """

    def __init__(self, model: SpikeVideoFormer, repconv: Form, sepconv: Form) -> None:
        nn.Module.__init__(self)  # not the parent's, which would make a fresh network
        self.config, self.task, self.num_classes = model.config, model.task, model.num_classes
        self.classes, self.palette, self.body = model.classes, model.palette, model.body
        self.clip = copy.deepcopy(model.clip)
        self.temperature, self.familiarity = model.temperature, model.familiarity
        self.backbone = copy.deepcopy(model.backbone)
        self.head = copy.deepcopy(model.head)
        self.repconv, self.sepconv = repconv, sepconv

    def train(self, mode: bool = True) -> Self:
        """Evaluation mode is the only one."""
        if mode:
            raise ValueError(
                "a folded model cannot train: it has no batch norms; train the original and fold "
                "it again"
            )
        return super().train(False)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Refused: folding is quick, and the original is what others can use."""
        raise ValueError(
            "a folded model is not saved: save the original with its save_pretrained, and call "
            "fold_for_inference after loading it"
        )
