"""What turns the features of the backbone into the output of a task."""

from torch import Tensor, nn

from spikevideoformer.models.config import ModelConfig
from spikevideoformer.nn.neuron import Neuron


class ClassificationHead(nn.Module):
    """Mean over space, SN, Linear, mean over time.

    Args:
        config: the architecture; with ``readout="membrane"`` there is no neuron.
        num_classes: K, at least 1.
    """

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        if not (isinstance(num_classes, int) and num_classes >= 1):
            raise ValueError(f"num_classes is {num_classes!r}; expected an integer of at least 1")
        self.neuron = (
            Neuron(config.neuron, config.design == "spatial_only")
            if config.readout == "spike"
            else nn.Identity()
        )
        self.fc = nn.Linear(config.widths[-1], num_classes)
        nn.init.trunc_normal_(self.fc.weight, std=0.02)
        nn.init.zeros_(self.fc.bias)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Logits ``[B, K]`` from the last stage's ``[T, B, C, H, W]``."""
        x = self.neuron(features[-1].flatten(3).mean(3))  # [T, B, C]
        logits: Tensor = self.fc(x).mean(0)
        return logits
