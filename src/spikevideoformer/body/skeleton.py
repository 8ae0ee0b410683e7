"""Body models: from rotations of joints to where the joints are.

:class:`BodyModel` is what the pose task asks of one. :class:`Skeleton` is the free one: bones of
fixed length, as a motion-capture file lists them.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spikevideoformer.body.rotations import matrix_from_axis_angle

Vector = tuple[float, float, float]

NO_BONE_M = 1e-4
"""What is shorter joins two joints in one place; its direction is rounding."""

_SIDES = {"l": "r", "r": "l", "left": "right", "right": "left"}
_SIDE = re.compile(r"left|right|^[lr](?=[_.])|(?<=[_.])[lr]$", re.IGNORECASE)
_HIP = re.compile(r"hip|thigh|up(per)?_?leg", re.IGNORECASE)


def forward_kinematics(
    parents: Sequence[int],
    rotations: Float[Tensor, "*batch J 3 3"],
    offsets: Float[Tensor, "*#batch J 3"],
) -> tuple[Float[Tensor, "*batch J 3"], Float[Tensor, "*batch J 3 3"]]:
    """Walk down the tree of joints.

    Equation: ``G_j = G_p R_j`` and ``x_j = x_p + G_p o_j`` with p the parent of j; ``G_0 = R_0``
    and ``x_0 = o_0``.

    Args:
        parents: of each joint, before it in the list; -1 for the first.
        rotations: R, local to the parent.
        offsets: o, in the frame of the parent; of the first joint, its position.

    Returns:
        Positions x, in the unit of the offsets, and rotations G in the frame of the world.
    """
    offsets = offsets.expand(rotations.shape[:-1])
    turns, places = [rotations[..., 0, :, :]], [offsets[..., 0, :]]
    for joint, parent in enumerate(parents[1:], start=1):
        step = turns[parent] @ offsets[..., joint, :, None]
        places.append(places[parent] + step.squeeze(-1))
        turns.append(turns[parent] @ rotations[..., joint, :, :])
    return torch.stack(places, -2), torch.stack(turns, -3)


def _smallest_turn(a: Float[Tensor, "*b 3"], b: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation by the smallest angle that takes one direction to another; both of length 1.

    Equation: ``axis = a x b / |a x b|``, by the angle between them; of opposite directions about
    any axis across, and of a direction that is 0 not at all.
    """
    axis = torch.linalg.cross(a, b)
    sine, cosine = axis.norm(dim=-1), (a * b).sum(-1)
    least = torch.nn.functional.one_hot(a.abs().argmin(-1), 3).to(a)
    across = torch.nn.functional.normalize(torch.linalg.cross(a, least), dim=-1)
    clear = (sine > 1e-6)[..., None]
    axis = torch.where(clear, axis / sine.clamp_min(1e-12)[..., None], across)
    return matrix_from_axis_angle(axis * torch.atan2(sine, cosine)[..., None])


class BodyModel(nn.Module, ABC):
    """What the pose task needs to know of a body.

    Args:
        joint_names: of the J joints; unique, without blanks or braces.
        parents: index of each joint's parent, smaller than its own; -1 for the first joint, which
            is the root.

    Attributes:
        num_shape: how many numbers describe the proportions of a body; zeros are the usual one.

    Raises:
        ValueError: names or parents that are no such tree.
    """

    num_shape: int

    def __init__(self, joint_names: Sequence[str], parents: Sequence[int]) -> None:
        super().__init__()
        if len(joint_names) != len(parents) or not parents:
            raise ValueError(
                f"a body needs as many parents as joints, at least one, got {len(joint_names)}"
                f" names and {len(parents)} parents"
            )
        for joint, (name, parent) in enumerate(zip(joint_names, parents, strict=True)):
            if not re.fullmatch(r"[^\s{}]+", name):
                raise ValueError(
                    f"joint name {name!r} is empty or has blanks or braces; use _ between words"
                )
            if name in joint_names[:joint]:
                raise ValueError(f"joint name {name} is there twice; rename one of the two")
            if not (parent == -1 if joint == 0 else 0 <= parent < joint):
                raise ValueError(
                    f"joint {name} (number {joint}) has parent {parent}; give -1 for the first"
                    " joint, and for others the number of an earlier one"
                )
        self.joint_names = tuple(joint_names)
        self.parents = tuple(parents)

    @abstractmethod
    def joints(
        self,
        rotations: Float[Tensor, "*batch J 3 3"],
        translation: Float[Tensor, "*#batch 3"],
        shape: Float[Tensor, "*#batch S"] | None = None,
    ) -> Float[Tensor, "*batch J 3"]:
        """Positions of the joints in metres.

        Args:
            rotations: of each joint, local to its parent.
            translation: where the body is, in metres.
            shape: its proportions; None: the usual ones.
        """

    @property
    def symmetric_pairs(self) -> tuple[tuple[int, int], ...]:
        """Joints that mirror each other, (left, right), found by their names.

        Sides are the words left and right anywhere, or L and R at the end after _ or a dot
        (`Hand_L`), or at the start before one (`L_Hand`).
        """
        index = {name.lower(): joint for joint, name in enumerate(self.joint_names)}
        pairs = []
        for name, left in index.items():
            side = _SIDE.search(name)
            if side is None or side[0] not in ("l", "left"):
                continue
            mirrored = name[: side.start()] + _SIDES[side[0]] + name[side.end() :]
            if mirrored in index:
                pairs.append((left, index[mirrored]))
        return tuple(pairs)

    @property
    def hips(self) -> tuple[int, int]:
        """The hip joints, (left, right): the first pair named hip, thigh, up(per)leg.

        Raises:
            ValueError: no pair has such a name.
        """
        for left, right in self.symmetric_pairs:
            if _HIP.search(self.joint_names[left]):
                return left, right
        raise ValueError(
            "no left and right joint is named hip, thigh, upleg or upperleg; rename the hip joints"
            f" of {', '.join(self.joint_names)}"
        )


