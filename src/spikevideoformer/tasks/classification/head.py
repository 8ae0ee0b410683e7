"""The head for classification of clips."""

import torch
from torch import Tensor, nn

from spikevideoformer.models.config import ModelConfig
from spikevideoformer.models.heads import Head, check_classes
from spikevideoformer.nn.neuron import make_neuron


class ClassificationHead(Head):
    """Mean over space, SN, Linear, mean over time.

    Args:
        config: the architecture; with ``readout="membrane"`` there is no neuron, and with
            ``readout="gru"`` a GRU over frames, whose last state Linear reads, stands for the
            neuron and the mean over time; with ``distilled`` two Linear, whose mean it gives: of
            the same numbers, or, with ``readout="both"``, of membranes and of spikes.
        num_classes: K, at least 1.
    """

    any_size = may_be_distilled = True
    one_answer = True

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        check_classes(num_classes)
        self.neuron = (
            make_neuron(config.neuron, config.design == "spatial_only")
            if config.readout in ("spike", "both")
            else nn.Identity()
        )
        self.reads_membranes = config.readout == "both"
        width = config.widths[-1]
        self.gru = nn.GRU(width, width) if config.readout == "gru" else None
        self.fc = nn.Linear(width, num_classes)
        self.fc_kd = nn.Linear(width, num_classes) if config.distilled else None
        for fc in (self.fc, self.fc_kd):
            if fc is not None:
                nn.init.trunc_normal_(fc.weight, std=0.02)
                nn.init.zeros_(fc.bias)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Logits ``[B, K]`` from the last stage's ``[T, B, C, H, W]``; where `apart`, of both."""
        mean = self.real.mean(features[-1].flatten(3), 3)  # [T, B, C]
        spikes = x = self.neuron(mean)
        if self.reads_membranes:
            x = mean
        if self.gru is not None:
            # its state adds up over time like a membrane: not in half precision
            with torch.autocast(x.device.type, enabled=False):
                _, x = self.gru(x.to(self.gru.weight_hh_l0.dtype))  # [1, B, C], the last state
        logits = self.fc(x)
        if self.fc_kd is not None:
            taught = self.fc_kd(spikes if self.reads_membranes else x)
            if self.apart and self.training:
                return self.real.mean(torch.stack((logits, taught)), 1)
            logits = (logits + taught) / 2
        return self.real.mean(logits, 0)
