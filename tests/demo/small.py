"""The demo of each task by a recipe that takes seconds."""

from dataclasses import replace

from spikevideoformer.demo.driver import Driver
from spikevideoformer.synth.spec import RenderSpec
from spikevideoformer.tasks.classification import demo as classification
from spikevideoformer.tasks.pose import demo as pose
from spikevideoformer.tasks.segmentation import demo as segmentation


def small_demo(task: str) -> Driver:
    """The demo of a task on a few clips, of one epoch."""
    few = {"epochs": 1, "warmup_epochs": 0.0, "size": 32}
    if task == "classification":
        demo = classification.Demo()
        lively = {"neuron": {"v_threshold": 0.1}, "residual_gain": 1.0}  # that it fires untrained
        training = replace(demo.training, frames=4, batch_size=8, **few, **lively)
        return replace(demo, train_clips=8, val_clips=8, training=training)
    if task == "segmentation":
        masks = segmentation.Demo()
        training = replace(masks.training, frames=2, **few)
        return replace(masks, train_clips=2, val_clips=2, videos=1, training=training)
    poses = pose.Demo()
    clip = RenderSpec(size=32, frames=4, frame_rate_hz=10.0, supersampling=1)
    training = replace(poses.training, frames=3, **few)
    return replace(poses, motions=5, clips_per_motion=1, clip=clip, training=training)
