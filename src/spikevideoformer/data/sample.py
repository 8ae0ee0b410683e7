"""What every data set is read into, whatever its layout: the types, and what is done with them.

`ClipSample` is one labelled clip and `ClipIndex` all clips of a data set with their classes; it
selects splits, takes over the classes of a model, and makes folds and validation parts. `Problem`
and `DatasetError` say what is wrong, in text of `one_line`. `split_of_name`, `listed_split` and
`relative` are for the readers. `index` recognises the layout of a folder and has it read.
"""

from __future__ import annotations

import logging
import os
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

log = logging.getLogger(__name__)

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


def note_other_splits(root: Path, splits: Sequence[str]) -> None:
    """Tell of splits that are none of the usual three: one may be a misspelt train."""
    if others := [split for split in splits if split not in SPLITS]:
        names = ", ".join(others)
        log.info(one_line(f"{root} has splits of its own, used where they are named: {names}"))


@dataclass(frozen=True, kw_only=True)
class ClipSample:
    """One labelled clip.

    Args:
        path: a video file, or a folder of numbered images.
        label: index into the classes of the index that holds the sample, from 0.
        split: train, val, test, or another name that a list has.
        group: clips that share it belong together (one subject, one source video): cross-validation
            never puts them on both sides.
        start_s: where the labelled part begins, in seconds from the first frame; None: at it.
        end_s: where it ends; None: with the file.
        source: where the sample is declared, `file:line` or a folder.
    """

    path: Path
    label: int
    split: str
    group: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    source: str = ""


@dataclass(frozen=True, kw_only=True)
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
    sample: ClipSample | None = None

    def __str__(self) -> str:
        return one_line(f"{self.source}: {self.kind}: {self.reason}; {self.remedy}")


class DatasetError(ValueError):
    """A data set cannot be used as it is. The text is one line; `problems` holds the details."""

    def __init__(self, message: str, problems: Iterable[Problem] = ()) -> None:
        super().__init__(one_line(message))
        self.problems = tuple(problems)


