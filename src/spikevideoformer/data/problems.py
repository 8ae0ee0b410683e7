"""What is wrong with a data set, and the names of its splits."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from spikevideoformer.messages import one_line

SPLITS = ("train", "val", "test")
"""The splits, in the order in which they are shown."""

_SPLIT_OF_NAME = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "validate": "val",
    "test": "test",
    "testing": "test",
}


def split_of_name(name: str) -> str | None:
    """The split (train, val or test) that a folder, file or column calls by this name.

    Returns:
        None where the name is none that is known; case and surrounding blanks do not matter.
    """
    return _SPLIT_OF_NAME.get(name.strip().lower())


def listed_split(name: str) -> str | None:
    """The split that a list calls by this name, which may be any: train, val, test or its own.

    Returns:
        None for an empty name; case and surrounding blanks do not matter.
    """
    return split_of_name(name) or name.strip().lower() or None


def ordered_splits(splits: Iterable[str]) -> tuple[str, ...]:
    """Each once: train, val, test in this order, and then others by name."""
    present = set(splits)
    return (*(s for s in SPLITS if s in present), *sorted(present.difference(SPLITS)))


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set.

    Args:
        kind: a short name, the same for all problems of a sort ("missing file", "malformed line").
        source: where to look, `file:line` or a folder.
        reason: what is wrong, in one line.
        remedy: what to do about it, in one line.
        path: the file that is concerned, where there is one.
        split: the split that is concerned; None: all of them.
        sample: the sample to leave out so that the problem is gone; None where a line could not be
            made into a sample, or where the problem is not one of a single clip.
    """

    kind: str
    source: str
    reason: str
    remedy: str
    path: Path | None = None
    split: str | None = None
    sample: object | None = None

    def __str__(self) -> str:
        return one_line(f"{self.source}: {self.kind}: {self.reason}; {self.remedy}")


class DatasetError(ValueError):
    """A data set cannot be used as it is. The text is one line; `problems` holds the details."""

    def __init__(self, message: str, problems: Iterable[Problem] = ()) -> None:
        super().__init__(one_line(message))
        self.problems = tuple(problems)


def relative(path: Path, root: Path) -> str:
    """How a file is named in messages: relative to the data folder where it lies inside."""
    return os.fspath(path.relative_to(root) if path.is_relative_to(root) else path)
