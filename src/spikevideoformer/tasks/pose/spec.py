"""How frames with a body become model input: the settings. Nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from spikevideoformer.events.spec import EventCamera, EventChannels, EventView
from spikevideoformer.settings import Stored, check_types, require
from spikevideoformer.video.spec import IMAGENET_MEAN, IMAGENET_STD, check_bounds, check_colours

INPUTS = ("rgb", "grey", "events")
CROPS = ("picture", "person")
POSES = ("frames", "between")


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
        poses: a pose for each of T frames; or, of events, T + 1 poses, between which they lie.
        channels: what event frames hold; unused for others.
        camera: the event camera that is simulated where a data set has no event frames.
        events: how recordings are read, and the rate of their pictures.
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
    poses: str = "frames"
    channels: EventChannels = field(default_factory=EventChannels)
    camera: EventCamera = field(default_factory=EventCamera)
    events: EventView = field(default_factory=EventView)
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
        for name, accepted in (("input", INPUTS), ("crop", CROPS), ("poses", POSES)):
            if getattr(self, name) not in accepted:
                raise ValueError(
                    f"{name} must be one of {', '.join(accepted)}, got {getattr(self, name)!r}"
                )
        if self.poses == "between" and self.input != "events":
            raise ValueError(
                f"poses lie between frames of events, and input is {self.input}; set input to "
                "events, or poses to frames"
            )
        check_bounds(self.frames, self.size, self.frame_rate_hz)
        check_colours(self)

    def to_dict(self) -> dict[str, Any]:
        values = super().to_dict()
        if self.poses == "frames":  # as earlier versions know it
            del values["poses"]
        return values

    @property
    def in_channels(self) -> int:
        """C, the channels of a frame."""
        return self.channels.count if self.input == "events" else 3

    @property
    def num_poses(self) -> int:
        """Poses of a clip."""
        return self.frames + (self.poses == "between")

    def step(self, frame_rate_hz: float) -> int:
        """Frames of a video from one frame of a clip to the next, at least 1."""
        if self.frame_rate_hz is None:
            return 1
        return max(1, round(frame_rate_hz / self.frame_rate_hz))


@dataclass(frozen=True, kw_only=True)
class PoseOptions:
    """What only a run of pose tracking decides.

    Args:
        input: rgb; grey, the same in three channels; or events, those of the data set or, where it
            has none, simulated from its pictures.
        crop: what the square input shows: the whole picture, or the person (with the labelled
            joints in training; whoever predicts says where).
        head: grid, from cells of the picture, the place of the body as it is seen; or regressor,
            from its mean, the place in metres, as published; or heatmap, where each joint is seen
            and how far away. Rotations and shape are then made of the joints, and their weights
            count for nothing.
        poses: a pose for each frame; or between: of event frames, a pose before, between and after
            them, so one more.
        gap: pictures from one frame of a training clip to the next, drawn at random in this range;
            null: as frame_rate_hz says, which evaluation goes by.
        zoom: range of the factor on the side of that square, in training.
        shift: how far its middle moves at most, as part of its side, in training.
        polarity: of events: both, in channels of their own; positive, negative, signed or merged.
        event_mode: what event frames hold: count, binary or voxel.
        bins: parts of time that an event frame tells apart, at least 1.
        body: an SMPL file that `convert_smpl` wrote; None: the skeleton of the data set.
        rotation_weight: of the angle of rotations, in 1 / rad.
        joints3d_weight: of the distance of joints from the root, in 1 / m.
        joints2d_weight: of the distance in the picture, as a share of its side.
        shape_weight: of the squared error of shape values; None: 0.1 with SMPL, whose values are in
            standard deviations, and 10 with a skeleton, whose values are logarithms of lengths.
        translation_weight: of the error of the place of the root, in 1 / m.
        smoothness_weight: of the error of the acceleration, in frame^2 / m.
        heat_weight: of a heatmap head, of the cross-entropy of its maps.

    Raises:
        ValueError: a value outside its range.
    """

    input: Literal["rgb", "grey", "events"] = "rgb"
    crop: Literal["picture", "person"] = "picture"
    head: Literal["grid", "regressor", "heatmap"] = "grid"
    poses: Literal["frames", "between"] = "frames"
    gap: tuple[int, int] | None = None
    zoom: tuple[float, float] = (0.85, 1.1)
    shift: float = 0.05
    polarity: str = "both"
    event_mode: str = "count"
    bins: int = 1
    body: Path | None = None
    rotation_weight: float = 1.0
    joints3d_weight: float = 5.0
    joints2d_weight: float = 5.0
    shape_weight: float | None = None
    translation_weight: float = 1.0
    smoothness_weight: float = 1.0
    heat_weight: float = 0.3

    def __post_init__(self) -> None:
        check_types(self)
        if not (
            len(self.zoom) == 2
            and all(isinstance(v, (int, float)) for v in self.zoom)
            and 0 < self.zoom[0] <= self.zoom[1] < math.inf
        ):
            raise ValueError(f"zoom must be two numbers 0 < low <= high, got {self.zoom!r}")
        object.__setattr__(self, "zoom", tuple(map(float, self.zoom)))
        require(self, "shift", at_least=0, below=1)
        if self.gap is not None:
            if not (len(self.gap) == 2 and 1 <= self.gap[0] <= self.gap[1]):
                raise ValueError(f"gap must be two numbers 1 <= low <= high, got {self.gap!r}")
            object.__setattr__(self, "gap", tuple(self.gap))
        self.weights, self.channels  # noqa: B018 - they know their own ranges
        if self.head == "heatmap":
            self._check_maps()

    def _check_maps(self) -> None:
        """Refuse what a head with maps cannot do; ValueError."""
        if self.body is not None:
            raise ValueError("pose.head heatmap poses the skeleton of the data; leave body out")
        if self.poses != "frames":
            raise ValueError("pose.head heatmap reads frames; set poses to frames")
        terms = ("joints3d", "joints2d", "translation", "smoothness")
        if not any(getattr(self, f"{name}_weight") for name in terms):
            names = ", ".join(f"{name}_weight" for name in terms)
            raise ValueError(f"pose.head heatmap learns by {names}; set one of them above 0")

    @property
    def weights(self) -> PoseLossWeights:
        """Of the terms of the loss."""
        names = [f.name for f in fields(PoseLossWeights)]
        weights = {name: getattr(self, f"{name}_weight") for name in names}
        if self.shape_weight is None:
            weights["shape"] = 10.0 if self.body is None else 0.1
        return PoseLossWeights(**weights)

    @property
    def channels(self) -> EventChannels:
        """What event frames hold."""
        return EventChannels(polarity=self.polarity, mode=self.event_mode, bins=self.bins)


@dataclass(frozen=True, kw_only=True)
class PoseLossWeights:
    """Weights of the terms of `pose_loss` and of `heat_loss`; one of weight 0 is not computed.

    The defaults bring the errors of an untrained network to the same order of magnitude; they are
    a start, and have not been tuned.

    Args:
        rotation: of the mean angle, in 1 / rad.
        joints3d: of the distance of the joints relative to the root, in 1 / m.
        joints2d: of the distance in the picture, as a share of its longer side.
        shape: of the squared error of the shape values.
        translation: of the error of the translation, in 1 / m.
        smoothness: of the error of the acceleration, in frame^2 / m.
        heat: of `heat_loss`, where the head has heat maps.

    Raises:
        ValueError: a weight below 0, infinite or NaN, or no weight above 0.
    """

    rotation: float = 1.0
    joints3d: float = 5.0
    joints2d: float = 5.0
    shape: float = 0.1
    translation: float = 1.0
    smoothness: float = 1.0
    heat: float = 0.3

    def __post_init__(self) -> None:
        for name, weight in asdict(self).items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"the loss weight {name} must be a number from 0 up, got {weight}")
        if not any(weight for name, weight in asdict(self).items() if name != "heat"):
            raise ValueError("all weights of the pose loss are 0; set at least one above 0")
