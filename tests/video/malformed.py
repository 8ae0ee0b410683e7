"""Writes damaged videos: small sound ones first, then hundreds of broken copies of them.

Everything is decided by the seed. `python malformed.py FOLDER` writes the set to look at.
"""

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FRAMES = 24
RATE_HZ = 12
SOURCES = {
    # name: container options, codec, codec options
    "h264.mp4": ({}, "libx264", {"g": "8"}),
    "h264_faststart.mp4": ({"movflags": "faststart"}, "libx264", {"g": "8"}),
    "mpeg4.mp4": ({}, "mpeg4", {}),
    "h264.mkv": ({}, "libx264", {"g": "8"}),
    "mpeg4.mkv": ({}, "mpeg4", {}),
    "vp9.webm": ({}, "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "vp8.webm": ({}, "libvpx", {"deadline": "realtime", "cpu-used": "8"}),
    "mpeg4.avi": ({}, "mpeg4", {}),
    "mjpeg.avi": ({}, "mjpeg", {}),
}


@dataclass(frozen=True, kw_only=True)
class Malformed:
    """A damaged copy of `source` and what was done to it."""

    path: Path
    source: str
    damage: str


def moving_bar(index: int) -> np.ndarray:
    """One picture of a bar that moves over fixed noise."""
    image = np.random.default_rng(0).integers(0, 60, (48, 64, 3), np.uint8)
    image[:, 2 * index : 2 * index + 12] = 230
    return image


def write_sources(folder: Path) -> None:
    """Write the sound videos, each of `FRAMES` frames of a moving bar over fixed noise."""
    for name, (container_options, codec, options) in SOURCES.items():
        with av.logging.Capture(), av.open(folder / name, "w", options=container_options) as out:
            stream = out.add_stream(codec, rate=Fraction(RATE_HZ), options=options)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.codec_context.thread_count = 1
            stream.codec_context.bit_rate = 200_000
            for index in range(FRAMES):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(moving_bar(index))))
            out.mux(stream.encode())


def damages(data: bytes, draw: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """`count` ways to break a file: names and contents."""
    size = len(data)
    for index in range(count):
        kind = index % 6
        at = draw.randrange(size)
        if kind == 0:
            keep = draw.randrange(1, size)
            yield f"cut to {keep} of {size} bytes", data[:keep]
        elif kind in (1, 2, 3):
            # Headers are a small part of a file and do the most harm: half of the flips go there.
            if kind == 3:
                near = draw.choice((0, size))
                at = draw.randrange(max(0, near - 1200), min(size, near + 600))
            bit = draw.randrange(8)
            flipped = data[at] ^ 1 << bit
            yield f"bit {bit} of byte {at} flipped", data[:at] + bytes([flipped]) + data[at + 1 :]
        elif kind == 4:
            head = draw.choice((4, 16, 64, 256, 1024))
            yield f"first {head} bytes zeroed", bytes(head) + data[head:]
        else:
            length = draw.choice((8, 64, 512))
            noise = draw.randbytes(length)
            yield (
                f"{length} bytes of noise at {at}",
                (data[:at] + noise + data[at + length :])[:size],
            )


def write_malformed(folder: Path, *, each: int, seed: int = 0) -> list[Malformed]:
    """Write the sound videos and `each` damaged copies of every one, and a few oddities.

    Args:
        folder: must exist.
        each: damaged copies of each sound video.
        seed: decides every damage.
    """
    write_sources(folder)
    files: list[Malformed] = []

    def add(name: str, source: str, damage: str, data: bytes) -> None:
        (folder / name).write_bytes(data)
        files.append(Malformed(path=folder / name, source=source, damage=damage))

    for source in SOURCES:
        stem, ending = source.split(".")
        data = (folder / source).read_bytes()
        draw = random.Random(f"{seed}/{source}")
        for index, (damage, broken) in enumerate(damages(data, draw, each)):
            add(f"{stem}_{index:04}.{ending}", source, damage, broken)
        for wrong in ("mp4", "mkv", "webm", "avi", "txt", "jpg"):
            if wrong != ending:
                add(f"{stem}_{ending}_as.{wrong}", source, f"named .{wrong}", data)
    for ending in ("mp4", "mkv", "webm", "avi"):
        add(f"empty.{ending}", "", "no bytes", b"")
        add(f"text.{ending}", "", "text", b"not a video, only words\n" * 40)
        add(f"zeros.{ending}", "", "zeros", bytes(5000))
        add(f"noise.{ending}", "", "noise", random.Random(ending).randbytes(5000))
    return files


if __name__ == "__main__":
    for file in write_malformed(Path(sys.argv[1]), each=60):
        print(f"{file.path}\t{file.damage}")
