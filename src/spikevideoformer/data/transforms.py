"""From decoded frames to model input: fixed for evaluation, varied at random for training.

All frames of a clip go through the same crop, flip and colours, so that what moves between frames
is the scene alone. Every draw comes from the generator that is passed in.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from spikevideoformer.data.rand_augment import rand_augment
from spikevideoformer.data.specs import Augmentation
from spikevideoformer.video.spec import ClipSpec, Colours

_CROP_ATTEMPTS = 10
"""Draws before a random crop gives up. Source: Szegedy et al. crop as in torchvision."""
_ERASED_AREA, _ERASED_RATIO = (0.02, 1 / 3), (0.3, 1 / 0.3)
"""Source: Zhong et al., "Random Erasing" (2020), section 3.2; a third, for 0.4, as in timm."""
_LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G, B in grey. Source: ITU-R BT.601, section 2.5.1."""


def eval_transform(
    frames: UInt8[Tensor, "T H W 3"], spec: ClipSpec, *, place: float = 0.5
) -> Float[Tensor, "T 3 size size"]:
    """Short side to `spec.size`, a square, normalised.

    Args:
        frames: RGB pictures.
        spec: size and normalisation.
        place: of the square along the longer side, from 0 to 1; 0.5 is the middle.

    Raises:
        ValueError: frames of another type or shape.
    """
    return normalised(scaled(cut_square(frames, spec.size, place=place)), spec)


def train_transform(
    frames: UInt8[Tensor, "T H W 3"],
    spec: ClipSpec,
    augmentation: Augmentation,
    generator: torch.Generator,
) -> Float[Tensor, "T 3 size size"]:
    """A clip cropped, flipped and coloured at random, alike in all frames, and normalised.

    Args:
        frames: RGB pictures.
        spec: size and normalisation.
        augmentation: what is varied; with `Augmentation.off` this equals `eval_transform`.
        generator: source of every draw.

    Raises:
        ValueError: frames of another type or shape.
    """
    _, H, W, _ = checked_pictures(frames).shape
    # Always the same number of draws, so that switching one part off leaves the others as they are.
    flip, *colours = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    top, left, height, width = _random_crop(H, W, augmentation, generator)
    square = frames[:, top : top + height, left : left + width]
    pictures = resized(square, (spec.size, spec.size))
    if augmentation.rand_augment:
        grey = [round(255 * mean) for mean in spec.mean]
        fill = (grey[0], grey[1], grey[2])
        pictures = rand_augment(pictures, float(augmentation.rand_augment), generator, fill=fill)
    video = scaled(pictures)
    if flip < augmentation.flip:
        video = video.flip(-1)
    strengths = (augmentation.brightness, augmentation.contrast, augmentation.saturation)
    if any(strengths):
        brightness, contrast, saturation = (
            1 + strength * (2 * draw - 1) for strength, draw in zip(strengths, colours, strict=True)
        )
        video = coloured(video, brightness, contrast, saturation)
    video = normalised(video, spec)
    if augmentation.erasing:
        _erase(video, augmentation.erasing, generator)
    return video


def checked_pictures(frames: Tensor) -> Tensor:
    """Raise ValueError for what is no stack of pictures."""
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(
            f"frames must be uint8 RGB [T, H, W, 3], got {frames.dtype} {list(frames.shape)}"
        )
    return frames


