"""Masks and the pictures that they belong to: read, measured and written.

Both come upright, as Exif asks for it (`data.pictures`); masks carry none as a rule, and are drawn
on the picture as viewers show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile

from spikevideoformer.data.pictures import kind_of_pixels, opened
from spikevideoformer.files import write_atomically
from spikevideoformer.messages import one_line
from spikevideoformer.tasks.segmentation.sequence import IGNORED, Colour, MaskCode
from spikevideoformer.video.picture import Turn
from spikevideoformer.video.stills import exif_orientation

# Only lossless formats: the edges that JPEG blurs would become classes that nobody drew.
_MASK_FORMATS = ("PNG", "BMP")


_UNLISTED = 254
"""Marks values that the code does not list while a mask is looked up."""


class MaskError(ValueError):
    """A mask that cannot be used: ``str`` gives ``path: reason`` on one line.

    Args:
        path: the file.
        reason: what is wrong and what is accepted.
    """

    # `reason` may be left out because a loader worker's error is rebuilt from its text alone.
    def __init__(self, path: str | Path, reason: str = "") -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = one_line(" ".join(reason.split()))

    def __str__(self) -> str:
        return one_line(f"{self.path}: {self.reason}" if self.reason else str(self.path))


def read_mask(path: Path, code: MaskCode) -> UInt8[np.ndarray, "H W"]:
    """Read the classes of a mask file.

    Args:
        path: PNG or BMP. Where the code is of values, the file has one channel of 1 to 16
            bits; of a palette file the numbers count and not its colours. Where the code is of
            colours, the file is RGB, RGBA (alpha is dropped) or a palette of colours.
        code: what the values or colours mean; class indices below 254.

    Returns:
        Class indices, and `IGNORED` where the code says so.

    Raises:
        MaskError: no such file, damage, another kind of file, a picture over `MAX_PIXELS`, or
            pixels that the code does not list.
    """
    with opened(path, MaskError, _MASK_FORMATS) as image:
        mode = image.mode
        if code.of_colours:
            if mode not in ("RGB", "RGBA", "P"):
                raise MaskError(
                    path, f"holds {kind_of_pixels(mode)}, but its data set draws masks in RGB"
                )
            rgb = np.array(image.convert("RGBA")).astype(np.uint32)
            raw = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
        else:
            if mode not in ("1", "L", "P", "I;16", "I;16B", "I;16L"):
                raise MaskError(
                    path,
                    f"holds {kind_of_pixels(mode)}, but masks here have one channel whose values"
                    " name the classes; convert it",
                )
            raw = _values(image)
        raw = Turn.of_exif(exif_orientation(image))(raw)
    classes = _class_of_value(code, raw.dtype)[raw]
    if (unlisted := classes == _UNLISTED).any():
        raise MaskError(path, _unlisted(raw[unlisted], code))
    return classes


def write_mask(path: Path, mask: UInt8[np.ndarray, "H W"], palette: Sequence[Colour]) -> None:
    """Write class indices as a PNG whose pixel values are the indices, shown in colours.

    Args:
        path: the final name; its folder exists. The file is whole or absent.
        mask: indices into `palette`, and `IGNORED`, which is shown black.
        palette: a colour for each class.

    Raises:
        ValueError: an index without a colour.
        OSError: the file cannot be written.
    """
    present = np.unique(mask)
    if unknown := [int(v) for v in present if v != IGNORED and v >= len(palette)]:
        raise ValueError(
            f"mask holds class {unknown[0]}, but the palette has {len(palette)} colours;"
            f" give one for each class, and use {IGNORED} for pixels of none"
        )
    image = Image.fromarray(np.ascontiguousarray(mask))
    image.putpalette([v for colour in palette for v in colour] + [0] * 3 * (256 - len(palette)))
    write_atomically(path, lambda file: image.save(file, format="PNG"))


def distinct_palette(count: int) -> tuple[Colour, ...]:
    """Colours for classes that have none: the same each time, all different and none black.

    Args:
        count: how many, at most 255.

    Raises:
        ValueError: more colours are asked for.

    Source:
        The colour map of PASCAL VOC (VOCcolormap.m) without its first colour, black: the bits of
        the number are dealt to R, G and B in turn, from the highest bit of each.
    """
    if not 0 <= count <= 255:
        raise ValueError(f"a mask has 0 to 255 classes, got {count}")

    def channel(number: int, first: int) -> int:
        return sum((number >> (3 * i + first) & 1) << (7 - i) for i in range(3))

    return tuple((channel(n, 0), channel(n, 1), channel(n, 2)) for n in range(1, count + 1))


def _values(image: ImageFile.ImageFile) -> np.ndarray:
    """The stored numbers of a one-channel image, uint8 or uint16."""
    stored = image.tile[0].args if image.tile else None
    raw = np.array(image)
    if raw.dtype == bool:
        return raw.astype(np.uint8)
    if image.format == "PNG" and stored in ("L;2", "L;4"):  # Pillow stretches these to 0 to 255
        return raw // (85 if stored == "L;2" else 17)
    return raw.astype(np.uint16) if raw.dtype.itemsize == 2 else raw


def _class_of_value(code: MaskCode, dtype: np.dtype) -> UInt8[np.ndarray, " V"]:
    """The class of each value that a pixel can have; colours are packed into 24 bits."""
    table = np.full(2 ** min(8 * dtype.itemsize, 24), _UNLISTED, np.uint8)
    for value, label in code.values.items():
        if not (0 <= label < _UNLISTED or label == IGNORED):
            raise ValueError(f"class indices are 0 to {_UNLISTED - 1} or {IGNORED}, got {label}")
        number = _packed(value) if isinstance(value, tuple) else value
        if 0 <= number < len(table):
            table[number] = label
    return table


def _packed(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _unlisted(raw: np.ndarray, code: MaskCode) -> str:
    """Which values no class has, most pixels first."""
    values, pixels = np.unique(raw, return_counts=True)
    most = int(pixels.argmax())
    value = int(values[most])
    others = len(values) - 1
    count = f"{pixels[most]} pixel" + "s" * bool(pixels[most] != 1)
    if others:
        count += f" (and {others} other value" + "s" * (others > 1) + ")"
    if code.of_colours:
        colour = (value >> 16, value >> 8 & 255, value & 255)
        return (
            f"colour {colour} in {count} is not of the data set;"
            f" accepted are its {len(code.values)} colours"
        )
    return f"value {value} in {count} is no class; accepted are {_ranges(code)}"


def _ranges(code: MaskCode) -> str:
    """The listed values, as in `0-10, 255`."""
    spans: list[list[int]] = []
    for value in sorted(v for v in code.values if isinstance(v, int)):
        if spans and value == spans[-1][1] + 1:
            spans[-1][1] = value
        else:
            spans.append([value, value])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
