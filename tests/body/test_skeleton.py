"""Skeletons: forward kinematics by hand, proportions, names, and what they refuse."""

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from spikevideoformer.body.rotations import matrix_from_6d, matrix_from_axis_angle
from spikevideoformer.body.skeleton import Skeleton

F64 = torch.float64
NAMES = ["Hips", "Spine", "Thigh_L", "Shin_L", "Thigh_R", "Shin_R"]
PARENTS = [-1, 0, 0, 2, 0, 4]
OFFSETS = [
    [9.0, 9.0, 9.0],
    [0.0, 0.5, 0.0],
    [0.1, -0.1, 0.0],
    [0.0, -0.4, 0.0],
    [-0.1, -0.1, 0.0],
    [0.0, -0.4, 0.0],
]


@pytest.fixture
def skeleton() -> Skeleton:
    return Skeleton(NAMES, PARENTS, OFFSETS, {"Spine": (0.0, 0.2, 0.0)})


def unturned(*batch: int) -> torch.Tensor:
    return torch.eye(3, dtype=F64).repeat(*batch, 6, 1, 1)


def test_nothing_turned(skeleton: Skeleton) -> None:
    joints = skeleton.joints(unturned(), torch.tensor([1.0, 2, 3], dtype=F64))
    expected = [[1, 2, 3], [1, 2.5, 3], [1.1, 1.9, 3], [1.1, 1.5, 3], [0.9, 1.9, 3], [0.9, 1.5, 3]]
    torch.testing.assert_close(joints, torch.tensor(expected, dtype=F64))


def test_a_turn_moves_what_hangs_below_and_nothing_else(skeleton: Skeleton) -> None:
    rotations = unturned()
    quarter = torch.tensor([math.pi / 2, 0, 0], dtype=F64)  # about x: y to z
    rotations[2] = matrix_from_axis_angle(quarter)
    joints = skeleton.joints(rotations, torch.zeros(3, dtype=F64))
    rest = skeleton.joints(unturned(), torch.zeros(3, dtype=F64))
    torch.testing.assert_close(joints[3], torch.tensor([0.1, -0.1, -0.4], dtype=F64))
    rotations[0] = rotations[2]
    both = skeleton.joints(rotations, torch.zeros(3, dtype=F64))
    torch.testing.assert_close(both[3], torch.tensor([0.1, 0.4, -0.1], dtype=F64))
    keep = [0, 1, 2, 4, 5]
    torch.testing.assert_close(joints[keep], rest[keep])


def test_batches_are_independent(skeleton: Skeleton) -> None:
    rotations = matrix_from_6d(torch.randn(2, 3, 6, 6, dtype=F64))
    translation, shape = torch.randn(2, 3, 3, dtype=F64), torch.randn(2, 1, 6, dtype=F64)
    together = skeleton.joints(rotations, translation, shape)
    for b in range(2):
        for t in range(3):
            alone = skeleton.joints(rotations[b, t], translation[b, t], shape[b, 0])
            torch.testing.assert_close(together[b, t], alone)
    one_place = skeleton.joints(rotations, translation[0, 0])
    torch.testing.assert_close(one_place[1, 2], skeleton.joints(rotations[1, 2], translation[0, 0]))


def test_shape_scales_each_bone(skeleton: Skeleton) -> None:
    factors = torch.tensor([1, 2, 0.5, 1.5, 1, 3], dtype=F64)
    rotations, translation = matrix_from_6d(torch.randn(6, 6, dtype=F64)), torch.zeros(3, dtype=F64)
    joints = skeleton.joints(rotations, translation, factors.log())
    lengths = (joints[1:] - joints[PARENTS[1:]]).norm(dim=-1)
    torch.testing.assert_close(lengths, factors[1:] * skeleton.offsets[1:].norm(dim=-1))
    scaled = skeleton.scaled(factors)
    torch.testing.assert_close(scaled.joints(rotations, translation), joints)
    assert scaled.end_offsets == {"Spine": (0, 0.4, 0)}
    usual = skeleton.joints(rotations, translation, torch.zeros(skeleton.num_shape, dtype=F64))
    assert torch.equal(usual, skeleton.joints(rotations, translation))


def test_scaled_refuses_bones_without_length(skeleton: Skeleton) -> None:
    with pytest.raises(ValueError, match="factors of bones must be above 0"):
        skeleton.scaled(torch.tensor([1.0, 1, 0, 1, 1, 1]))


def test_gradients(skeleton: Skeleton) -> None:
    inputs = (
        torch.randn(2, 6, 6, dtype=F64, requires_grad=True),
        torch.randn(2, 3, dtype=F64, requires_grad=True),
        torch.randn(2, 6, dtype=F64, requires_grad=True),
    )
    assert gradcheck(lambda r, t, s: skeleton.joints(matrix_from_6d(r), t, s), inputs)


