"""A motion: a skeleton and how it is posed from frame to frame."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from jaxtyping import Float64
from torch import Tensor

from spikevideoformer.body.rotations import (
    EULER_ORDERS,
    EulerOrder,
)
from spikevideoformer.body.skeleton import Skeleton, forward_kinematics

Unit = Literal["m", "cm", "mm", "inch"]
METRES: dict[Unit, float] = {"m": 1.0, "cm": 0.01, "mm": 0.001, "inch": 0.0254}
"""How long each unit is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """What a skeleton does over T frames.

    Args:
        skeleton: of J joints, in metres.
        rotations: of each joint, local to its parent.
        translation: position of the root in metres.
        frame_rate_hz: frames per second, above 0.
        positions: of other joints than the root that have position channels of their own, by
            number: where they are in the frame of their parent, in metres, instead of the
            skeleton's offset.
        orders: Euler order of each joint's channels in a file; None: ZXY throughout.
        unit: of lengths in a file.

    Raises:
        ValueError: sizes that do not go together, numbers that are not finite, or a frame rate that
            is not above 0.
    """

    skeleton: Skeleton
    rotations: Float64[Tensor, "T J 3 3"]
    translation: Float64[Tensor, "T 3"]
    frame_rate_hz: float
    positions: Mapping[int, Float64[Tensor, "T 3"]] = field(default_factory=dict)
    orders: tuple[EulerOrder, ...] | None = None
    unit: Unit = "cm"

    def __post_init__(self) -> None:
        frames, joints = len(self.translation), len(self.skeleton.parents)
        sizes = {
            "rotations": (self.rotations, (frames, joints, 3, 3)),
            "translation": (self.translation, (frames, 3)),
            **{f"positions of joint {j}": (p, (frames, 3)) for j, p in self.positions.items()},
        }
        for name, (values, size) in sizes.items():
            if values.shape != size or not values.isfinite().all():
                raise ValueError(
                    f"{name} must be finite and {size} for {frames} frames and {joints} joints, got"
                    f" {tuple(values.shape)}"
                )
        if not all(0 < joint < joints for joint in self.positions):
            raise ValueError(
                f"positions are of joints 1 to {joints - 1}, got {sorted(self.positions)}; that of"
                " the root is the translation"
            )
        if self.orders is not None and (
            len(self.orders) != joints or not set(self.orders) <= set(EULER_ORDERS)
        ):
            raise ValueError(f"orders must be {joints} of {', '.join(EULER_ORDERS)}")
        if self.unit not in METRES:
            raise ValueError(f"unit must be one of {', '.join(METRES)}, got {self.unit!r}")
        if not 0 < self.frame_rate_hz < math.inf:
            raise ValueError(f"frame_rate_hz must be above 0, got {self.frame_rate_hz}")

    def joints(self) -> Float64[Tensor, "T J 3"]:
        """Positions in metres, with the `positions` of joints that have their own."""
        offsets = self.skeleton.offsets.repeat(len(self.translation), 1, 1)
        offsets[:, 0] = self.translation
        for joint, position in self.positions.items():
            offsets[:, joint] = position
        return forward_kinematics(self.skeleton.parents, self.rotations, offsets)[0]


def drop_root(motion: Motion) -> Motion:
    """The same motion without its first joint, whose only child becomes the root.

    For files that begin with a joint that is no part of the body. Joints stay where they are, even
    where the first joint moves: its rotation and translation go into its child's.

    Args:
        motion: of at least two joints.

    Raises:
        ValueError: the root has several children, or none.
    """
    skeleton = motion.skeleton
    if skeleton.parents.count(0) != 1:
        raise ValueError(
            f"the root {skeleton.joint_names[0]} has {skeleton.parents.count(0)} children; only one"
            " that has exactly one can be dropped, so keep it"
        )
    root, rotations = motion.rotations[:, 0], motion.rotations[:, 1:].clone()
    rotations[:, 0] = root @ rotations[:, 0]
    step = motion.positions.get(1, skeleton.offsets[1].expand_as(motion.translation))
    ends = {n: end for n, end in skeleton.end_offsets.items() if n != skeleton.joint_names[0]}
    return replace(
        motion,
        skeleton=Skeleton(
            skeleton.joint_names[1:],
            [parent - 1 for parent in skeleton.parents[1:]],
            skeleton.offsets[1:],
            ends,
        ),
        rotations=rotations,
        translation=motion.translation + (root @ step[..., None]).squeeze(-1),
        positions={joint - 1: p for joint, p in motion.positions.items() if joint > 1},
        orders=None if motion.orders is None else motion.orders[1:],
    )
