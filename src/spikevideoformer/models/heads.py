"""What heads of tasks share."""

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from spikevideoformer.models.config import ModelConfig
from spikevideoformer.nn.conv import SpikeConv2d, per_frame
from spikevideoformer.nn.neuron import make_neuron


class RealValues:
    """Sums over real values in a head, in whatever order torch takes.

    The inference engine gives heads another of these, with one order (``deploy/exact.py``).
    """

    def mean(self, x: Tensor, axis: int) -> Tensor:
        """Without that axis."""
        return x.mean(axis)

    def cells(self, x: Tensor, grid: int) -> Tensor:
        """Means over the cells of a grid: ``[N, C, H, W]`` to ``[N, C, grid, grid]``."""
        return F.adaptive_avg_pool2d(x, grid)

    def upsample(self, x: Tensor, factor: int) -> Tensor:
        """Bilinear, ``[T, B, C, H, W]`` to ``[T, B, C, factor*H, factor*W]``."""
        y = F.interpolate(
            x.flatten(0, 1), scale_factor=factor, mode="bilinear", align_corners=False
        )
        return y.unflatten(0, x.shape[:2])

    def resize(self, x: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
        """``[T, B, C, h, w]`` to ``[T, B, C, *size]``, bilinear or nearest."""
        if tuple(x.shape[3:]) == size:
            return x
        how = {"mode": mode} if mode == "nearest" else {"mode": mode, "align_corners": False}
        y = F.interpolate(x.flatten(0, 1), size, **how)
        return y.unflatten(0, x.shape[:2])


class Head(nn.Module):
    """What turns the features of the backbone into the output of a task.

    Attributes:
        real: how it adds up real values, other than by its layers.
        fc: its last layer, with weights.
        reads_all_stages: whether it looks at all features of the backbone, or at the last only.
        reads_half: whether these are to begin at half the size of the input (``from_half``).
        may_be_distilled: whether it can have a second layer, trained on a teacher.
        apart: whether such a one gives what both layers say, [2, ...], while it is trained.
        any_size: whether maps may have any size.
        one_answer: whether it answers for a clip, not for each frame.
    """

    reads_all_stages: ClassVar[bool] = False
    reads_half: ClassVar[bool] = False
    may_be_distilled: ClassVar[bool] = False
    any_size: ClassVar[bool] = False
    one_answer: bool = False
    apart: bool = False
    real = RealValues()
    fc: Any

    def finished(self, output: Tensor, video: Tensor) -> Any:
        """What the model returns of what `forward` gave for the video, which was padded."""
        return output


class SpikeProjection(nn.Module):
    """SN -> convolution -> BN: what heads that make maps are made of.

    Args:
        in_channels, out_channels: widths.
        kernel_size: odd; the padding keeps height and width.
        config: of the network.
        bias: whether the convolution has one.
        norm: whether there is a BN.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        config: ModelConfig,
        *,
        bias: bool = False,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.neuron = make_neuron(config.neuron, config.design == "spatial_only")
        self.conv = SpikeConv2d(
            in_channels,
            out_channels,
            kernel_size,
            padding=kernel_size // 2,
            bias=bias,
            neuron=config.neuron,
        )
        self.bn: nn.Module = nn.BatchNorm2d(out_channels) if norm else nn.Identity()

    def forward(self, u: Tensor) -> Tensor:
        """Membranes ``[T, B, C, H, W]`` to membranes of the same height and width."""
        return per_frame(self.bn, per_frame(self.conv, self.neuron(u)))


def part_of(output: Any, some: int | slice) -> Any:
    """Some of the first axis of what a network gives: a tensor, or a named tuple of them."""
    return output[some] if isinstance(output, Tensor) else type(output)(*(v[some] for v in output))


def check_classes(num_classes: int) -> None:
    """Refuse a number of classes that is none; ValueError."""
    if not (isinstance(num_classes, int) and num_classes >= 1):
        raise ValueError(f"num_classes is {num_classes!r}; expected an integer of at least 1")


def check_readout(config: ModelConfig) -> None:
    """Refuse another readout than spikes in a head that makes maps; ValueError."""
    if config.readout != "spike":
        raise ValueError(
            f"readout {config.readout!r} is for other heads; one that makes maps reads spikes: "
            "leave readout out"
        )
