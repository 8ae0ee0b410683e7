"""Rotations against closed forms, against each other, and their gradients."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from spikevideoformer.body.rotations import (
    EULER_ORDERS,
    EulerOrder,
    axis_angle_from_matrix,
    euler_from_matrix,
    geodesic_distance,
    matrix_from_6d,
    matrix_from_axis_angle,
    matrix_from_euler,
    sixd_from_matrix,
)

F64 = torch.float64


def random_vectors(*size: int) -> Tensor:
    return torch.randn(*size, 3, dtype=F64)


def random_rotations(*size: int) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(*size, 3, 3, dtype=F64))
    q = q * r.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
    return q * torch.linalg.det(q)[..., None, None]


def about(axis: str, degrees: float) -> Tensor:
    """Written out, one axis at a time."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rows = {
        "X": [[1, 0, 0], [0, c, -s], [0, s, c]],
        "Y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "Z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }
    return torch.tensor(rows[axis], dtype=F64)


def assert_rotations(matrix: Tensor, atol: float = 1e-12) -> None:
    identity = torch.eye(3, dtype=matrix.dtype).expand_as(matrix)
    torch.testing.assert_close(matrix @ matrix.mT, identity, rtol=0, atol=atol)
    assert (torch.linalg.det(matrix) > 0).all()


def test_six_numbers_are_the_first_two_columns() -> None:
    matrix = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert sixd_from_matrix(matrix).tolist() == [0, 1, 0, -1, 0, 0]
    torch.testing.assert_close(matrix_from_6d(sixd_from_matrix(matrix)), matrix)


def test_any_two_vectors_make_a_rotation() -> None:
    values = torch.randn(4, 5, 6, dtype=F64)
    matrix = matrix_from_6d(values)
    assert_rotations(matrix)
    a1, a2 = values[..., :3], values[..., 3:]
    torch.testing.assert_close(matrix[..., 0] * a1.norm(dim=-1, keepdim=True), a1)
    # a2 lies in the plane of the first two columns, on the side of the second
    assert (matrix[..., 2] * a2).sum(-1).abs().max() < 1e-12
    assert ((matrix[..., 1] * a2).sum(-1) > 0).all()
    torch.testing.assert_close(matrix_from_6d(sixd_from_matrix(matrix)), matrix)


@pytest.mark.parametrize("axis", "XYZ")
def test_axis_angle_written_out(axis: str) -> None:
    for degrees in (0.0, 30.0, 90.0, -135.0, 180.0, 270.0, 400.0):
        vector = torch.zeros(3, dtype=F64)
        vector["XYZ".index(axis)] = math.radians(degrees)
        torch.testing.assert_close(matrix_from_axis_angle(vector), about(axis, degrees))


def test_axis_angle_is_the_exponential() -> None:
    v = random_vectors(50) * 2
    generator = torch.zeros(50, 3, 3, dtype=F64)
    generator[:, 0, 1], generator[:, 0, 2], generator[:, 1, 2] = -v[:, 2], v[:, 1], -v[:, 0]
    generator = generator - generator.mT
    torch.testing.assert_close(matrix_from_axis_angle(v), torch.linalg.matrix_exp(generator))


@pytest.mark.parametrize(
    "angle", [0, 1e-12, 1e-7, 9e-5, 1.9e-4, 2.1e-4, 1e-3, 1, 3, math.pi - 1e-9]
)
def test_axis_angle_round_trip_down_to_nothing(angle: float) -> None:
    vector = angle * torch.nn.functional.normalize(random_vectors(64), dim=-1)
    back = axis_angle_from_matrix(matrix_from_axis_angle(vector))
    torch.testing.assert_close(back, vector, rtol=1e-9, atol=1e-16)


def test_half_turns_keep_their_axis() -> None:
    axis = torch.cat((torch.eye(3, dtype=F64), torch.nn.functional.normalize(random_vectors(64))))
    for angle in (math.pi, math.pi - 1e-9, math.pi + 1e-9):
        matrix = matrix_from_axis_angle(angle * axis)
        vector = axis_angle_from_matrix(matrix)
        assert (vector.norm(dim=-1) <= math.pi + 1e-12).all()
        torch.testing.assert_close(
            (vector * axis).sum(-1).abs(), torch.full((67,), math.pi, dtype=F64)
        )
        torch.testing.assert_close(matrix_from_axis_angle(vector), matrix, rtol=0, atol=1e-8)


@pytest.mark.parametrize("order", EULER_ORDERS)
def test_euler_angles_compose_as_listed(order: EulerOrder) -> None:
    angles = torch.tensor([20.0, -50.0, 110.0], dtype=F64)
    first, second, third = (about(a, d) for a, d in zip(order, angles.tolist(), strict=True))
    matrix = matrix_from_euler(angles.deg2rad(), order)
    torch.testing.assert_close(matrix, first @ second @ third)
    torch.testing.assert_close(euler_from_matrix(matrix, order).rad2deg(), angles)


