"""A skeleton that is posed by where its joints are."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikevideoformer.body.rotations import matrix_from_axis_angle
from spikevideoformer.body.skeleton import Skeleton

BODY = Skeleton(
    ("pelvis", "left_hip", "left_knee", "right_hip", "neck", "nose"),
    (-1, 0, 1, 0, 0, 4),
    [
        [0.0] * 3,
        [0.1, -0.1, 0.0],
        [0.0, -0.4, 0.0],
        [-0.1, -0.1, 0.0],
        [0.0, 0.5, 0.0],
        [0.0, 0.1, 0.1],
    ],
)


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_joints_of_such_a_body_are_met(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    turns = matrix_from_axis_angle(torch.randn(2, 3, 6, 3, generator=generator).double())
    place = torch.randn(2, 3, 3, generator=generator).double()
    # Bones that start together keep their proportions to each other; all may be longer.
    shape = 0.3 * torch.randn(2, 3, 1, generator=generator).double().expand(-1, -1, 6)
    joints = BODY.joints(turns, place, shape)
    rotations, found = BODY.posed(joints)
    torch.testing.assert_close(BODY.joints(rotations, place, found), joints)
    torch.testing.assert_close(found[..., 1:], shape[..., 1:])
    identity = torch.eye(3).double().expand_as(rotations)
    torch.testing.assert_close(rotations @ rotations.mT, identity)
    assert (torch.linalg.det(rotations) > 0).all()


def test_no_bone_is_turned_further_than_needed() -> None:
    """A knee that bends by a right angle about x."""
    joints = BODY.joints(torch.eye(3).expand(6, 3, 3), torch.zeros(3))
    joints[2] = joints[1] + torch.tensor([0, 0, 0.4])
    rotations, _ = BODY.posed(joints)
    expected = matrix_from_axis_angle(torch.tensor([-torch.pi / 2, 0, 0]))
    torch.testing.assert_close(rotations[1], expected, atol=1e-6, rtol=0)
    others = rotations[[0, 2, 3, 4, 5]]
    torch.testing.assert_close(others, torch.eye(3).expand(5, 3, 3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("where", ["turned round", "in one place"])
def test_bones_without_a_single_answer(where: str) -> None:
    joints = BODY.joints(torch.eye(3).expand(6, 3, 3), torch.zeros(3))
    joints[2] = joints[1] + (torch.tensor([0, 0.4, 0]) if where == "turned round" else 0)
    if where == "in one place":
        joints[:] = 0
    rotations, shape = BODY.posed(joints)
    assert rotations.isfinite().all() and shape.isfinite().all()
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(6))
    if where == "turned round":
        torch.testing.assert_close(BODY.joints(rotations, torch.zeros(3), shape), joints)
