"""A body in a model folder, which may not hold SMPL's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from spikevideoformer.body.skeleton import BodyModel, Skeleton
from spikevideoformer.body.smpl import NUM_BETAS, SMPL_JOINTS, SMPL_PARENTS


class AbsentSmpl(BodyModel):
    """SMPL without its file, which its licence does not let a model folder carry."""

    num_shape = NUM_BETAS

    def __init__(self) -> None:
        super().__init__(SMPL_JOINTS, SMPL_PARENTS)

    def joints(
        self,
        rotations: Float[Tensor, "*batch J 3 3"],
        translation: Float[Tensor, "*#batch 3"],
        shape: Float[Tensor, "*#batch S"] | None = None,
    ) -> Float[Tensor, "*batch J 3"]:
        """Refused: ValueError that says how to give the file."""
        raise ValueError(
            "the model was trained with SMPL, whose file is not part of it; give your own with"
            " --body smpl.safetensors, or in Python PoseTracker.from_pretrained(folder,"
            " body=load_body(path))"
        )


def body_to_dict(body: BodyModel) -> dict[str, Any]:
    """A body as plain JSON values. Of SMPL there is only its name."""
    if isinstance(body, Skeleton):
        return {"kind": "skeleton", **body.to_dict()}
    return {"kind": "smpl"}


def body_from_dict(values: Mapping[str, Any]) -> BodyModel:
    """Inverse of :func:`body_to_dict`; ValueError for what it does not write."""
    kind = values.get("kind")
    if kind == "smpl" and len(values) == 1:
        return AbsentSmpl()
    if kind == "skeleton":
        return Skeleton.from_dict({k: v for k, v in values.items() if k != "kind"})
    raise ValueError(f"body of kind {kind!r} is unknown; expected skeleton or smpl")