def _random_crop(
    H: int, W: int, augmentation: Augmentation, generator: torch.Generator
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a box of random area and shape that fits; else the middle."""
    box = None
    if augmentation.crop_scale is not None:
        box = _random_box(H, W, augmentation.crop_scale, augmentation.crop_ratio, generator)
    return box or _square(H, W, 0.5)


def _random_box(
    H: int,
    W: int,
    areas: tuple[float, float],
    ratios: tuple[float, float],
    generator: torch.Generator,
) -> tuple[int, int, int, int] | None:
    """A box of random part of the area and width / height; None where none was found that fits."""
    draws = torch.rand(_CROP_ATTEMPTS, 4, generator=generator, dtype=torch.float64).tolist()
    low, high = areas
    narrow, wide = (math.log(ratio) for ratio in ratios)
    for area_draw, ratio_draw, top_draw, left_draw in draws:
        area = H * W * (low + (high - low) * area_draw)
        ratio = math.exp(narrow + (wide - narrow) * ratio_draw)
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= W and 0 < height <= H:
            top, left = int((H - height + 1) * top_draw), int((W - width + 1) * left_draw)
            return top, left, height, width
    return None


def _erase(video: Float[Tensor, "T 3 H W"], probability: float, generator: torch.Generator) -> None:
    """Fill a box with noise, the same in all frames: noise that changes would be motion."""
    drawn = float(torch.rand((), generator=generator, dtype=torch.float64))
    H, W = video.shape[2:]
    box = _random_box(H, W, _ERASED_AREA, _ERASED_RATIO, generator)
    if drawn < probability and box is not None:
        top, left, height, width = box
        noise = torch.randn(3, height, width, generator=generator, dtype=video.dtype)
        video[:, :, top : top + height, left : left + width] = noise


def _square(H: int, W: int, place: float) -> tuple[int, int, int, int]:
    """Top, left, height and width of the largest square at this place along the longer side."""
    short = min(H, W)
    return round((H - short) * place), round((W - short) * place), short, short


def cut_square(
    frames: UInt8[Tensor, "T H W 3"], size: int, *, place: float = 0.5
) -> UInt8[Tensor, "T 3 size size"]:
    """The largest square of pictures, brought to `size` pixels, channels first.

    Args:
        frames: RGB pictures.
        size: height and width of the square afterwards.
        place: along the longer side, from 0 to 1; 0.5 is the middle.
    """
    _, H, W, _ = checked_pictures(frames).shape
    # The square is cut before it is resized: the same pixels, and fewer of them to resize.
    top, left, height, width = _square(H, W, place)
    return resized(frames[:, top : top + height, left : left + width], (size, size))


def resized(frames: UInt8[Tensor, "T h w 3"], size: tuple[int, int]) -> UInt8[Tensor, "T 3 H W"]:
    """Pictures in another height and width, channels first."""
    # [T, h, w, 3] -> [T, 3, h, w] as a view: channels last, for which torch resizes bytes directly.
    pictures = frames.permute(0, 3, 1, 2)
    if pictures.shape[2:] == size:
        return pictures
    return F.interpolate(pictures, size, mode="bilinear", antialias=True)


def short_side_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width of a picture of the same shape with this short side, in pixels."""
    factor = short_side / min(height, width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def scaled(video: UInt8[Tensor, "T 3 H W"]) -> Float[Tensor, "T 3 H W"]:
    """Bytes as numbers in [0, 1]."""
    return video.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def coloured(
    video: Float[Tensor, "T 3 H W"], brightness: float, contrast: float, saturation: float
) -> Float[Tensor, "T 3 H W"]:
    """Colours changed alike in all frames; each factor leaves them as they are at 1."""
    video = (video * brightness).clamp_(0, 1)
    # One mean for the whole clip: a mean per frame would make the colours flicker.
    video = torch.lerp(grey(video).mean(), video, contrast).clamp_(0, 1)
    return torch.lerp(grey(video), video, saturation).clamp_(0, 1)


def grey(video: Float[Tensor, "T 3 H W"]) -> Float[Tensor, "T 1 H W"]:
    """Luma of each pixel."""
    return (video * video.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def normalised(video: Float[Tensor, "T 3 H W"], spec: Colours) -> Float[Tensor, "T 3 H W"]:
    """Numbers in [0, 1] without the mean, over the standard deviation."""
    mean = video.new_tensor(spec.mean).view(1, 3, 1, 1)
    std = video.new_tensor(spec.std).view(1, 3, 1, 1)
    return (video - mean) / std


def denormalised(video: Float[Tensor, "T 3 H W"], spec: Colours) -> Float[Tensor, "T 3 H W"]:
    """What :func:`normalised` was given."""
    mean = video.new_tensor(spec.mean).view(1, 3, 1, 1)
    std = video.new_tensor(spec.std).view(1, 3, 1, 1)
    return video * std + mean


def to_pictures(video: Float[Tensor, "T 3 H W"], spec: Colours) -> UInt8[Tensor, "T H W 3"]:
    """Normalised frames as pictures again; colours outside of what a picture holds are clipped.

    Args:
        video: as :func:`eval_transform` gives it.
        spec: what it was normalised by.
    """
    colours = (denormalised(video, spec).clamp(0, 1) * 255).round().to(torch.uint8)
    return colours.permute(0, 2, 3, 1).contiguous()
