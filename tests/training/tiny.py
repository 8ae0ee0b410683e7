"""The smallest training there is."""

from pathlib import Path

from spikevideoformer.data.specs import Augmentation
from spikevideoformer.training import TrainConfig


def tiny_config(data: Path, out: Path, **changes: object) -> TrainConfig:
    """Of a run of nano on 16 x 16 pixels, 2 frames, 3 steps an epoch of ``clips``, 2 epochs."""
    values = {
        "data": data,
        "out": out,
        "frames": 2,
        "size": 16,
        "epochs": 2,
        "batch_size": 4,
        "drop_path": 0.2,
        "augmentation": Augmentation(flip=0.0),
        "device": "cpu",
        "workers": 0,
        "check": "none",
    }
    return TrainConfig(**{**values, **changes})
