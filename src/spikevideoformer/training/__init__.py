"""Training and evaluation: the only part that imports lightning."""

from spikevideoformer.training.config import TrainConfig
from spikevideoformer.training.evaluate import evaluate, evaluate_folder
from spikevideoformer.training.train import TrainResult, start_from, train

__all__ = [
    "TrainConfig",
    "TrainResult",
    "evaluate",
    "evaluate_folder",
    "start_from",
    "train",
]
