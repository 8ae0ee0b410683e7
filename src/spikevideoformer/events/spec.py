"""How events are read, what frames of them hold, and what the simulated camera is like.

Settings and names; nothing here needs torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

ARRAY_SUFFIXES = frozenset({".npy", ".npz"})
TABLE_SUFFIXES = frozenset({".csv", ".txt"})
CAMERA_SUFFIXES = frozenset({".aedat4", ".dat", ".es", ".raw"})
EVENT_SUFFIXES = ARRAY_SUFFIXES | TABLE_SUFFIXES | CAMERA_SUFFIXES
"""Endings of recordings."""

POLARITIES = ("both", "positive", "negative", "signed", "merged")
MODES = ("binary", "count", "voxel")
MOST_PIXELS = 2**15 - 1
"""Along a side of a sensor: coordinates are kept in 16 bits."""


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


TimeUnit = Literal["auto", "s", "ms", "us", "ns"]

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


@dataclass(frozen=True, kw_only=True)
class EventFiles:
    """How recordings of events are read.

    Args:
        time_unit: unit of the times in a recording; auto goes by the name of the column, else takes
            whole numbers for microseconds and others for seconds, and says so.
        height: rows of the sensor; None takes those that the file tells, else the largest y.
        width: its columns, likewise.
        columns: the order of t, x, y and p in tables that do not name them.

    Raises:
        ValueError: a value outside these ranges.
    """

    time_unit: TimeUnit = "auto"
    height: int | None = None
    width: int | None = None
    columns: str = "txyp"

    def __post_init__(self) -> None:
        if self.time_unit not in ("auto", "s", "ms", "us", "ns"):
            raise ValueError(
                f"events.time_unit must be auto, s, ms, us or ns, got {self.time_unit!r}"
            )
        for name in ("height", "width"):
            pixels = getattr(self, name)
            if pixels is not None and not (isinstance(pixels, int) and 1 <= pixels <= MOST_PIXELS):
                raise ValueError(f"events.{name} must be 1 to {MOST_PIXELS} pixels, got {pixels!r}")
        if sorted(self.columns) != sorted("txyp"):
            raise ValueError(
                f"events.columns must be t, x, y and p in some order, got {self.columns!r}"
            )


@dataclass(frozen=True, kw_only=True)
class EventView(EventFiles):
    """How events are seen as pictures: those of recordings, and of video by a simulated camera.

    Args:
        rate_hz: event pictures per second, above 0; each shows what happened in its time.
        camera: the camera that looks at video.

    Raises:
        ValueError: a value outside these ranges.
    """

    rate_hz: float = 25.0
    camera: EventCamera = field(default_factory=EventCamera)

    def __post_init__(self) -> None:
        super().__post_init__()
        rate = self.rate_hz
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < math.inf:
            raise ValueError(f"events.rate_hz must be above 0, got {rate!r}")


def is_recording(path: Path) -> bool:
    """Whether a file is a recording by its ending and first bytes; tables are not looked into."""
    ending = path.suffix.lower()
    if ending in (".dat", ".raw"):  # other programs write files of these names, videos among them
        with path.open("rb") as file:
            return file.read(2) == b"% "
    return ending in (ARRAY_SUFFIXES | CAMERA_SUFFIXES)
