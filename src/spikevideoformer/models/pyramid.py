"""The feature pyramid of heads that say something about places in the picture."""

from torch import Tensor, nn

from spikevideoformer.models.config import ModelConfig
from spikevideoformer.models.heads import Head, SpikeProjection, check_readout
from spikevideoformer.nn.conv import SpikeConv2d, per_frame
from spikevideoformer.nn.neuron import make_neuron


class PyramidHead(Head):
    """A feature pyramid, ours: from coarse to fine, each step adds what the finer stage knows.

    Equation, with F = e4 channels at 1/16 and 1/8 and F/2 at 1/4, and P_k = SN -> k x k -> BN::

        m16 = P1(u3) + P1(u4)          m16 += P3(m16)
        m8  = P1(u2) + up2(m16)        m8  += P3(m8)
        m4  = P1(u1) + up2(P1(m8))     m4  += P3(m4)
        maps = Conv1x1(SN(m4))

    Every convolution receives spikes. ``up2`` is bilinear on membranes (real values): its weights
    are multiples of 1/4, so shifts and additions do it. Without a fourth stage, P1(u4) is left out.

    Args:
        config: the architecture; the maps are read from spikes (``readout="spike"``).
        channels: of the maps.
    """

    reads_all_stages = True

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        check_readout(config)
        (e1, e2, e3), e4 = config.widths[:3], config.widths[-1]
        wide, narrow = e4, e4 // 2
        self.lateral4 = SpikeProjection(e4, wide, 1, config) if len(config.widths) > 3 else None
        self.lateral3 = SpikeProjection(e3, wide, 1, config)
        self.lateral2 = SpikeProjection(e2, wide, 1, config)
        self.lateral1 = SpikeProjection(e1, narrow, 1, config)
        self.smooth16 = SpikeProjection(wide, wide, 3, config)
        self.smooth8 = SpikeProjection(wide, wide, 3, config)
        self.narrow8 = SpikeProjection(wide, narrow, 1, config)
        self.smooth4 = SpikeProjection(narrow, narrow, 3, config)
        self.neuron = make_neuron(config.neuron, config.design == "spatial_only")
        self.fc = SpikeConv2d(narrow, channels, 1, neuron=config.neuron)
        nn.init.zeros_(self.fc.bias)
        for smooth in (self.smooth16, self.smooth8, self.smooth4):
            assert isinstance(smooth.bn, nn.BatchNorm2d)
            nn.init.constant_(smooth.bn.weight, config.residual_gain)

    def maps(self, features: tuple[Tensor, ...]) -> Tensor:
        """``[T, B, channels, H/4, W/4]`` from all stages' ``[T, B, e, H/s, W/s]``."""
        u1, u2, u3 = features[:3]
        up = self.real.upsample
        m = self.lateral3(u3)  # 1/16
        if self.lateral4 is not None:
            m = m + self.lateral4(features[3])
        m = m + self.smooth16(m)
        m = self.lateral2(u2) + up(m, 2)  # 1/8
        m = m + self.smooth8(m)
        m = self.lateral1(u1) + up(self.narrow8(m), 2)  # 1/4
        m = m + self.smooth4(m)
        return per_frame(self.fc, self.neuron(m))
