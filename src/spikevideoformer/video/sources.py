"""Where pictures come from: what stands at a path, opened as the kind of source that it is."""

from __future__ import annotations

import math
import os
import re
import stat
from pathlib import Path

from spikevideoformer.events.spec import is_recording
from spikevideoformer.video.ffmpeg import os_reason
from spikevideoformer.video.image_folder import ImageFolder
from spikevideoformer.video.interface import (
    SEQUENCE_RATE_HZ,
    DecodeLimits,
    SeenPath,
    Source,
    VideoError,
    VideoName,
)
from spikevideoformer.video.paged_image import PagedImage, refuse_heif, shows_pages
from spikevideoformer.video.video_file import VideoFile

RECORDING_REFUSED = (
    "a recording of events, and this network sees pictures; train one with --input events"
)

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/{1,2}(?=[^/])", re.IGNORECASE)  # Path makes one slash
_CAMERA = re.compile(r"\d{1,3}|/dev/video\d*", re.ASCII)


def live_source(path: str) -> str | None:
    """Why what is meant is no recording: the number or device of a camera, or an address.

    Args:
        path: as it was given.

    Returns:
        The reason and the remedy; None for paths of files.
    """
    if _ADDRESS.match(path):
        return "addresses are not read yet; download or record it, and give the file"
    if _CAMERA.fullmatch(path) and not os.path.isfile(path) and not os.path.isdir(path):
        return "cameras are not read yet; record a video first, and give the file"
    return None


def open_source(
    path: VideoName,
    limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
    sequence_rate_hz: float = SEQUENCE_RATE_HZ,
) -> Source:
    """Open what stands at a path, to be used in a ``with``.

    Args:
        path: video file or folder of images, or a path that says how it is opened.
        limits: see `Reading`.
        sequence_rate_hz: see there.

    Raises:
        VideoError: nothing there that can be opened.
        ValueError: a frame rate that is not above 0.
    """
    if not (math.isfinite(sequence_rate_hz) and sequence_rate_hz > 0):
        raise ValueError(f"sequence_rate_hz must be above 0, got {sequence_rate_hz}")
    if isinstance(path, SeenPath):
        return path.opened(limits, sequence_rate_hz)
    given, path = str(path), Path(path)
    if (reason := live_source(given)) is not None:
        raise VideoError(given, reason)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise VideoError(path, "no such file or folder; check the spelling") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise VideoError(path, f"cannot be reached: {os_reason(error)}") from error
    if stat.S_ISDIR(mode):
        return ImageFolder(path, limits, sequence_rate_hz)
    if not stat.S_ISREG(mode):
        raise VideoError(path, "neither a file nor a folder; give a video or a folder of images")
    if is_recording(path):
        raise VideoError(path, RECORDING_REFUSED)
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        raise VideoError(path, f"cannot be opened: {os_reason(error)}") from error
    if shows_pages(head):
        return PagedImage(path, limits, sequence_rate_hz)
    refuse_heif(path, head)
    return VideoFile(path, limits)
