"""The index of a data set: what it holds, in a fixed order, and how its folder is read into one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

from spikevideoformer.data.problems import (
    SPLITS,
    DatasetError,
    Problem,
    listed_split,
    ordered_splits,
)
from spikevideoformer.messages import one_line

log = logging.getLogger(__name__)


@runtime_checkable
class Sample(Protocol):
    """One item of a data set: a labelled clip, or a sequence of frames."""

    @property
    def split(self) -> str:
        """The part of the data set that it is in: train, val, test, or a name of its own."""


S = TypeVar("S", bound=Sample)
Own = TypeVar("Own", bound="DatasetIndex[Any]")


@dataclass(frozen=True, kw_only=True, eq=False)
class DatasetIndex(Generic[S]):
    """What a data set holds, in a fixed order. No file of it has been opened but its lists.

    Args:
        root: the folder that was read.
        layout: how it was read ("folders", "splits", "ucf101", ...), as `read_dataset` notes it.
        problems: what was wrong in the lists themselves; the check adds what is wrong with files.
    """

    root: Path
    layout: str = ""
    problems: tuple[Problem, ...] = field(default=(), repr=False)

    _holds: ClassVar[str] = "sequences"
    """The field with what it holds."""

    @property
    def items(self) -> tuple[S, ...]:
        """What it holds, whatever the field is called."""
        return getattr(self, self._holds)

    def with_items(self: Own, items: Sequence[Any], problems: Sequence[Problem] = ()) -> Own:
        """The same index of other items."""
        changes: dict[str, Any] = {self._holds: tuple(items), "problems": tuple(problems)}
        return replace(self, **changes)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that hold something: train, val, test in this order, then others."""
        return ordered_splits(item.split for item in self.items)

    def select(self: Own, split: str) -> Own:
        """The part of one split, with the problems that concern it.

        Raises:
            DatasetError: the data set has no such split.
        """
        wanted = listed_split(split)
        items = [item for item in self.items if item.split == wanted]
        problems = [p for p in self.problems if p.split in (None, wanted)]
        # An empty split whose every line is broken has problems to show; one without is not there.
        if wanted is None or not (items or any(p.split == wanted for p in problems)):
            have = ", ".join(self.splits) or "none"
            raise DatasetError(
                f"{self.root} has no split {split!r} (it has: {have});"
                " ask for one of these, or add the missing list or folder"
            )
        return self.with_items(items, problems)

    def content(self) -> Iterator[bytes]:
        """What a run learns from: files by name, not by where the data set lies."""
        raise NotImplementedError

    def named(self, path: Path) -> str:
        """A path, as part of that."""
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)


Index_co = TypeVar("Index_co", bound="DatasetIndex[Any]", covariant=True)


@dataclass(frozen=True)
class Layout(Generic[Index_co]):
    """A family of data sets, by the way its files lie.

    Args:
        read: the index of a root; with `folds` also told which of them.
        find: whether the files in a root fit; None: taken only by name.
        folds: how many official folds there are.
    """

    read: Callable[..., Index_co]
    find: Callable[[Path], Any] | None = None
    folds: int = 1


Index = TypeVar("Index", bound="DatasetIndex[Any]")


def read_dataset(
    root: Path | str,
    layouts: Mapping[str, Layout[Index]],
    *,
    holds: str,
    expected: str,
    split: str | None = None,
    layout: str | None = None,
    fold: int = 1,
) -> Index:
    """Read the lists or folders of a data set; no video or picture is opened.

    What is wrong in them does not stop it: it is collected in `problems`.

    Args:
        root: the folder of the data set.
        layouts: those that may be, in the order in which they are tried.
        holds: what lies in the folder, for errors.
        expected: what a folder that fits no layout was expected to hold, for the error.
        split: train, val, test or another of the data set: only this part; None: all of them.
        layout: one of `layouts`; None: recognised by the files in the root.
        fold: which of the official folds, for layouts that have some.

    Raises:
        DatasetError: no folder, no layout that is known, nothing in it, or no such split.
    """
    root = Path(root)
    check_data_folder(root, holds)
    check_layout(layout, layouts)
    try:
        if layout is None:
            layout = next((n for n, it in layouts.items() if it.find and it.find(root)), None)
        if layout is None:
            raise DatasetError(f"{root} holds no {holds}: expected {expected}; see docs/data.md")
        if fold != 1 and layouts[layout].folds == 1:
            raise DatasetError(
                f"fold is {fold}, but {root} is read as {layout}, which has no official folds;"
                " leave it out"
            )
        how = (fold,) if layouts[layout].folds > 1 else ()
        index = replace(layouts[layout].read(root, *how), layout=layout)
    except OSError as error:
        raise DatasetError(
            f"{error.filename or root} cannot be read ({error.strerror or error});"
            f" check that it exists, or that {root} has the layout {layout}"
        ) from error
    if not index.items and not index.problems:
        raise DatasetError(f"{root}, read as {layout}, holds no {holds}; add some to it")
    if split is not None:
        return index.select(split)
    _note_other_splits(root, index.splits)
    return index


def check_data_folder(root: Path, holds: str) -> None:
    """Raise DatasetError where there is no folder; `holds` names what should lie in it."""
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DatasetError(f"data folder {root} {what}; give the folder that holds the {holds}")


def check_layout(layout: str | None, known: Mapping[str, Any] | Sequence[str]) -> None:
    """Raise DatasetError for a layout that is none of the known ones; None is recognised."""
    if layout is not None and layout not in known:
        raise DatasetError(f"unknown layout {layout!r}; choose one of {', '.join(known)}")


def _note_other_splits(root: Path, splits: Sequence[str]) -> None:
    """Tell of splits that are none of the usual three: one may be a misspelt train."""
    if others := [split for split in splits if split not in SPLITS]:
        names = ", ".join(others)
        log.info(one_line(f"{root} has splits of its own, used where they are named: {names}"))
