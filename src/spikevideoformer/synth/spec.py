"""What rendered clips are like: the settings. Nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass


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
