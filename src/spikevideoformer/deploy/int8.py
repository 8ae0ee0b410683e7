"""Convolutions of byte spikes with int8 weights: oneDNN on a CPU, our Triton kernel on CUDA.

Spikes 0..D are bytes as they are (scale 1, zero point 0), so they lose nothing; weights are
rounded to -127..127 steps of a size of their own for each output channel. Sums are exact
integers, whatever the order of summation: the only errors are the rounding of the weights and one
float32 rounding when a sum is multiplied by its step.
"""

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevideoformer.ops._kernels import HOME, load
from spikevideoformer.ops.exact_conv import (
    FLOAT32_EXACT,
    IntegerWeights,
    digits,
    put_together,
    quantise_weight,
)

LARGEST_WEIGHT = 127


def int8_conv_reference(
    spikes: Tensor,
    weight: Tensor,
    step: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    groups: int = 1,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """What :class:`Int8SpikeConv2d` computes, in plain torch.

    Args:
        spikes: ``[N, C, H, W]``, uint8.
        weight: int8 ``[C', C/groups, kh, kw]``.
        step: size of a weight's unit, ``[C']``.
        bias: ``[C']``.
        stride: of the convolution.
        padding: with zeros, at each side.
        groups: of channels that do not mix.
        dtype: what to compute in; the integer sums are exact in float64.

    Returns:
        ``[N, C', H', W']`` in ``dtype``.
    """
    sums = F.conv2d(spikes.to(dtype), weight.to(dtype), None, stride, padding, 1, groups)
    out = sums * step.to(dtype)[:, None, None]
    return out if bias is None else out + bias.to(dtype)[:, None, None]


@cache
def int8_available(levels: int = 4, device: str = "cpu") -> str | None:
    """Why the int8 convolution cannot be used here for spikes 0..``levels``; None where it can.

    Tried out rather than looked up: processors without VNNI instructions add pairs of products in
    16 bits, which overflow for spikes above 129.

    Args:
        levels: the largest spike.
        device: cpu, cuda or cuda with a number.
    """
    if reason := _missing(torch.device(device)):
        return reason
    spikes = torch.full((2, 64, 4, 4), levels, dtype=torch.uint8, device=device)
    spikes = spikes.contiguous(memory_format=torch.channels_last)
    weight = torch.full((32, 64, 3, 3), LARGEST_WEIGHT, dtype=torch.int8)
    weight[1::2] = -LARGEST_WEIGHT
    step = torch.ones(32)
    expected = int8_conv_reference(spikes.cpu(), weight, step, padding=1).float()
    weight, step = weight.to(device), step.to(device)
    options = ((1, 1), (1, 1), 1, torch.float32)
    try:
        if _on_triton(spikes.device):
            out = _triton().int8_conv(spikes, weight, step, None, *options, levels)
        else:
            packed = _pack(weight, step, (1, 1), (1, 1), 1, spikes)
            out = _convolve(spikes, packed, step, None, *options)
    except RuntimeError as error:  # the operator is there, but not for this processor
        return str(error).splitlines()[0]
    if not torch.equal(out.cpu(), expected):
        return f"the int8 convolution overflows on this {device} for spikes up to {levels}"
    return None


def _missing(device: torch.device) -> str | None:
    """What the int8 convolution lacks on such a device."""
    if device.type not in HOME:
        return f"they run on a CPU or a CUDA device, not on {device}"
    if device.type == "cuda":
        if not torch.cuda.is_available():
            return "torch sees no CUDA device"
        if torch.cuda.get_device_capability(device) < (8, 0):
            return "tensor cores multiply bytes from compute capability 8.0 on"
    if _on_triton(device):
        found = load("_triton", "int8_conv")
        return found if isinstance(found, str) else None
    if not torch.backends.mkldnn.is_available():
        return "this build of torch has no oneDNN"
    if not (
        hasattr(torch.ops.onednn, "qconv_prepack")
        and hasattr(torch.ops.onednn, "qconv2d_pointwise")
    ):
        return f"torch {torch.__version__} has no quantised oneDNN convolution"
    return None


def _on_triton(device: torch.device) -> bool:
    return HOME[device.type] == "_triton"


def _triton() -> ModuleType:
    found = load("_triton", "int8_conv")
    assert not isinstance(found, str), found  # int8_available was asked
    return found


class Int8SpikeConv2d(nn.Module):
    """A convolution of byte spikes with int8 weights.

    Args:
        weight: real-valued ``[C', C/groups, kh, kw]``; rounded by :func:`quantise_weight`. The
            convolution is for its device, until it is moved.
        bias: ``[C']``; kept in float32.
        stride, padding: of both axes, or one for each.
        groups: as for ``nn.Conv2d``; on CUDA 1 or as many as channels, in and out.
        out_dtype: of what comes out, float32 or bfloat16.
        levels: the largest spike, at most 255.

    Raises:
        ValueError: int8 convolutions are not available, or an argument is out of range.
    """

    weight: Tensor
    step: Tensor
    bias: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        groups: int = 1,
        out_dtype: torch.dtype = torch.float32,
        levels: int = 4,
    ) -> None:
        super().__init__()
        if weight.ndim != 4:
            raise ValueError(f"weight has shape {tuple(weight.shape)}; expected [C', C, kh, kw]")
        if out_dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"out_dtype is {out_dtype}; choose torch.float32 or torch.bfloat16")
        if not 1 <= levels <= 255:
            raise ValueError(f"levels is {levels}; spikes are bytes, 1..255")
        self.stride, self.padding = _pair(stride), _pair(padding)
        self.groups, self.out_dtype, self.levels = groups, out_dtype, levels
        self._check(weight.device, tuple(weight.shape))
        # rounded on a CPU, so that every device has the same integers
        integers, step = quantise_weight(weight.detach().cpu())
        largest = int(integers.long().abs().sum((1, 2, 3)).max()) * levels
        if largest >= 2**31:
            raise ValueError(f"sums of spikes and weights reach {largest}, more than 32 bits hold")
        self.register_buffer("weight", integers)
        self.register_buffer("step", step)
        self.register_buffer("bias", None if bias is None else bias.detach().float())
        # Weights in the order that oneDNN wants for images of this height and width.
        self._packed: tuple[tuple[int, int], Tensor] | None = None
        self._move(weight.device)

    @classmethod
    def from_conv(
        cls, conv: nn.Conv2d, *, out_dtype: torch.dtype = torch.float32, levels: int = 4
    ) -> Self:
        """The same convolution with rounded weights."""
        if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
            raise ValueError(f"padding is {conv.padding!r} {conv.padding_mode}; expected zeros")
        if conv.dilation != (1, 1):
            raise ValueError(f"dilation is {conv.dilation}; expected (1, 1)")
        return cls(
            conv.weight,
            conv.bias,
            stride=(conv.stride[0], conv.stride[1]),
            padding=(conv.padding[0], conv.padding[1]),
            groups=conv.groups,
            out_dtype=out_dtype,
            levels=levels,
        )

    def forward(self, spikes: Tensor) -> Tensor:
        """Currents ``[N, C', H', W']`` for spikes ``[N, C, H, W]``, uint8; channels-last."""
        channels = self.weight.shape[1] * self.groups
        if spikes.dtype != torch.uint8 or spikes.ndim != 4 or spikes.shape[1] != channels:
            raise ValueError(
                f"got {spikes.dtype} of shape {tuple(spikes.shape)}; expected uint8 spikes "
                f"[N, {channels}, H, W]"
            )
        if spikes.device != self.weight.device:
            raise ValueError(
                f"the spikes are on {spikes.device}, the weights on {self.weight.device}; move one"
            )
        options = self.stride, self.padding, self.groups, self.out_dtype
        if _on_triton(spikes.device):
            held = self.weight, self.step, self.bias
            return _triton().int8_conv(spikes, *held, *options, self.levels)
        spikes = spikes.contiguous(memory_format=torch.channels_last)
        size = (spikes.shape[2], spikes.shape[3])
        packed = self._packed  # read once: another thread may replace it
        if packed is None or packed[0] != size:
            # Not packed without a shape: for some shapes oneDNN then reorders the weights at each
            # call, which took ten times as long as the convolution.
            weights = _pack(self.weight, self.step, self.stride, self.padding, self.groups, spikes)
            self._packed = packed = size, weights
        return _convolve(spikes, packed[1], self.step, self.bias, *options)

    def _check(self, device: torch.device, shape: tuple[int, ...]) -> None:
        reason = int8_available(self.levels, str(device))
        if reason is None and _on_triton(device):
            reason = _triton().refuses(shape[1] * self.groups, shape[0], self.groups)
        if reason is not None:
            raise ValueError(f"int8 convolutions are not available: {reason}; use float weights")

    def _move(self, device: torch.device) -> None:
        for name, buffer in list(self.named_buffers()):
            setattr(self, name, buffer.to(device))
        if _on_triton(device):
            self.weight = _triton().arranged(self.weight)
        self._packed = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # steps and bias stay in float32 when a model around this is cast
        device = fn(self.step).device
        if device != self.step.device:
            self._check(device, tuple(self.weight.shape))
            self._move(device)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._packed = None

    def __getstate__(self) -> dict[str, object]:
        # packed weights can be neither copied nor pickled
        return {**self.__dict__, "_packed": None}

    def extra_repr(self) -> str:
        out_channels, per_group, *kernel = self.weight.shape
        return (
            f"{per_group * self.groups}, {out_channels}, kernel_size={tuple(kernel)}, "
            f"stride={self.stride}, padding={self.padding}, groups={self.groups}, {self.out_dtype}"
        )


