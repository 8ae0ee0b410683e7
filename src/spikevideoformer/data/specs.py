"""How files become model input: the settings, which check themselves. Nothing here needs torch.

They are apart from what is done with them so that the command can refuse a wrong value at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

Decode = Literal["full", "open", "none"]
"""How closely files are looked at beforehand: decoded to the end, opened, or not at all."""


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


@dataclass(frozen=True, kw_only=True)
class SegmentationSpec:
    """How frames become model input; saved with a model so that prediction repeats it.

    Args:
        frames: T, frames of a clip, at least 1.
        short_side: pictures are brought to this short side, in pixels, keeping their shape; None
            leaves them as they are.
        crop: height and width of training crops and of sliding windows, multiples of 16.
        step: frames of the sequence from one frame of a clip to the next.
        mean: RGB mean that normalisation subtracts, pictures scaled to [0, 1].
        std: RGB standard deviation that normalisation divides by, above 0.

    Raises:
        ValueError: a value outside these ranges.
    """

    frames: int
    short_side: int | None
    crop: tuple[int, int]
    step: int = 1
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
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not (
                isinstance(values, (tuple, list))
                and len(values) == 3
                and all(
                    isinstance(v, (int, float)) and math.isfinite(v) and (name == "mean" or v > 0)
                    for v in values
                )
            ):
                positive = " above 0" if name == "std" else ""
                raise ValueError(f"{name} must be three finite numbers{positive}, got {values!r}")
            object.__setattr__(self, name, tuple(float(v) for v in values))

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON values; `from_dict` reads it back."""
        return {
            "frames": self.frames,
            "short_side": self.short_side,
            "crop": list(self.crop),
            "step": self.step,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SegmentationSpec:
        """Read a spec from plain values.

        Raises:
            ValueError: an unknown or missing key, or a value out of range.
        """
        known = [f.name for f in fields(cls)]
        if unknown := sorted(str(key) for key in values if key not in known):
            raise ValueError(
                f"unknown clip setting {', '.join(unknown)}; accepted are {', '.join(known)}"
            )
        if missing := [n for n in ("frames", "short_side", "crop") if n not in values]:
            raise ValueError(f"clip setting {', '.join(missing)} is missing")
        # JSON knows no tuples.
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**plain)


POLARITIES = ("both", "positive", "negative", "signed", "merged")
MODES = ("binary", "count", "voxel")


@dataclass(frozen=True, kw_only=True)
class EventChannels:
    """What the channels of an event frame hold.

    The frame's stretch of time is cut into bins; channels go by polarity first, then by bin:
    ``both`` with two bins gives positive 0, positive 1, negative 0, negative 1.

    Args:
        polarity: "both" in channels of their own, positive first; only the "positive" or the
            "negative"; "signed", positive minus negative; "merged", without regard to it.
        mode: "count" is the number of events; "binary" its sign, so 0 or 1 (-1 where signed);
            "voxel" shares each event between the two nearest bins, linearly in time.
        bins: B, at least 1. Bins of counts are B equal parts of the stretch; those of voxels
            stand at B moments from its start to its end (one bin: all events count fully).

    Raises:
        ValueError: an unknown name, or no bin.

    Source: the voxel grid is that of Zhu et al., CVPR 2019, equations 1 and 2, with polarities
        apart unless "signed", and the time scaled by the stretch rather than by its events.
    """

    polarity: str = "both"
    mode: str = "count"
    bins: int = 1

    def __post_init__(self) -> None:
        for name, accepted in (("polarity", POLARITIES), ("mode", MODES)):
            if (value := getattr(self, name)) not in accepted:
                raise ValueError(f"{name} must be one of {', '.join(accepted)}, got {value!r}")
        if self.bins < 1:
            raise ValueError(f"bins must be at least 1, got {self.bins}")

    @property
    def count(self) -> int:
        """C, the number of channels: a model's `in_channels`."""
        return self.bins * (2 if self.polarity == "both" else 1)


LEAST_THRESHOLD = 0.01
"""Below this no threshold falls, whatever the noise. Source: v2e's emulator."""


@dataclass(frozen=True, kw_only=True)
class EventCamera:
    """The sensor that is simulated.

    Args:
        threshold: change of log light (natural logarithm) per event, at least 0.01.
        threshold_noise: standard deviation of the thresholds, which are drawn once for each pixel
            and polarity, at least 0; none falls below 0.01.
        refractory_s: dead time of a pixel after an event; what it would have fired is lost.
        log_eps: light (white is 1) that is added before the logarithm, above 0. At 0.01 one step
            of an 8-bit picture stays below 0.04, so that rounding alone fires nothing.
        seed: of the thresholds, at least 0.

    Raises:
        ValueError: a value outside these ranges.
    """

    threshold: float = 0.2
    threshold_noise: float = 0.03
    refractory_s: float = 0.0
    log_eps: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("threshold", LEAST_THRESHOLD),
            ("threshold_noise", 0.0),
            ("refractory_s", 0.0),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= least):
                raise ValueError(f"{name} must be at least {least:g}, got {value}")
        if not (math.isfinite(self.log_eps) and self.log_eps > 0):
            raise ValueError(f"log_eps must be above 0, got {self.log_eps}")


INPUTS = ("rgb", "grey", "events")
CROPS = ("picture", "person")


