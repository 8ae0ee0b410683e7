"""Class scores of a video by several looks at it: windows, scales and the mirrored picture."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

MOST_CLASSES = 256  # that a byte can tell apart


def class_scores(
    model: Callable[[Tensor], Tensor],
    video: Float[Tensor, "T 3 h w"],
    *,
    window: tuple[int, int] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> Float[Tensor, "T K h w"]:
    """Probability of each class at each pixel: the mean over all looks at the video.

    With the defaults there is one look, and this is the softmax of the model's logits.

    Args:
        model: gives logits ``[1, T, K, h, w]``, or ``[1, 1, K, h, w]`` for all frames, for a video
            ``[1, T, 3, h, w]``. Every window of every scale is a call of its own.
        video: normalised frames.
        window: height and width of windows that slide over the picture by two thirds of
            themselves, the last ones flush with its border; None shows the picture as a whole.
            A picture smaller than the window is filled up with zeros, the colour of the mean.
        scales: the video is also seen at these multiples of its size, each above 0.
        flip: also look at the mirrored picture.

    Raises:
        ValueError: no scales or one that is not above 0, or a window without pixels.
    """
    if not scales or not all(0 < scale < float("inf") for scale in scales):
        raise ValueError(f"scales are {tuple(scales)}; give one or several numbers above 0")
    if window is not None and min(window) < 1:
        raise ValueError(f"window is {window}; give a height and a width of at least 1 pixel")
    H, W = video.shape[2:]
    total: Tensor | None = None
    for scale, mirrored in product(scales, (False, True) if flip else (False,)):
        size = (max(1, round(H * scale)), max(1, round(W * scale)))
        scaled = video
        if size != (H, W):  # smoothed when it shrinks, as pictures are that the network learns from
            scaled = F.interpolate(video, size, mode="bilinear", antialias=True)
        scores = _mean_over_windows(model, scaled.flip(-1) if mirrored else scaled, window)
        scores = scores.flip(-1) if mirrored else scores
        if size != (H, W):
            scores = F.interpolate(scores, (H, W), mode="bilinear", align_corners=False)
        total = scores if total is None else total + scores
    assert total is not None
    return total / (len(scales) * (1 + flip))


def upsampled(scores_t: Float[Tensor, "K h w"], size: tuple[int, int]) -> Float[Tensor, "K H W"]:
    """Scores of one frame at the size of the picture itself.

    Args:
        scores_t: of one frame: all classes of many large pictures would not fit into memory.
        size: height and width of the picture.
    """
    return F.interpolate(scores_t[None], size, mode="bilinear", align_corners=False)[0]


def upsampled_classes(
    scores_t: Float[Tensor, "K h w"], size: tuple[int, int]
) -> UInt8[Tensor, "H W"]:
    """The most probable class of each pixel, at the size of the picture itself.

    Args:
        scores_t: of one frame.
        size: height and width of the mask.

    Raises:
        ValueError: more classes than a byte can tell apart.
    """
    if len(scores_t) > MOST_CLASSES:
        raise ValueError(f"got {len(scores_t)} classes; a mask can hold {MOST_CLASSES}")
    return most_likely(upsampled(scores_t, size), 0).to(torch.uint8)


def most_likely(scores: Tensor, dim: int) -> Tensor:
    """The argmax, the first of equal ones: torch's own takes three to ten times as long."""
    return scores.max(dim).indices


def _mean_over_windows(
    model: Callable[[Tensor], Tensor], video: Tensor, window: tuple[int, int] | None
) -> Tensor:
    """Probabilities ``[T, K, h, w]``; where windows overlap, the mean of theirs."""
    if window is None:
        return _probabilities(model, video)
    H, W = video.shape[2:]
    h, w = window
    padded = F.pad(video, (0, max(0, w - W), 0, max(0, h - H)))
    total: Tensor | None = None
    times = video.new_zeros(padded.shape[2:], dtype=torch.float32)  # that a pixel was seen
    for top, left in product(_starts(padded.shape[2], h), _starts(padded.shape[3], w)):
        box = (..., slice(top, top + h), slice(left, left + w))
        scores = _probabilities(model, padded[box])
        if total is None:
            total = scores.new_zeros(*scores.shape[:2], *padded.shape[2:])
        total[box] += scores
        times[box] += 1
    assert total is not None
    return (total / times)[..., :H, :W]


def _starts(length: int, window: int) -> Iterator[int]:
    yield from range(0, length - window, max(1, 2 * window // 3))
    yield length - window


def _probabilities(model: Callable[[Tensor], Tensor], video: Tensor) -> Tensor:
    of_frames = model(video[None])[0].float().softmax(dim=1)
    return of_frames.expand(len(video), -1, -1, -1)  # a network may give one map for all of them
