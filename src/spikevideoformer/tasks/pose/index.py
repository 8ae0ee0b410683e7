"""`read_poses`: videos with poses, in any of the layouts that are known."""

from __future__ import annotations

from pathlib import Path

from spikevideoformer.data.index import Layout
from spikevideoformer.task import get_task
from spikevideoformer.tasks.pose.layouts.human36m import find_human36m, read_human36m
from spikevideoformer.tasks.pose.layouts.mmhpsd import (
    find_eventhpe,
    find_mmhpsd,
    read_eventhpe,
    read_mmhpsd,
)
from spikevideoformer.tasks.pose.layouts.rendered import find_rendered, read_rendered
from spikevideoformer.tasks.pose.layouts.threedpw import find_3dpw, read_3dpw
from spikevideoformer.tasks.pose.sequence import PoseIndex

POSE_LAYOUTS: dict[str, Layout[PoseIndex]] = {
    "mmhpsd": Layout(read_mmhpsd, find_mmhpsd),
    "eventhpe": Layout(read_eventhpe, find_eventhpe),
    "human36m": Layout(read_human36m, find_human36m),
    "3dpw": Layout(read_3dpw, find_3dpw),
    "rendered": Layout(read_rendered, find_rendered),
}


def read_poses(
    root: Path | str, *, split: str | None = None, layout: str | None = None
) -> PoseIndex:
    """The poses of a data set; as for `read_dataset`, with `POSE_LAYOUTS`."""
    index: PoseIndex = get_task("pose").read(root, split=split, layout=layout)
    return index
