"""Small real video files for the tests of the data package."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

_CODEC = {".mp4": "mpeg4", ".avi": "mpeg4", ".webm": "libvpx"}


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    """``make_video(path, seed, frames=8, size=32)`` writes a moving square; content by seed."""
    written = 0

    def write(path: Path, seed: int | None = None, frames: int = 8, size: int = 32) -> Path:
        nonlocal written
        written += 1
        draw = np.random.default_rng(written if seed is None else seed)
        background = draw.integers(0, 256, 3)
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream(_CODEC[path.suffix], rate=10)
            stream.width = stream.height = size
            stream.pix_fmt = "yuv420p"
            for t in range(frames):
                image = np.tile(background.astype(np.uint8), (size, size, 1))
                image[:, 2 * t : 2 * t + 6] = 255 - image[0, 0]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        return path

    return write
