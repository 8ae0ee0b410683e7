"""Small clips whose pictures tell their index, written with FFmpeg at hand."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch


def grey(index: int, H: int = 48, W: int = 64) -> np.ndarray:
    """A picture that tells its index: its grey level is 8 * index + 4."""
    return np.full((H, W, 3), 8 * index + 4, np.uint8)


def index_of(image: np.ndarray | torch.Tensor) -> int:
    return round((float(torch.as_tensor(image).double().mean()) - 4) / 8)


def encode(
    path: Path,
    images: Sequence[np.ndarray],
    pts: Sequence[int] | None = None,
    *,
    rate: int = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotate_deg: int = 0,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write pictures with FFmpeg at hand: timestamps in ms where `pts` is given."""
    H, W, _ = images[0].shape
    with av.logging.Capture(), av.open(path, "w", options=container_options or {}) as out:
        stream = out.add_stream(codec, rate=Fraction(rate), options=options or {})
        stream.width, stream.height, stream.pix_fmt = W, H, pix_fmt
        stream.codec_context.thread_count = 1
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotate_deg:
            stream.set_display_rotation(rotate_deg)
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image)
            if pts is not None:
                frame.pts, frame.time_base = pts[index], Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def with_sound(path: Path, *, video_frames: int, sound_s: int, sound_first: bool = False) -> Path:
    with av.logging.Capture(), av.open(path, "w") as out:
        if sound_first:
            sound = out.add_stream("aac", rate=16000)
        if video_frames:
            video = out.add_stream("libx264", rate=10)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        if not sound_first:
            sound = out.add_stream("aac", rate=16000)
        sound.layout = "mono"
        for index in range(video_frames):
            out.mux(video.encode(av.VideoFrame.from_ndarray(grey(index))))
        if video_frames:
            out.mux(video.encode())
        for index in range(sound_s * 10):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1600), np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 16000, 1600 * index
            out.mux(sound.encode(frame))
        out.mux(sound.encode())
    return path
