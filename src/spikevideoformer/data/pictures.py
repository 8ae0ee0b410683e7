"""Pictures of data sets: read, and measured by their headers.

Pictures are read as the file stores them; a turn that EXIF asks for is not made, because the masks
of a data set are drawn on the stored picture and carry no EXIF themselves.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile, UnidentifiedImageError

from spikevideoformer.video.sources import DecodeLimits, VideoError

MAX_PIXELS = DecodeLimits().max_frame_pixels or 0
"""Largest picture that is unpacked: a file of some kilobytes can announce gigabytes."""

_PICTURE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")

# What Pillow raises for files that are damaged, depending on where the damage is.
_DAMAGE = (
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


def read_picture(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Read a picture as RGB; grey is repeated, alpha dropped, and EXIF's turn not made.

    Raises:
        VideoError: no such file, damage, no picture of 8 bits, or one over `MAX_PIXELS`.
    """
    with opened(path, VideoError, _PICTURE_FORMATS) as image:
        if image.mode.startswith(("I", "F")):
            raise VideoError(
                path, f"holds {kind_of_pixels(image.mode)}; convert it to 8 bits a channel"
            )
        return as_rgb(image)


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture or mask, from its header.

    Raises:
        VideoError: no such file, no picture, or one over `MAX_PIXELS`.
    """
    with opened(path, VideoError, _PICTURE_FORMATS, whole=False) as image:
        return image.height, image.width


@contextmanager
def opened(
    path: Path,
    error_type: type[ValueError],
    formats: tuple[str, ...],
    *,
    whole: bool = True,
) -> Iterator[ImageFile.ImageFile]:
    """An image file whose header is sound; whatever Pillow finds wrong names the file."""
    try:
        with path.open("rb") as file:
            image = Image.open(file, formats=formats)
            if image.width * image.height > MAX_PIXELS:
                raise error_type(
                    path,
                    f"{image.width}x{image.height} is over the limit of {MAX_PIXELS} pixels;"
                    " scale it down",
                )
            if whole and image.format == "PNG":
                image.verify()  # the check sums; damaged data may well unpack to some picture
                file.seek(0)
                image = Image.open(file, formats=formats)
            yield image
    except error_type:
        raise
    except FileNotFoundError:
        raise error_type(path, "no such file") from None
    except UnidentifiedImageError:
        kinds = ", ".join(formats)
        raise error_type(path, f"not an image that is read here ({kinds})") from None
    except _DAMAGE as error:
        raise error_type(
            path, f"damaged or unreadable ({error or type(error).__name__})"
        ) from error


def kind_of_pixels(mode: str) -> str:
    """A mode of Pillow in words."""
    names = {"1": "1-bit values", "L": "grey values", "LA": "grey values with alpha"}
    names |= {"P": "palette indices", "PA": "palette indices with alpha", "I;16": "16-bit values"}
    return names.get(mode, f"{mode} pixels")


def as_rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """Any picture of 8 bits as RGB."""
    if image.mode == "P":  # by way of RGBA: Pillow warns where a palette has alpha
        image = image.convert("RGBA")
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
