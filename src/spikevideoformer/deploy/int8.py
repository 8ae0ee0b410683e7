"""Sums of byte spikes times int8 weights: oneDNN on a CPU, our Triton kernel on CUDA.

Spikes 0..D are bytes as they are (scale 1, zero point 0), so they lose nothing. Sums are exact
integers, whatever the order of summation, up to 2^24, where float32 ends to hold each.
"""

from functools import cache
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from spikevideoformer.ops._kernels import HOME, load
from spikevideoformer.ops.exact_conv import FLOAT32_EXACT, IntegerWeights, digits, put_together

LARGEST_WEIGHT = 127

Pair = tuple[int, int]


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
    expected = F.conv2d(spikes.cpu().double(), weight.double(), padding=1).float()
    try:
        out = _Conv(weight, levels, (1, 1), (1, 1), spikes.device)(spikes)
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


class _Conv:
    """The sums of one digit.

    Args:
        weight: int8 ``[C', C, kh, kw]``, -127..127; no sum passes 2^24.
        levels: the largest spike, at most 255.
        stride, padding: of rows and columns.
        device: where spikes will come from.
    """

    def __init__(
        self, weight: Tensor, levels: int, stride: Pair, padding: Pair, device: torch.device
    ) -> None:
        self.weight, self.levels, self.form = weight.to(device), levels, (stride, padding)
        self.unit = torch.ones(len(weight), device=device)
        # oneDNN's sums over one channel are wrong where rows have the stride 1, columns a larger
        # one, and the result one column: there is a second channel, of zeros.
        self.alone = weight.shape[1] == 1 and not _on_triton(device)
        if self.alone:
            self.weight = F.pad(self.weight, (0, 0, 0, 0, 0, 1))
        if _on_triton(device):
            self.weight = _triton().arranged(self.weight)
        # Weights in the order that oneDNN wants for images of this height and width.
        self._packed: tuple[Pair, Tensor] | None = None

    def __call__(self, spikes: Tensor) -> Tensor:
        if _on_triton(spikes.device):
            return _triton().int8_conv(spikes, self.weight, *self.form, self.levels)
        if self.alone:
            spikes = F.pad(spikes, (0, 0, 0, 0, 0, 1))
        spikes = spikes.contiguous(memory_format=torch.channels_last)
        size = (spikes.shape[2], spikes.shape[3])
        packed = self._packed  # read once: another thread may replace it
        if packed is None or packed[0] != size:
            # Not packed without a shape: for some shapes oneDNN then reorders the weights at each
            # call, which took ten times as long as the convolution.
            weights = torch.ops.onednn.qconv_prepack(
                self.weight, self.unit, 1.0, 0, *self.form, (1, 1), 1, list(spikes.shape)
            )
            self._packed = packed = size, weights
        no_zero_points = torch.zeros(self.unit.shape, dtype=torch.int32)
        return torch.ops.onednn.qconv2d_pointwise(
            *(spikes, 1.0, 0, packed[1], self.unit, no_zero_points, None),
            *(*self.form, (1, 1), 1, 1.0, 0, torch.float32, "none", [], ""),
        )

    def __getstate__(self) -> dict[str, object]:
        # packed weights can be neither copied nor pickled
        return {**self.__dict__, "_packed": None}


class Int8Digits:
    """Sums of integer weights over spikes by int8 convolutions of digits.

    Args:
        weights: of the convolution; digits have 8 bits.
        stride, padding: of rows and columns.
        device: where spikes will come from.

    Raises:
        ValueError: int8 convolutions are not available there, or a digit's sums may pass 2^24.
    """

    def __init__(
        self,
        weights: IntegerWeights,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        device: torch.device | str = "cpu",
    ) -> None:
        if (reason := int8_available(weights.levels, str(device))) is not None:
            raise ValueError(f"int8 convolutions are not available: {reason}; use float weights")
        self.parts = []
        for digit in digits(weights.integers, 8):
            largest = int(digit.long().abs().flatten(1).sum(1).max()) * weights.levels
            if largest > FLOAT32_EXACT:  # the convolutions return float32
                raise ValueError(f"sums of a digit reach {largest}, more than float32 holds")
            form = stride, padding, torch.device(device)
            self.parts.append(_Conv(digit.to(torch.int8), weights.levels, *form))

    def __call__(self, spikes: Tensor) -> Tensor:
        """Sums rounded to float32 ``[N, C', H', W']``, for uint8 ``[N, C, H, W]``."""
        found = [part(spikes) for part in self.parts]
        return found[0] if len(found) == 1 else put_together(found, 8)
