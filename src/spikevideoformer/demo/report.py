"""What the demos share: telling of stages, and what their pages tell in words."""

from __future__ import annotations

import csv
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from spikevideoformer.machine import machine
from spikevideoformer.training import TrainConfig


@contextmanager
def stage(tell: Callable[[str], None], name: str) -> Iterator[None]:
    """Tell that a part of the demo begins, and how long it took."""
    tell(f"[{name}]")
    begin_s = time.monotonic()
    yield
    tell(f"[{name}: {time.monotonic() - begin_s:.1f} s]")


def share(value: float | None) -> str:
    """A percentage; empty for None."""
    return "" if value is None else f"{value:.1%}"


def training_facts(run: Path, clips: int) -> list[tuple[str, str]]:
    """Model, clips, epochs, steps, minutes and machine of a run, each a name and a text.

    Minutes are those of training steps in all sessions of the run, without validation.

    Args:
        run: its folder.
        clips: that it trained on.
    """
    config = TrainConfig.from_yaml(run / "config.yaml")
    with (run / "metrics.csv").open(newline="") as file:
        epochs = list(csv.DictReader(file))
    steps = [int(epoch["step"]) for epoch in epochs]
    batch = config.batch_size * config.accumulate * config.devices
    seconds = sum(
        (step - before) * batch / float(epoch["clips_per_second"])
        for before, step, epoch in zip([0, *steps], steps, epochs, strict=False)
    )
    options = {"design": config.design, "readout": config.readout}
    model = [config.model, *(f"{name} {value}" for name, value in options.items() if value)]
    return [
        ("model", ", ".join(model)),
        ("clips", f"{clips:,}, each {config.frames} frames of {config.size} pixels"),
        ("epochs", f"{len(epochs)}"),
        ("steps", f"{steps[-1]:,}, each {batch} clips"),
        ("time", f"{seconds / 60:.1f} minutes, without validation"),
        ("machine", machine(config.device)),
    ]


def next_commands(model: Path, run: Path) -> str:
    """The commands that come after a demo, for one's own videos, to be copied.

    Args:
        model: its folder.
        run: folder of the run that trained it.
    """
    config = TrainConfig.from_yaml(run / "config.yaml")
    data = "my_videos"
    train = ["svf", "train", "--data", data, "--init-from", str(model), "--out", "my_run"]
    if config.task != "classification":
        train[2:2] = ["--task", config.task]
    if config.model != TrainConfig.model:
        train[-2:-2] = ["--model", config.model]
    lines = [
        shlex.join(train),
        "svf predict --model my_run/model new_clip.mp4 --out annotated",
    ]
    if config.task == "pose":
        lines.insert(0, f"svf render --out {data}")
    return "\n".join(lines)
