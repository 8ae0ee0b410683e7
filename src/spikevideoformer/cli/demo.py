"""``svf demo``: the whole way of a task on made clips."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from spikevideoformer.cli.options import DIR, TASK
from spikevideoformer.cli.output import folder_to_write, note
from spikevideoformer.task import get_task


@dataclass(frozen=True, kw_only=True)
class Options:
    """Go the whole way on clips that it makes: train, evaluate, predict, report.

    Example: svf demo --out demo

    Args:
        out: folder for clips, the run and the report (default demo, demo_masks or demo_pose).
        task: what the network learns: which motion, which shape is where, or the pose of a body.
    """

    out: Path | None = field(default=None, metadata=DIR)
    task: str = field(default="classification", metadata=TASK)


def run(options: Options) -> None:
    """Make clips, train, evaluate, predict and report."""
    task = get_task(options.task)
    out = folder_to_write(options.out or Path(task.demo_folder))
    print(task.demo().run(out, tell=note))
