"""Lists of clips: `splits.csv`, and Kinetics-style lists, one per split.

    root/splits.csv          path,label,split and optionally subject (or group), start_s, end_s
    root/train.csv|.txt      one clip a line: path and label, divided by a comma, a tab or a blank
    root/val.csv|.txt        likewise
    root/classes.txt         optional, one class name a line: labels are then indices or these names

Without `classes.txt` the classes are the labels that occur in any of the lists, sorted by name (by
number where all are numbers).
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

from spikevideoformer.data.lists import (
    csv_fields,
    empty_split,
    find_lists,
    listed_path,
    malformed,
    numbered_lines,
    split_records,
)
from spikevideoformer.data.problems import Problem
from spikevideoformer.tasks.classification.sample import ClipIndex, ClipSample

_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)

Row = tuple[str, ClipSample]
"""A label as a list has it, and its clip, whose own label is `UNKNOWN` yet."""
UNKNOWN = -1


def labelled_index(
    root: Path, rows: list[Row], classes: tuple[str, ...] | None, problems: list[Problem]
) -> ClipIndex:
    """The index of clips of a list, whose labels, names or numbers, become indices.

    Args:
        root: of the data set.
        rows: the lines.
        classes: the class list that was given; None: the classes are the labels that occur.
        problems: of the list; one is added for each line whose label is none of the classes.
    """
    numeric = all(_INTEGER.fullmatch(label) for label, _ in rows)
    keys = [str(int(label)) if numeric else label for label, _ in rows]
    if classes is None and numeric:
        classes = tuple(sorted({key for key in keys if int(key) >= 0}, key=int))
    elif classes is None:
        classes = tuple(sorted(set(keys)))
    elif numeric and not set(keys) & set(classes):
        keys = [_name_of_number(int(key), classes) for key in keys]
    position = {name: label for label, name in enumerate(classes)}

    samples: list[ClipSample] = []
    for (label, clip), key in zip(rows, keys, strict=True):
        if key in position:
            samples.append(replace(clip, label=position[key]))
        else:
            problems.append(
                label_problem(clip.source, label, clip.split, clip.path, len(classes), numeric)
            )
    return ClipIndex(root=root, classes=classes, samples=tuple(samples), problems=tuple(problems))


def _name_of_number(number: int, classes: tuple[str, ...]) -> str:
    """The class of this index; for one outside, a name that no class has."""
    return classes[number] if 0 <= number < len(classes) else ""


def label_problem(
    source: str, label: str, split: str, path: Path, num_classes: int, numeric: bool
) -> Problem:
    """The problem of a label that is none of the classes, given as a number or as a name."""
    kind, reason = "unknown label", f"{label!r} is none of the {num_classes} classes"
    remedy = "correct the label, or add it to the class list"
    if numeric:
        kind, reason = "label out of range", f"label {label} is not one of 0 to {num_classes - 1}"
        remedy = "correct the label or the class list"
    return Problem(kind, source, reason, remedy, path=path, split=split)


_WINDOW_COLUMNS = ("start_s", "end_s")


def read_splits(root: Path) -> ClipIndex:
    """Read `root/splits.csv`: a header with path, label, split, and one clip a line.

    Columns that are optional: `subject` or `group` (cross-validation keeps its clips together) and
    `start_s`, `end_s` (the labelled part of the file). Other columns are not read.
    """
    classes, problems = _optional_class_list(root)
    rows: list[Row] = []
    for source, split, record in split_records(root / "splits.csv", ("path", "label"), problems):
        row = _row_of_record(root, source, split, record)
        if isinstance(row, Problem):
            problems.append(row)
        else:
            rows.append(row)
    return labelled_index(root, rows, classes, problems)


def _row_of_record(root: Path, source: str, split: str, record: dict[str, str]) -> Row | Problem:
    empty = [name for name in ("path", "label") if not record[name]]
    if empty or "\0" in record["path"]:
        return malformed(source, "no usable path or label", "fill in both", split)
    window: dict[str, float | None] = {}
    for name in _WINDOW_COLUMNS:
        text = record.get(name, "")
        try:
            window[name] = float(text) if text else None
        except ValueError:
            return malformed(
                source, f"{name} is {text!r}", "give seconds, or leave it empty", split
            )
    start_s, end_s = (window[name] for name in _WINDOW_COLUMNS)
    first_s, last_s = start_s or 0.0, math.inf if end_s is None else end_s
    if not 0.0 <= first_s < last_s:
        reason = f"the part from {start_s} s to {end_s} s is empty or begins before the file"
        return malformed(source, reason, "give 0 <= start_s < end_s", split)
    return record["label"], ClipSample(
        path=listed_path(root, record["path"]),
        label=UNKNOWN,
        split=split,
        source=source,
        group=record.get("subject") or record.get("group") or None,
        **window,
    )


def read_lists(root: Path) -> ClipIndex:
    """Read `train.csv`, `val.csv`, `test.csv` (or `.txt`): a path and a label on each line.

    The two are divided by a comma, a tab or a blank: the first of these that the line contains, and
    its last occurrence, so that paths may hold blanks. A first line `path,label` is a header. Paths
    are relative to the root, or absolute.
    """
    classes, problems = _optional_class_list(root)
    rows: list[Row] = []
    for split, path in find_lists(root).items():
        rows_before, problems_before = len(rows), len(problems)
        for order, (number, line) in enumerate(numbered_lines(path)):
            source = f"{path.name}:{number}"
            fields = _path_and_label(line)
            if fields is None or "\0" in line:
                problems.append(
                    malformed(source, "not a path and a label", "write: path,label", split)
                )
            elif order == 0 and fields[1].lower() in ("label", "class", "category"):
                continue
            else:
                file = listed_path(root, fields[0])
                clip = ClipSample(path=file, label=UNKNOWN, split=split, source=source)
                rows.append((fields[1], clip))
        if (len(rows), len(problems)) == (rows_before, problems_before):
            problems.append(empty_split(path.name, split))
    return labelled_index(root, rows, classes, problems)


def _path_and_label(line: str) -> tuple[str, str] | None:
    for delimiter in (",", "\t"):
        if delimiter in line:
            fields = csv_fields(line, delimiter)
            if fields is None or len(fields) < 2:
                return None
            # An unquoted path may contain the delimiter itself.
            file, label = delimiter.join(fields[:-1]), fields[-1]
            break
    else:
        file, _, label = line.strip().rpartition(" ")
    return (file.strip(), label) if file.strip() and label else None


def _optional_class_list(root: Path) -> tuple[tuple[str, ...] | None, list[Problem]]:
    """The class names of `classes.txt`, one a line, in its order; repeated names are problems."""
    path, classes, problems = root / "classes.txt", list[str](), list[Problem]()
    if not path.is_file():
        return None, problems
    for number, line in numbered_lines(path):
        name = line.strip()
        if name in classes:
            source, reason = f"{path.name}:{number}", f"class {name!r} is listed twice"
            problems.append(malformed(source, reason, "keep one of the two lines"))
        else:
            classes.append(name)
    return tuple(classes), problems
