"""The steps of the inference engine, made from the parts of a model."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from spikevideoformer.deploy.exact import (
    ExactConvs,
    ExactSepTail,
    FirstConv,
    exact_conv,
    exact_head,
    exact_projections,
)
from spikevideoformer.models.heads import Head
from spikevideoformer.nn.attention import (
    MLP,
    Attention,
    SpikeAttention,
    TransformerBlock,
    from_tokens,
    to_tokens,
)
from spikevideoformer.nn.conv import (
    ChannelConv,
    ChannelScale,
    ConvBlock,
    Downsample,
    Projection,
    SepConv,
    SpikingSepConv,
    per_frame,
)
from spikevideoformer.nn.neuron import AnyNeuron, Neuron
from spikevideoformer.ops._stepwise import affine
from spikevideoformer.ops.affine_lif import affine_lif
from spikevideoformer.ops.batch_norm_lif import as_affine
from spikevideoformer.ops.exact_conv import scaled
from spikevideoformer.ops.hamming import dot_attention, hamming_attention


@dataclass
class Stream:
    """The residual stream of a few frames, ``[T, B, C, H, W]``, not yet added up.

    Its value is ``norm(x) + residual``. The batch norm and the addition are left to the neuron
    that reads the stream next.
    """

    x: Tensor
    norm: tuple[Tensor, Tensor] | None = None  # scale and shift, [C] each
    residual: Tensor | None = None
    exact: bool = False  # the bits of ``scaled``, or those of the model's batch norm

    def value(self) -> Tensor:
        y = self.x
        if self.norm is not None and self.exact:
            y = scaled(y.flatten(0, 1), *self.norm).unflatten(0, y.shape[:2])
        elif self.norm is not None:
            y = affine(y, *self.norm)
        return y if self.residual is None else self.residual + y


# Frames of a clip come in pieces: what knows no time takes a piece, what spans it takes them all.
Step = Callable[[Stream], Stream]
ClipStep = Callable[[list[Stream]], list[Stream]]
Conv = Callable[[Tensor], Stream]
Convs = Callable[[Tensor], list[Stream]]


class Fire:
    """A neuron that carries its membrane from piece to piece.

    With ``keeps_values`` it also keeps the values of the stream that it read, as the features of a
    stage that ends there.
    """

    def __init__(self, neuron: Neuron, spike_dtype: torch.dtype) -> None:
        self.config, self.spike_dtype = neuron.config, spike_dtype
        self.reset_each_frame = neuron.reset_each_frame
        self.keeps_values = False
        self.seen: Callable[[Tensor], None] | None = None  # is shown the spikes of each piece
        self.start(record=False)

    def start(self, record: bool) -> None:
        """Forget the clip before."""
        self.v: Tensor | None = None
        self.values: list[Tensor] = []  # [T, B, C, H, W] of each piece
        self.rates: list[Tensor] | None = [] if record else None  # [T, B] of each piece

    def __call__(self, stream: Stream) -> tuple[Tensor, Tensor]:
        """Spikes, and the value of the stream (of use only where there is a residual)."""
        x, residual = stream.x, stream.residual
        scale, shift = stream.norm or (None, None)
        frames = x.shape[:2]
        if self.reset_each_frame:  # each frame is a clip of its own
            x = x.flatten(0, 1).unsqueeze(0)
            residual = None if residual is None else residual.flatten(0, 1).unsqueeze(0)
        out = affine_lif(
            x,
            self.config,
            scale=scale,
            shift=shift,
            residual=residual,
            v_init=self.v,
            spike_dtype=self.spike_dtype,
        )
        spikes, y = out.spikes, x if out.y is None else out.y
        if self.reset_each_frame:
            spikes, y = (z.squeeze(0).unflatten(0, frames) for z in (spikes, y))
        else:
            self.v = out.v
        if self.keeps_values:
            self.values.append(y)
        if self.seen is not None:
            self.seen(spikes)
        if self.rates is not None:
            self.rates.append(_firing_rates(spikes, self.config.levels))
        return spikes, y


class Build:
    """Turns the parts of a model into steps."""

    def __init__(self, bits: int | None, levels: int, device: torch.device) -> None:
        self.bits, self.levels, self.device = bits, levels, device
        self.spike_dtype = torch.float32 if bits is None else torch.uint8
        self.fires: dict[Neuron, Fire] = {}

    def head(self, head: Head) -> Head:
        if self.bits is None:
            return head
        return exact_head(head, self.bits, self.levels, self.device)

    def fire(self, neuron: AnyNeuron, into_conv: bool = True) -> Fire:
        assert isinstance(neuron, Neuron)  # cannot_run refuses others
        # attention reads bytes in every precision, and the same numbers come out
        self.fires[neuron] = Fire(neuron, self.spike_dtype if into_conv else torch.uint8)
        return self.fires[neuron]

    def conv(self, conv: nn.Conv2d, bn: nn.BatchNorm2d, scale: nn.Module | None = None) -> Conv:
        """Spikes through a convolution; its scale and shift are left to the next neuron."""
        if self.bits is not None:
            return _exact(exact_conv(conv, bn, self.bits, self.levels, self.device, scale))
        norm = _affine(bn)
        return lambda spikes: _times(Stream(per_frame(conv, spikes), norm), scale)

    def projection(self, part: Projection, scale: nn.Module | None = None) -> Conv:
        if self.bits is not None:
            return _exact(exact_projections([part], self.bits, self.levels, self.device, scale))
        norm = _affine(part.bn_out)
        return lambda spikes: _times(
            Stream(per_frame(part, spikes, with_bn_out=False), norm), scale
        )

    def projections(self, parts: list[Projection]) -> Convs:
        """Several of the same spikes."""
        if self.bits is not None:
            return _exact_all(exact_projections(parts, self.bits, self.levels, self.device))
        convs = [self.projection(part) for part in parts]
        return lambda spikes: [conv(spikes) for conv in convs]

    def downsample(self, part: Downsample) -> Step:
        if part.neuron is None:  # pixels: real values in every precision
            image: Any = nn.Sequential(part.conv, part.bn)
            if self.bits is not None:
                image = FirstConv(part.conv, part.bn)
            return lambda stream: Stream(per_frame(image, stream.x))
        fire, conv = self.fire(part.neuron), self.conv(part.conv, part.bn)

        def step(stream: Stream) -> Stream:
            spikes, _ = fire(stream)
            return Stream(conv(spikes).value())  # a new residual stream starts here

        return step

    def conv_block(self, block: nn.Module) -> Step:
        assert isinstance(block, ConvBlock)
        channel = self.channel_conv(block.channel_conv)
        if block.sep_conv is None:
            return channel
        if isinstance(block.sep_conv, SepConv):
            sep = self.sep_conv(block.sep_conv)
        else:
            sep = self.spiking_sep_conv(block.sep_conv)
        return lambda stream: channel(sep(stream))

    def spiking_sep_conv(self, part: SpikingSepConv, scale: nn.Module | None = None) -> Step:
        return self.chain(
            (self.fire(part.neuron1), self.conv(part.pw1, part.bn1)),
            (self.fire(part.neuron2), self.conv(part.dw, part.bn2)),
            (self.fire(part.neuron3), self.conv(part.pw2, part.bn3, scale)),
        )

    def token_conv(self, block: TransformerBlock) -> Step | None:
        """The part in front of attention, where there is one."""
        part = block.token_conv
        if isinstance(part, SpikingSepConv):
            return self.spiking_sep_conv(part, block.conv_scale)
        if part is not None:
            return self.chain((self.fire(part.neuron), self.projection(part.conv)))
        return None

    def sep_conv(self, part: SepConv) -> Step:
        fire1, fire2 = self.fire(part.neuron1), self.fire(part.neuron2)
        pw1 = self.conv(part.pw1, part.bn1)
        tail: Conv
        if self.bits is not None:
            tail = _exact(ExactSepTail(part, self.bits, self.levels, self.device))
        else:
            real, norm = nn.Sequential(part.dw, part.pw2), _affine(part.bn2)
            tail = lambda spikes: Stream(per_frame(real, spikes), norm)  # noqa: E731
        return self.chain((fire1, pw1), (fire2, tail))

    def channel_conv(self, part: ChannelConv) -> Step:
        conv1 = self.conv(part.conv1, part.bn1)
        conv2 = self.conv(part.conv2, part.bn2)
        return self.chain((self.fire(part.neuron1), conv1), (self.fire(part.neuron2), conv2))

    def mlp(self, part: MLP, scale: nn.Module) -> Step:
        fc1 = self.conv(part.fc1, part.bn1)
        fc2 = self.conv(part.fc2, part.bn2, scale)
        return self.chain((self.fire(part.neuron1), fc1), (self.fire(part.neuron2), fc2))

    def chain(self, *links: tuple[Fire, Conv]) -> Step:
        """A residual part: neurons and convolutions one after the other."""
        (first, conv), *others = links

        def step(stream: Stream) -> Stream:
            spikes, u = first(stream)
            stream = conv(spikes)
            for fire, then in others:
                stream = then(fire(stream)[0])
            return replace(stream, residual=u)

        return step

    def transformer_block(self, block: nn.Module) -> ClipStep:
        assert isinstance(block, TransformerBlock)
        token_conv = self.token_conv(block)
        attentions = [
            self.attention(cast(Attention, part), scale)
            for part, scale in zip(block.attention, block.attention_scales, strict=True)
        ]
        mlp = self.mlp(block.mlp, block.mlp_scale)

        def step(streams: list[Stream]) -> list[Stream]:
            if token_conv is not None:
                streams = [token_conv(stream) for stream in streams]
            for attention in attentions:
                streams = attention(streams)
            return [mlp(stream) for stream in streams]

        return step

    def attention(self, part: Attention, scale: nn.Module) -> ClipStep:
        fire = self.fire(part.neuron)
        steps = [self.spike_attention(cast(SpikeAttention, step)) for step in part.steps]
        proj = self.projection(part.proj, scale)

        def run(streams: list[Stream]) -> list[Stream]:
            fired = [fire(stream) for stream in streams]
            spikes = [s for s, _ in fired]
            for step in steps:
                spikes = step(spikes)
            return [replace(proj(s), residual=u) for s, (_, u) in zip(spikes, fired, strict=True)]

        return run

    def spike_attention(self, part: SpikeAttention) -> Callable[[list[Tensor]], list[Tensor]]:
        convs = self.projections([part.q_conv, part.k_conv, part.v_conv])
        fires = [
            self.fire(neuron, into_conv=False)
            for neuron in (part.q_neuron, part.k_neuron, part.v_neuron)
        ]
        fire_out = self.fire(part.out_neuron)
        norm = None if part.bn is None else _affine(part.bn)
        attend = dot_attention
        if part.kind == "hamming":
            attend = partial(hamming_attention, constant_term=part.constant_term)

        def step(spikes: list[Tensor]) -> list[Tensor]:
            pieces = [[fire(c)[0] for fire, c in zip(fires, convs(s), strict=True)] for s in spikes]
            q, k, v = (join(list(of_all)) for of_all in zip(*pieces, strict=True))
            tokens = [to_tokens(z, part.heads, part.axes) for z in (q, k, v)]
            y = attend(*tokens, scale=part.scale, levels=part.levels)
            y = from_tokens(y, v.shape, part.axes)
            return [fire_out(Stream(piece, norm))[0] for piece in y.split([len(s) for s in spikes])]

        return step


def _exact(conv: ExactConvs | ExactSepTail) -> Conv:
    convs = _exact_all(conv)
    return lambda spikes: convs(spikes)[0]


def _exact_all(convs: ExactConvs | ExactSepTail) -> Convs:
    def streams(spikes: Tensor) -> list[Stream]:
        sums = convs(spikes.flatten(0, 1))
        return [
            Stream(x.unflatten(0, spikes.shape[:2]), norm, exact=True)
            for x, norm in zip(sums, convs.norms, strict=True)
        ]

    return streams


def _times(stream: Stream, scale: nn.Module | None) -> Stream:
    """With a factor of each channel: in the order of operations of the model, not left over."""
    return Stream(scale(stream.value())) if isinstance(scale, ChannelScale) else stream


def _affine(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift ``[C]`` of a batch norm in evaluation, to the last bit."""
    assert bn.running_mean is not None and bn.running_var is not None
    return as_affine(bn.running_mean, bn.running_var, bn.weight, bn.bias, bn.eps)


