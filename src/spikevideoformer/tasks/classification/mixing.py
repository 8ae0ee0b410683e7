"""Mixup and CutMix: each training clip has a part of another one, and of its label."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from spikevideoformer.tasks.classification.metrics import classification_loss
from spikevideoformer.video.clip import ClipBatch


@dataclass(frozen=True, kw_only=True, eq=False)
class MixedBatch(ClipBatch):
    """A batch of clips with a part of others.

    Args:
        others: labels of the clips that these have a part of, int64 [B].
        share: what is left of the clips themselves, in [0, 1].
    """

    others: Tensor
    share: float

    _stays = (*ClipBatch._stays, "share")

    @property
    def shown(self) -> Tensor:
        """The labels of which more is seen."""
        return self.labels if self.share >= 0.5 else self.others


def mix(batch: ClipBatch, *, mixup: float, cutmix: float) -> MixedBatch:
    """Clips mixed with those of the batch in reverse order, all frames alike.

    Equation: with l from Beta(a, a), mixup has ``l x + (1 - l) x'``; CutMix has a box of x' in x,
    of ``1 - l`` of the area before it is cut at the border, and l is then what is left of x.

    Args:
        batch: on any device; every draw comes from torch's generator on the CPU.
        mixup: a of mixup; 0 for none.
        cutmix: a of CutMix; 0 for none. Where both are above 0, a coin is tossed for each batch.

    Source: Zhang et al., "mixup" (2018); Yun et al., "CutMix" (2019).
    """
    cut = cutmix > 0 and (mixup == 0 or float(torch.rand(())) < 0.5)
    a = cutmix if cut else mixup
    share = float(torch.distributions.Beta(a, a).sample())
    video, other = batch.video, batch.video.flip(0)
    if cut:
        H, W = video.shape[-2:]
        side = math.sqrt(1 - share)
        (top, bottom), (left, right) = _interval(H, side), _interval(W, side)
        video = video.clone()
        video[..., top:bottom, left:right] = other[..., top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (H * W)
    else:
        video = share * video + (1 - share) * other
    return MixedBatch(
        video=video,
        labels=batch.labels,
        indices=batch.indices,
        paths=batch.paths,
        others=batch.labels.flip(0),
        share=share,
    )


def _interval(length: int, part: float) -> tuple[int, int]:
    """Begin and end of a part of an axis around a random pixel, cut at its ends."""
    middle, half = int(torch.randint(length, ())), int(length * part) // 2
    return max(0, middle - half), min(length, middle + half)


def mixed_loss(logits: Tensor, batch: ClipBatch, *, label_smoothing: float) -> Tensor:
    """Cross entropy against the labels of a batch, or the shares of two where it is mixed.

    Args:
        logits: [B, C].
        batch: with labels.
        label_smoothing: in [0, 1).
    """
    loss = classification_loss(logits, batch.labels, label_smoothing=label_smoothing)
    if not isinstance(batch, MixedBatch):
        return loss
    other = classification_loss(logits, batch.others, label_smoothing=label_smoothing)
    return batch.share * loss + (1 - batch.share) * other
