"""How to train on so much data: the settings that a user has not given, and why."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from spikevideoformer.models.config import PRESETS, ModelConfig, preset
from spikevideoformer.models.folder import CONFIG_FILE, read_about
from spikevideoformer.settings import merged
from spikevideoformer.task import Recipe, get_task
from spikevideoformer.training.config import TrainConfig

FEW = 2000
"""Training clips from which the defaults of `TrainConfig` hold. Below, twenty epochs are too few
steps: a network from scratch needs hundreds of them whatever the number of clips
(docs/training.md)."""

_BATCH = 8


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
    config = _with_defaults(given)
    if config.data is None:
        return dict(given), ""
    if config.init_from is not None and (same := _as_before(config, given)):
        given = merged(same, given)
        config = _with_defaults(given)
    recipe = config.of_task.recipe(config, given)
    clips = recipe.clips
    if not 0 < clips < FEW:  # of data without a clip the check before training tells more
        return dict(given), ""
    chosen = _chosen(config, recipe, given)
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


_SIZES = ("widths", "depths", "heads", "mlp_ratio", "constant_term")


def _as_before(config: TrainConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """How the network of `init_from` is made and what it sees, where it does the same task.

    Nothing, where no preset, or not the one that is given, is of its sizes, or spiking as it is.

    Raises:
        ValueError: a model that is there no more, or damaged; it names the file.
    """
    start = config.init_from or ""
    about = read_about(start)
    if about["task"] != config.task:
        return {}
    task = config.of_task
    try:
        own = ModelConfig.from_dict(about["model"])
        spec: Any = task.spec_type
        clip = spec.from_dict(about["clip"]).to_dict() if about["clip"] else {}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{start}/{CONFIG_FILE}: {error}") from error
    values = own.to_dict()

    def agreeing(name: str) -> int:
        """Entries that are those of a preset; none, where it cannot be made as the network is."""
        usual = preset(name)
        same = usual.neuron.spiking == own.neuron.spiking and all(
            getattr(usual, n) == getattr(own, n) for n in _SIZES
        )
        entries = usual.to_dict()
        return sum(v == entries[n] for n, v in values.items()) if same else 0

    name = max([given["model"]] if "model" in given else PRESETS, key=agreeing)
    if not agreeing(name):
        return {}
    usual = preset(name)
    same: dict[str, Any] = {"model": name, "design": own.design}
    # Another head reads what suits it.
    head = (given.get(task.name) or {}).get("head", own.pose_head)
    if "readout" not in task.unused and head == own.pose_head:
        same["readout"] = own.readout
    if own.neuron.spiking:
        same["neuron"] = values["neuron"]
    if own.attention != usual.attention:
        same["attention"] = own.attention
    if block := {k: v for k, v in values["block"].items() if v != getattr(usual.block, k)}:
        same["block"] = block
    return {**same, **task.kept(clip, own)}


def _with_defaults(given: Mapping[str, Any]) -> TrainConfig:
    task = get_task(given.get("task", TrainConfig.task))
    return TrainConfig.from_dict({**task.defaults, **given})


def _chosen(config: TrainConfig, recipe: Recipe, given: Mapping[str, Any]) -> dict[str, Any]:
    task, clips, processes = config.of_task, recipe.clips, _forward_passes(config)
    batch_size = int(given.get("batch_size", max(1, min(_BATCH, clips // processes))))
    seen = recipe.seen or task.recipe_steps * batch_size * processes
    longer = recipe.settings.get("frames", config.frames) / config.frames
    seen = math.ceil(seen / max(1.0, longer))  # clips that cost more, of weights that know them
    epochs, passes = _time(seen, task.recipe_epochs, clips, given)
    return merged(
        {
            **task.defaults,
            "epochs": epochs,
            "passes": passes,
            "batch_size": batch_size,
            "learning_rate": 3e-3 if config.init_from is None else 1.5e-3,
            "warmup_epochs": 0.05 * epochs,
            "augmentation": {
                "flip": 0.0,
                **dict.fromkeys(("brightness", "contrast", "saturation"), 0.3),
            },
        },
        recipe.settings,
    )


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


def _forward_passes(config: TrainConfig) -> int:
    """Of an optimiser step, over all processes."""
    launched = "TORCHELASTIC_RUN_ID" in os.environ
    return config.accumulate * (int(os.environ["WORLD_SIZE"]) if launched else config.devices)
