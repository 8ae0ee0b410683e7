"""What the benchmarks of trainings share."""

from typing import Any

from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.training import TrainConfig
from spikevideoformer.training.checkpoint import CheckpointFolder
from spikevideoformer.training.train import TrainResult


def last_weights(config: TrainConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the last epoch: weights, and the statistics of batch norms that were measured anew."""
    newest = CheckpointFolder(config.out / "checkpoints", keep=config.keep).newest()
    assert newest is not None
    return newest[1]["model"], newest[1]["measured"]


def parameters(result: TrainResult) -> int:
    """Of the network that a run released."""
    return SpikeVideoFormer.from_pretrained(result.model).num_parameters()
