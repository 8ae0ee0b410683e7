"""Rotations as matrices, and what they are learned, stored and compared as.

A matrix turns column vectors, ``v' = R v``. All functions are differentiable, take any leading
axes and keep the floating type.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

EulerOrder = Literal["XYZ", "XZY", "YXZ", "YZX", "ZXY", "ZYX"]
EULER_ORDERS: tuple[EulerOrder, ...] = get_args(EulerOrder)

_LOCK = 1e-6
"""Cosine of the middle Euler angle below which the outer two are taken as one: the error, in
radians, is no larger."""


def matrix_from_6d(values: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation from two vectors, by Gram-Schmidt.

    Equation: ``b1 = a1 / |a1|``, ``b2 = (a2 - (b1 . a2) b1) / |...|``, ``b3 = b1 x b2`` as columns.

    Args:
        values: a1 and a2. They need not be of length 1 nor orthogonal, but where they are zero or
            parallel the result is no rotation.

    Source: Zhou et al., "On the Continuity of Rotation Representations" (CVPR 2019), equation 15.
    """
    a1, a2 = values[..., :3], values[..., 3:]
    b1 = F.normalize(a1, dim=-1)
    b2 = F.normalize(a2 - (b1 * a2).sum(-1, keepdim=True) * b1, dim=-1)
    return torch.stack((b1, b2, torch.linalg.cross(b1, b2)), -1)


def sixd_from_matrix(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """The first two columns, one after the other; `matrix_from_6d` gives the rotation back."""
    return matrix[..., :2].mT.flatten(-2)


def matrix_from_axis_angle(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation about `vector` by its length.

    Equation: ``R = I + sin(t)/t K + (1 - cos(t))/t^2 K^2`` with ``K v = vector x v``, t the length
    (Rodrigues). Both factors are written as sinc, smooth at 0.

    Args:
        vector: the axis times the angle in radians, of any length.
    """
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
    turns = torch.linalg.vector_norm(vector, dim=-1)[..., None, None] / torch.pi
    identity = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return identity + turns.sinc() * cross + (turns / 2).sinc().square() / 2 * cross @ cross


def axis_angle_from_matrix(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Axis times angle, the angle in [0, pi] radians; at pi one of the two axes."""
    q = _quaternion(matrix)
    w, v = q[..., :1], q[..., 1:]
    square = v.square().sum(-1, keepdim=True)  # of the sine of half the angle
    small = square < 1e-8
    sine = torch.where(small, 1, square).sqrt()
    # Next to 0 two terms of the series, exact in float64 (the third is below 1e-16).
    ratio = torch.where(
        small, 2 / w.clamp_min(0.5) * (1 - square / (3 * w.square().clamp_min(0.25))),
        2 * torch.atan2(sine, w) / sine,
    )  # fmt: skip
    return ratio * v


def _quaternion(matrix: Tensor) -> Tensor:
    """Unit quaternion (w, x, y, z) with w >= 0, [..., 4].

    The products ``4 q q^T`` are linear in the matrix. Any row of them is a multiple of q; the one
    of the largest component is at least 1 long, so nothing is divided by a small number.
    """
    m = [[matrix[..., i, k] for k in range(3)] for i in range(3)]
    wx, wy, wz = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    xy, xz, yz = m[1][0] + m[0][1], m[2][0] + m[0][2], m[2][1] + m[1][2]
    ww, xx = 1 + m[0][0] + m[1][1] + m[2][2], 1 + m[0][0] - m[1][1] - m[2][2]
    yy, zz = 1 - m[0][0] + m[1][1] - m[2][2], 1 - m[0][0] - m[1][1] + m[2][2]
    products = torch.stack(
        (ww, wx, wy, wz, wx, xx, xy, xz, wy, xy, yy, yz, wz, xz, yz, zz), -1
    ).unflatten(-1, (4, 4))
    largest = products.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None]
    row = products.take_along_dim(largest, -2).squeeze(-2)
    return F.normalize(torch.where(row[..., :1] < 0, -row, row), dim=-1)


def matrix_from_euler(
    angles: Float[Tensor, "*batch 3"], order: EulerOrder
) -> Float[Tensor, "*batch 3 3"]:
    """Product of three rotations about axes, each about an axis that the earlier ones have turned.

    Equation: ``R = R_order[0](angles[0]) R_order[1](angles[1]) R_order[2](angles[2])``.

    Args:
        angles: radians, in the order of the letters.
        order: as the channels of a BVH file list them.

    Raises:
        ValueError: an unknown order.
    """
    unit = torch.eye(3, dtype=angles.dtype, device=angles.device)
    first, second, third = (
        matrix_from_axis_angle(angles[..., i : i + 1] * unit[axis])
        for i, axis in enumerate(_axes(order))
    )
    return first @ second @ third


def euler_from_matrix(
    matrix: Float[Tensor, "*batch 3 3"], order: EulerOrder
) -> Float[Tensor, "*batch 3"]:
    """The angles of which `matrix_from_euler` makes this rotation.

    Args:
        matrix: rotations.
        order: of the angles.

    Returns:
        Radians: the middle one in [-pi/2, pi/2], the others in [-pi, pi]. Where the middle one is
        at an end of its range only the sum or difference of the others is determined (gimbal lock);
        the last one is 0 there.

    Raises:
        ValueError: an unknown order.
    """
    i, j, k = _axes(order)
    sign = 1 if (j - i) % 3 == 1 else -1  # of the permutation
    cosine = torch.linalg.vector_norm(matrix[..., i, [i, j]], dim=-1)
    middle = torch.atan2(sign * matrix[..., i, k], cosine)
    locked = cosine < _LOCK
    last = torch.atan2(
        torch.where(locked, 0, -sign * matrix[..., i, j]),
        torch.where(locked, 1, matrix[..., i, i]),
    )
    # With the last rotation undone the column j is that of the first alone, locked or not.
    column = sign * last.sin()[..., None] * matrix[..., i] + last.cos()[..., None] * matrix[..., j]
    first = torch.atan2(sign * column[..., k], column[..., j])
    return torch.stack((first, middle, last), -1)


def _axes(order: str) -> list[int]:
    if order not in EULER_ORDERS:
        raise ValueError(f"Euler order {order!r} is unknown; choose of {', '.join(EULER_ORDERS)}")
    return ["XYZ".index(letter) for letter in order]


def geodesic_distance(
    a: Float[Tensor, "*#batch 3 3"], b: Float[Tensor, "*#batch 3 3"]
) -> Float[Tensor, "*batch"]:
    """Angle of the rotation between a and b, in [0, pi] radians.

    Equation: ``atan2(|v|, tr(D) - 1)`` with ``D = a^T b`` and v the vector of ``D - D^T``: sine
    and cosine, each doubled. Unlike the arc cosine it is exact, with bounded gradients, at both
    ends.

    Args:
        a: rotations.
        b: rotations.
    """
    # Not `a.mT @ b`, which autocast would compute in half precision.
    d = (a[..., :, None] * b[..., None, :]).sum(-3)
    vector = torch.stack(
        (
            d[..., 2, 1] - d[..., 1, 2],
            d[..., 0, 2] - d[..., 2, 0],
            d[..., 1, 0] - d[..., 0, 1],
        ),
        -1,
    )
    trace = d.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.atan2(torch.linalg.vector_norm(vector, dim=-1), trace - 1)
