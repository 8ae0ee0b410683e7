"""``svf demo``: the whole way of a task on made clips."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from spikevideoformer.cli.options import DIR, Task
from spikevideoformer.cli.output import folder_to_write, note

FOLDERS = {"classification": "demo", "segmentation": "demo_masks", "pose": "demo_pose"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Go the whole way on clips that it makes: train, evaluate, predict, report.

    Example: svf demo --out demo

    Args:
        out: folder for clips, the run and the report (default demo, demo_masks or demo_pose).
        task: what the network learns: which motion, which shape is where, or the pose of a body.
    """

    out: Path | None = field(default=None, metadata=DIR)
    task: Task = "classification"


def run(options: Options) -> None:
    """Make clips, train, evaluate, predict and report."""
    out = folder_to_write(options.out or Path(FOLDERS[options.task]))
    demo = import_module(f"spikevideoformer.demo.{options.task}")
    print(demo.Demo().run(out, tell=note))
