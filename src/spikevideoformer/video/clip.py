"""The typed clip and batch, and `ClipSpec`: how a stretch of video becomes model input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

from spikevideoformer.video.spec import IMAGENET_MEAN as IMAGENET_MEAN
from spikevideoformer.video.spec import IMAGENET_STD as IMAGENET_STD
from spikevideoformer.video.spec import ClipSpec as ClipSpec


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Clip:
    """T frames sampled from a stretch of one video.

    Args:
        frames: RGB pictures.
        timestamps_s: when each frame appears in its video, counted from the video's first frame.
            Not falling; a frame that was sampled twice is there twice.
        path: the file or image-sequence folder.
        start_s: start of the stretch of video that the clip stands for.
        end_s: its end; where the video ends inside a window, the video's end.
        real_frames: how many leading frames lie inside the video; the rest repeat the last one.
    """

    frames: UInt8[Tensor, "T H W 3"]
    timestamps_s: Float64[Tensor, " T"]
    path: Path
    start_s: float
    end_s: float
    real_frames: int

    def __repr__(self) -> str:
        T, H, W, _ = self.frames.shape
        return (
            f"Clip({str(self.path)!r}, frames [T={T}, H={H}, W={W}, 3], {self.real_frames} real, "
            f"{self.start_s:.3f}-{self.end_s:.3f} s)"
        )


_B = TypeVar("_B", bound=Any)  # the batch itself: beartype knows no Self in methods


class Batch:
    """Clips of one forward pass: a dataclass of tensors whose first axis they are."""

    video: Tensor
    _stays: ClassVar[tuple[str, ...]]
    """Fields that go nowhere."""

    def __len__(self) -> int:
        return len(self.video)

    def _each(self: _B, change: Callable[[Tensor], Tensor]) -> _B:
        """With all fields changed that may go somewhere."""
        moved = {n: change(v) for n, v in vars(self).items() if n not in self._stays}
        return replace(self, **moved)

    def pin_memory(self: _B) -> _B:
        """The batch in page-locked memory; the loader calls this where it is asked to pin."""
        return self._each(Tensor.pin_memory)

    def to(self: _B, device: torch.device | str) -> _B:
        """The batch on `device`."""
        return self._each(lambda values: values.to(device, non_blocking=True))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ClipBatch(Batch):
    """What training and evaluation read from a loader.

    Args:
        video: normalised clips.
        labels: class indices.
        indices: position of every clip in its data set.
        paths: the file of every clip, for messages and reports.
    """

    video: Float[Tensor, "B T 3 H W"]
    labels: Int64[Tensor, " B"]
    indices: Int64[Tensor, " B"]
    paths: tuple[Path, ...]

    _stays: ClassVar[tuple[str, ...]] = ("indices", "paths")

    def __repr__(self) -> str:
        B, T, C, H, W = self.video.shape
        return (
            f"ClipBatch(video [B={B}, T={T}, C={C}, H={H}, W={W}], labels {self.labels.tolist()})"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledClip:
    """One item of a data set, before it is batched.

    Args:
        video: one normalised clip.
        label: class index.
        index: position in the data set.
        path: the file.
    """

    video: Float[Tensor, "T 3 H W"]
    label: int
    index: int
    path: Path


def collate_clips(items: Sequence[LabelledClip]) -> ClipBatch:
    """Stack items of equal shape into a batch: the loader's ``collate_fn``.

    Args:
        items: at least one.

    Raises:
        ValueError: the clips differ in shape; names both files.
    """
    if not items:
        raise ValueError("a batch needs at least one clip, got none")
    first = items[0]
    for item in items:
        if item.video.shape != first.video.shape:
            raise ValueError(
                f"clips of one batch must agree in shape: {first.path} is "
                f"{list(first.video.shape)}, {item.path} is {list(item.video.shape)}; "
                "give them one ClipSpec"
            )
    return ClipBatch(
        video=torch.stack([item.video for item in items]),  # B x [T, 3, H, W] -> [B, T, 3, H, W]
        labels=torch.tensor([item.label for item in items], dtype=torch.int64),
        indices=torch.tensor([item.index for item in items], dtype=torch.int64),
        paths=tuple(item.path for item in items),
    )
