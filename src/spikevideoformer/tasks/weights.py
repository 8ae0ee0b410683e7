"""How the terms of losses are weighted: settings only. Nothing here needs torch."""

import math
from dataclasses import asdict, dataclass
from typing import Literal

Weighting = Literal["none", "inverse_log", "median_frequency"]
"""How the loss weighs classes by their pixels."""
"""How classes are weighted, by their pixels in the training masks."""


@dataclass(frozen=True, kw_only=True)
class PoseLossWeights:
    """Weights of the terms of `pose_loss`; a term of weight 0 is not computed.

    The defaults bring the errors of an untrained network to the same order of magnitude; they are
    a start, and have not been tuned.

    Args:
        rotation: of the mean angle, in 1 / rad.
        joints3d: of the distance of the joints relative to the root, in 1 / m.
        joints2d: of the distance in the picture, as a share of its longer side.
        shape: of the squared error of the shape values.
        translation: of the error of the translation, in 1 / m.
        smoothness: of the error of the acceleration, in frame^2 / m.

    Raises:
        ValueError: a weight below 0, infinite or NaN, or no weight above 0.
    """

    rotation: float = 1.0
    joints3d: float = 5.0
    joints2d: float = 5.0
    shape: float = 0.1
    translation: float = 1.0
    smoothness: float = 1.0

    def __post_init__(self) -> None:
        for name, weight in asdict(self).items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"the loss weight {name} must be a number from 0 up, got {weight}")
        if not any(asdict(self).values()):
            raise ValueError("all weights of the pose loss are 0; set at least one above 0")
