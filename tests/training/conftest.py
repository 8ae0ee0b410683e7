"""A tiny data set of real video files, and configurations that train on it in seconds."""

import logging
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from spikevideoformer.data.specs import Augmentation
from spikevideoformer.training import TrainConfig


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares that move left or right: 12 clips for training, 4 to validate, in class folders."""
    root = tmp_path_factory.mktemp("clips")
    draw = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for name, step in (("left", -3), ("right", 3)):
            for i in range(count):
                path = root / split / name / f"{i}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(path, step, *draw.integers(0, 24, 2), draw.integers(100, 256, 3))
    return root


def _write(path: Path, step: int, x: int, y: int, colour: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for t in range(8):
            image = np.zeros((32, 32, 3), np.uint8)
            columns = (x + step * t + np.arange(8)) % 32
            image[y : y + 8, columns] = colour
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def tiny(clips: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """``tiny(**changes)``: nano on 16 x 16 pixels, 2 frames, 3 steps an epoch, 2 epochs."""

    def make(**changes: object) -> TrainConfig:
        values = {
            "data": clips,
            "out": tmp_path / "run",
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

    return make


@pytest.fixture(autouse=True)
def _restore_log_level() -> None:
    logging.getLogger("spikevideoformer").setLevel(logging.NOTSET)
