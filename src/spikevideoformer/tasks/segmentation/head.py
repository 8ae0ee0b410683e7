"""The head for segmentation of every frame."""

from torch import Tensor

from spikevideoformer.models.config import ModelConfig
from spikevideoformer.models.heads import check_classes
from spikevideoformer.models.pyramid import PyramidHead


class SegmentationHead(PyramidHead):
    """Logits of every pixel: the maps of the pyramid, four times as large.

    Equation: ``logits = up4(maps)``, bilinear, with weights that are multiples of 1/8. With the
    15 M backbone and 19 classes the whole network has 17.7 M parameters (published: 17.8 M; how
    its head is made is not).

    Args:
        config: the architecture; the class logits are read from spikes (``readout="spike"``).
        num_classes: K, at least 1.
    """

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        check_classes(num_classes)
        super().__init__(config, num_classes)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Logits ``[B, T, K, H, W]`` of each frame from all stages' ``[T, B, e, H/s, W/s]``."""
        return self.real.upsample(self.maps(features), 4).transpose(0, 1)

    def finished(self, output: Tensor, video: Tensor) -> Tensor:
        """The logits of pixels of the video, not of its padding."""
        return output[..., : video.shape[3], : video.shape[4]]
