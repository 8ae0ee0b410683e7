"""`read_sequences`: recognises the layout of frames with masks and has them read.

The types it answers with are defined in `sequence`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from spikevideoformer.data.camvid import find_camvid, read_camvid
from spikevideoformer.data.cityscapes import find_cityscapes, read_cityscapes
from spikevideoformer.data.mask_folders import find_mask_folders, read_mask_folders
from spikevideoformer.data.mask_table import read_mask_table
from spikevideoformer.data.sample import (
    DatasetError,
    check_data_folder,
    check_layout,
    note_other_splits,
)
from spikevideoformer.data.sequence import SequenceIndex
from spikevideoformer.data.vspw import find_vspw, read_vspw

_READERS: dict[str, Callable[[Path], SequenceIndex]] = {
    "table": read_mask_table,
    "camvid": read_camvid,
    "camvid32": partial(read_camvid, layout="camvid32"),
    "cityscapes": read_cityscapes,
    "vspw": read_vspw,
    "folders": read_mask_folders,
}

SEQUENCE_LAYOUTS = tuple(_READERS)
"""The layouts that `read_sequences` knows, in the order in which it tries them; `camvid32` is
taken only by name."""


def read_sequences(
    root: Path | str, *, split: str | None = None, layout: str | None = None
) -> SequenceIndex:
    """Read the lists or folders of a data set for segmentation; no picture or mask is opened.

    What is wrong in them does not stop it: it is collected in `problems`, and `check_sequences`
    reports it together with what is wrong with the files.

    Args:
        root: the folder of the data set.
        split: train, val or test: only this part; None: all of them.
        layout: one of `SEQUENCE_LAYOUTS`; None: recognised by the files in the root.

    Raises:
        DatasetError: no folder, no layout that is known, no list of classes, no frame, or no such
            split.
    """
    root = Path(root)
    check_data_folder(root, "frames")
    check_layout(layout, SEQUENCE_LAYOUTS)
    layout = layout or _recognise(root)
    try:
        index = _READERS[layout](root)
    except OSError as error:
        raise DatasetError(
            f"{error.filename or root} cannot be read ({error.strerror or error});"
            f" check that it exists, or that {root} has the layout {layout}"
        ) from error
    if not index.sequences and not index.problems:
        raise DatasetError(f"{root}, read as {layout}, holds no frame; add frames to it")
    if split is not None:
        return index.select(split)
    note_other_splits(root, index.splits)
    return index


def _recognise(root: Path) -> str:
    """The most specific layout that the files in the root fit."""
    if (root / "splits.csv").is_file():
        return "table"
    if find_camvid(root):
        return "camvid"
    if find_cityscapes(root):
        return "cityscapes"
    if find_vspw(root):
        return "vspw"
    if find_mask_folders(root):
        return "folders"
    raise DatasetError(
        f"{root} holds no frames with masks: expected splits.csv (image,label,split) with"
        " classes.csv (id,name), folders <split>/<sequence>/images and labels, or the official"
        " layout of CamVid, Cityscapes or VSPW"
    )