class Skeleton(BodyModel):
    """A tree of bones of fixed length.

    Its shape, of as many numbers as joints, is the natural logarithm of the factor by which each
    bone (from its parent to the joint) is longer than in `offsets`. That of the root does nothing.

    Args:
        joint_names: as in `BodyModel`.
        parents: as in `BodyModel`.
        offsets: of each joint from its parent where nothing is turned, in metres. That of the root
            is not used and set to zero: the root is where the translation says.
        end_offsets: by the names of joints where a bone goes on without another joint (finger
            tips, top of the head): its end, likewise. Kept for files; no joint.

    Raises:
        ValueError: no tree, or offsets that are not J x 3 finite numbers.
    """

    offsets: Tensor

    def __init__(
        self,
        joint_names: Sequence[str],
        parents: Sequence[int],
        offsets: Float[Tensor, "J 3"] | Sequence[Sequence[float]],
        end_offsets: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__(joint_names, parents)
        if not isinstance(offsets, Tensor) and {len(offset) for offset in offsets} != {3}:
            raise ValueError(f"offsets must be three numbers for each of {len(parents)} joints")
        offsets = torch.as_tensor(offsets, dtype=torch.float64).clone()
        ends = [list(end) for end in (end_offsets or {}).values()]
        if offsets.shape != (len(parents), 3) or not offsets.isfinite().all():
            raise ValueError(
                f"offsets must be {len(parents)} times three finite numbers in metres, got"
                f" {tuple(offsets.shape)}"
            )
        if unknown := sorted(set(end_offsets or {}) - set(joint_names)):
            raise ValueError(f"end_offsets names {', '.join(unknown)}, which is no joint")
        if not all(len(end) == 3 and all(map(math.isfinite, end)) for end in ends):
            raise ValueError("end_offsets must be three finite numbers in metres for each joint")
        offsets[0] = 0
        self.num_shape = len(parents)
        self.end_offsets: dict[str, Vector] = {
            name: (float(x), float(y), float(z)) for name, (x, y, z) in (end_offsets or {}).items()
        }
        self.register_buffer("offsets", offsets, persistent=False)

    def joints(
        self,
        rotations: Float[Tensor, "*batch J 3 3"],
        translation: Float[Tensor, "*#batch 3"],
        shape: Float[Tensor, "*#batch S"] | None = None,
    ) -> Float[Tensor, "*batch J 3"]:
        """Positions of the joints in metres; `translation` is that of the root.

        Args:
            rotations: of each joint, local to its parent.
            translation: position of the root in metres.
            shape: logarithms of the lengths of bones, relative to `offsets`; None: zeros.
        """
        offsets = self.offsets.to(rotations)
        if shape is not None:
            offsets = offsets * shape.exp()[..., None]
        batch = torch.broadcast_shapes(offsets.shape[:-2], translation.shape[:-1])
        offsets = torch.cat(
            (
                translation.expand(*batch, 3)[..., None, :],
                offsets.expand(*batch, *offsets.shape[-2:])[..., 1:, :],
            ),
            -2,
        )
        return forward_kinematics(self.parents, rotations, offsets)[0]

    def shape_of(self, lengths: Float[Tensor, "*batch J"]) -> Float[Tensor, "*batch J"]:
        """The shape of a body whose bones have these lengths, in metres; 0 where there is none."""
        usual = self.offsets.to(lengths).norm(dim=-1)
        exists = (lengths > NO_BONE_M) & (usual > NO_BONE_M)
        return (lengths.where(exists, 1) / usual.where(exists, 1)).log()

    @torch.no_grad()
    def posed(
        self, joints: Float[Tensor, "*batch J 3"]
    ) -> tuple[Float[Tensor, "*batch J 3 3"], Float[Tensor, "*batch J"]]:
        """Rotations and shape with which the skeleton comes near these joints.

        From the root on, each joint is turned so that the bones that start from it point where
        they should (least squares over their directions, Kabsch 1976); a single bone by the
        smallest turn from where its parent had it. Bones get the lengths between the joints, but
        for those of no length.

        Args:
            joints: positions in metres, finite; computed in float64.

        Returns:
            Rotations of joints, each local to its parent, and the shape (`Skeleton`), in the type
            of `joints`, float32 at least.
        """
        with torch.autocast(joints.device.type, enabled=False):
            rotations, shape = self._posed(joints.double())
        kind = torch.promote_types(joints.dtype, torch.float32)
        return rotations.to(kind), shape.to(kind)

    def _posed(self, joints: Tensor) -> tuple[Tensor, Tensor]:
        parent = [max(p, 0) for p in self.parents]
        bones = joints - joints[..., parent, :]
        rest = self.offsets.to(bones)
        shape = self.shape_of(bones.norm(dim=-1))
        # Where there is no bone its direction is rounding, and nothing turns by it.
        bones, rest = (z * (z.norm(dim=-1, keepdim=True) > NO_BONE_M) for z in (bones, rest))
        children: list[list[int]] = [[] for _ in parent]
        for joint, p in enumerate(self.parents[1:], start=1):
            children[p].append(joint)
        identity = torch.eye(3).to(bones).expand(*joints.shape[:-2], 3, 3)
        turns: list[Tensor] = []
        local: list[Tensor] = []
        for joint, own_children in enumerate(children):
            before = identity if joint == 0 else turns[parent[joint]]
            wanted = torch.nn.functional.normalize(bones[..., own_children, :], dim=-1)
            shown = torch.nn.functional.normalize(rest[own_children], dim=-1) @ before.mT
            if len(own_children) == 1:
                turn = _smallest_turn(shown[..., 0, :], wanted[..., 0, :]) @ before
            elif own_children:
                u, _, vh = torch.linalg.svd(wanted.mT @ shown)
                side = torch.ones_like(u[..., 0])
                side[..., 2] = torch.linalg.det(u @ vh).sign()
                turn = u @ (side[..., None] * vh) @ before
            else:
                turn = before
            turns.append(turn)
            local.append(before.mT @ turn)
        return torch.stack(local, -3), shape

    def scaled(self, factors: Float[Tensor, " J"]) -> Skeleton:
        """The skeleton with each bone `factors` times as long, ends with the joint they hang on.

        Args:
            factors: of each joint's bone, above 0.

        Raises:
            ValueError: a factor that is not above 0.
        """
        if not (factors > 0).all() or not factors.isfinite().all():
            raise ValueError(f"factors of bones must be above 0, got {factors.tolist()}")
        scale = dict(zip(self.joint_names, factors.tolist(), strict=True))
        ends = {name: [scale[name] * x for x in end] for name, end in self.end_offsets.items()}
        offsets = self.offsets * factors.to(self.offsets)[:, None]
        return Skeleton(self.joint_names, self.parents, offsets, ends)

    def to_dict(self) -> dict[str, Any]:
        """The skeleton as plain JSON values; `from_dict` reads it back."""
        return {
            "joint_names": list(self.joint_names),
            "parents": list(self.parents),
            "offsets": self.offsets.tolist(),
            "end_offsets": {name: list(end) for name, end in self.end_offsets.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Skeleton:
        """Read a skeleton from plain values.

        Args:
            values: as `to_dict` writes them; `end_offsets` may be left out.

        Raises:
            ValueError: an unknown or missing key, or values that are no skeleton.
        """
        known = ("joint_names", "parents", "offsets", "end_offsets")
        if unknown := sorted(str(key) for key in values if key not in known):
            raise ValueError(
                f"unknown entry {', '.join(unknown)} of a skeleton; accepted are {', '.join(known)}"
            )
        if missing := [key for key in known[:3] if key not in values]:
            raise ValueError(f"the skeleton has no {', '.join(missing)}; give it")
        try:
            names = [str(name) for name in values["joint_names"]]
            parents = [int(parent) for parent in values["parents"]]
            offsets = [[float(x) for x in offset] for offset in values["offsets"]]
            ends = {
                str(name): [float(x) for x in end]
                for name, end in values.get("end_offsets", {}).items()
            }
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"no skeleton ({error}); give what Skeleton.to_dict writes") from error
        return cls(names, parents, offsets, ends)
