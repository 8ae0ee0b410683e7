"""Pictures that wait in a temporary file until it is known what is to be drawn on them."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator

import numpy as np
from PIL import Image

from spikevideoformer.video.drawing import shown_size
from spikevideoformer.video.sources import Picture


class Spool:
    """Pictures of a video with their times, as JPEG of the size at which they are shown.

    To be used in a ``with``; the file is gone after it.

    Attributes:
        frame_rate_hz: mean rate of the pictures, as far as they have come.
    """

    QUALITY = 95  # with all colours: what is written in the end is coarser

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._frames: list[tuple[float, int]] = []  # time, and where the picture ends in the file
        self._size: tuple[int, int] | None = None
        self._end_s = 0.0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, picture: Picture) -> None:
        """Keep the next picture."""
        if self._size is None:
            width, height = picture.size()
            self._size = shown_size(height, width)
        height, width = self._size
        image = Image.fromarray(picture.rgb(width=width, height=height))
        jpeg = io.BytesIO()
        image.save(jpeg, "JPEG", quality=self.QUALITY, subsampling=0)
        self._file.write(jpeg.getvalue())
        self._frames.append((picture.timestamp_s, self._file.tell()))
        self._end_s = picture.end_s

    @property
    def frame_rate_hz(self) -> float:
        return len(self._frames) / self._end_s

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        """Times and pictures, uint8 [H, W, 3], in order."""
        self._file.seek(0)
        begin = 0
        for timestamp_s, end in self._frames:
            yield timestamp_s, np.asarray(Image.open(io.BytesIO(self._file.read(end - begin))))
            begin = end
