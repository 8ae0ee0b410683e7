"""Pictures that wait in temporary files until it is known what is to be drawn on them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, cast

import av
import numpy as np
from av.video.stream import VideoStream

from spikevideoformer.video.drawing import shown_size
from spikevideoformer.video.interface import Shown, VideoError
from spikevideoformer.video.writing import even

_MOST_RAW_BYTES = 2**29  # ten seconds of 720p; compressing pictures takes ten times their copying
_SHARE_OF_ROOM = 8  # what they take of a disk with less room
_RATE_HZ = 25  # of the files; times are kept beside them
_NEAR_LOSSLESS = {"crf": "8", "preset": "ultrafast"}  # far finer than what is written in the end


class Spool:
    """Pictures of a video with their times, at the size at which they are shown.

    The first of them wait as they are and all after them as H.264. To be used in a ``with``; the
    files are gone after it.

    Args:
        folder: where the files lie, such as the folder of what is written in the end.

    Attributes:
        frame_rate_hz: mean rate of the pictures, as far as they have come.

    Raises:
        VideoError: a file cannot be written; from `add` too, as where the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[IO[bytes]] = []
        self._out: av.container.OutputContainer | None = None
        self._times_s: list[float] = []
        self._end_s = 0.0
        try:
            self._file()
            room = shutil.disk_usage(folder).free // _SHARE_OF_ROOM
        except OSError as error:
            raise self._error(error) from error
        self._most_raw_bytes = min(_MOST_RAW_BYTES, room)

    def _file(self) -> str:
        self._files.append(
            tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed by __exit__
                prefix=".svf-", suffix=".mkv", dir=self._folder
            )
        )
        return self._files[-1].name

    def _error(self, error: Exception) -> VideoError:
        reason = getattr(error, "strerror", None) or str(error)
        return VideoError(
            self._folder, f"pictures cannot wait in a file here ({reason}); make room, or leave"
            " out --out"
        )  # fmt: skip

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def add(self, picture: Shown) -> None:
        """Keep the next picture."""
        try:
            self._add(picture)
        except (OSError, av.FFmpegError) as error:
            raise self._error(error) from error
        self._times_s.append(picture.timestamp_s)
        self._end_s = picture.end_s

    def _add(self, picture: Shown) -> None:
        if self._out is None:
            width, height = picture.size()
            height, width = shown_size(height, width)
            self._size = width, height
            self._out = self._begin(self._files[0].name, "rawvideo", {})
        width, height = self._size
        image = even(picture.rgb(width=width, height=height))
        raw_bytes = image.size // 2  # as 4:2:0, like what is written in the end
        full = (len(self._times_s) + 1) * raw_bytes > self._most_raw_bytes
        if len(self._files) == 1 and self._times_s and full:
            self._finish()
            self._out = self._begin(self._file(), "libx264", _NEAR_LOSSLESS)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = len(self._times_s), Fraction(1, _RATE_HZ)
        self._out.mux(self._stream.encode(frame))

    def _begin(
        self, path: str, codec: str, options: dict[str, str]
    ) -> av.container.OutputContainer:
        out = av.open(path, "w", format="matroska")
        stream = out.add_stream(codec, rate=_RATE_HZ, options=options)
        self._stream = cast(VideoStream, stream)
        self._stream.pix_fmt = "yuv420p"
        # More threads cost more time in all, which the network has a use for.
        self._stream.codec_context.thread_count = 1
        width, height = self._size
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        return out

    def _finish(self) -> None:
        assert self._out is not None
        self._out.mux(self._stream.encode(None))
        self._out.close()

    @property
    def frame_rate_hz(self) -> float:
        return len(self._times_s) / self._end_s

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        """Times and pictures, uint8 [H, W, 3], in order; nothing can be added any more."""
        try:
            self._finish()
            yield from zip(self._times_s, self._pictures(), strict=True)
        except (OSError, av.FFmpegError) as error:
            raise self._error(error) from error

    def _pictures(self) -> Iterator[np.ndarray]:
        width, height = self._size
        for file in self._files:
            with av.open(file.name) as kept:
                for frame in kept.decode(video=0):
                    yield frame.to_ndarray(format="rgb24")[:height, :width]
