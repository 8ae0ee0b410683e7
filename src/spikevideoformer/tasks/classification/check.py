"""The check before step 0 for labelled clips."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from spikevideoformer.data.check import (
    Fault,
    Progress,
    Report,
    Use,
    absent_splits,
    in_several_splits,
    in_threads,
    problem_of,
    split_names,
    video_fault,
)
from spikevideoformer.data.problems import Problem, relative
from spikevideoformer.data.specs import Decode
from spikevideoformer.tasks.classification.sample import ClipIndex, ClipSample
from spikevideoformer.video.frames import DecodeLimits
from spikevideoformer.video.spec import ClipSpec


@dataclass(frozen=True, kw_only=True)
class CheckReport(Report[ClipIndex]):
    """What the check found; classes stay, whatever clips are left out."""

    _bad: ClassVar[str] = "clips"

    def also_lost(self, cleaned: ClipIndex) -> Iterator[Problem]:
        """A class whose training clips were all left out."""
        for label in sorted(_train_labels(self.index) - _train_labels(cleaned)):
            yield _class_without_clips(self.index, label, "all its train clips have problems")


def check_index(
    index: ClipIndex,
    *,
    required_splits: Sequence[str] = (),
    decode: Decode = "full",
    limits: DecodeLimits | None = None,
    spec: ClipSpec | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Look for everything that is wrong with a data set.

    The list holds: malformed lines, unknown labels and labels out of range (found while reading);
    missing, empty, unreadable, corrupt and short files; repeated lines; clips in more than one
    split, by path and by content; classes and splits without clips. Each problem names its file
    and line and says what to do.

    Args:
        index: as `read_index` returns it, or one split of it.
        required_splits: splits that must have clips; in `train` each class must have some.
        decode: "full" decodes every frame; "open" only reads the header, fast, and blind to damage
            further in; "none" does not open the videos.
        limits: against files that unpack to far more than they seem; None: the usual ones.
        spec: how the network sees videos; None: as pictures.
        progress: called with the number of files that are done and their total.
    """
    required = split_names(required_splits)
    problems = list(index.problems)
    paths = list(dict.fromkeys(sample.path for sample in index.samples))
    bounds = limits or DecodeLimits()
    found = in_threads(lambda path: video_fault(path, decode, bounds, spec), paths, progress)
    finding_of_path = dict(zip(paths, found, strict=True))
    for sample in index.samples:
        fault = _fault_of(sample, *finding_of_path[sample.path])
        if fault is not None:
            problems.append(problem_of(sample, *fault))
    problems += _repeated_lines(index)
    problems += in_several_splits(
        [Use(path=s.path, split=s.split, source=s.source, sample=s) for s in index.samples],
        [path for path in paths if finding_of_path[path][0] is None],
        index.root,
        _overlap,
    )
    trained = _train_labels(index)
    if "train" in required and trained:
        for label in range(len(index.classes)):
            if label not in trained:
                problems.append(_class_without_clips(index, label, "no train clip has this label"))
    problems += absent_splits(index, required, "no clip of {split} is listed", index.splits)
    return CheckReport(index=index, problems=tuple(problems), required=required)


def _fault_of(sample: ClipSample, fault: Fault | None, duration_s: float | None) -> Fault | None:
    """What is wrong with the file, or with the part of it that the sample is."""
    if fault is not None or duration_s is None or sample.start_s is None:
        return fault
    if sample.start_s < duration_s:
        return None
    reason = f"start_s is {sample.start_s:g}, but {sample.path.name} ends at {duration_s:.2f} s"
    return "part outside the file", reason, "correct start_s"


def _repeated_lines(index: ClipIndex) -> Iterator[Problem]:
    """The same part of the same file, twice in one split."""
    alike: defaultdict[Hashable, list[ClipSample]] = defaultdict(list)
    for s in index.samples:
        alike[os.path.normpath(s.path), s.split, s.start_s, s.end_s].append(s)
    for first, *others in alike.values():
        labels = {s.label for s in (first, *others)}
        name = relative(first.path, index.root)
        if len(labels) > 1:
            names = " and ".join(repr(index.classes[label]) for label in sorted(labels))
            reason = f"{name} is listed as {names}"
            for sample in (first, *others):
                remedy = "keep the line that is right"
                yield problem_of(sample, "contradictory labels", reason, remedy)
        else:
            for sample in others:
                reason = f"{relative(sample.path, index.root)} is already listed in {first.source}"
                yield problem_of(sample, "repeated clip", reason, "remove one of the two entries")


def _overlap(a: Use, b: Use) -> bool:
    def part(use: Use) -> tuple[float, float]:
        sample = use.sample
        assert isinstance(sample, ClipSample)
        return sample.start_s or 0.0, math.inf if sample.end_s is None else sample.end_s

    (a_start, a_end), (b_start, b_end) = part(a), part(b)
    return a_start < b_end and b_start < a_end


def _train_labels(index: ClipIndex) -> set[int]:
    return {sample.label for sample in index.samples if sample.split == "train"}


def _class_without_clips(index: ClipIndex, label: int, reason: str) -> Problem:
    reason = f"class {index.classes[label]!r}: {reason}"
    remedy = "add clips of it, or remove the class"
    return Problem("empty class", str(index.root), reason, remedy, split="train")
