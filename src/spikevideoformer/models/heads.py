"""What turns the features of the backbone into the output of a task."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevideoformer.models.config import ModelConfig
from spikevideoformer.nn.conv import SpikeConv2d, per_frame
from spikevideoformer.nn.neuron import make_neuron


class ClassificationHead(nn.Module):
    """Mean over space, SN, Linear, mean over time.

    Args:
        config: the architecture; with ``readout="membrane"`` there is no neuron, and with
            ``readout="gru"`` a GRU over frames, whose last state Linear reads, stands for the
            neuron and the mean over time.
        num_classes: K, at least 1.
    """

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        _check_classes(num_classes)
        self.neuron = (
            make_neuron(config.neuron, config.design == "spatial_only")
            if config.readout == "spike"
            else nn.Identity()
        )
        width = config.widths[-1]
        self.gru = nn.GRU(width, width) if config.readout == "gru" else None
        self.fc = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.fc.weight, std=0.02)
        nn.init.zeros_(self.fc.bias)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Logits ``[B, K]`` from the last stage's ``[T, B, C, H, W]``."""
        x = self.neuron(features[-1].flatten(3).mean(3))  # [T, B, C]
        if self.gru is not None:
            # its state adds up over time like a membrane: not in half precision
            with torch.autocast(x.device.type, enabled=False):
                _, x = self.gru(x.to(self.gru.weight_hh_l0.dtype))  # [1, B, C], the last state
        logits: Tensor = self.fc(x).mean(0)
        return logits


class SpikeProjection(nn.Module):
    """SN -> convolution without bias -> BN: what all of a segmentation head is made of.

    Args:
        in_channels, out_channels: widths.
        kernel_size: odd; the padding keeps height and width.
        config: of the network.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, config: ModelConfig
    ) -> None:
        super().__init__()
        self.neuron = make_neuron(config.neuron, config.design == "spatial_only")
        self.conv = SpikeConv2d(
            in_channels,
            out_channels,
            kernel_size,
            padding=kernel_size // 2,
            bias=False,
            levels=config.neuron.levels,
        )
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, u: Tensor) -> Tensor:
        """Membranes ``[T, B, C, H, W]`` to membranes of the same height and width."""
        return per_frame(self.bn, per_frame(self.conv, self.neuron(u)))


class SegmentationHead(nn.Module):
    """A feature pyramid: from coarse to fine, each step adds what the finer stage knows.

    Equation, with F = e4 channels at 1/16 and 1/8 and F/2 at 1/4, and P_k = SN -> k x k -> BN::

        m16 = P1(u3) + P1(u4)          m16 += P3(m16)
        m8  = P1(u2) + up2(m16)        m8  += P3(m8)
        m4  = P1(u1) + up2(P1(m8))     m4  += P3(m4)
        logits = up4(Conv1x1(SN(m4)))

    Every convolution receives spikes. ``up`` is bilinear on membranes (real values): its weights
    are multiples of 1/4 (``up2``) and 1/8 (``up4``), so shifts and additions do it. With the 15 M
    backbone and 19 classes the whole network has 17.7 M parameters (published: 17.8 M; how its
    head is made is not).

    Args:
        config: the architecture; the class logits are read from spikes (``readout="spike"``).
        num_classes: K, at least 1.
    """

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        _check_classes(num_classes)
        if config.readout != "spike":
            raise ValueError(
                f"readout {config.readout!r} is for classification; a segmentation head reads "
                "spikes: leave readout out"
            )
        e1, e2, e3, e4 = config.widths
        wide, narrow = e4, e4 // 2
        self.lateral4 = SpikeProjection(e4, wide, 1, config)
        self.lateral3 = SpikeProjection(e3, wide, 1, config)
        self.lateral2 = SpikeProjection(e2, wide, 1, config)
        self.lateral1 = SpikeProjection(e1, narrow, 1, config)
        self.smooth16 = SpikeProjection(wide, wide, 3, config)
        self.smooth8 = SpikeProjection(wide, wide, 3, config)
        self.narrow8 = SpikeProjection(wide, narrow, 1, config)
        self.smooth4 = SpikeProjection(narrow, narrow, 3, config)
        self.neuron = make_neuron(config.neuron, config.design == "spatial_only")
        self.fc = SpikeConv2d(narrow, num_classes, 1, levels=config.neuron.levels)
        nn.init.zeros_(self.fc.bias)  # type: ignore[arg-type]  # it has one
        for smooth in (self.smooth16, self.smooth8, self.smooth4):
            nn.init.constant_(smooth.bn.weight, config.residual_gain)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Logits ``[B, T, K, H, W]`` of each frame from all stages' ``[T, B, e, H/s, W/s]``."""
        u1, u2, u3, u4 = features
        m = self.lateral3(u3) + self.lateral4(u4)  # 1/16
        m = m + self.smooth16(m)
        m = self.lateral2(u2) + upsample(m, 2)  # 1/8
        m = m + self.smooth8(m)
        m = self.lateral1(u1) + upsample(self.narrow8(m), 2)  # 1/4
        m = m + self.smooth4(m)
        logits = per_frame(self.fc, self.neuron(m))
        return upsample(logits, 4).transpose(0, 1)


def upsample(x: Tensor, factor: int) -> Tensor:
    """Bilinear, ``[T, B, C, H, W]`` to ``[T, B, C, factor*H, factor*W]``."""
    y = F.interpolate(x.flatten(0, 1), scale_factor=factor, mode="bilinear", align_corners=False)
    return y.unflatten(0, x.shape[:2])


def _check_classes(num_classes: int) -> None:
    if not (isinstance(num_classes, int) and num_classes >= 1):
        raise ValueError(f"num_classes is {num_classes!r}; expected an integer of at least 1")
