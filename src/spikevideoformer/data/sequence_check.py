"""The check before step 0 for frames with masks: all that is wrong, in one list.

As `check` does it for clips; a bad mask costs its frame the label, a bad picture the frame.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Int64

from spikevideoformer.data.check import (
    Decode,
    kept_rank,
    shared_content,
    stop_or_skip,
    summary_of,
)
from spikevideoformer.data.masks import MaskError, picture_size, read_mask, read_picture
from spikevideoformer.data.sample import Problem, listed_split, relative
from spikevideoformer.data.sequence import (
    IGNORED,
    FrameSequence,
    MaskCode,
    SequenceFrame,
    SequenceIndex,
    cut,
)
from spikevideoformer.data.sources import VideoError

log = logging.getLogger(__name__)

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class SequenceReport:
    """What the check found.

    Args:
        index: the index that was checked.
        problems: everything that is wrong: first in the lists, then in the files, then duplicates
            and splits.
        class_pixels: for each split, how many pixels each class has in the sound masks of sound
            pictures; None where masks were not decoded.
    """

    index: SequenceIndex
    problems: tuple[Problem, ...]
    class_pixels: Mapping[str, tuple[int, ...]] | None = field(default=None, repr=False)

    @property
    def cleaned(self) -> SequenceIndex:
        """The index without what has problems.

        A frame with a bad mask is no longer labelled. A frame with a bad picture is cut out, and
        its sequence is cut in two there, because clips must not span a gap; the second part is
        called after the first and the number of its first frame.
        """
        bad = {(problem.path, problem.split) for problem in self.problems}
        sequences = tuple(part for s in self.index.sequences for part in _without(s, bad))
        return replace(self.index, sequences=sequences, problems=())

    def summary(self) -> str:
        """How many problems there are of each kind, and the first of them, in one line."""
        return summary_of(self.problems, f"{self.index.frames} frames", self.index.root)

    def settle(self, *, skip_bad: bool = False, folder: Path | None = None) -> SequenceIndex:
        """Go on with the data set, or stop.

        Args:
            skip_bad: go on without what has a problem. What is left out is written to
                `folder/skipped.csv` (path, source, kind, reason), one line for each problem.
            folder: where the list of problems goes: `skipped.csv`, or `problems.csv` where the run
                stops here; None: what is left out goes to the log, a line each.

        Returns:
            The index, cleaned where there were problems.

        Raises:
            DatasetError: there are problems and `skip_bad` is not set, or skipping would leave a
                split without a frame, or without a mask where it has some now.
        """
        if not self.problems:
            return self.index
        cleaned = self.cleaned
        emptied = [
            split
            for split in self.index.splits
            if split not in cleaned.splits
            or (_labelled(self.index, split) and not _labelled(cleaned, split))
        ]
        lost = None
        if emptied or not cleaned.sequences:
            name = f"split {' and '.join(emptied)}" if emptied else "data set"
            lost = f"without its bad frames and masks the {name} has no labelled frame"
        stop_or_skip(
            self.problems,
            self.index.root,
            summary=self.summary(),
            skip_bad=skip_bad,
            lost=lost,
            folder=folder,
        )
        return cleaned


def check_sequences(
    index: SequenceIndex,
    *,
    required_splits: Sequence[str] = (),
    decode: Decode = "full",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SequenceReport:
    """Look for everything that is wrong with a data set of frames with masks.

    The list holds: what was wrong in the lists and folders; missing, empty and unreadable pictures
    and masks; masks with values that are no class, or of another size than their picture; pictures
    of another size than the others of their sequence; pictures in more than one split, by path and
    by content; splits without labelled frames. Each problem names its file and says what to do. A
    class without a pixel in `train` is told in the log.

    Args:
        index: as `read_sequences` returns it, or one split of it.
        required_splits: splits that must have labelled frames.
        decode: "full" decodes the labelled frames and their masks, and reads the headers of the
            other frames; "open" reads headers only; "none" only looks whether the files are there.
        workers: threads that decode; None: one for each CPU core, at most 8.
        progress: called with the number of frames that are done and their total.
    """
    problems = list(index.problems)
    pixels = {split: np.zeros(len(index.classes), np.int64) for split in index.splits}
    splits_of_sound: defaultdict[Path, set[str]] = defaultdict(set)
    frames = [(sequence, frame) for sequence in index.sequences for frame in sequence.frames]
    sizes: defaultdict[int, list[tuple[SequenceFrame, tuple[int, int]]]] = defaultdict(list)
    findings = in_threads(
        lambda item: _look_at(item[1], index.code, len(index.classes), decode),
        frames,
        workers,
        progress,
    )
    for (sequence, frame), finding in zip(frames, findings, strict=True):
        for path, fault in ((frame.image, finding.image), (frame.label, finding.label)):
            if fault is not None:
                problems.append(_problem(frame, sequence.split, path, *fault))
        if finding.image is None:
            splits_of_sound[frame.image].add(sequence.split)
            if finding.size is not None:
                sizes[id(sequence)].append((frame, finding.size))
            if finding.pixels is not None:
                pixels[sequence.split] += finding.pixels
    for sequence in index.sequences:
        problems += _odd_sizes(sequence, sizes[id(sequence)])
    problems += _in_several_splits(index, shared_content(splits_of_sound))
    problems += _unlabelled_splits(index, required_splits)
    if decode != "full":
        return SequenceReport(index=index, problems=tuple(problems))
    for name, count in zip(index.classes, pixels.get("train", ()), strict=False):
        if count == 0:
            log.warning("class %r has no pixel in train: it cannot be learnt", name)
    return SequenceReport(
        index=index,
        problems=tuple(problems),
        class_pixels={split: tuple(counts.tolist()) for split, counts in pixels.items()},
    )


def count_pixels(
    index: SequenceIndex,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Int64[np.ndarray, " K"]:
    """How many pixels each class has in the masks of an index.

    Args:
        index: all of its labelled frames count; select a split for those of one.
        workers: threads that decode; None: one for each CPU core, at most 8.
        progress: called with the number of masks that are done and their total.

    Raises:
        MaskError: a mask cannot be read.
    """
    labels = [f.label for s in index.sequences for f in s.frames if f.label is not None]
    classes = len(index.classes)
    total = np.zeros(classes, np.int64)
    for pixels in in_threads(
        lambda label: _pixels(read_mask(label, index.code), classes), labels, workers, progress
    ):
        total += pixels
    return total


# --- Files ---------------------------------------------------------------------------------------

Fault = tuple[str, str, str]
"""Kind, reason and remedy."""


@dataclass(frozen=True, kw_only=True)
class _Finding:
    """What looking at one frame gave: faults, height and width, and pixels of each class."""

    image: Fault | None = None
    label: Fault | None = None
    size: tuple[int, int] | None = None
    pixels: Int64[np.ndarray, " K"] | None = None


def in_threads(
    look: Callable[[_Item], _Result],
    items: Sequence[_Item],
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> Iterator[_Result]:
    """The results in order. Threads suffice: Pillow decodes without the interpreter's lock."""
    pool = ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1))
    try:
        for done, result in enumerate(pool.map(look, items), start=1):
            yield result
            if progress is not None:
                progress(done, len(items))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the rest


