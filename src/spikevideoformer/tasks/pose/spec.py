"""How frames with a body become model input: the settings. Nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from spikevideoformer.events.spec import EventCamera, EventChannels
from spikevideoformer.settings import Stored
from spikevideoformer.video.spec import IMAGENET_MEAN, IMAGENET_STD, check_colours

INPUTS = ("rgb", "grey", "events")
CROPS = ("picture", "person")


@dataclass(frozen=True, kw_only=True)
class PoseSpec(Stored):
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
    channels: EventChannels = field(default_factory=EventChannels)
    camera: EventCamera = field(default_factory=EventCamera)
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
        check_colours(self)

    @property
    def in_channels(self) -> int:
        """C, the channels of a frame."""
        return self.channels.count if self.input == "events" else 3

    def step(self, frame_rate_hz: float) -> int:
        """Frames of a video from one frame of a clip to the next, at least 1."""
        if self.frame_rate_hz is None:
            return 1
        return max(1, round(frame_rate_hz / self.frame_rate_hz))
