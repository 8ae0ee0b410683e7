"""Pictures to a video file, which appears whole or not at all."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.logging
import numpy as np
from av.video.stream import VideoStream
from jaxtyping import UInt8
from torch import Tensor

from spikevideoformer.files import hidden_part
from spikevideoformer.video.ffmpeg import Ffmpeg

# With macroblock trees (mbtree) x264 chooses otherwise on every run, even with one thread. Without
# them a rate factor of 21 gives the size and the quality of one of 18 with them.
_X264 = {"crf": "21", "preset": "veryfast", "x264-params": "mbtree=0"}


def write_video(
    path: str | Path,
    frames: Iterable[UInt8[np.ndarray, "H W 3"] | UInt8[Tensor, "H W 3"]],
    frame_rate_hz: float,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    part: Path | None = None,
) -> None:
    """Write pictures to a video file as they come; the file appears whole or not at all.

    The same pictures give the same bytes on every run with one version of FFmpeg and the default
    codec and options.

    Where `part` is given, the pictures of an interrupted run are not lost: that file can be played
    at any time (but for the last second or two), also when the process was killed.

    Args:
        path: its ending names the container; an existing file is replaced. The folder must exist.
        frames: RGB pictures of one size, at least one. Odd sizes are widened by one repeated row
            or column, as 4:2:0 video needs.
        frame_rate_hz: pictures per second.
        codec: FFmpeg's name of the encoder.
        options: for the encoder; None is good quality for libx264 and its own defaults for others.
        part: MP4 file that is written to until the video is complete. An old one is overwritten;
            it stays where the run is interrupted, and goes where it fails. None writes to a hidden
            file, which never stays.

    Raises:
        VideoError: the file cannot be written.
        ValueError: no pictures, or pictures that are not uint8 [H, W, 3] of one size.
    """
    path = Path(path)
    if not (math.isfinite(frame_rate_hz) and frame_rate_hz > 0):
        raise ValueError(f"frame_rate_hz must be above 0, got {frame_rate_hz}")
    if options is None:
        options = _X264 if codec == "libx264" else {}
    container_options = {}
    kept = part is not None
    if part is None:
        part = hidden_part(path)
    else:  # each second becomes a fragment, and at the end FFmpeg makes an ordinary file of them
        container_options = {"movflags": "hybrid_fragmented+frag_keyframe", "flush_packets": "1"}
        options = {"g": str(max(1, round(frame_rate_hz)))} | options
    try:
        _encode(
            part,
            path,
            iter(frames),
            Fraction(frame_rate_hz).limit_denominator(1001),
            codec,
            options,
            container_options,
        )
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(part, path)
    except BaseException as error:
        if not kept or isinstance(error, Exception):  # an interruption is none
            part.unlink(missing_ok=True)
        raise


def _encode(
    part: Path,
    path: Path,
    frames: Iterator[UInt8[np.ndarray, "H W 3"] | UInt8[Tensor, "H W 3"]],
    rate: Fraction,
    codec: str,
    options: dict[str, str],
    container_options: dict[str, str],
) -> None:
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{path}: no frames to write")
    H, W = _checked(first, None).shape[:2]
    ffmpeg = Ffmpeg(path)
    with ffmpeg("cannot be written"):
        # Without random identifiers, and without the library's version in the file.
        bitexact = {"fflags": "+bitexact"}
        container = av.open(f"file:{part}", "w", options=bitexact | container_options)
    try:
        with ffmpeg("cannot be written"):
            stream = cast(VideoStream, container.add_stream(codec, rate=rate, options=options))
            stream.width, stream.height = W + W % 2, H + H % 2
            formats = [f.name for f in stream.codec_context.codec.video_formats or ()]
            stream.pix_fmt = "yuv420p" if not formats or "yuv420p" in formats else formats[0]
            stream.codec_context.thread_count = 1  # x264's choices depend on its thread count
        for image in itertools.chain([first], frames):
            padded = even(_checked(image, (H, W)))
            with ffmpeg("cannot be written"):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(padded, format="rgb24")))
        with ffmpeg("cannot be written"):
            container.mux(stream.encode())
    finally:
        with av.logging.Capture():
            container.close()


def even(image: UInt8[np.ndarray, "H W 3"]) -> np.ndarray:
    """With one more row or column, the last repeated, where 4:2:0 video needs it."""
    H, W = image.shape[:2]
    if not (H % 2 or W % 2):
        return image
    return np.pad(image, ((0, H % 2), (0, W % 2), (0, 0)), mode="edge")


def _checked(image: np.ndarray | Tensor, size: tuple[int, int] | None) -> np.ndarray:
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(f"frames must be uint8 [H, W, 3], got {array.dtype} {list(array.shape)}")
    if size is not None and array.shape[:2] != size:
        raise ValueError(
            f"frames must have one size: got {list(array.shape[:2])} after {list(size)}"
        )
    return array