def _firing_rates(spikes: Tensor, levels: int) -> Tensor:
    """Mean over channels and space of spikes 0..``levels``: ``[T, B]``, float64 and exact."""
    frames = spikes.permute(0, 1, 3, 4, 2).flatten(2)  # [T, B, H*W*C], a view of channels-last
    size = frames.shape[2]
    if spikes.dtype == torch.uint8 and size % 8 == 0:
        # Eight bytes are added at once, as one integer, as often as a byte can hold the sum.
        words = frames.view(torch.int64)
        together = 255 // levels
        whole = words.shape[2] // together * together
        sums = words[..., :whole].unflatten(2, (-1, together)).sum(3)
        words = torch.cat([sums, words[..., whole:]], dim=2)
        frames = words.view(torch.uint8)
    exact_in_float32 = size * levels <= 2**24
    total = frames.sum(2, dtype=torch.float32 if exact_in_float32 else torch.float64)
    return total.double() / size


def for_each(step: Step) -> ClipStep:
    """A step of a clip that takes its pieces one by one."""
    return lambda streams: [step(stream) for stream in streams]


def join(pieces: list[Tensor]) -> Tensor:
    """Pieces ``[t, B, C, H, W]`` one after the other, in the memory layout they have."""
    if len(pieces) == 1:
        return pieces[0]
    # torch.cat keeps channels-last for images only
    return torch.cat([piece.flatten(0, 1) for piece in pieces]).unflatten(
        0, (-1, pieces[0].shape[1])
    )
