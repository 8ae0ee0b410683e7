"""The smallest training there is."""

from pathlib import Path

import torch

from spikevideoformer.data.specs import Augmentation
from spikevideoformer.training import TrainConfig, train


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


def assert_resumes_to_the_same_bits(config: TrainConfig) -> None:
    """A finished run whose last checkpoint is lost goes on from the one before to the same bits."""
    newest = max((config.out / "checkpoints").glob("step-*.pt"))
    before = torch.load(newest, weights_only=True)["model"]
    newest.unlink()
    train(config, resume=True)
    after = torch.load(newest, weights_only=True)["model"]
    assert all(torch.equal(after[name], value) for name, value in before.items())
