"""How to train on so much data: the settings that a user has not given, and why."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from spikevideoformer.models.config import preset
from spikevideoformer.models.folder import read_about
from spikevideoformer.settings import merged
from spikevideoformer.tasks.classification.index import read_index
from spikevideoformer.tasks.pose.index import read_poses
from spikevideoformer.tasks.pose.sequence import window_positions
from spikevideoformer.tasks.segmentation.dataset import evaluation_cuts
from spikevideoformer.tasks.segmentation.index import read_sequences
from spikevideoformer.training.config import TrainConfig

FEW = 2000
"""Training clips from which the defaults of `TrainConfig` hold. Below, twenty epochs are too few
steps: a network from scratch needs hundreds of them whatever the number of clips
(docs/training.md)."""

_STEPS = {"classification": 640, "segmentation": 640, "pose": 320}  # of eight clips each
_PASSES = {"segmentation": 50}  # over the clips at least, where that makes more steps
_EPOCHS = {"classification": 16, "segmentation": 8, "pose": 8}  # validations in that time
_BATCH = 8
_SIDES = re.compile(r"(^|[^a-z])(left|right|clockwise|counterclockwise)([^a-z]|$)", re.IGNORECASE)


_OF_TASK: dict[str, dict[str, Any]] = {
    "classification": {},
    "segmentation": {
        "frames": 1,
        "size": 128,
        "label_smoothing": 0.0,
        "design": "spatial_only",
        "segmentation": {"scale": [0.5, 2.0]},
    },
    "pose": {},
}


def with_recipe(given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Settings that suit the amount of data, where the user has given none.

    Args:
        given: settings as a configuration file holds them; they stay as they are.

    Returns:
        All settings, and a line that says what was chosen; the given ones and an empty line where
        there is enough data for the defaults of `TrainConfig`.

    Raises:
        ValueError: settings or data that cannot be used.
    """
    config = TrainConfig.from_dict(
        {**_OF_TASK.get(given.get("task", "classification"), {}), **given}
    )
    if config.data is None:
        return dict(given), ""
    clips, classes = _looked_at(config)
    if not 0 < clips < FEW:  # of data without a clip the check before training tells more
        return dict(given), ""
    chosen = merged(_recipe(config, clips, classes, given), _as_before(config))
    settings = merged(chosen, given)
    config = TrainConfig.from_dict(settings)
    batch = config.batch_size * _forward_passes(config)
    steps = clips * config.passes // batch * config.epochs
    passes = "1 pass" if config.passes == 1 else f"{config.passes} passes"
    start = "from scratch" if config.init_from is None else f"from {config.init_from}"
    network = [f"{config.frames} frame{'s' * (config.frames != 1)} a clip"]
    network += [f"{n} {chosen[n]}" for n in ("neuron", "design") if n in chosen]
    return settings, (
        f"{clips} clips to train on: {config.epochs} epochs of {passes}, in all "
        f"{steps} steps of {batch} clips, learning rate {config.learning_rate:g}, {start}, "
        f"{'mirrored at random' if config.augmentation.flip else 'not mirrored'}, "
        f"{', '.join(network)}; options that are given are taken instead"
    )


def _as_before(config: TrainConfig) -> dict[str, Any]:
    """Neurons, design and frames of a model of the same task that training starts from."""
    if config.init_from is None or config.task != "segmentation":  # of others it chooses none
        return {}
    about = read_about(config.init_from)
    if about["task"] != config.task:
        return {}
    model = {name: about["model"][name] for name in ("neuron", "design") if name in about["model"]}
    return {**model, "frames": (about["clip"] or {}).get("frames", config.frames)}


def _recipe(
    config: TrainConfig, clips: int, classes: Sequence[str], given: Mapping[str, Any]
) -> dict[str, Any]:
    processes = _forward_passes(config)
    batch_size = int(given.get("batch_size", max(1, min(_BATCH, clips // processes))))
    batch = batch_size * processes
    least = math.ceil(2 * float(given.get("warmup_epochs", 0)))  # the rest is not all warm-up
    epochs = int(given.get("epochs", max(_EPOCHS[config.task], least)))
    steps = max(_STEPS[config.task], _PASSES.get(config.task, 0) * clips // batch)
    sided = config.task == "classification" and any(map(_SIDES.search, classes))
    flip = 0.0 if sided or config.task == "pose" else 0.5
    strength = 0.5 if config.task == "segmentation" else 0.3
    augmentation: dict[str, Any] = dict.fromkeys(("brightness", "contrast", "saturation"), strength)
    augmentation["flip"] = flip
    if config.task == "classification":
        augmentation["crop_scale"] = [0.6, 1.0]
    # Whole numbers of spikes, and frames by themselves, learn masks from few pictures far better
    # (docs/first_hour.md); an ordinary network keeps its rectifiers.
    integers = config.task == "segmentation" and preset(config.model).neuron.spiking
    return {
        **_OF_TASK[config.task],
        **({"neuron": "integer_lif"} if integers else {}),
        "epochs": epochs,
        # An epoch is so many passes that all of them make about the steps that are needed; whoever
        # says how many epochs means passes.
        "passes": 1 if "epochs" in given else max(1, round(steps * batch / (epochs * clips))),
        "batch_size": batch_size,
        "learning_rate": 3e-3 if config.init_from is None else 1.5e-3,
        "warmup_epochs": 0.05 * epochs,
        "augmentation": augmentation,
    }


def _forward_passes(config: TrainConfig) -> int:
    """Of an optimiser step, over all processes."""
    launched = "TORCHELASTIC_RUN_ID" in os.environ
    return config.accumulate * (int(os.environ["WORLD_SIZE"]) if launched else config.devices)


def _looked_at(config: TrainConfig) -> tuple[int, tuple[str, ...]]:
    """How many clips there are to train on, and the names of the classes."""
    assert config.data is not None
    if config.task == "segmentation":
        sequences = read_sequences(config.data, layout=config.layout).select(config.train_split)
        cuts = evaluation_cuts(sequences, config.segmentation_spec)
        return len(cuts) * config.segmentation.passes, sequences.classes
    if config.task == "pose":
        poses, spec = read_poses(config.data, layout=config.layout), config.pose_spec
        windows = [
            window_positions(len(s), spec, spec.step(s.frame_rate_hz))
            for s in poses.select(config.train_split).sequences
        ]
        return sum(map(len, windows)), poses.joint_names
    index = read_index(config.data, layout=config.layout, fold=config.fold)
    index.select(config.train_split)  # complains of a name that is not there
    if config.val_split == "val" and not index.problems:
        index = index.with_validation(seed=config.seed)
    return len(index.select(config.train_split)), index.classes