def one_line(text: str) -> str:
    """The text on one line that any terminal can print, whatever a file name contains."""
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return escaped.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True, kw_only=True)
class ClipIndex:
    """The clips of a data set, in a fixed order, and the classes that their labels point into.

    Args:
        root: the folder that was read.
        layout: how it was read ("folders", "splits", "ucf101", ...).
        classes: class names; label i is `classes[i]`. The same for all splits.
        samples: the clips, in the order of the lists (or sorted by path).
        problems: what was wrong in the lists themselves; `check_index` adds what is wrong with the
            files. An index with problems cannot be made into a `ClipDataset`.
    """

    root: Path
    layout: str
    classes: tuple[str, ...]
    samples: tuple[ClipSample, ...]
    problems: tuple[Problem, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have samples: train, val, test in this order, then others."""
        return ordered_splits(sample.split for sample in self.samples)

    def select(self, split: str) -> ClipIndex:
        """The part of one split, with the problems that concern it and all the classes.

        Raises:
            DatasetError: the data set has no such split.
        """
        wanted = listed_split(split)
        samples = tuple(s for s in self.samples if s.split == wanted)
        problems = tuple(p for p in self.problems if p.split in (None, wanted))
        # An empty split whose every line is broken has problems to show; one without is not there.
        if wanted is None or not (samples or any(p.split == wanted for p in problems)):
            have = ", ".join(self.splits) or "none"
            raise DatasetError(
                f"{self.root} has no labelled split {split!r} (it has: {have});"
                " ask for one of these, or add the missing list or folder"
            )
        return replace(self, samples=samples, problems=problems)

    def with_classes(self, classes: Sequence[str]) -> ClipIndex:
        """The same clips, labelled by the class list of a trained model: names are matched.

        Args:
            classes: the class names of the model, in the order of its outputs.

        Raises:
            DatasetError: a class that has clips here is unknown to the model.
        """
        position = {name: label for label, name in enumerate(classes)}
        used = sorted({sample.label for sample in self.samples})
        unknown = [self.classes[label] for label in used if self.classes[label] not in position]
        if unknown:
            more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
            shown = ", ".join(repr(name) for name in unknown[:3])
            known = ", ".join(repr(name) for name in tuple(classes)[:3])
            raise DatasetError(
                f"the model has no class {shown}{more}, which {self.root} contains (its"
                f" {len(classes)} classes begin with {known}); evaluate on data with the classes"
                " it was trained on, or rename them"
            )

        def relabelled(sample: ClipSample) -> ClipSample:
            return replace(sample, label=position[self.classes[sample.label]])

        return replace(
            self,
            classes=tuple(classes),
            samples=tuple(relabelled(sample) for sample in self.samples),
        )

    def folds(self, k: int, seed: int = 0) -> tuple[ClipIndex, ...]:
        """Cross-validation over all samples, whatever split they are in.

        Each fold is the whole index with its own `train` and `val`; every sample is in `val` of
        exactly one fold. Samples of one group stay together (a sample without a group is its own),
        and the folds are as equal in classes and size as a greedy assignment makes them: groups,
        the largest first, go where they make the counts least uneven.

        Args:
            k: number of folds, at least 2.
            seed: order among groups of equal size.

        Raises:
            DatasetError: fewer groups than folds.
        """
        members: dict[str, list[int]] = {}
        for i, sample in enumerate(self.samples):
            key = f"group {sample.group}" if sample.group is not None else f"sample {i}"
            members.setdefault(key, []).append(i)
        if k < 2 or k > len(members):
            raise DatasetError(
                f"cannot make {k} folds from the {len(members)} groups of {self.root};"
                f" choose between 2 and {len(members)}"
            )
        groups = list(members.values())
        random.Random(seed).shuffle(groups)
        groups.sort(key=len, reverse=True)  # stable: the shuffle decides among equals

        per_class = [Counter[int]() for _ in range(k)]
        size = [0] * k
        fold_of = [0] * len(self.samples)
        for group in groups:
            count = Counter(self.samples[i].label for i in group)

            def unevenness(fold: int, count: Counter[int] = count) -> tuple[int, int, int]:
                overlap = sum(n * (2 * per_class[fold][label] + n) for label, n in count.items())
                return (overlap, size[fold], fold)

            fold = min(range(k), key=unevenness)
            per_class[fold].update(count)
            size[fold] += len(group)
            for i in group:
                fold_of[i] = fold

        return tuple(
            replace(
                self,
                samples=tuple(
                    replace(sample, split="val" if fold_of[i] == fold else "train")
                    for i, sample in enumerate(self.samples)
                ),
            )
            for fold in range(k)
        )

    def with_validation(self, fraction: float = 0.2, seed: int = 0) -> ClipIndex:
        """The same index with a `val` split: its own, or else a part of `train` that is set aside.

        The part is one fold of `folds` over the training clips, hence disjoint by group and equal
        in classes as well as can be; `test` stays as it is. No class loses all its training clips:
        the first fold is taken that leaves each class some.

        Args:
            fraction: part of the training clips, in (0, 0.5].
            seed: which part.

        Raises:
            DatasetError: the training clips form fewer than two groups, or every fold would take a
                class away.
        """
        if "val" in self.splits:
            return self
        if not 0.0 < fraction <= 0.5:
            raise ValueError(f"fraction is {fraction}; give a part above 0 and at most 0.5")
        training = replace(self, samples=tuple(s for s in self.samples if s.split == "train"))
        groups = {s.group if s.group is not None else s for s in training.samples}
        folds = training.folds(min(round(1 / fraction), max(len(groups), 2)), seed)
        lost = [_classes_lost(fold) for fold in folds]
        if all(lost):
            name = self.classes[min(lost[0])]
            raise DatasetError(
                f"no clip of {self.root} can be set aside for validation: class {name!r} would have"
                " no training clip left; add clips of it, or train with --val-split none"
            )
        divided = iter(folds[lost.index(set())].samples)
        return replace(
            self, samples=tuple(next(divided) if s.split == "train" else s for s in self.samples)
        )


def _classes_lost(index: ClipIndex) -> set[int]:
    """The labels that have clips, but none in train."""
    trained = {sample.label for sample in index.samples if sample.split == "train"}
    return {sample.label for sample in index.samples} - trained


def check_data_folder(root: Path, holds: str) -> None:
    """Raise DatasetError where there is no folder; `holds` names what should lie in it."""
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DatasetError(f"data folder {root} {what}; give the folder that holds the {holds}")


def check_layout(layout: str | None, known: Sequence[str]) -> None:
    """Raise DatasetError for a layout that is none of the known ones; None is recognised."""
    if layout is not None and layout not in known:
        raise DatasetError(f"unknown layout {layout!r}; choose one of {', '.join(known)}")


def relative(path: Path, root: Path) -> str:
    """How a file is named in messages: relative to the data folder where it lies inside."""
    return os.fspath(path.relative_to(root) if path.is_relative_to(root) else path)
