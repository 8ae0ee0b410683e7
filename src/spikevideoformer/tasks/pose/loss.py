"""The loss of a pose in every frame; plain tensors, no body model, metres and radians."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from spikevideoformer.body.rotations import geodesic_distance
from spikevideoformer.tasks.pose.spec import PoseLossWeights

SPOT = 0.03
"""Standard deviation of the place of a joint that a heat map is to show, in picture widths."""


@dataclass(frozen=True, kw_only=True)
class PoseTensors:
    """Poses of clips, predicted or true. What is None or NaN is not compared.

    Args:
        rotations: of each joint against its parent, as matrices; R joints.
        joints: in metres; camera coordinates, or any others that prediction and truth share.
        points: joints in the picture (x, y), in pixels; in the truth NaN where they are not
            `in_front` in the prediction.
        shape: shape values of the body in each frame.
        translation: of the body, in metres.
    """

    rotations: Float[Tensor, "B T R 3 3"] | None = None
    joints: Float[Tensor, "B T J 3"] | None = None
    points: Float[Tensor, "B T J 2"] | None = None
    shape: Float[Tensor, "B T S"] | None = None
    translation: Float[Tensor, "B T 3"] | None = None


def pose_loss(
    predicted: PoseTensors,
    truth: PoseTensors,
    *,
    root: int,
    image_size: tuple[int, int],
    weights: PoseLossWeights,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of the errors of poses, each a mean over what is labelled in the batch.

    - rotation: angle of the rotation from one to the other, in rad.
    - joints3d: |error| of a coordinate relative to the root joint, in m.
    - joints2d: |error| of a coordinate in the picture, over its longer side.
    - shape: squared error of a value.
    - translation: |error| of a coordinate, in m.
    - smoothness: |error| of a coordinate of the acceleration of the joints relative to the root,
      ``x[t-1] - 2 x[t] + x[t+1]``, in m / frame^2. It is the difference to the true acceleration
      that costs: a penalty on the acceleration itself is lowest for a body that does not move, and
      rounds off jumps and blows that the labels show. It needs three labelled frames in a row.

    Half precision is computed in float32. A NaN predicted where there is a label gives NaN, so
    that divergence is seen.

    Args:
        predicted: with a value for every term whose weight is above 0.
        truth: labels; where a clip, a frame or a joint has none, NaN, or None for the batch.
        root: index of the root joint among the joints. Frames where it is not labelled have no
            joints3d and no smoothness.
        image_size: height and width in pixels.
        weights: of the terms.

    Returns:
        The weighted sum, and by name the terms without their weights, all scalars. Terms without a
        label in the batch are zero, with zero gradient.

    Raises:
        ValueError: a term has a weight and no prediction, or prediction and truth differ in size.
    """
    parts: dict[str, Tensor] = {}
    if weights.rotation:
        p, t, known = _compare(predicted, truth, "rotations", "rotation", axes=2)
        parts["rotation"] = _mean(geodesic_distance(p, t), known)
    for name in ("joints3d", "smoothness"):
        if getattr(weights, name):
            p, t, known = _compare(predicted, truth, "joints", name)
            known = known & known[..., [root]]
            error = (p - p[..., [root], :]) - (t - t[..., [root], :])
            if name == "smoothness":
                # Both are linear: the error of the acceleration is the acceleration of the error.
                error, known = _acceleration(error, known)
            parts[name] = _mean(error.abs().mean(-1), known)
    if weights.joints2d:
        p, t, known = _compare(predicted, truth, "points", "joints2d")
        parts["joints2d"] = _mean((p - t).abs().mean(-1) / max(image_size), known)
    if weights.shape:
        p, t, known = _compare(predicted, truth, "shape", "shape")
        parts["shape"] = _mean((p - t).square().mean(-1), known)
    if weights.translation:
        p, t, known = _compare(predicted, truth, "translation", "translation")
        parts["translation"] = _mean((p - t).abs().mean(-1), known)
    total = torch.stack([getattr(weights, name) * part for name, part in parts.items()]).sum()
    return total, parts


def heat_loss(
    heat: Float[Tensor, "*batch J H W"], points: Float[Tensor, "*batch J 2"], *, size: int
) -> Tensor:
    """How far heat maps are from a spot of `SPOT` around each joint: their cross-entropy.

    Args:
        heat: logarithms of shares; the shares of a map add up to 1.
        points: joints in pixels of the input; NaN where there is no label. Those outside of it are
            not compared.
        size: of the input, in pixels.

    Returns:
        The mean over joints in the input, a scalar; 0 where there are none.
    """
    heat = heat.to(torch.promote_types(heat.dtype, torch.float32))
    place = points.to(heat) / size
    known = ((place >= 0) & (place < 1)).all(-1)  # NaN is not
    rows, columns = (((torch.arange(n).to(heat) + 0.5) / n) for n in heat.shape[-2:])
    x, y = place.where(known[..., None], 0.5).unbind(-1)
    across = (-(x[..., None] - columns).square() / (2 * SPOT**2)).softmax(-1)
    down = (-(y[..., None] - rows).square() / (2 * SPOT**2)).softmax(-1)
    spot = down[..., :, None] * across[..., None, :]
    return _mean(-(spot * heat).sum((-1, -2)), known)


def _compare(
    predicted: PoseTensors, truth: PoseTensors, field: str, term: str, *, axes: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Values of one field and which are known, without their last axes; zero where unknown."""
    p, t = getattr(predicted, field), getattr(truth, field)
    if p is None:
        raise ValueError(
            f"the loss weight {term} is above 0, but nothing predicts {field}; set it to 0"
        )
    p = p.to(torch.promote_types(p.dtype, torch.float32))
    t = torch.full_like(p, math.nan) if t is None else t.to(p)
    if p.shape != t.shape:
        raise ValueError(
            f"predicted {field} are {list(p.shape)} and true ones {list(t.shape)}; they must have "
            "the same size"
        )
    known = t.isfinite().flatten(-axes).all(-1)
    filled = known[(..., *[None] * axes)]
    return p.where(filled, 0), t.where(filled, 0), known


def _mean(errors: Tensor, known: Tensor) -> Tensor:
    return errors.where(known, 0).sum() / known.sum().clamp_min(1)


def _acceleration(positions: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Second differences of positions [..., T, J, 3], and which are known, [..., T - 2, J]."""
    before, now, after = (
        positions[..., :-2, :, :],
        positions[..., 1:-1, :, :],
        positions[..., 2:, :, :],
    )
    return before - 2 * now + after, known[..., :-2, :] & known[..., 1:-1, :] & known[..., 2:, :]
