"""Pictures that wait in a temporary file until it is known what is to be drawn on them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from spikevideoformer.video.drawing import shown_size
from spikevideoformer.video.interface import Shown, VideoError
from spikevideoformer.video.writing import even

_NEAR_LOSSLESS = {"crf": "8", "preset": "ultrafast"}  # far finer than what is written in the end


class Spool:
    """Pictures of a video with their times, at the size at which they are shown, as H.264.

    To be used in a ``with``; the file is gone after it.

    Args:
        folder: where the file lies, such as the folder of what is written in the end.

    Attributes:
        frame_rate_hz: mean rate of the pictures, as far as they have come.

    Raises:
        VideoError: the file cannot be written; from `add` too, as where the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed by __exit__
                prefix=".svf-", suffix=".mkv", dir=folder
            )
        except OSError as error:
            raise self._error(error) from error
        self._out: av.container.OutputContainer | None = None
        self._times_s: list[float] = []
        self._end_s = 0.0

    def _error(self, error: Exception) -> VideoError:
        reason = getattr(error, "strerror", None) or str(error)
        return VideoError(
            self._folder, f"pictures cannot wait in a file here ({reason}); make room, or leave"
            " out --out"
        )  # fmt: skip

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, picture: Shown) -> None:
        """Keep the next picture."""
        try:
            if self._out is None:
                width, height = picture.size()
                height, width = shown_size(height, width)
                self._out = av.open(self._file.name, "w", format="matroska")
                stream = self._out.add_stream("libx264", rate=25, options=_NEAR_LOSSLESS)
                stream.pix_fmt = "yuv420p"  # as what is written in the end
                stream.width, stream.height = width + width % 2, height + height % 2
                self._stream, self._size = stream, (width, height)
            width, height = self._size
            image = even(picture.rgb(width=width, height=height))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = len(self._times_s), Fraction(1, 25)
            self._out.mux(self._stream.encode(frame))
        except (OSError, av.FFmpegError) as error:
            raise self._error(error) from error
        self._times_s.append(picture.timestamp_s)
        self._end_s = picture.end_s

    @property
    def frame_rate_hz(self) -> float:
        return len(self._times_s) / self._end_s

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        """Times and pictures, uint8 [H, W, 3], in order; nothing can be added any more."""
        assert self._out is not None
        try:
            self._out.mux(self._stream.encode(None))
            self._out.close()
            width, height = self._size
            with av.open(self._file.name) as kept:
                frames = kept.decode(video=0)
                for timestamp_s, frame in zip(self._times_s, frames, strict=True):
                    yield timestamp_s, frame.to_ndarray(format="rgb24")[:height, :width]
        except (OSError, av.FFmpegError) as error:
            raise self._error(error) from error
