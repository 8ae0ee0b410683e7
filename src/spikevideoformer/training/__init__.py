"""Training and evaluation: the only part that imports lightning.

The names below are imported when first used: whoever only reads a configuration needs no torch.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikevideoformer.tasks.classification.evaluate import evaluate as evaluate
    from spikevideoformer.tasks.pose.spec import PoseOptions as PoseOptions
    from spikevideoformer.tasks.pose.training import PoseEvaluation as PoseEvaluation
    from spikevideoformer.tasks.pose.training import evaluate_pose as evaluate_pose
    from spikevideoformer.tasks.segmentation.spec import SegmentationOptions as SegmentationOptions
    from spikevideoformer.tasks.segmentation.training import (
        evaluate_segmentation as evaluate_segmentation,
    )
    from spikevideoformer.training.config import TrainConfig as TrainConfig
    from spikevideoformer.training.released import evaluate_folder as evaluate_folder
    from spikevideoformer.training.train import TrainResult as TrainResult
    from spikevideoformer.training.train import start_from as start_from
    from spikevideoformer.training.train import train as train

_HOME = {
    "PoseEvaluation": "tasks.pose.training",
    "PoseOptions": "tasks.pose.spec",
    "SegmentationOptions": "tasks.segmentation.spec",
    "TrainConfig": "training.config",
    "TrainResult": "training.train",
    "evaluate": "tasks.classification.evaluate",
    "evaluate_folder": "training.released",
    "evaluate_pose": "tasks.pose.training",
    "evaluate_segmentation": "tasks.segmentation.training",
    "start_from": "training.train",
    "train": "training.train",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'spikevideoformer.training' has no attribute {name!r}")
    value = getattr(import_module(f"spikevideoformer.{_HOME[name]}"), name)
    globals()[name] = value
    return value


class _Training(ModuleType):
    """Keeps `train` what it is here, a function.

    Python puts a file that it has imported under its name into the package, and one file has the
    name of its function.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOME and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Training
