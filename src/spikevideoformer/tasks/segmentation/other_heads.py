"""Heads for segmentation as others have them: the published pyramid, and SegFormer's MLP."""

import torch
from torch import Tensor, nn

from spikevideoformer.models.config import STRIDE, ModelConfig
from spikevideoformer.models.heads import Head, SpikeProjection, check_classes, check_readout
from spikevideoformer.nn.conv import SpikeConv2d, per_frame
from spikevideoformer.nn.neuron import make_neuron

LEVELS = 4  # maps, at 1/2, 1/4, 1/8 and 1/16


class _MaskHead(Head):
    """What both have in common: features of any size, and logits resized to the picture."""

    reads_all_stages = True
    any_size = True

    def __init__(self, config: ModelConfig, num_classes: int, channels: int) -> None:
        super().__init__()
        check_classes(num_classes)
        check_readout(config)
        self.multiple = 1 if config.any_size else STRIDE  # to which pictures are padded
        self.neuron = make_neuron(config.neuron, config.design == "spatial_only")
        self.fc = SpikeConv2d(channels, num_classes, 1, neuron=config.neuron)
        nn.init.zeros_(self.fc.bias)

    def logits(self, m: Tensor) -> Tensor:
        """Of membranes ``[T, B, C, h, w]``: ``[B, T, K, h, w]``."""
        return per_frame(self.fc, self.neuron(m)).transpose(0, 1)

    def finished(self, output: Tensor, video: Tensor) -> Tensor:
        """Logits of the pixels of the video, those of its padding left out."""
        height, width = (-(-n // self.multiple) * self.multiple for n in video.shape[3:])
        logits = self.real.resize(output, (height, width))
        return logits[..., : video.shape[3], : video.shape[4]]


class PanopticHead(_MaskHead):
    """The feature pyramid of the published segmenters, from maps at 1/2, 1/4, 1/8 and 1/16.

    Equation (P = SN -> convolution [-> BN]; level 0 is the finest)::

        m_i = P1(u_i) + nearest(m_{i+1})        the neck, from coarse to fine
        y_i = up2(P3(... up2(P3(P3(m_i)))))     1, 1, 2, 3 units; up2 follows each where i > 0
        logits = Conv1x1(SN(sum_i bilinear(y_i to the size of level 0)))

    With ``mean_over_time`` membranes are averaged over time first, and there is one map a clip.

    Args:
        config: the architecture, with a ``mask_head`` of kind fpn.
        num_classes: K, at least 1.

    Source: Kirillov et al., "Panoptic feature pyramid networks", 2019; its spiking form in the
    published segmentation code of SDT-V2 (without norms in the neck) and V3 (with them).
    """

    reads_half = True

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        head = config.mask_head
        super().__init__(config, num_classes, head.head_width)
        self.one_answer = head.mean_over_time
        widths = (config.widths[0] // 2, *config.widths[:2], config.widths[-1])
        neck: dict[str, bool] = {"bias": True, "norm": head.neck_norm}
        self.lateral = nn.ModuleList(
            SpikeProjection(width, head.width, 1, config, **neck) for width in widths
        )
        self.smooth = nn.ModuleList(
            SpikeProjection(head.width, head.width, 3, config, **neck) for _ in widths
        )
        self.scales = nn.ModuleList(
            nn.ModuleList(
                SpikeProjection(
                    head.width if k == 0 else head.head_width, head.head_width, 3, config
                )
                for k in range(max(1, i))
            )
            for i in range(LEVELS)
        )

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Logits ``[B, T, K, H/2, W/2]``, or of the clip with T = 1."""
        if self.one_answer:
            features = tuple(self.real.mean(u, 0).unsqueeze(0) for u in features)
        maps = [lateral(u) for lateral, u in zip(self.lateral, features, strict=True)]
        for i in range(LEVELS - 1, 0, -1):
            finer = maps[i - 1]
            maps[i - 1] = finer + self.real.resize(maps[i], _size(finer), "nearest")
        maps = [smooth(m) for smooth, m in zip(self.smooth, maps, strict=True)]
        total: Tensor | None = None
        for i, (units, m) in enumerate(zip(self.scales, maps, strict=True)):
            for unit in units:  # type: ignore[attr-defined]
                m = unit(m)
                if i > 0:
                    m = self.real.resize(m, (2 * m.shape[3], 2 * m.shape[4]))
            total = m if total is None else total + self.real.resize(m, _size(total))
        assert total is not None
        return self.logits(total)


class MLPHead(_MaskHead):
    """SegFormer's: every stage in one width, enlarged to 1/4, side by side through one layer.

    Equation, with D = ``mask_head.width``::

        logits = Conv1x1(SN(BN(Conv1x1(SN(concat_i up(Conv1x1(SN(u_i)))))))       D channels each

    With the 15 M backbone, D = 768 and 19 classes the whole network has 17.755 M parameters
    (published: 17.8 M).

    Args:
        config: the architecture, with a ``mask_head`` of kind mlp.
        num_classes: K, at least 1.

    Source: Xie et al., "SegFormer", NeurIPS 2021, section 3.2.
    """

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        width = config.mask_head.width
        super().__init__(config, num_classes, width)
        self.linear = nn.ModuleList(
            SpikeProjection(e, width, 1, config, bias=True, norm=False) for e in config.widths
        )
        self.fuse = SpikeProjection(len(config.widths) * width, width, 1, config)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Logits ``[B, T, K, H/4, W/4]`` of each frame."""
        size = _size(features[0])
        maps = [
            self.real.resize(linear(u), size)
            for linear, u in zip(self.linear, features, strict=True)
        ]
        return self.logits(self.fuse(torch.cat(maps, 2)))


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[3], x.shape[4]
