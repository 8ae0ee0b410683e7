"""The check before step 0 for frames with masks: all that is wrong, in one list.

As `check` does it for clips; a bad mask costs its frame the label, a bad picture the frame.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from spikevideoformer.data.check import (
    Fault,
    Progress,
    Report,
    Use,
    absent_splits,
    file_fault,
    in_several_splits,
    in_threads,
    split_names,
)
from spikevideoformer.data.pictures import picture_size, read_picture
from spikevideoformer.data.problems import Problem
from spikevideoformer.data.specs import Decode
from spikevideoformer.tasks.segmentation.masks import MaskError, read_mask
from spikevideoformer.tasks.segmentation.sequence import (
    IGNORED,
    FrameSequence,
    MaskCode,
    SequenceFrame,
    SequenceIndex,
    cut,
)
from spikevideoformer.tasks.segmentation.spec import SegmentationSpec
from spikevideoformer.video.interface import VideoError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SequenceReport(Report[SequenceIndex]):
    """What the check found.

    Args:
        class_pixels: for each split, how many pixels each class has in the sound masks of sound
            pictures; None where masks were not decoded.
    """

    class_pixels: Mapping[str, tuple[int, ...]] | None = field(default=None, repr=False)

    _bad: ClassVar[str] = "frames and masks"
    _without: ClassVar[str] = "has no labelled frame"

    @property
    def cleaned(self) -> SequenceIndex:
        """The index without what has problems.

        A frame with a bad mask is no longer labelled. A frame with a bad picture is cut out, and
        its sequence is cut in two there, because clips must not span a gap; the second part is
        called after the first and the number of its first frame.
        """
        bad = {(problem.path, problem.split) for problem in self.problems}
        return self.index.with_items(
            [part for s in self.index.sequences for part in _without(s, bad)]
        )

    def looked_at(self) -> str:
        """How many frames."""
        return f"{self.index.frames} frames"

    def emptied(self, cleaned: SequenceIndex) -> list[str]:
        """Splits that have no frame left, or no mask where they had some."""
        left = _labelled_splits(cleaned)
        had = {*_labelled_splits(self.index), *self.required}
        return [
            split
            for split in dict.fromkeys([*self.index.splits, *self.required])
            if split not in cleaned.splits or (split in had and split not in left)
        ]


def check_sequences(
    index: SequenceIndex,
    *,
    required_splits: Sequence[str] = (),
    decode: Decode = "full",
    spec: SegmentationSpec | None = None,
    progress: Progress | None = None,
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
        spec: how the network sees frames; None: as pictures.
        progress: called with the number of frames that are done and their total.
    """
    required = split_names(required_splits)
    problems = list(index.problems)
    pixels = {split: np.zeros(len(index.classes), np.int64) for split in index.splits}
    sound = []
    frames = [(sequence, frame) for sequence in index.sequences for frame in sequence.frames]
    sizes: defaultdict[int, list[tuple[SequenceFrame, tuple[int, int]]]] = defaultdict(list)
    findings = in_threads(
        lambda item: _look_at(item[1], index.code, len(index.classes), decode, spec),
        frames,
        progress,
    )
    for (sequence, frame), finding in zip(frames, findings, strict=True):
        for path, fault in ((frame.image, finding.image), (frame.label, finding.label)):
            if fault is not None:
                problems.append(_problem(frame, sequence.split, path, *fault))
        if finding.image is None:
            sound.append(frame.image)
            if finding.size is not None:
                sizes[id(sequence)].append((frame, finding.size))
            if finding.pixels is not None:
                pixels[sequence.split] += finding.pixels
    for sequence in index.sequences:
        problems += _odd_sizes(sequence, sizes[id(sequence)])
    uses = [Use(path=f.image, split=s.split, source=f.source, sample=None) for s, f in frames]
    problems += in_several_splits(uses, sound, index.root)
    problems += absent_splits(
        index, required, "no frame of {split} has a mask", _labelled_splits(index)
    )
    if decode == "full":
        for name, count in zip(index.classes, pixels.get("train", ()), strict=False):
            if count == 0:
                log.warning("class %r has no pixel in train: it cannot be learnt", name)
    return SequenceReport(
        index=index,
        problems=tuple(problems),
        required=required,
        class_pixels={split: tuple(counts.tolist()) for split, counts in pixels.items()}
        if decode == "full"
        else None,
    )


def count_pixels(
    index: SequenceIndex,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Int64[np.ndarray, " K"]:
    """How many pixels each class has in the masks of an index.

    Args:
        index: all of its labelled frames count; select a split for those of one.
        progress: called with the number of masks that are done and their total.

    Raises:
        MaskError: a mask cannot be read.
    """
    labels = [f.label for s in index.sequences for f in s.frames if f.label is not None]
    classes = len(index.classes)
    total = np.zeros(classes, np.int64)
    for pixels in in_threads(
        lambda label: _pixels(read_mask(label, index.code), classes), labels, progress
    ):
        total += pixels
    return total


# --- Files ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Finding:
    """What looking at one frame gave: faults, height and width, and pixels of each class."""

    image: Fault | None = None
    label: Fault | None = None
    size: tuple[int, int] | None = None
    pixels: Int64[np.ndarray, " K"] | None = None


def _look_at(
    frame: SequenceFrame,
    code: MaskCode,
    classes: int,
    decode: Decode,
    spec: SegmentationSpec | None,
) -> _Finding:
    full = decode == "full" and frame.label is not None
    image_fault = file_fault(frame.image)
    size: tuple[int, int] | None = None
    if image_fault is None and decode != "none":
        try:
            if full:
                size = read_picture(frame.image, spec).shape[:2]
            else:
                size = picture_size(frame.image, spec)
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
                if mask_size == size[::-1]:
                    reason += "; a picture is turned as its Exif says, and masks are drawn on that"
                label_fault, pixels = ("size of mask", reason, "make the two of one size"), None
    return _Finding(image=image_fault, label=label_fault, size=size, pixels=pixels)


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


def _labelled_splits(index: SequenceIndex) -> set[str]:
    return {sequence.split for sequence in index.sequences if sequence.labelled}


def _problem(
    frame: SequenceFrame, split: str, path: Path | None, kind: str, reason: str, remedy: str
) -> Problem:
    return Problem(kind, frame.source, reason, remedy, path=path, split=split)


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
