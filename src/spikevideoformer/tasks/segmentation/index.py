"""`read_sequences`: frames with masks, in any of the layouts that are known."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from spikevideoformer.data.index import Layout
from spikevideoformer.task import get_task
from spikevideoformer.tasks.segmentation.layouts.camvid import find_camvid, read_camvid
from spikevideoformer.tasks.segmentation.layouts.cityscapes import find_cityscapes, read_cityscapes
from spikevideoformer.tasks.segmentation.layouts.mask_folders import (
    find_mask_folders,
    read_mask_folders,
)
from spikevideoformer.tasks.segmentation.layouts.mask_table import read_mask_table
from spikevideoformer.tasks.segmentation.layouts.vspw import find_vspw, read_vspw
from spikevideoformer.tasks.segmentation.sequence import SequenceIndex

SEQUENCE_LAYOUTS: dict[str, Layout[SequenceIndex]] = {
    "table": Layout(read_mask_table, lambda root: (root / "splits.csv").is_file()),
    "camvid": Layout(read_camvid, find_camvid),
    "camvid32": Layout(partial(read_camvid, layout="camvid32")),
    "cityscapes": Layout(read_cityscapes, find_cityscapes),
    "vspw": Layout(read_vspw, find_vspw),
    "folders": Layout(read_mask_folders, find_mask_folders),
}


def read_sequences(
    root: Path | str, *, split: str | None = None, layout: str | None = None
) -> SequenceIndex:
    """The frames of a data set; as for `read_dataset`, with `SEQUENCE_LAYOUTS`."""
    index: SequenceIndex = get_task("segmentation").read(root, split=split, layout=layout)
    return index
