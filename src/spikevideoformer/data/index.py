"""`read_index`: recognises the layout of a folder and has it read by that family's reader.

The types it answers with (`ClipIndex`, `ClipSample`, `Problem`, `DatasetError`) are defined in
`sample` and passed on here, so that a user needs this module alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from spikevideoformer.data.folders import read_folders, subfolders
from spikevideoformer.data.hmdb51 import find_hmdb51, read_hmdb51
from spikevideoformer.data.kinetics import find_kinetics, read_kinetics
from spikevideoformer.data.lists import find_lists, read_lists, read_splits
from spikevideoformer.data.sample import (
    ClipIndex,
    ClipSample,
    DatasetError,
    Problem,
    check_data_folder,
    check_layout,
    note_other_splits,
)
from spikevideoformer.data.something import find_something, read_something
from spikevideoformer.data.ucf101 import find_ucf101, read_ucf101

__all__ = ["LAYOUTS", "ClipIndex", "ClipSample", "DatasetError", "Problem", "read_index"]

_READERS: dict[str, Callable[[Path], ClipIndex]] = {
    "splits": read_splits,
    "ucf101": read_ucf101,
    "hmdb51": read_hmdb51,
    "something": read_something,
    "kinetics": read_kinetics,
    "lists": read_lists,
    "folders": read_folders,
}
_FOLD_READERS = {"ucf101": read_ucf101, "hmdb51": read_hmdb51}

LAYOUTS = tuple(_READERS)
"""The layouts that `read_index` knows, in the order in which it tries them."""


def read_index(
    root: Path | str, *, split: str | None = None, layout: str | None = None, fold: int = 1
) -> ClipIndex:
    """Read the lists or folders of a data set; no video is opened.

    Lines that cannot be read do not stop it: they are collected in `problems`, and `check_index`
    reports them together with what is wrong with the files.

    Args:
        root: the folder of the data set.
        split: train, val or test: only this part; None: all of them.
        layout: one of `LAYOUTS`; None: recognised by the files in the root.
        fold: which of the three official splits, for UCF-101 and HMDB-51.

    Raises:
        DatasetError: no folder, no layout that is known, or no such split.
    """
    root = Path(root)
    check_data_folder(root, "clips")
    check_layout(layout, LAYOUTS)
    layout = layout or _recognise(root)
    try:
        if layout in _FOLD_READERS:
            index = _FOLD_READERS[layout](root, fold)
        elif fold != 1:
            raise DatasetError(
                f"fold is {fold}, but {root} is read as {layout}, which has no official folds;"
                " leave it out"
            )
        else:
            index = _READERS[layout](root)
    except OSError as error:
        raise DatasetError(
            f"{error.filename or root} cannot be read ({error.strerror or error});"
            f" check that it exists, or that {root} has the layout {layout}"
        ) from error
    if not index.samples and not index.problems:
        raise DatasetError(f"{root}, read as {layout}, lists no clip; add clips to it")
    if split is not None:
        return index.select(split)
    note_other_splits(root, index.splits)
    return index


def _recognise(root: Path) -> str:
    """The most specific layout that the files in the root fit."""
    if (root / "splits.csv").is_file():
        return "splits"
    if find_ucf101(root) is not None:
        return "ucf101"
    if find_hmdb51(root) is not None:
        return "hmdb51"
    if find_something(root) is not None:
        return "something"
    if find_kinetics(root):
        return "kinetics"
    if find_lists(root):
        return "lists"
    if subfolders(root):
        return "folders"
    raise DatasetError(
        f"{root} holds no data set: expected class folders (train/<class>/<clip>), splits.csv,"
        " train.csv and val.csv, or an official layout; see docs/data.md"
    )
