"""How frames with masks become model input: the settings. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from spikevideoformer.events.spec import EventView
from spikevideoformer.models.config import MaskHeadKind
from spikevideoformer.settings import Stored, check_types, require
from spikevideoformer.video.spec import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Input,
    check_bounds,
    check_colours,
    check_input,
    without_events,
)


@dataclass(frozen=True, kw_only=True)
class SegmentationSpec(Stored):
    """How frames become model input; saved with a model so that prediction repeats it.

    Args:
        frames: T, frames of a clip, at least 1.
        short_side: pictures are brought to this short side, in pixels, keeping their shape; None
            leaves them as they are.
        crop: height and width of training crops and of sliding windows, multiples of 16.
        step: frames of the sequence from one frame of a clip to the next.
        input: rgb pictures, or pictures of events: of recordings, and simulated of video.
        events: how events are seen; unused for rgb.
        mean: RGB mean that normalisation subtracts, pictures scaled to [0, 1]; for events fixed.
        std: RGB standard deviation that normalisation divides by, above 0; for events fixed.

    Raises:
        ValueError: a value outside these ranges.
    """

    frames: int
    short_side: int | None
    crop: tuple[int, int]
    step: int = 1
    input: Input = "rgb"
    events: EventView = field(default_factory=EventView)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        for name in ("frames", "step", "short_side"):
            value = getattr(self, name)
            if name == "short_side" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if not (
            isinstance(self.crop, (tuple, list))
            and len(self.crop) == 2
            and all(isinstance(v, int) and v >= 16 and v % 16 == 0 for v in self.crop)
        ):
            raise ValueError(
                f"crop must be height and width in pixels, multiples of 16, got {self.crop!r}"
            )
        object.__setattr__(self, "crop", tuple(self.crop))  # JSON knows no tuples
        check_bounds(self.frames, max(self.short_side or 1, *self.crop), None)
        check_bounds(self.step, 1, None)
        check_input(self)
        check_colours(self)

    def to_dict(self) -> dict[str, Any]:
        return without_events(super().to_dict())


@dataclass(frozen=True, kw_only=True)
class MaskAugmentation:
    """What is varied at random in training clips, besides flip and colours (`Augmentation`).

    Args:
        scale: range of the factor by which pictures are resized before a crop is cut, above 0.
        one_class: a crop is drawn again (up to ten times) while one class has more than this share
            of its labelled pixels, in (0, 1]; 1 takes any crop.

    Raises:
        ValueError: a value outside these ranges.
    """

    scale: tuple[float, float] = (0.75, 1.5)
    one_class: float = 0.75

    def __post_init__(self) -> None:
        pair = self.scale
        if not (
            isinstance(pair, (tuple, list))
            and len(pair) == 2
            and all(isinstance(v, (int, float)) for v in pair)
            and 0 < pair[0] <= pair[1] < float("inf")
        ):
            raise ValueError(f"scale must be two numbers 0 < low <= high, got {pair!r}")
        object.__setattr__(self, "scale", (float(pair[0]), float(pair[1])))
        if not (isinstance(self.one_class, (int, float)) and 0 < self.one_class <= 1):
            raise ValueError(f"one_class must be a share in (0, 1], got {self.one_class!r}")

    @classmethod
    def off(cls) -> MaskAugmentation:
        """Nothing is varied but the place of the crop."""
        return cls(scale=(1.0, 1.0), one_class=1.0)


@dataclass(frozen=True, kw_only=True)
class SegmentationOptions:
    """What only a segmentation run decides.

    Args:
        crop_height: of training crops and sliding windows, in pixels, a multiple of 16; None: the
            size, rounded up to one.
        crop_width: the same for the width.
        scale: range of the factor by which pictures are resized before a crop is cut.
        one_class: a crop is drawn again while one class has more than this share of it.
        step: frames of the sequence from one frame of a clip to the next.
        passes: times that an epoch goes over the training clips; more, for a small data set, means
            fewer validations.
        head: what reads the classes off the maps of the network: pyramid, ours; fpn, the feature
            pyramid of the published segmenters, from half the size; or mlp, like SegFormer's, of
            width 768.
        class_weights: of the cross entropy: none, inverse_log or median_frequency, from the pixels
            of each class in the training masks.
        dice_weight: weight of the Dice loss beside the cross entropy.
        lovasz_weight: weight of the Lovasz softmax loss beside the cross entropy.
        sliding_window: validate with windows of the size of a crop; false takes whole pictures.

    Raises:
        ValueError: a value outside its range.
    """

    crop_height: int | None = None
    crop_width: int | None = None
    scale: tuple[float, float] = (0.75, 1.5)
    one_class: float = 0.75
    step: int = 1
    passes: int = 1
    head: MaskHeadKind = "pyramid"
    class_weights: Weighting = "none"
    dice_weight: float = 0.0
    lovasz_weight: float = 0.0
    sliding_window: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        require(self, "step", "passes", at_least=1)
        require(self, "dice_weight", "lovasz_weight", at_least=0)
        self.augmentation  # noqa: B018 - it knows its own ranges

    @property
    def augmentation(self) -> MaskAugmentation:
        """How crops are drawn."""
        return MaskAugmentation(scale=self.scale, one_class=self.one_class)


Weighting = Literal["none", "inverse_log", "median_frequency"]
"""How the loss weighs classes by their pixels."""
