"""The pose head of HumanPoseTracking_SNN in a published checkpoint."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from spikevideoformer.body.skeleton import BodyModel
from spikevideoformer.body.smpl import NUM_BETAS, SMPL_JOINTS
from spikevideoformer.body.stored import AbsentBody, AbsentSmpl

_PARTS = ("decpose", "decbeta", "dectrans")  # in the order of the numbers of our head


def has_pose_head(state: Mapping[str, Tensor]) -> bool:
    """Whether weights have the regressor of that head."""
    return any(key.startswith("regressor.") for key in state)


def with_our_pose_head(
    state: Mapping[str, Tensor], path: Path
) -> tuple[dict[str, Tensor], BodyModel]:
    """The weights with the three linear layers of the regressor as the one of our head.

    Args:
        state: published names.
        path: of the file, for errors.

    Returns:
        The weights, ``head.weight`` and ``head.bias`` in the place of ``regressor.*``; and the body
        that they are for: SMPL, or one of other sizes.

    Raises:
        ValueError: a layer that is missing, or of a size that fits no pose.
    """
    taken = {f"regressor.{part}.{leaf}" for part in _PARTS for leaf in ("weight", "bias")}
    own = {key: value for key, value in state.items() if key not in taken}
    layers = []
    for part in _PARTS:
        weight, bias = (state.get(f"regressor.{part}.{leaf}") for leaf in ("weight", "bias"))
        if weight is None or bias is None:
            raise ValueError(
                f"{path} lacks the tensor regressor.{part}.{'weight' if weight is None else 'bias'}"
                "; get the file from its authors again"
            )
        if weight.ndim != 2 or bias.shape != weight.shape[:1]:
            raise ValueError(
                f"{path}: regressor.{part} has shapes {tuple(weight.shape)} and "
                f"{tuple(bias.shape)}, which are no linear layer"
            )
        layers.append((weight, bias))
    rows = [len(bias) for _, bias in layers]
    widths = {weight.shape[1] for weight, _ in layers}
    if rows[0] % 6 or not rows[0] or not rows[1] or rows[2] != 3 or len(widths) > 1:
        raise ValueError(
            f"{path}: the regressor gives {rows[0]}, {rows[1]} and {rows[2]} numbers of "
            f"{sorted(widths)} channels; expected 6 for each joint, shape values, and 3 of one map"
        )
    own["head.weight"] = torch.cat([weight for weight, _ in layers])
    own["head.bias"] = torch.cat([bias for _, bias in layers])
    joints, shapes = rows[0] // 6, rows[1]
    if (joints, shapes) == (len(SMPL_JOINTS), NUM_BETAS):
        return own, AbsentSmpl()
    return own, AbsentBody(joints, shapes)