def _look_at(frame: SequenceFrame, code: MaskCode, classes: int, decode: Decode) -> _Finding:
    full = decode == "full" and frame.label is not None
    image_fault = file_fault(frame.image)
    size: tuple[int, int] | None = None
    if image_fault is None and decode != "none":
        try:
            size = read_picture(frame.image).shape[:2] if full else picture_size(frame.image)
        except VideoError as error:
            image_fault = "unreadable picture", str(error), "replace the file"
    if frame.label is None:
        return _Finding(image=image_fault, size=size)
    label_fault, pixels = file_fault(frame.label), None
    if label_fault is None and decode != "none":
        try:
            if full:
                mask = read_mask(frame.label, code)
                mask_size, pixels = mask.shape, _pixels(mask, classes)
            else:
                mask_size = picture_size(frame.label)
        except (MaskError, VideoError) as error:
            label_fault = "unusable mask", str(error), "replace or correct the file"
        else:
            if size is not None and mask_size != size:
                reason = f"{frame.label.name} is {_shown(mask_size)}, its picture {_shown(size)}"
                label_fault, pixels = ("size of mask", reason, "make the two of one size"), None
    return _Finding(image=image_fault, label=label_fault, size=size, pixels=pixels)


def file_fault(path: Path) -> Fault | None:
    """What is wrong with a file that is not there, cannot be read or holds nothing."""
    try:
        size_bytes = path.stat().st_size
    except FileNotFoundError:
        return "missing file", f"{path} does not exist", "restore the file or remove the entry"
    except OSError as error:
        reason = f"{path} cannot be read ({error.strerror or error})"
        return "unreadable file", reason, "check the permissions"
    return None if size_bytes else ("empty file", f"{path.name} holds nothing", "replace the file")


