"""The typed clip and batch, and `ClipSpec`: how a stretch of video becomes model input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""RGB mean of ImageNet in [0, 1]. Source: torchvision's reference classification recipe."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""RGB standard deviation of ImageNet in [0, 1]. Source: as `IMAGENET_MEAN`."""


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """How a stretch of video becomes model input; saved with a model so prediction repeats it.

    Args:
        frames: T, at least 1.
        size: height and width of the square model input, in pixels, at least 1.
        frame_rate_hz: frames per second of video time between samples, so that a clip lasts
            ``frames / frame_rate_hz`` seconds; None spreads the frames evenly over the whole
            stretch, whatever its length.
        mean: RGB mean that normalisation subtracts, pictures scaled to [0, 1].
        std: RGB standard deviation that normalisation divides by, above 0.

    Raises:
        ValueError: a value outside these ranges.
    """

    frames: int
    size: int
    frame_rate_hz: float | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        for name in ("frames", "size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        rate = self.frame_rate_hz
        if rate is not None:
            if not _is_number(rate) or rate <= 0:
                raise ValueError(
                    f"frame_rate_hz must be above 0, got {rate!r}; "
                    "None spreads the frames over the whole clip"
                )
            object.__setattr__(self, "frame_rate_hz", float(rate))
        for name in ("mean", "std"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 3:
                raise ValueError(f"{name} must be three numbers (R, G, B), got {value!r}")
            if not all(_is_number(v) and (name == "mean" or v > 0) for v in value):
                positive = " above 0" if name == "std" else ""
                raise ValueError(f"{name} must be three finite numbers{positive}, got {value!r}")
            # A list (as JSON and YAML give) would make the frozen spec unhashable.
            object.__setattr__(self, name, tuple(float(v) for v in value))

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON values; `from_dict` reads it back."""
        return {
            "frames": self.frames,
            "size": self.size,
            "frame_rate_hz": self.frame_rate_hz,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ClipSpec:
        """Read a spec from plain values.

        Args:
            values: as `to_dict` writes them; what is left out keeps its default.

        Raises:
            ValueError: an unknown or missing key, or a value out of range.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(str(key) for key in values if key not in known):
            raise ValueError(
                f"unknown clip setting {', '.join(unknown)}; accepted are {', '.join(known)}"
            )
        if missing := [name for name in ("frames", "size") if name not in values]:
            raise ValueError(f"clip setting {', '.join(missing)} is missing")
        # JSON knows no tuples.
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**plain)


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


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
