"""Pictures of data sets: read, and measured by their headers.

Pictures and masks come upright, as Exif asks for it: so every viewer shows them, so masks are
drawn, and so the same files come as a video.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile, UnidentifiedImageError

from spikevideoformer.video.event_pictures import (
    event_picture_size,
    is_event_file,
    read_event_picture,
)
from spikevideoformer.video.interface import DecodeLimits, VideoError
from spikevideoformer.video.picture import Turn
from spikevideoformer.video.sources import RECORDING_REFUSED
from spikevideoformer.video.stills import IMAGE_DAMAGE, as_rgb, exif_orientation

MAX_PIXELS = DecodeLimits().max_frame_pixels or 0
"""Largest picture that is unpacked: a file of some kilobytes can announce gigabytes."""

_PICTURE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")


def read_picture(path: Path, spec: Any = None) -> UInt8[np.ndarray, "H W 3"]:
    """Read a picture as RGB and upright; grey is repeated, and what is clear lies on white.

    Args:
        path: the file; for a network that sees events a recording of those of one frame.
        spec: how the network sees it; None: as a picture.

    Raises:
        VideoError: no such file, damage, no picture of 8 bits, or one over `MAX_PIXELS`; or one
            that the network does not see.
    """
    if _shows_events(path, spec):
        return read_event_picture(path, spec.events)
    with opened(path, VideoError, _PICTURE_FORMATS) as image:
        if image.mode.startswith(("I", "F")):
            raise VideoError(
                path, f"holds {kind_of_pixels(image.mode)}; convert it to 8 bits a channel"
            )
        return Turn.of_exif(exif_orientation(image))(as_rgb(image))


def picture_size(path: Path, spec: Any = None) -> tuple[int, int]:
    """Height and width of a picture or mask, from its header; arguments as of `read_picture`.

    Raises:
        VideoError: no such file, no picture, or one over `MAX_PIXELS`.
    """
    if _shows_events(path, spec):
        return event_picture_size(path, spec.events)
    with opened(path, VideoError, _PICTURE_FORMATS, whole=False) as image:
        turned = Turn.of_exif(exif_orientation(image)).quarters % 2
        return (image.width, image.height) if turned else (image.height, image.width)


def _shows_events(path: Path, spec: Any) -> bool:
    """Whether to read a recording; VideoError where the network sees the other of the two."""
    sees, shows = spec is not None and spec.input == "events", is_event_file(path)
    if sees and not shows:
        raise VideoError(
            path, "a picture, and this network sees events; give in its place a recording of the "
            "events since the frame before, such as .npz",
        )  # fmt: skip
    if shows and not sees:
        raise VideoError(path, RECORDING_REFUSED)
    return sees


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
    except IMAGE_DAMAGE as error:
        raise error_type(
            path, f"damaged or unreadable ({error or type(error).__name__})"
        ) from error


def kind_of_pixels(mode: str) -> str:
    """A mode of Pillow in words."""
    names = {"1": "1-bit values", "L": "grey values", "LA": "grey values with alpha"}
    names |= {"P": "palette indices", "PA": "palette indices with alpha", "I;16": "16-bit values"}
    return names.get(mode, f"{mode} pixels")
