"""Kinetics-400 in its official layout (Kay et al. 2017); 600 and 700 have the same form.

    root/annotations/train.csv      label,youtube_id,time_start,time_end,split
    root/train/<youtube_id>_<time_start:06d>_<time_end:06d>.mp4
    root/train/<label>/<youtube_id>_<time_start:06d>_<time_end:06d>.mp4     (some downloads)

Annotations may also lie in the root, or be called `kinetics-400_train.csv`, `kinetics_train.csv`.
Clips of one YouTube video form a group. A list without labels (some test lists) is not read.
"""

from __future__ import annotations

import re
from pathlib import Path

from spikevideoformer.data.lists import (
    csv_fields,
    empty_split,
    malformed,
    numbered_lines,
    split_folders,
)
from spikevideoformer.data.problems import SPLITS, DatasetError, Problem, relative, split_of_name
from spikevideoformer.tasks.classification.layouts.lists import UNKNOWN, Row, labelled_index
from spikevideoformer.tasks.classification.sample import ClipIndex, ClipSample
from spikevideoformer.video.interface import VIDEO_SUFFIXES

_COLUMNS = ("label", "youtube_id", "time_start", "time_end")


def find_kinetics(root: Path) -> dict[str, Path]:
    """The annotation files by split; empty where this is no Kinetics."""
    found: dict[str, Path] = {}
    for folder in (root / "annotations", root):
        for path in sorted(folder.glob("*.csv")):
            name = re.sub(r"^kinetics[-_]?(\d+)?[-_]", "", path.stem.lower())
            split = split_of_name(name)
            if split is not None and set(_COLUMNS) <= set(_header(path)):
                found.setdefault(split, path)
    return {split: found[split] for split in SPLITS if split in found}


def _header(path: Path) -> list[str]:
    for _, line in numbered_lines(path):
        return [name.lower() for name in csv_fields(line) or []]
    return []


def read_kinetics(root: Path) -> ClipIndex:
    """Read the annotation files of all splits that are there.

    Raises:
        DatasetError: no annotation file is there.
    """
    lists = find_kinetics(root)
    if not lists:
        raise DatasetError(
            f"{root} has no annotations/train.csv with the columns {','.join(_COLUMNS)},split;"
            " put the official annotation files there"
        )
    folder_of_split = dict(reversed(split_folders(root)))
    rows: list[Row] = []
    problems: list[Problem] = []
    for split, path in lists.items():
        folder = folder_of_split.get(split, root / split)
        files = _files_by_name(folder)
        header = _header(path)
        listed = False
        for order, (number, line) in enumerate(numbered_lines(path)):
            if order == 0:
                continue
            listed = True
            source = f"{relative(path, root)}:{number}"
            fields = csv_fields(line)
            wrong = f"not the {len(header)} fields {','.join(header)}"
            name = None
            if fields is not None and len(fields) == len(header):
                wrong = "no label, no video id, or times that are not 0 <= start < end"
                record = dict(zip(header, fields, strict=True))
                name = _clip_name(record)
            if name is None:
                problems.append(malformed(source, wrong, "restore the official line", split))
                continue
            clip = ClipSample(
                path=files.get(name, folder / f"{name}.mp4"),
                label=UNKNOWN,
                split=split,
                source=source,
                group=record["youtube_id"],
            )
            rows.append((record["label"], clip))
        if not listed:
            problems.append(empty_split(relative(path, root), split))
    names = tuple(sorted({label for label, _ in rows}))
    return labelled_index(root, rows, names, problems)


def _clip_name(record: dict[str, str]) -> str | None:
    """`<id>_<start:06d>_<end:06d>`, or None where the line does not give it."""
    start, end = record["time_start"], record["time_end"]
    # Some lists write whole seconds as 12.0.
    whole = re.compile(r"(\d{1,6})(?:\.0*)?", re.ASCII)
    first, last = whole.fullmatch(start), whole.fullmatch(end)
    video = re.fullmatch(r"[\w-]+", record["youtube_id"], re.ASCII)
    if first is None or last is None or video is None or not record["label"]:
        return None
    if int(first[1]) >= int(last[1]):
        return None
    return f"{video[0]}_{int(first[1]):06d}_{int(last[1]):06d}"


def _files_by_name(folder: Path) -> dict[str, Path]:
    """The videos in the folder of a split, directly or in class folders, by name without suffix."""
    found = [*folder.glob("*"), *folder.glob("*/*")]
    return {p.stem: p for p in sorted(found) if p.suffix.lower() in VIDEO_SUFFIXES}
