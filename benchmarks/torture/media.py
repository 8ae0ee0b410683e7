"""Damaged videos of eleven containers: whole or refused in one line, quickly, never short."""

import json
import random
import subprocess
import sys
import threading
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import av.logging
import numpy as np
from workshop import Tally, Workshop

PICTURES = 50
CONTAINERS = {
    ".mp4": ("libx264", "yuv420p"),
    ".mkv": ("libx264", "yuv420p"),
    ".webm": ("libvpx", "yuv420p"),
    ".avi": ("mpeg4", "yuv420p"),
    ".ts": ("libx264", "yuv420p"),
    ".gif": ("gif", "rgb8"),
    ".flv": ("flv", "yuv420p"),
    ".mpg": ("mpeg2video", "yuv420p"),
    ".mov": ("mjpeg", "yuvj420p"),
    ".apng": ("apng", "rgb24"),
    ".ogv": ("libvpx", "yuv420p"),
}
LONGEST = 600  # bytes, of a damage to so small a file as an mpg here
DAMAGES = ("cut", "bits", "swap", "zeros", "size")

# A crash or a hang of the decoder must be seen from outside: a process for many files.
READER = """
import json, sys
from spikevideoformer.video.frames import VideoError, check_decodes
print("ready", flush=True)
for line in sys.stdin:
    path = line.rstrip("\\n")
    try:
        print(json.dumps(["read", check_decodes(path).decoded_frames]), flush=True)
    except VideoError as error:
        print(json.dumps(["refused", str(error)]), flush=True)
    except Exception as error:
        print(json.dumps(["raised", repr(error)]), flush=True)
"""
TIMEOUT_S = 20


def media(shop: Workshop) -> Tally:
    """2,000 damaged videos: right are whole ones, wrong are short ones, crashes and hangs."""
    tally = Tally()
    counts = run(shop.seed, shop.count(2000), shop.folder, tally)
    tally.notes.append(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    return tally


def run(seed: int, count: int, folder: Path, tally: Tally) -> Counter[str]:
    """Write damaged videos, read each, and count how it went."""
    draw, counts = random.Random(seed), Counter[str]()
    sources = [_write(folder / f"sound{ending}", seed) for ending in CONTAINERS]
    with _Reader() as reader:
        for number in range(count):
            source = sources[number % len(sources)]
            kind = DAMAGES[number // len(sources) % len(DAMAGES)]
            data = source.read_bytes()
            path = folder / f"{number:05}_{kind}{source.suffix}"
            at, made = damaged(data, kind, draw)
            path.write_bytes(made)
            what = f"{path.name} ({kind} at {at} of {len(data)} bytes)"
            how, told = reader.read(path)
            if how == "read" and told != PICTURES:
                how = "documented" if _cannot_be_known(source, kind, at) else "short"
            counts[how] += 1
            if how == "refused":
                tally.judge_refusal(what, str(told), str(path))
            elif how in ("read", "documented"):
                tally.right += 1
            else:
                tally.wrong.append(f"{what}: {how}: {told}")
            path.unlink()
    return counts


def damaged(data: bytes, kind: str, draw: random.Random) -> tuple[int, bytes]:
    """Where the first damage is, and the file with it."""
    size, at = len(data), draw.randrange(len(data))
    if kind == "cut":
        return at, data[:at]
    if kind == "bits":
        made = bytearray(data)
        places = sorted(draw.randrange(size) for _ in range(draw.choice((1, 1, 8, 64))))
        for place in places:
            made[place] ^= 1 << draw.randrange(8)
        return places[0], bytes(made)
    length = min(draw.choice((16, 188, LONGEST, 4096)), size // 4)
    a, b = sorted(draw.randrange(size - length) for _ in range(2))
    if kind == "swap":
        b = max(b, min(a + length, size - length))
        middle = data[a + length : b]
        return a, data[:a] + data[b : b + length] + middle + data[a : a + length] + data[
            b + length :
        ]
    if kind == "zeros":
        return a, data[:a] + bytes(length) + data[a + length :]
    # A size or count somewhere that says far too much or nothing.
    wrong = draw.choice((bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", draw.randbytes(4)))
    return a, data[:a] + wrong + data[a + 4 :]


def _cannot_be_known(source: Path, kind: str, at: int) -> bool:
    """Whether docs/video.md says that such a damage cannot be noticed."""
    if source.suffix in (".ts", ".mpg"):
        if kind == "cut":
            return True  # between two pictures; inside one it was refused
        # What lies before the second group of pictures may be gone: a recording that begins later.
        group = b"\0\0\1\xb8" if source.suffix == ".mpg" else b"\0\0\1\x67"
        data = source.read_bytes()
        if source.suffix == ".mpg" and at + LONGEST > data.rfind(group):
            return True  # what is left of the last group is a recording that ends there
        return at < data.find(group, data.find(group) + 1)
    # An edit list or table of an mp4 that says "show fewer pictures", as that of a trimmed one.
    return source.suffix in (".mp4", ".mov") and kind != "cut"


def _write(path: Path, seed: int) -> Path:
    codec, pix_fmt = CONTAINERS[path.suffix]
    noise = np.random.default_rng(seed).integers(0, 60, (48, 64, 3), np.uint8)
    with av.logging.Capture(), av.open(path, "w") as out:
        stream = out.add_stream(codec, rate=Fraction(25), options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        stream.codec_context.thread_count = 1
        for index in range(PICTURES):
            image = noise.copy()
            image[:, index : index + 12] = 230
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        out.mux(stream.encode())
    return path


class _Reader:
    """A process that reads file after file, begun anew where it crashes or hangs."""

    def __enter__(self) -> "_Reader":
        self.process: subprocess.Popen[str] | None = None
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def read(self, path: Path) -> tuple[str, object]:
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-c", READER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert self.process.stdout is not None
            self.process.stdout.readline()  # importing is not what is timed
        process = self.process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        timer = threading.Timer(TIMEOUT_S, process.kill)
        timer.start()
        line = process.stdout.readline()
        hung = not timer.is_alive()
        timer.cancel()
        if not line:
            self._end()
            return ("hung" if hung else "crashed"), ""
        how, told = json.loads(line)
        return how, told
