"""How to train on so much data: the settings that a user has not given, and why."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
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

_STEPS = {"classification": 640, "segmentation": 320, "pose": 320}  # of eight clips each
_FEW_MASKS = 1000  # below, frames are learnt one by one (docs/first_hour.md)
_FRAME_STEPS, _FRAME_PASSES = 640, 50  # likewise: so many at least, the passes over all frames
_EPOCHS = {"classification": 16, "segmentation": 8, "pose": 8}  # validations in that time
_BATCH = 8
_SIDES = re.compile(r"(^|[^a-z])(left|right|clockwise|counterclockwise)([^a-z]|$)", re.IGNORECASE)


_OF_TASK: dict[str, dict[str, Any]] = {
    "classification": {},
    "segmentation": {"frames": 4, "size": 128, "label_smoothing": 0.0},
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
    if before := _as_before(config):
        given = merged(before, given)
        config = TrainConfig.from_dict({**_OF_TASK[config.task], **given})
    clips, classes, one_by_one = _looked_at(config, given)
    if not 0 < clips < FEW:  # of data without a clip the check before training tells more
        return dict(given), ""
    chosen = _recipe(config, clips, classes, given)
    if one_by_one:
        chosen = merged(chosen, _frame_by_frame(config, clips, given))
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
    epochs, passes = _time(_STEPS[config.task] * batch, _EPOCHS[config.task], clips, given)
    sided = config.task == "classification" and any(map(_SIDES.search, classes))
    flip = 0.0 if sided or config.task == "pose" else 0.5
    augmentation: dict[str, Any] = {"flip": flip, "brightness": 0.3, "contrast": 0.3}
    augmentation["saturation"] = 0.3
    if config.task == "classification":
        augmentation["crop_scale"] = [0.6, 1.0]
    return {
        **_OF_TASK[config.task],
        "epochs": epochs,
        "passes": passes,
        "batch_size": batch_size,
        "learning_rate": 3e-3 if config.init_from is None else 1.5e-3,
        "warmup_epochs": 0.05 * epochs,
        "augmentation": augmentation,
    }


def _time(seen: int, most: int, clips: int, given: Mapping[str, Any]) -> tuple[int, int]:
    """Epochs and passes of each, so that at least so many clips are seen in all.

    Of several passes there are as many epochs as that takes, of one there are `most`. Whoever says
    how many epochs means passes.
    """
    if "epochs" in given:
        return int(given["epochs"]), 1
    least = math.ceil(2 * float(given.get("warmup_epochs", 0)))  # the rest is not all warm-up
    most = max(most, least)
    passes = math.ceil(seen / (most * clips))
    return (most if passes == 1 else max(least, math.ceil(seen / (passes * clips)))), passes


def _frame_by_frame(config: TrainConfig, clips: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """What learns masks from few pictures far better (docs/first_hour.md).

    Frames by themselves, whole numbers of spikes (an ordinary network keeps its rectifiers), and
    wider augmentation.
    """
    seen = max(_FRAME_STEPS * _BATCH, _FRAME_PASSES * clips)
    epochs, passes = _time(seen, _EPOCHS[config.task], clips, given)
    integers = {"neuron": "integer_lif"} if preset(config.model).neuron.spiking else {}
    return {
        **integers,
        "design": "spatial_only",
        "frames": 1,
        "epochs": epochs,
        "passes": passes,
        "warmup_epochs": 0.05 * epochs,
        "segmentation": {"scale": [0.5, 2.0]},
        "augmentation": dict.fromkeys(("brightness", "contrast", "saturation"), 0.5),
    }


def _forward_passes(config: TrainConfig) -> int:
    """Of an optimiser step, over all processes."""
    launched = "TORCHELASTIC_RUN_ID" in os.environ
    return config.accumulate * (int(os.environ["WORLD_SIZE"]) if launched else config.devices)


def _looked_at(config: TrainConfig, given: Mapping[str, Any]) -> tuple[int, tuple[str, ...], bool]:
    """How many clips there are to train on, the names of classes, whether frames go one by one."""
    assert config.data is not None
    if config.task == "segmentation":
        sequences = read_sequences(config.data, layout=config.layout).select(config.train_split)
        one_by_one = sequences.labelled < _FEW_MASKS and "frames" not in given
        spec = config.segmentation_spec
        cuts = evaluation_cuts(sequences, replace(spec, frames=1) if one_by_one else spec)
        return len(cuts) * config.segmentation.passes, sequences.classes, one_by_one
    if config.task == "pose":
        poses, pose_spec = read_poses(config.data, layout=config.layout), config.pose_spec
        windows = [
            window_positions(len(s), pose_spec, pose_spec.step(s.frame_rate_hz))
            for s in poses.select(config.train_split).sequences
        ]
        return sum(map(len, windows)), poses.joint_names, False
    index = read_index(config.data, layout=config.layout, fold=config.fold)
    index.select(config.train_split)  # complains of a name that is not there
    if config.val_split == "val" and not index.problems:
        index = index.with_validation(seed=config.seed)
    return len(index.select(config.train_split)), index.classes, False