@pytest.mark.parametrize("order", EULER_ORDERS)
def test_every_rotation_has_euler_angles(order: EulerOrder) -> None:
    matrix = random_rotations(200)
    angles = euler_from_matrix(matrix, order)
    assert angles[:, 1].abs().max() <= math.pi / 2 and angles.abs().max() <= math.pi
    torch.testing.assert_close(matrix_from_euler(angles, order), matrix)


@pytest.mark.parametrize("order", EULER_ORDERS)
def test_gimbal_lock(order: EulerOrder) -> None:
    for end, short_of in itertools.product((90.0, -90.0), (0.0, 1e-9, 1e-7, 2e-6, 1e-4)):
        degrees = torch.tensor([35.0, end * (1 - short_of), -20.0], dtype=F64)
        matrix = matrix_from_euler(degrees.deg2rad(), order)
        angles = euler_from_matrix(matrix, order)
        if short_of < 1e-8:
            assert angles[2] == 0
        back = matrix_from_euler(angles, order)
        assert geodesic_distance(back, matrix).rad2deg() < 1e-4
        again = matrix_from_euler(euler_from_matrix(back, order), order)
        assert geodesic_distance(again, back) < 1e-6


def test_unknown_order() -> None:
    bad: EulerOrder = "XYX"  # type: ignore[assignment]
    for function in (matrix_from_euler.__wrapped__, euler_from_matrix.__wrapped__):
        with pytest.raises(ValueError, match="Euler order 'XYX' is unknown; choose of XYZ"):
            function(torch.eye(3), bad)


@pytest.mark.parametrize("angle", [0, 1e-12, 1e-8, 1e-3, 1.0, math.pi - 1e-8, math.pi])
def test_distance_is_the_angle_at_both_ends(angle: float) -> None:
    a = random_rotations(32)
    b = a @ matrix_from_axis_angle(angle * torch.nn.functional.normalize(random_vectors(32)))
    expected = torch.full((32,), angle, dtype=F64)
    torch.testing.assert_close(geodesic_distance(a, b), expected, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(geodesic_distance(b, a), expected, rtol=1e-9, atol=1e-15)


def test_distance_broadcasts() -> None:
    assert geodesic_distance(torch.eye(3), random_rotations(4, 5).float()).shape == (4, 5)


def test_gradients() -> None:
    vector = random_vectors(6).requires_grad_()
    six = torch.randn(6, 6, dtype=F64, requires_grad=True)
    assert gradcheck(matrix_from_6d, six)
    assert gradcheck(matrix_from_axis_angle, vector)
    assert gradcheck(lambda v: axis_angle_from_matrix(matrix_from_axis_angle(v)), vector)
    assert gradcheck(lambda s: sixd_from_matrix(matrix_from_6d(s)), six)
    for order in EULER_ORDERS:
        assert gradcheck(lambda v, o=order: matrix_from_euler(v, o), vector)
        assert gradcheck(lambda v, o=order: euler_from_matrix(matrix_from_6d(v), o), six)
    other = random_rotations(6)
    assert gradcheck(lambda s: geodesic_distance(matrix_from_6d(s), other), six)


def test_gradients_of_axis_angle_next_to_nothing() -> None:
    vector = (1e-5 * random_vectors(6)).requires_grad_()
    assert gradcheck(matrix_from_axis_angle, vector)
    assert gradcheck(lambda v: axis_angle_from_matrix(matrix_from_axis_angle(v)), vector)
    # and at nothing, where the exponential's derivative is the identity
    jacobian = torch.autograd.functional.jacobian(
        lambda v: axis_angle_from_matrix(matrix_from_axis_angle(v)), torch.zeros(3, dtype=F64)
    )
    torch.testing.assert_close(jacobian, torch.eye(3, dtype=F64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angle", [0, 1e-6, 1e-3, 2.0, math.pi - 1e-6, math.pi])
def test_gradient_of_distance_is_bounded(dtype: torch.dtype, angle: float) -> None:
    six = sixd_from_matrix(matrix_from_axis_angle(torch.tensor([0, angle, 0], dtype=dtype)))
    six.requires_grad_()
    distance = geodesic_distance(matrix_from_6d(six), torch.eye(3, dtype=dtype))
    (gradient,) = torch.autograd.grad(distance, six)
    assert gradient.isfinite().all() and gradient.norm() < 2
    if 0 < angle < 3:
        assert gradient.norm() > 0.5


def test_single_precision() -> None:
    matrix = random_rotations(500)
    single = matrix.float()
    for there in (
        matrix_from_axis_angle(axis_angle_from_matrix(single)),
        matrix_from_6d(sixd_from_matrix(single)),
        matrix_from_euler(euler_from_matrix(single, "ZXY"), "ZXY"),
    ):
        assert there.dtype == torch.float32
        assert geodesic_distance(there.double(), matrix).max() < 2e-6
