"""What the benchmarks of trainings share: a run is made once, and read where it was made before."""

import json
from collections.abc import Callable
from typing import Any

from spikevideoformer.files import write_text
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.training import TrainConfig, train
from spikevideoformer.training.checkpoint import CheckpointFolder
from spikevideoformer.training.train import TrainResult


def finished(
    config: TrainConfig, measure: Callable[[TrainResult], dict[str, Any]]
) -> dict[str, Any]:
    """Train one network to the end and measure it, or read what an earlier call found.

    Args:
        config: of the run; `last.json` in its folder keeps the entry.
        measure: what is kept of it beside the configuration.

    Raises:
        SystemExit: the folder holds a run of other settings.
    """
    done = config.out / "last.json"
    if done.exists():
        entry: dict[str, Any] = json.loads(done.read_text())
        if changed := config.differences(entry["config"]):
            raise SystemExit(
                f"{config.out} is of other settings ({'; '.join(changed)}); use another --out"
            )
        return entry
    entry = {"config": config.to_dict(), **measure(train(config, resume=True))}
    write_text(done, json.dumps(entry, indent=1) + "\n")
    return entry


def last_weights(config: TrainConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the last epoch: weights, and the statistics of batch norms that were measured anew."""
    newest = CheckpointFolder(config.out / "checkpoints", keep=config.keep).newest()
    assert newest is not None
    return newest[1]["model"], newest[1]["measured"]


def parameters(result: TrainResult) -> int:
    """Of the network that a run released."""
    return SpikeVideoFormer.from_pretrained(result.model).num_parameters()
