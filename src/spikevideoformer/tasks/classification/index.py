"""`read_index`: labelled clips, in any of the layouts that are known."""

from __future__ import annotations

from pathlib import Path

from spikevideoformer.data.index import Layout
from spikevideoformer.data.lists import find_lists, subfolders
from spikevideoformer.task import get_task
from spikevideoformer.tasks.classification.layouts.folders import read_folders, read_stills
from spikevideoformer.tasks.classification.layouts.hmdb51 import find_hmdb51, read_hmdb51
from spikevideoformer.tasks.classification.layouts.kinetics import find_kinetics, read_kinetics
from spikevideoformer.tasks.classification.layouts.lists import read_lists, read_splits
from spikevideoformer.tasks.classification.layouts.something import find_something, read_something
from spikevideoformer.tasks.classification.layouts.ucf101 import find_ucf101, read_ucf101
from spikevideoformer.tasks.classification.sample import ClipIndex

LAYOUTS: dict[str, Layout[ClipIndex]] = {
    "splits": Layout(read_splits, lambda root: (root / "splits.csv").is_file()),
    "ucf101": Layout(read_ucf101, find_ucf101, folds=3),
    "hmdb51": Layout(read_hmdb51, find_hmdb51, folds=3),
    "something": Layout(read_something, find_something),
    "kinetics": Layout(read_kinetics, find_kinetics),
    "lists": Layout(read_lists, find_lists),
    "folders": Layout(read_folders, subfolders),
    "stills": Layout(read_stills),  # folders of pictures are clips unless this is said
}


def read_index(
    root: Path | str, *, split: str | None = None, layout: str | None = None, fold: int = 1
) -> ClipIndex:
    """The clips of a data set; arguments and errors as for `read_dataset`, with `LAYOUTS`."""
    index: ClipIndex = get_task("classification").read(root, split=split, layout=layout, fold=fold)
    return index