class Int8Digits:
    """Sums of integer weights over spikes by int8 convolutions of digits.

    Args:
        weights: of the convolution; digits have 8 bits.
        stride, padding: of rows and columns.
        groups: of channels that do not mix.
        device: where spikes will come from.

    Raises:
        ValueError: int8 convolutions are not available there, or a digit's sums may pass 2^24.
    """

    def __init__(
        self,
        weights: IntegerWeights,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        groups: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.parts = []
        for digit in digits(weights.integers, 8):
            largest = int(digit.long().abs().flatten(1).sum(1).max()) * weights.levels
            if largest > FLOAT32_EXACT:  # the convolutions return float32
                raise ValueError(f"sums of a digit reach {largest}, more than float32 holds")
            part = Int8SpikeConv2d(
                torch.zeros(digit.shape),
                stride=stride,
                padding=padding,
                groups=groups,
                levels=weights.levels,
            )
            part.weight, part.step = digit.to(torch.int8), torch.ones(len(digit))
            part._move(torch.device(device))
            self.parts.append(part)

    def __call__(self, spikes: Tensor) -> Tensor:
        """Sums rounded to float32 ``[N, C', H', W']``, for uint8 ``[N, C, H, W]``."""
        found = [part(spikes) for part in self.parts]
        return found[0] if len(found) == 1 else put_together(found, 8)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _pack(
    weight: Tensor,
    step: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    groups: int,
    spikes: Tensor,
) -> Tensor:
    return torch.ops.onednn.qconv_prepack(
        weight, step, 1.0, 0, stride, padding, (1, 1), groups, list(spikes.shape)
    )


def _convolve(
    spikes: Tensor,
    packed: Tensor,
    step: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    groups: int,
    out_dtype: torch.dtype,
) -> Tensor:
    no_zero_points = torch.zeros(step.shape, dtype=torch.int32)
    return torch.ops.onednn.qconv2d_pointwise(
        *(spikes, 1.0, 0, packed, step, no_zero_points, bias),
        *(stride, padding, (1, 1), groups, 1.0, 0, out_dtype, "none", [], ""),
    )
