"""SpikeVideoFormer: video understanding with spiking networks.

The names below are the public interface; they are imported when first used, so that
``import spikevideoformer`` is quick.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikevideoformer.deploy.engine import InferenceEngine
    from spikevideoformer.deploy.fold import fold_for_inference
    from spikevideoformer.energy.cost import CostTable
    from spikevideoformer.energy.report import energy_report
    from spikevideoformer.models.config import ModelConfig, list_models
    from spikevideoformer.models.published import load_published, published_names
    from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, create_model
    from spikevideoformer.nn.neuron import record_firing_rates
    from spikevideoformer.ops.lif import NeuronConfig
    from spikevideoformer.tasks.classification.predictor import VideoPredictor
    from spikevideoformer.tasks.pose.predictor import PoseTracker
    from spikevideoformer.tasks.segmentation.predictor import VideoSegmenter

_HOME = {
    "CostTable": "energy.cost",
    "InferenceEngine": "deploy.engine",
    "ModelConfig": "models.config",
    "NeuronConfig": "ops.lif",
    "PoseTracker": "tasks.pose.predictor",
    "SpikeVideoFormer": "models.spikevideoformer",
    "VideoPredictor": "tasks.classification.predictor",
    "VideoSegmenter": "tasks.segmentation.predictor",
    "create_model": "models.spikevideoformer",
    "energy_report": "energy.report",
    "fold_for_inference": "deploy.fold",
    "list_models": "models.config",
    "load_published": "models.published",
    "published_names": "models.published",
    "record_firing_rates": "nn.neuron",
}

__all__ = [
    "CostTable",
    "InferenceEngine",
    "ModelConfig",
    "NeuronConfig",
    "PoseTracker",
    "SpikeVideoFormer",
    "VideoPredictor",
    "VideoSegmenter",
    "create_model",
    "energy_report",
    "fold_for_inference",
    "list_models",
    "load_published",
    "published_names",
    "record_firing_rates",
]

__version__ = version("spikevideoformer")


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'spikevideoformer' has no attribute {name!r}")
    value = getattr(import_module(f"spikevideoformer.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What is public, and Python's own names."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