@dataclass(frozen=True, kw_only=True)
class PoseSpec:
    """How frames become model input; saved with a model so that prediction repeats it.

    Args:
        frames: T, frames of a clip, at least 1.
        size: height and width of the square model input, in pixels, a multiple of 16.
        frame_rate_hz: frames per second of video time that the network sees; None takes every
            frame of a video.
        input: rgb; grey, the same in three channels; or events.
        crop: what the square shows: the whole picture, with margins where it is not square; or the
            person, with a quarter of margin, which needs to be told where the person is.
        channels: what event frames hold; unused for others.
        camera: the event camera that is simulated where a data set has no event frames.
        mean: RGB mean that normalisation subtracts, pictures scaled to [0, 1]; not for events.
        std: RGB standard deviation that normalisation divides by, above 0; not for events.

    Raises:
        ValueError: a value outside these ranges.
    """

    frames: int
    size: int
    frame_rate_hz: float | None = None
    input: str = "rgb"
    crop: str = "picture"
    channels: EventChannels = EventChannels()
    camera: EventCamera = EventCamera()
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not isinstance(self.frames, int) or isinstance(self.frames, bool) or self.frames < 1:
            raise ValueError(f"frames must be a whole number of at least 1, got {self.frames!r}")
        if not isinstance(self.size, int) or self.size < 16 or self.size % 16:
            raise ValueError(
                f"size must be a multiple of 16 pixels, at least 16, got {self.size!r}"
            )
        rate = self.frame_rate_hz
        if rate is not None and not (isinstance(rate, (int, float)) and 0 < rate < math.inf):
            raise ValueError(f"frame_rate_hz must be above 0, got {rate!r}; None takes every frame")
        for name, accepted in (("input", INPUTS), ("crop", CROPS)):
            if getattr(self, name) not in accepted:
                raise ValueError(
                    f"{name} must be one of {', '.join(accepted)}, got {getattr(self, name)!r}"
                )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not (
                isinstance(values, (tuple, list))
                and len(values) == 3
                and all(
                    isinstance(v, (int, float)) and math.isfinite(v) and (name == "mean" or v > 0)
                    for v in values
                )
            ):
                positive = " above 0" if name == "std" else ""
                raise ValueError(f"{name} must be three finite numbers{positive}, got {values!r}")
            object.__setattr__(self, name, tuple(float(v) for v in values))

    @property
    def in_channels(self) -> int:
        """C, the channels of a frame."""
        return self.channels.count if self.input == "events" else 3

    def step(self, frame_rate_hz: float) -> int:
        """Frames of a video from one frame of a clip to the next, at least 1."""
        if self.frame_rate_hz is None:
            return 1
        return max(1, round(frame_rate_hz / self.frame_rate_hz))

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON values; `from_dict` reads it back."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["channels"], values["camera"] = vars(self.channels).copy(), vars(self.camera).copy()
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PoseSpec:
        """Read a spec from plain values.

        Raises:
            ValueError: an unknown or missing key, or a value out of range.
        """
        known = [f.name for f in fields(cls)]
        if unknown := sorted(str(key) for key in values if key not in known):
            raise ValueError(
                f"unknown clip setting {', '.join(unknown)}; accepted are {', '.join(known)}"
            )
        if missing := [n for n in ("frames", "size") if n not in values]:
            raise ValueError(f"clip setting {', '.join(missing)} is missing")
        # JSON knows no tuples.
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        for name, kind in (("channels", EventChannels), ("camera", EventCamera)):
            if name in plain:
                try:
                    plain[name] = kind(**plain[name])
                except TypeError as error:
                    raise ValueError(f"clip setting {name}: {error}") from error
        return cls(**plain)


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
    temporal_jitter: float = 0.5

    def __post_init__(self) -> None:
        for name in ("flip", "brightness", "contrast", "saturation", "temporal_jitter"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and 0 <= value <= 1):
                raise ValueError(f"{name} must be between 0 and 1, got {value!r}")
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
class RenderSpec:
    """What rendered clips are like.

    Args:
        size: height and width in pixels, a multiple of 16.
        frames: pictures of a clip.
        frame_rate_hz: of the clip; motion between two frames of a recording is interpolated.
        supersampling: rays along each side of a pixel, 1 to 4. More give smoother outlines.
        view_deg: how far to either side the camera stands, at most, of where the hips face on
            average, above 0; 180: anywhere.

    Raises:
        ValueError: a value outside these ranges.
    """

    size: int = 64
    frames: int = 32
    frame_rate_hz: float = 15.0
    supersampling: int = 2
    view_deg: float = 180.0

    def __post_init__(self) -> None:
        if self.size < 16 or self.size % 16:
            raise ValueError(f"size must be a multiple of 16 pixels, at least 16, got {self.size}")
        if self.frames < 1:
            raise ValueError(f"frames must be at least 1, got {self.frames}")
        if not 0 < self.frame_rate_hz < math.inf:
            raise ValueError(f"frame_rate_hz must be above 0, got {self.frame_rate_hz}")
        if not 1 <= self.supersampling <= 4:
            raise ValueError(f"supersampling must be 1 to 4, got {self.supersampling}")
        if not 0 < self.view_deg <= 180:
            raise ValueError(
                f"view_deg must be above 0 and at most 180 degrees, got {self.view_deg}"
            )

    @property
    def duration_s(self) -> float:
        """Length of a clip."""
        return self.frames / self.frame_rate_hz


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
