"""How a stretch of video becomes model input: the settings. Nothing here needs torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from spikevideoformer.events.spec import EventView
from spikevideoformer.settings import Stored

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""RGB mean of ImageNet in [0, 1]. Source: torchvision's reference classification recipe."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""RGB standard deviation of ImageNet in [0, 1]. Source: as `IMAGENET_MEAN`."""


EVENT_MEAN, EVENT_STD = (0.0, 0.0, 0.0), (0.25, 0.25, 0.25)
"""Of pictures of events, so that a network sees the logarithm of counts: 1 for one event."""

Input = Literal["rgb", "events"]


@runtime_checkable
class Colours(Protocol):
    """Settings that say how colours are normalised."""

    @property
    def mean(self) -> tuple[float, float, float]:
        """RGB mean, pictures scaled to [0, 1]."""

    @property
    def std(self) -> tuple[float, float, float]:
        """RGB standard deviation."""


MOST_FRAMES, MOST_PIXELS, FASTEST_HZ, SLOWEST_HZ = 2**16, 2**14, 1e5, 1e-5
"""Numbers beyond these are damage: a clip of them would take hours or all memory."""


def check_bounds(frames: int, side: int, rate_hz: float | None) -> None:
    """Raise ValueError for a clip that nobody means."""
    if frames > MOST_FRAMES or side > MOST_PIXELS:
        raise ValueError(
            f"{frames} frames of {side} pixels are more than {MOST_FRAMES} of {MOST_PIXELS}"
        )
    if rate_hz is not None and not SLOWEST_HZ <= rate_hz <= FASTEST_HZ:
        raise ValueError(
            f"frame_rate_hz is {rate_hz:g}; give a number from {SLOWEST_HZ:g} to {FASTEST_HZ:g}"
        )


@dataclass(frozen=True, kw_only=True)
class ClipSpec(Stored):
    """How a stretch of video becomes model input; saved with a model so prediction repeats it.

    Args:
        frames: T, at least 1.
        size: height and width of the square model input, in pixels, at least 1.
        frame_rate_hz: frames per second of video time between samples, so that a clip lasts
            ``frames / frame_rate_hz`` seconds; None spreads the frames evenly over the whole
            stretch, whatever its length.
        input: rgb pictures, or pictures of events: of recordings, and simulated of video.
        events: how events are seen; unused for rgb.
        mean: RGB mean that normalisation subtracts, pictures scaled to [0, 1]; for events fixed.
        std: RGB standard deviation that normalisation divides by, above 0; for events fixed.

    Raises:
        ValueError: a value outside these ranges.
    """

    frames: int
    size: int
    frame_rate_hz: float | None = None
    input: Input = "rgb"
    events: EventView = field(default_factory=EventView)
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
        check_bounds(self.frames, self.size, self.frame_rate_hz)
        check_input(self)
        check_colours(self)

    def to_dict(self) -> dict[str, Any]:
        return without_events(super().to_dict())


def told_of_events(clip: Mapping[str, Any] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The ``clip`` of a model with other settings of recordings, `EventFiles`.

    Args:
        clip: as the model has it.
        given: what is different, by name.

    Raises:
        ValueError: the model sees pictures.
    """
    clip = dict(clip or {})
    events = clip.get("events", {})
    if clip.get("input") != "events":
        raise ValueError("the model sees pictures, not events; leave out --events.*")
    return clip | {"events": {**events, **given}}


def check_input(spec: Any) -> None:
    """ValueError for an unknown ``input`` of a frozen dataclass; events fix its colours."""
    if spec.input not in ("rgb", "events"):
        raise ValueError(f"input must be rgb or events, got {spec.input!r}")
    if spec.input == "events":
        object.__setattr__(spec, "mean", EVENT_MEAN)
        object.__setattr__(spec, "std", EVENT_STD)


def without_events(values: dict[str, Any]) -> dict[str, Any]:
    """The settings of a spec as earlier versions know them, where it is one of pictures."""
    if values["input"] == "rgb":
        del values["input"], values["events"]
    return values


MOST_COLOUR = 1000.0
"""Of a mean, and of what divides by a standard deviation; pictures lie in [0, 1]."""


def check_colours(spec: Colours) -> None:
    """Bring ``mean`` and ``std`` of a frozen dataclass to tuples; ValueError for what is none."""
    for name, least in (("mean", -MOST_COLOUR), ("std", 1 / MOST_COLOUR)):
        value = getattr(spec, name)
        if not (
            isinstance(value, (tuple, list))
            and len(value) == 3
            and all(_is_number(v) and least <= v <= MOST_COLOUR for v in value)
        ):
            raise ValueError(
                f"{name} must be three numbers from {least:g} to {MOST_COLOUR:g}, got {value!r}"
            )
        # A list (as JSON and YAML give) would make the frozen spec unhashable.
        object.__setattr__(spec, name, tuple(float(v) for v in value))


def _is_number(value: object) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # of NaN it is false, and a whole number may be larger
