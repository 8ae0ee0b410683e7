"""A body in a model folder, which may not hold SMPL's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from spikevideoformer.body.skeleton import BodyModel, Skeleton
from spikevideoformer.body.smpl import NUM_BETAS, SMPL_JOINTS, SMPL_PARENTS

_MOST = 1024
"""Joints or shape values; larger numbers are damage."""


class _Absent(BodyModel):
    why: str

    def joints(
        self,
        rotations: Float[Tensor, "*batch J 3 3"],
        translation: Float[Tensor, "*#batch 3"],
        shape: Float[Tensor, "*#batch S"] | None = None,
    ) -> Float[Tensor, "*batch J 3"]:
        """Refused: ValueError that says how to give what is absent."""
        raise ValueError(self.why)


class AbsentSmpl(_Absent):
    """SMPL without its file, which its licence does not let a model folder carry."""

    num_shape = NUM_BETAS
    why = (
        "the model was trained with SMPL, whose file is not part of it; give your own with"
        " --body smpl.safetensors, or in Python PoseTracker.from_pretrained(folder,"
        " body=load_body(path))"
    )

    def __init__(self) -> None:
        super().__init__(SMPL_JOINTS, SMPL_PARENTS)


class AbsentBody(_Absent):
    """A body of which a published file tells the sizes only: J joints without names, S values.

    Args:
        joints: J.
        num_shape: S.
    """

    def __init__(self, joints: int, num_shape: int) -> None:
        super().__init__([f"joint_{j}" for j in range(joints)], [-1, *[0] * (joints - 1)])
        self.num_shape = num_shape
        self.why = (
            f"the network was made for a body of {joints} joints and {num_shape} shape values "
            "that its file does not describe; set model.body to a BodyModel of these"
        )


def body_to_dict(body: BodyModel) -> dict[str, Any]:
    """A body as plain JSON values. Of SMPL there is only its name."""
    if isinstance(body, Skeleton):
        return {"kind": "skeleton", **body.to_dict()}
    if isinstance(body, AbsentBody):
        return {"kind": "absent", "joints": len(body.parents), "num_shape": body.num_shape}
    return {"kind": "smpl"}


def body_from_dict(values: Mapping[str, Any]) -> BodyModel:
    """Inverse of :func:`body_to_dict`; ValueError for what it does not write."""
    kind = values.get("kind")
    if kind == "smpl" and len(values) == 1:
        return AbsentSmpl()
    if kind == "skeleton":
        return Skeleton.from_dict({k: v for k, v in values.items() if k != "kind"})
    if kind == "absent" and values.keys() == {"kind", "joints", "num_shape"}:
        sizes = values["joints"], values["num_shape"]
        if all(isinstance(n, int) and 0 < n <= _MOST for n in sizes):
            return AbsentBody(*sizes)
        raise ValueError(f"joints and num_shape are {sizes}; expected numbers from 1 to {_MOST}")
    raise ValueError(f"body of kind {kind!r} is unknown; expected skeleton or smpl")
