"""Lists and folders as readers of data sets meet them: lines, tables, and folders of splits."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from spikevideoformer.data.problems import Problem, listed_split, split_of_name
from spikevideoformer.video.interface import IMAGE_SUFFIXES, VIDEO_SUFFIXES


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The non-blank lines of a text file with their numbers from 1, without the line ends.

    Bytes that are not UTF-8 are kept as Python keeps them in file names, so that a list can name
    any file. A byte order mark is dropped.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline=None) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line.rstrip("\n")


def csv_fields(line: str, delimiter: str = ",") -> list[str] | None:
    """The fields of one line of csv, stripped; None where quotes are not closed.

    Read line by line, because one stray quote would otherwise swallow the rest of the file.
    """
    try:
        return [f.strip() for f in next(csv.reader([line], delimiter=delimiter, strict=True))]
    except csv.Error:
        return None


def csv_records(
    path: Path, required: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, str] | Problem]]:
    """The lines of a csv file with a header: where each stands, and its fields by column name.

    Names of columns are in lower case. A line that cannot be read comes as its problem; after a
    header without one of the `required` columns nothing more comes.
    """
    header: list[str] | None = None
    for number, line in numbered_lines(path):
        source = f"{path.name}:{number}"
        fields = csv_fields(line)
        if fields is None:
            yield source, malformed(source, "a quote is not closed", "close the quote")
        elif header is None:
            header = [name.lower() for name in fields]
            if missing := [name for name in required if name not in header]:
                reason = f"the header has no column {', '.join(missing)}"
                remedy = f"begin the file with: {','.join(required)}"
                yield source, malformed(source, reason, remedy)
                return
        elif len(fields) != len(header):
            reason = f"{len(fields)} fields where the header has {len(header)}"
            remedy = "give each column one field, quoted where it contains a comma"
            yield source, malformed(source, reason, remedy)
        else:
            yield source, dict(zip(header, fields, strict=True))


def split_records(
    path: Path, required: tuple[str, ...], problems: list[Problem]
) -> Iterator[tuple[str, str, dict[str, str]]]:
    """The lines of a table with a column `split`: where each stands, its split, and its fields.

    What cannot be used is added to `problems`.
    """
    for source, record in csv_records(path, (*required, "split")):
        if isinstance(record, Problem):
            problems.append(record)
        elif (split := listed_split(record["split"])) is None:
            problems.append(malformed(source, "no split", "name one, such as train, val or test"))
        else:
            yield source, split, record


def malformed(source: str, reason: str, remedy: str, split: str | None = None) -> Problem:
    """The problem of a line that cannot be read."""
    return Problem("malformed line", source, reason, remedy, split=split)


def listed_path(root: Path, text: str) -> Path:
    """The file or folder that a list names, relative to the root or absolute.

    Lists travel: a name with the separators of Windows, or with accents composed otherwise than on
    this disk, stands for the file that is there.
    """
    path = root / text
    if (text.isascii() and "\\" not in text) or path.exists():
        return path
    for other in (text, text.replace("\\", "/")):
        for form in ("NFC", "NFD"):
            if (found := root / unicodedata.normalize(form, other)).exists():
                return found
    return path


def find_lists(root: Path) -> dict[str, Path]:
    """The Kinetics-style lists of a folder by split: files named train, val or test, .csv or .txt.

    `train_list.txt` and `trainlist.txt` are found as well; `train.csv` goes before `train.txt`.
    """
    lists: dict[str, Path] = {}
    for path in sorted(root.iterdir()):
        if path.suffix.lower() in (".csv", ".txt") and path.is_file():
            split = split_of_name(re.sub(r"[_-]?list$", "", path.stem.lower()))
            if split is not None:
                lists.setdefault(split, path)
    return lists


def empty_split(source: str, split: str) -> Problem:
    """The problem of a list or folder of a split that names no clip."""
    reason = f"no clip of {split} is in it"
    remedy = "add clips, or remove it"
    return Problem("split without samples", source, reason, remedy, split=split)


def subfolders(folder: Path) -> list[Path]:
    """The folders directly inside, sorted by name, without hidden ones."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def is_image_sequence(folder: Path) -> bool:
    """Whether images and no videos lie directly in the folder, so that it is itself one clip."""
    suffixes = {p.suffix.lower() for p in folder.iterdir() if not p.name.startswith(".")}
    return bool(suffixes & IMAGE_SUFFIXES) and not suffixes & VIDEO_SUFFIXES


def split_folders(root: Path) -> list[tuple[str, Path]]:
    """The folders of the root that are named like a split, with the split."""
    named = [(split_of_name(folder.name), folder) for folder in subfolders(root)]
    return [(split, folder) for split, folder in named if split is not None]
