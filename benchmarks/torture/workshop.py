"""What all parts share: a folder, chance from a seed, small data and models, and how it went."""

import os
import random
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spikevideoformer.models.spikevideoformer import create_model
from spikevideoformer.synth.motions import standing_skeleton
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.tasks.segmentation.spec import SegmentationSpec
from spikevideoformer.video.frames import write_video
from spikevideoformer.video.spec import ClipSpec

COMMAND = [sys.executable, "-m", "spikevideoformer"]
SPECS = {
    "classification": ClipSpec(frames=2, size=32),
    "segmentation": SegmentationSpec(frames=2, short_side=32, crop=(32, 32)),
    "pose": PoseSpec(frames=2, size=32),
}


@dataclass
class Tally:
    """How many cases went right, were refused in one line, or went wrong, and how."""

    right: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return self.right + self.refused + len(self.wrong)

    @contextmanager
    def case(self, what: str, file: str | None = None) -> Iterator[None]:
        """One case: right where it ends, refused where a ValueError of one line says so.

        Args:
            what: for the report.
            file: what a refusal has to name.
        """
        try:
            yield
        except ValueError as error:
            self.judge_refusal(what, str(error), file)
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            self.wrong.append(f"{what}: {type(error).__name__}: {error} ({where})")
        else:
            self.right += 1

    def judge_refusal(self, what: str, line: str, file: str | None = None) -> None:
        """A refusal has one line, which names the file and does not ask for a report."""
        if "\n" in line.strip() or "please report it" in line or (file and file not in line):
            self.wrong.append(f"{what}: said: {line.strip()!r}")
        else:
            self.refused += 1

    def judge_command(self, what: str, done: subprocess.CompletedProcess[str]) -> None:
        """A command ends with 0, or with 1 or 2 and a line."""
        lines = done.stderr.strip().splitlines()
        if done.returncode == 0:
            self.right += 1
        elif done.returncode in (1, 2) and lines:
            self.judge_refusal(what, lines[-1])
        else:
            self.wrong.append(f"{what}: status {done.returncode}: {done.stderr[-300:]!r}")


class Workshop:
    """A folder of its own for a part, and chance that follows from the seed.

    Args:
        folder: empty.
        seed: of everything random.
        scale: share of the full counts.
    """

    def __init__(self, folder: Path, seed: int, scale: float) -> None:
        self.folder, self.scale, self.seed = folder, scale, seed
        self.random = random.Random(seed)

    def count(self, full: int) -> int:
        """How many of `full` cases are run."""
        return max(1, round(full * self.scale))

    def model(self, task: str = "classification") -> Path:
        """A folder with an untrained nano model that fires."""
        folder = self.folder / f"model-{task}"
        if not folder.exists():
            torch.manual_seed(self.seed)
            words: dict[str, Any] = {
                "classification": {},
                "segmentation": {"pad_input": True},
                "pose": {"body": standing_skeleton()},
            }[task]
            neuron = {"v_threshold": 0.1}
            model = create_model(
                "svf_nano", task=task, num_classes=4, residual_gain=1.0, neuron=neuron, **words
            )
            classes = None if task == "pose" else ["a", "b", "c", "d"]
            model.save_pretrained(folder, classes=classes, clip=SPECS[task].to_dict())
        return folder

    @cached_property
    def clips(self) -> Path:
        """Class folders, squares that move left or right: 8 clips to train on, 2 to validate."""
        folder = self.folder / "clips"
        draw = np.random.default_rng(self.seed)
        for split, count in (("train", 4), ("val", 1)):
            for name, step in (("left", -3), ("right", 3)):
                (folder / split / name).mkdir(parents=True)
                for i in range(count):
                    write_square(folder / split / name / f"{i}.mp4", step, draw)
        return folder

    @cached_property
    def clip(self) -> Path:
        """One small clip."""
        return next(iter(sorted(self.clips.rglob("*.mp4"))))

    def svf(
        self, *words: str | Path, timeout_s: float = 120, **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Run the command in a process of its own."""
        return subprocess.run(
            [*COMMAND, *map(str, words)],
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=timeout_s,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            **options,  # type: ignore[call-overload]
        )


Part = Callable[[Workshop], Tally]


def write_square(path: Path, step: int, draw: np.random.Generator, frames: int = 8) -> None:
    """A square that moves by so many pixels a picture, 32 x 32 at 8 Hz."""
    (x, y), colour = draw.integers(0, 24, 2), draw.integers(100, 256, 3)
    images = []
    for t in range(frames):
        image = np.zeros((32, 32, 3), np.uint8)
        image[y : y + 8, (x + step * t + np.arange(8)) % 32] = colour
        images.append(image)
    write_video(path, images, 8.0)


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Bytes with one of several kinds of damage, never the same bytes."""
    while True:
        kind = draw.choice(("bit", "cut", "zeros", "noise", "lost", "twice"))
        a = draw.randrange(len(content))
        b = min(len(content), a + draw.choice((1, 4, 64, 512, 4096)))
        if kind == "bit":
            made = content[:a] + bytes([content[a] ^ 1 << draw.randrange(8)]) + content[a + 1 :]
        elif kind == "cut":
            made = content[:a]
        elif kind == "zeros":
            made = content[:a] + bytes(b - a) + content[b:]
        elif kind == "noise":
            made = content[:a] + draw.randbytes(b - a) + content[b:]
        elif kind == "lost":
            made = content[:a] + content[b:]
        else:
            made = content[:b] + content[a:]
        if made != content:
            return made
