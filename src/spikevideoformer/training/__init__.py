"""Training and evaluation: the only part that imports lightning."""

from spikevideoformer.training.config import PoseOptions, SegmentationOptions, TrainConfig
from spikevideoformer.training.evaluate import evaluate, evaluate_folder
from spikevideoformer.training.pose import PoseEvaluation, evaluate_pose, evaluate_pose_folder
from spikevideoformer.training.segmentation import (
    evaluate_segmentation,
    evaluate_segmentation_folder,
)
from spikevideoformer.training.train import TrainResult, start_from, train

__all__ = [
    "PoseEvaluation",
    "PoseOptions",
    "SegmentationOptions",
    "TrainConfig",
    "TrainResult",
    "evaluate",
    "evaluate_folder",
    "evaluate_pose",
    "evaluate_pose_folder",
    "evaluate_segmentation",
    "evaluate_segmentation_folder",
    "start_from",
    "train",
]
