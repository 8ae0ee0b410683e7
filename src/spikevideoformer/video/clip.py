"""The typed clip and batch, and `ClipSpec`: how a stretch of video becomes model input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ClipBatch:
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

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        B, T, C, H, W = self.video.shape
        return (
            f"ClipBatch(video [B={B}, T={T}, C={C}, H={H}, W={W}], labels {self.labels.tolist()})"
        )

    def pin_memory(self) -> ClipBatch:
        """The batch in page-locked memory; the loader calls this where it is asked to pin."""
        return ClipBatch(
            video=self.video.pin_memory(),
            labels=self.labels.pin_memory(),
            indices=self.indices,
            paths=self.paths,
        )

    def to(self, device: torch.device | str) -> ClipBatch:
        """The batch with its video and labels on `device`."""
        return ClipBatch(
            video=self.video.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            indices=self.indices,
            paths=self.paths,
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
