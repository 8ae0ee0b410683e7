"""SpikeVideoFormer: video understanding with spiking networks.

The names below are the public interface; they are imported when first used, so that
``import spikevideoformer`` is quick.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikevideoformer.deploy.engine import InferenceEngine as InferenceEngine
    from spikevideoformer.deploy.fold import fold_for_inference as fold_for_inference
    from spikevideoformer.energy.cost import CostTable as CostTable
    from spikevideoformer.energy.report import energy_report as energy_report
    from spikevideoformer.models.config import ModelConfig as ModelConfig
    from spikevideoformer.models.config import list_models as list_models
    from spikevideoformer.models.published import load_published as load_published
    from spikevideoformer.models.published import published_names as published_names
    from spikevideoformer.models.spikevideoformer import SpikeVideoFormer as SpikeVideoFormer
    from spikevideoformer.models.spikevideoformer import create_model as create_model
    from spikevideoformer.nn.neuron import record_firing_rates as record_firing_rates
    from spikevideoformer.ops.lif import NeuronConfig as NeuronConfig
    from spikevideoformer.tasks.classification.predictor import VideoPredictor as VideoPredictor
    from spikevideoformer.tasks.pose.predictor import PoseTracker as PoseTracker
    from spikevideoformer.tasks.segmentation.predictor import VideoSegmenter as VideoSegmenter

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

__all__ = list(_HOME)

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
