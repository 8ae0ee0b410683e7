"""Real recordings: whose pictures are trained on, and which judge. Split by recording.

Recordings that share people or a corridor are on one side, as in recipes/people/real.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spikevideoformer.video.frames import iter_frames

TRAINED = (  # CC BY 4.0 and Apache-2.0
    "people/real/asl_hand.25fps.mp4",
    "people/real/classroom.gif",
    "people/real/one-by-one-person-detection.mp4",
    "people/real/people-detection.gif",
    "people/real/person-bicycle-car-detection.gif",
)
FIXED = (  # held out; the camera stands, people move
    "people/real/face-demographics-walking-and-pause.gif",
    "people/real/face-demographics-walking.gif",
    "people/real/head-pose-face-detection-female-and-male.gif",
    "people/real/head-pose-face-detection-female.gif",
    "people/real/head-pose-face-detection-male.gif",
    "people/real/store-aisle-detection.gif",
    "people/real/worker-zone-detection.gif",
)
OTHER = (  # held out
    "clips/decord__flipping_a_pancake.mkv",
    "clips/decord__video_0.mov",
    "clips/mmaction2__demo.mp4",
    "clips/mmaction2__demo_spatiotemporal_det.mp4",
    "clips/sam2__05_default_juggle.mp4",
    "clips/torchcodec__nasa_13013.mp4",
)
SHORT = 240  # pixels of the short side, to which recordings are brought
MOST = 240  # frames of a recording that are looked at


@dataclass(frozen=True)
class Footage:
    """The beginning of a recording.

    Attributes:
        name: its path in the data.
        frames: uint8 ``[N, H, W, 3]``.
        rate_hz: of the frames.
    """

    name: str
    frames: np.ndarray
    rate_hz: float

    def picture(self, rng: np.random.Generator) -> Tensor:
        """One of its frames, ``[1, 3, H, W]``."""
        return _as_colours(self.frames[int(rng.integers(len(self.frames)))][None])

    def playing(self, moments_s: np.ndarray, rng: np.random.Generator) -> Tensor | None:
        """Its frames at these moments, from a random one on; None where it is too short."""
        room = len(self.frames) - 1 - int(moments_s[-1] * self.rate_hz)
        if room < 1:
            return None
        return _as_colours(
            self.frames[int(rng.integers(room)) + (moments_s * self.rate_hz).astype(int)]
        )


def _as_colours(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255


def footage(shared: Path, name: str) -> Footage:
    """Read the beginning of a recording below the folder of the real data."""
    frames = []
    for frame in iter_frames(shared / name, resize_short=SHORT):
        frames.append(frame)
        if len(frames) == MOST:
            break
    images = np.stack([f.image for f in frames])
    length_s = frames[-1].timestamp_s - frames[0].timestamp_s
    return Footage(name, images, (len(images) - 1) / length_s)
