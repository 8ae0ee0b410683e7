"""How files are checked and varied: the settings. Nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Decode = Literal["full", "open", "none"]
"""How closely files are looked at beforehand: decoded to the end, opened, or not at all."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is varied at random in training clips. `Augmentation.off` varies nothing.

    Args:
        crop_scale: range of the cropped area as part of the picture, in (0, 1]; None crops the
            middle as evaluation does.
        crop_ratio: range of width / height of the crop before it is made square; unused without
            `crop_scale`.
        flip: probability of a mirrored clip, in [0, 1]. Leave it at 0 where left and right make
            the class, as with directions of motion.
        brightness: colours are scaled by a factor from 1 -+ this, in [0, 1].
        contrast: the distance to the clip's mean grey is scaled by a factor from 1 -+ this.
        saturation: the distance to each pixel's grey is scaled by a factor from 1 -+ this.
        rand_augment: magnitude of RandAugment, in [0, 10]: two of fourteen operations on colours
            and places, drawn for the clip; 0 for none. Not of events.
        erasing: probability that a box is filled with noise, in [0, 1].
        temporal_jitter: how far sampled times move, in [0, 1]; see `video.window_times`, which
            applies it.

    Raises:
        ValueError: a value outside its range.
    """

    crop_scale: tuple[float, float] | None = (0.5, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    rand_augment: float = 0.0
    erasing: float = 0.0
    temporal_jitter: float = 0.5

    def __post_init__(self) -> None:
        shares = ("flip", "brightness", "contrast", "saturation", "erasing", "temporal_jitter")
        for name, largest in (*((name, 1) for name in shares), ("rand_augment", 10)):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and 0 <= value <= largest):
                raise ValueError(f"{name} must be between 0 and {largest}, got {value!r}")
        for name, most in (("crop_scale", 1.0), ("crop_ratio", math.inf)):
            pair = getattr(self, name)
            if name == "crop_scale" and pair is None:
                continue
            numbers = len(pair) == 2 and all(isinstance(v, (int, float)) for v in pair)
            if not numbers or not 0 < pair[0] <= pair[1] <= most or math.isinf(pair[1]):
                limit = " <= 1" if most == 1 else ""
                raise ValueError(f"{name} must be two numbers 0 < low <= high{limit}, got {pair!r}")
            object.__setattr__(self, name, (float(pair[0]), float(pair[1])))

    @classmethod
    def off(cls) -> Augmentation:
        """Nothing is varied: training clips look as evaluation clips do."""
        return cls(
            crop_scale=None, flip=0.0, brightness=0.0, contrast=0.0, saturation=0.0,
            temporal_jitter=0.0,
        )  # fmt: skip