def _pixels(mask: np.ndarray, classes: int) -> Int64[np.ndarray, " K"]:
    return np.bincount(mask.ravel(), minlength=IGNORED + 1)[:classes]


def _shown(size: tuple[int, ...]) -> str:
    """Height and width as width x height."""
    return f"{size[1]}x{size[0]}"


def _odd_sizes(
    sequence: FrameSequence, sizes: list[tuple[SequenceFrame, tuple[int, int]]]
) -> Iterator[Problem]:
    """Pictures that are not of the size that most of their sequence have."""
    if not sizes:
        return
    usual = Counter(size for _, size in sizes).most_common(1)[0][0]
    for frame, size in sizes:
        if size != usual:
            reason = (
                f"{frame.image.name} is {_shown(size)}, most of {sequence.name} {_shown(usual)}"
            )
            remedy = "make all pictures of a sequence of one size"
            yield _problem(frame, sequence.split, frame.image, "size of picture", reason, remedy)


# --- Duplicates and splits -----------------------------------------------------------------------


def _in_several_splits(index: SequenceIndex, content: Mapping[Path, bytes]) -> Iterator[Problem]:
    """Pictures of one split that are in another too: the same file, or the same content."""
    alike: defaultdict[Hashable, list[tuple[str, SequenceFrame]]] = defaultdict(list)
    for sequence in index.sequences:
        for frame in sequence.frames:
            key = content.get(frame.image) or os.path.normpath(frame.image)
            alike[key].append((sequence.split, frame))
    for frames in alike.values():
        kept_split, kept = min(frames, key=lambda item: kept_rank(item[0]))
        for split, frame in frames:
            if split == kept_split:
                continue
            name, twin = (relative(f.image, index.root) for f in (frame, kept))
            reason = f"{name}, here in {split}, is also in {kept_split} ({kept.source})"
            if name != twin:
                reason += f" with the same content as {twin}"
            kind = "duplicate across splits"
            yield _problem(frame, split, frame.image, kind, reason, "keep it in one split")


def _unlabelled_splits(index: SequenceIndex, required: Iterable[str]) -> Iterator[Problem]:
    reported = {p.split for p in index.problems if p.kind == "split without samples"}
    for name in required:
        split = listed_split(name) or name
        if not _labelled(index, split) and split not in reported:
            yield Problem(
                kind="split without samples",
                source=str(index.root),
                reason=f"no frame of {split} has a mask",
                remedy=f"add a {split} split with masks",
                split=split,
            )


def _labelled(index: SequenceIndex, split: str) -> int:
    return sum(sequence.labelled for sequence in index.sequences if sequence.split == split)


def _problem(
    frame: SequenceFrame, split: str, path: Path | None, kind: str, reason: str, remedy: str
) -> Problem:
    return Problem(
        kind=kind, source=frame.source, reason=reason, remedy=remedy, path=path, split=split
    )


def _without(
    sequence: FrameSequence, bad: set[tuple[Path | None, str | None]]
) -> Iterator[FrameSequence]:
    """The sound parts of a sequence."""
    split = sequence.split
    gone = [(frame.image, split) in bad for frame in sequence.frames]
    kept = [i for i, bad_picture in enumerate(gone) if not bad_picture]
    frames = [
        replace(frame, label=None) if (frame.label, split) in bad else frame
        for frame in (sequence.frames[i] for i in kept)
    ]
    for i, part in enumerate(cut(frames, lambda n: kept[n] != kept[n - 1] + 1)):
        name = f"{sequence.name}@{part[0].number}" if i else sequence.name
        yield replace(sequence, name=name, frames=part)
