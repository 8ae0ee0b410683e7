"""RandAugment of a clip: operations drawn at random, each the same in all frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

STRONGEST = 10
"""Magnitude at which an operation is as strong as AutoAugment has it."""

Colour = tuple[int, int, int]


def rand_augment(
    frames: UInt8[Tensor, "T 3 H W"],
    magnitude: float,
    generator: torch.Generator,
    *,
    fill: Colour,
    operations: int = 2,
) -> UInt8[Tensor, "T 3 H W"]:
    """Pictures changed by operations that are drawn with equal chances, alike in all frames.

    Args:
        frames: RGB pictures.
        magnitude: strength of the operations, in [0, 10].
        generator: source of every draw.
        fill: colour of what was not in the picture.
        operations: how many, one after the other.

    Source: Cubuk et al., "RandAugment" (2020), figure 2; ranges of "AutoAugment" (2019), table 6.
    """
    draws = torch.rand(operations, 2, generator=generator, dtype=torch.float64).tolist()
    pictures = frames.permute(0, 2, 3, 1).numpy()  # [T, H, W, 3]
    for which, side in draws:
        name = OPERATIONS[int(which * len(OPERATIONS))]
        strength = magnitude / STRONGEST
        pictures = operate(pictures, name, strength if side < 0.5 else -strength, fill)
    return torch.from_numpy(pictures.copy()).permute(0, 3, 1, 2)


def operate(
    pictures: UInt8[np.ndarray, "T H W 3"], name: str, strength: float, fill: Colour
) -> UInt8[np.ndarray, "T H W 3"]:
    """One of `OPERATIONS` on all pictures of a clip.

    Args:
        pictures: RGB.
        name: of the operation.
        strength: in [-1, 1]: darker or lighter, to one side or the other.
        fill: colour of what was not in the picture.
    """
    T, H, W, _ = pictures.shape
    if name in _COLOURS:
        # All frames as one tall picture, with one histogram and one mean: those of each frame
        # would make the colours flicker.
        tall = Image.fromarray(pictures.reshape(T * H, W, 3))
        return np.asarray(_COLOURS[name](tall, strength)).reshape(T, H, W, 3)
    changed = (_FRAMES[name](Image.fromarray(p), strength, fill) for p in pictures)
    return np.stack([np.asarray(image) for image in changed])


def _enhanced(kind: Callable[[Image.Image], Any]) -> Callable[[Image.Image, float], Image.Image]:
    return lambda image, s: kind(image).enhance(1 + 0.9 * s)


def _moved(
    image: Image.Image, fill: Colour, x: tuple[float, float, float], y: tuple[float, float, float]
) -> Image.Image:
    """The pixel at (u, v) is the one at ``x . (u, v, 1)``, ``y . (u, v, 1)`` before."""
    return image.transform(
        image.size, Image.Transform.AFFINE, (*x, *y), Image.Resampling.BILINEAR, fillcolor=fill
    )


_FAR = 150 / 331  # of a side
_COLOURS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, s: image,
    "auto_contrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
    "posterize": lambda image, s: ImageOps.posterize(image, 8 - round(4 * abs(s))),
    "solarize": lambda image, s: ImageOps.solarize(image, round(256 * (1 - abs(s)))),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "colour": _enhanced(ImageEnhance.Color),
}
_FRAMES: dict[str, Callable[[Image.Image, float, Colour], Image.Image]] = {
    "sharpness": lambda image, s, fill: _enhanced(ImageEnhance.Sharpness)(image, s),
    "rotate": lambda image, s, fill: image.rotate(
        30 * s, Image.Resampling.BILINEAR, fillcolor=fill
    ),
    "shear_x": lambda image, s, fill: _moved(image, fill, (1.0, 0.3 * s, 0.0), (0.0, 1.0, 0.0)),
    "shear_y": lambda image, s, fill: _moved(image, fill, (1.0, 0.0, 0.0), (0.3 * s, 1.0, 0.0)),
    "translate_x": lambda image, s, fill: _moved(
        image, fill, (1.0, 0.0, _FAR * s * image.width), (0.0, 1.0, 0.0)
    ),
    "translate_y": lambda image, s, fill: _moved(
        image, fill, (1.0, 0.0, 0.0), (0.0, 1.0, _FAR * s * image.height)
    ),
}
OPERATIONS = (*_COLOURS, *_FRAMES)
"""Their names."""
