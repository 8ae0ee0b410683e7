"""Training and evaluation: the only part that imports lightning.

The names below are imported when first used: whoever only reads a configuration needs no torch.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikevideoformer.training.config import PoseOptions, SegmentationOptions, TrainConfig
    from spikevideoformer.training.evaluate import evaluate
    from spikevideoformer.training.pose import PoseEvaluation, evaluate_pose
    from spikevideoformer.training.released import evaluate_folder
    from spikevideoformer.training.segmentation import evaluate_segmentation
    from spikevideoformer.training.train import TrainResult, start_from, train

_HOME = {
    "PoseEvaluation": "pose",
    "PoseOptions": "config",
    "SegmentationOptions": "config",
    "TrainConfig": "config",
    "TrainResult": "train",
    "evaluate": "evaluate",
    "evaluate_folder": "released",
    "evaluate_pose": "pose",
    "evaluate_segmentation": "segmentation",
    "start_from": "train",
    "train": "train",
}

__all__ = [
    "PoseEvaluation",
    "PoseOptions",
    "SegmentationOptions",
    "TrainConfig",
    "TrainResult",
    "evaluate",
    "evaluate_folder",
    "evaluate_pose",
    "evaluate_segmentation",
    "start_from",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'spikevideoformer.training' has no attribute {name!r}")
    value = getattr(import_module(f"spikevideoformer.training.{_HOME[name]}"), name)
    globals()[name] = value
    return value


class _Training(ModuleType):
    """Keeps `train` and `evaluate` what they are here, functions.

    Python puts a file that it has imported under its name into the package, and two files have the
    name of their function.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOME and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Training