def test_keeps_the_precision_of_what_it_is_given(skeleton: Skeleton) -> None:
    assert skeleton.joints(unturned().float(), torch.zeros(3)).dtype == torch.float32
    assert not skeleton.state_dict()  # a model that holds one saves the same


def test_plain_values_come_back(skeleton: Skeleton) -> None:
    values = json.loads(json.dumps(skeleton.to_dict()))
    back = Skeleton.from_dict(values)
    assert back.to_dict() == skeleton.to_dict()
    assert torch.equal(back.offsets, skeleton.offsets)
    assert back.offsets[0].tolist() == [0, 0, 0]  # the root is where the translation says


@pytest.mark.parametrize(
    ("names", "pairs", "hips"),
    [
        ("Root Hips UpperLeg_L UpperLeg_R Hand_L", [(2, 3)], (2, 3)),
        ("pelvis left_hip right_hip left_knee right_knee", [(1, 2), (3, 4)], (1, 2)),
        ("Pelvis R_Hip L_Hip L_Knee R_Knee", [(2, 1), (3, 4)], (2, 1)),
        ("Hips LeftUpLeg LeftLeg RightUpLeg RightLeg", [(1, 3), (2, 4)], (1, 3)),
        ("hips thigh.L thigh.R Loose Roll", [(1, 2)], (1, 2)),
    ],
)
def test_sides_by_name(names: str, pairs: list[tuple[int, int]], hips: tuple[int, int]) -> None:
    skeleton = Skeleton(names.split(), [-1, 0, 0, 0, 0], [[0.0] * 3] * 5)
    assert list(skeleton.symmetric_pairs) == pairs
    assert skeleton.hips == hips


def test_no_hips() -> None:
    skeleton = Skeleton(["a", "b_L", "b_R"], [-1, 0, 0], [[0.0] * 3] * 3)
    with pytest.raises(ValueError, match=r"no left and right joint is named hip.*rename .* a, b_L"):
        skeleton.hips  # noqa: B018


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parents": [-1, 0]}, "as many parents as joints, at least one, got 6 names and 2"),
        ({"joint_names": [], "parents": []}, "at least one, got 0 names"),
        ({"joint_names": [*NAMES[:5], "Spine"]}, "Spine is there twice; rename"),
        ({"joint_names": [*NAMES[:5], "my toe"]}, "'my toe' is empty or has blanks"),
        ({"joint_names": [*NAMES[:5], "{"]}, "'{' is empty or has blanks or braces"),
        ({"parents": [0, 0, 0, 2, 0, 4]}, r"Hips \(number 0\) has parent 0; give -1"),
        ({"parents": [-1, 0, 3, 2, 0, 4]}, r"Thigh_L \(number 2\) has parent 3"),
        ({"parents": [-1, -1, 0, 2, 0, 4]}, r"Spine \(number 1\) has parent -1"),
        ({"offsets": OFFSETS[:4]}, "offsets must be 6 times three finite numbers"),
        ({"offsets": [[math.nan] * 3] * 6}, "offsets must be 6 times three finite"),
        ({"offsets": [["a"] * 3] * 6}, "no skeleton .*give what Skeleton.to_dict writes"),
        ({"offsets": [[0.0] * 2] * 6}, "offsets must be three numbers for each of 6"),
        ({"offsets": [[10**400] * 3] * 6}, "no skeleton .*too large"),
        ({"offsets": 3}, "no skeleton .*give what Skeleton.to_dict writes"),
        ({"parents": None}, "no skeleton .*give what Skeleton.to_dict writes"),
        ({"end_offsets": {"Tail": [0, 0, 0]}}, "end_offsets names Tail, which is no joint"),
        ({"end_offsets": {"Spine": [0, math.inf, 0]}}, "end_offsets must be three finite"),
        ({"end_offsets": {"Spine": [0, 0]}}, "end_offsets must be three finite"),
        ({"bones": 3}, "unknown entry bones of a skeleton; accepted are joint_names, parents"),
    ],
)
def test_what_is_no_skeleton(skeleton: Skeleton, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Skeleton.from_dict(skeleton.to_dict() | change)


def test_missing_entry(skeleton: Skeleton) -> None:
    values = skeleton.to_dict()
    del values["parents"]
    with pytest.raises(ValueError, match="the skeleton has no parents; give it"):
        Skeleton.from_dict(values)


# --- Posed by its joints --------------------------------------------------------------------------

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


def test_what_is_no_bone_turns_nothing() -> None:
    joints = BODY.joints(torch.eye(3).expand(6, 3, 3), torch.zeros(3))
    joints[2] = joints[1] + torch.tensor([1e-6, 0, 0])
    with torch.autocast("cpu", torch.bfloat16):
        rotations, shape = BODY.posed(joints)
    assert (rotations.dtype, float(shape[2])) == (torch.float32, 0)
    torch.testing.assert_close(rotations, torch.eye(3).expand(6, 3, 3), atol=1e-6, rtol=0)


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
