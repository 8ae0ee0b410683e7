"""Labelled clips: `ClipSample` is one of them, `ClipIndex` all of a data set with their classes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from spikevideoformer.data.index import DatasetIndex
from spikevideoformer.data.problems import DatasetError


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
class ClipIndex(DatasetIndex[ClipSample]):
    """The clips of a data set, in a fixed order, and the classes that their labels point into.

    Args:
        root: the folder that was read.
        layout: how it was read ("folders", "splits", "ucf101", ...).
        classes: class names; label i is `classes[i]`. The same for all splits.
        samples: the clips, in the order of the lists (or sorted by path).
        problems: what was wrong in the lists themselves; `check_index` adds what is wrong with the
            files. An index with problems cannot be made into a `ClipDataset`.
    """

    classes: tuple[str, ...]
    samples: tuple[ClipSample, ...]

    _holds: ClassVar[str] = "samples"

    def __len__(self) -> int:
        return len(self.samples)

    def content(self) -> Iterator[bytes]:
        """Classes and clips."""
        yield repr(self.classes).encode()
        for s in self.samples:
            yield repr((self.named(s.path), s.label, s.start_s, s.end_s)).encode()

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
        return replace(
            self,
            classes=tuple(classes),
            samples=tuple(replace(s, label=position[self.classes[s.label]]) for s in self.samples),
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
