"""Still pictures by Pillow: their colours, their turn, and what it raises for damaged ones."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from spikevideoformer.video.picture import Turn, on_white

IMAGE_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What Pillow raises for files that are damaged, depending on where the damage is."""


def as_rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """Any picture of 8 bits as RGB, on white where it is clear."""
    if image.has_transparency_data:
        return on_white(np.array(image.convert("RGBA")))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def exif_orientation(image: Image.Image) -> int:
    """The tag Orientation of an opened picture; 1 where it has none, or one that makes no sense."""
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if isinstance(orientation, int) else 1


def pages_and_turn(data: bytes) -> tuple[int, Turn]:
    """How many pictures a file of one holds, and how they are turned, which FFmpeg does not tell.

    Args:
        data: the file. What Pillow does not read is one picture, and not turned.
    """
    marked = b"Exif" in data or b"eXIf" in data or b"Orientation" in data
    paged = data[:4] in (b"RIFF", b"II*\0", b"MM\0*") or b"acTL" in data[:4096]
    if not marked and not paged:
        return 1, Turn()
    try:
        with Image.open(io.BytesIO(data)) as image:
            pages = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
            # To look for the turn, Pillow decodes a whole PNG.
            if image.format == "PNG" and not marked:
                return pages, Turn()
            return pages, Turn.of_exif(exif_orientation(image))
    except IMAGE_DAMAGE:
        return 1, Turn()
