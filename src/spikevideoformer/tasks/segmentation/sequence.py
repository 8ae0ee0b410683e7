"""Frame sequences with a mask for some of their frames: what segmentation data sets are read into.

A `FrameSequence` is one unbroken stretch of video as picture files in order; clips are cut inside
one sequence, never across two. Most data sets label few frames only (Cityscapes one in thirty), so
a frame's mask may be absent: such a frame is context, for the membranes and for attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from spikevideoformer.data.index import DatasetIndex
from spikevideoformer.data.problems import Problem
from spikevideoformer.tasks.segmentation.spec import SegmentationSpec as SegmentationSpec

IGNORED = 255
"""The class index of pixels that neither loss nor metrics see."""

Colour = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class SequenceFrame:
    """One picture and, where it is labelled, its mask.

    Args:
        image: picture file.
        label: mask file of the same height and width; None: not labelled.
        number: of the frame in its video; rises within a sequence.
        source: where the frame is declared, `file:line` or a folder.
    """

    image: Path
    label: Path | None
    number: int
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class FrameSequence:
    """Frames that follow each other in one video.

    Args:
        name: unique within the data set.
        split: train, val or test.
        frames: in order of time, at least one.
    """

    name: str
    split: str
    frames: tuple[SequenceFrame, ...]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def labelled(self) -> int:
        """How many frames have a mask."""
        return sum(frame.label is not None for frame in self.frames)


def in_order(
    frames: Iterable[SequenceFrame], split: str
) -> tuple[list[SequenceFrame], list[Problem]]:
    """Frames of one video by their numbers; of a number that comes twice the first frame stays.

    Returns:
        The frames, and a problem for each one that was left out.
    """
    kept: list[SequenceFrame] = []
    problems: list[Problem] = []
    for frame in sorted(frames, key=lambda frame: frame.number):
        if kept and kept[-1].number == frame.number:
            reason = (
                f"{frame.image.name} has number {frame.number}, as {kept[-1].image.name}"
                f" ({kept[-1].source}) has"
            )
            remedy = "keep one of the two"
            problems.append(
                Problem(
                    "repeated frame", frame.source, reason, remedy, path=frame.image, split=split
                )
            )
        else:
            kept.append(frame)
    return kept, problems


def number_by_position(frames: Iterable[SequenceFrame]) -> list[SequenceFrame]:
    """The frames, in this order, numbered from 0."""
    return [replace(frame, number=number) for number, frame in enumerate(frames)]


def cut(
    frames: Sequence[SequenceFrame], before: Callable[[int], bool]
) -> list[tuple[SequenceFrame, ...]]:
    """Cut frames into pieces that do not span a gap.

    Args:
        frames: in order.
        before: whether there is a gap right before the frame at this position, from 1.
    """
    starts = [0, *(i for i in range(1, len(frames)) if before(i)), len(frames)]
    return [tuple(frames[a:b]) for a, b in pairwise(starts) if a < b]


@dataclass(frozen=True, kw_only=True)
class MaskCode:
    """What the pixels of a mask file mean.

    Args:
        values: class index (or `IGNORED`) for each value of a one-channel file, or for each
            colour of an RGB file. A pixel that is not listed is a mistake in the file.
    """

    values: Mapping[int, int] | Mapping[Colour, int]

    @property
    def of_colours(self) -> bool:
        """Whether the files are RGB."""
        return isinstance(next(iter(self.values)), tuple)


@dataclass(frozen=True, kw_only=True)
class SequenceIndex(DatasetIndex[FrameSequence]):
    """The sequences of a data set, and the classes that their masks name.

    Args:
        classes: class names; pixels of class i are `classes[i]`.
        palette: a colour (R, G, B, each 0 to 255) for each class, to draw it in.
        code: what the pixels of the mask files mean.
        sequences: in a fixed order.
    """

    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    code: MaskCode
    sequences: tuple[FrameSequence, ...]

    @property
    def frames(self) -> int:
        """Pictures in all."""
        return sum(len(sequence) for sequence in self.sequences)

    @property
    def labelled(self) -> int:
        """Pictures with a mask."""
        return sum(sequence.labelled for sequence in self.sequences)

    def content(self) -> Iterator[bytes]:
        """Classes, and frames with their masks."""
        yield repr((self.classes, sorted(map(str, self.code.values.items())))).encode()
        for sequence in self.sequences:
            for frame in sequence.frames:
                label = "None" if frame.label is None else self.named(frame.label)
                yield repr((sequence.name, self.named(frame.image), label)).encode()
