"""Small pictures and masks for the tests of data sets for segmentation."""

import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from spikevideoformer.tasks.segmentation.check import check_sequences
from spikevideoformer.tasks.segmentation.sequence import SequenceIndex


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def save(path: Path, pixels: object, dtype: type = np.uint8) -> Path:
    """Write an array, `[H, W]` or `[H, W, 3]`, as the image that the ending of the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype)).save(path)
    return path


def picture(path: Path, height: int = 4, width: int = 6) -> Path:
    """A picture whose content depends on its path."""
    seed = zlib.crc32(path.as_posix().encode())
    return save(path, np.random.default_rng(seed).integers(0, 256, (height, width, 3)))


def flat(path: Path, value: int | tuple[int, int, int], height: int = 4, width: int = 6) -> Path:
    """A mask of one value, or of one colour."""
    return save(path, np.full((height, width, *np.shape(value)), value))


def lengths(index: SequenceIndex) -> dict[str, tuple[str, int, int]]:
    """Split, frames and labelled frames of each sequence."""
    return {s.name: (s.split, len(s), s.labelled) for s in index.sequences}


def problems(index: SequenceIndex) -> list[tuple[str, str]]:
    assert all("\n" not in str(p) and p.remedy for p in index.problems)
    return [(p.kind, p.source) for p in index.problems]


def assert_sound(index: SequenceIndex) -> None:
    assert [str(p) for p in check_sequences(index).problems] == []


def names(index: SequenceIndex) -> list[str]:
    return [f.image.stem for s in index.sequences for f in s.frames]
