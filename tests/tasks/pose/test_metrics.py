import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor

from spikevideoformer.tasks.pose.loss import SPOT, PoseTensors, heat_loss, pose_loss
from spikevideoformer.tasks.pose.metrics import (
    PoseMetrics,
    PoseResult,
    in_front,
    procrustes_align,
    project_perspective,
)
from spikevideoformer.tasks.pose.spec import PoseLossWeights

NAMES = ("pelvis", "left_hip", "right_hip", "neck", "head")
TERMS = ("rotation", "joints3d", "joints2d", "shape", "translation", "smoothness")
NONE = dict.fromkeys(TERMS, 0.0)


def random_rotations(*size: int, seed: int = 0) -> Tensor:
    """Proper rotations, float64 [*size, 3, 3]."""
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(*size, 3, 3, generator=generator, dtype=torch.float64))
    q = q * r.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
    return q * torch.linalg.det(q)[..., None, None]


def rotation_about_z(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)


def poses(*size: int, seed: int = 0) -> Tensor:
    """Random joints in metres, float64 [*size, 5, 3]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, 5, 3, generator=generator, dtype=torch.float64)


def metrics_of(**options) -> PoseMetrics:
    defaults = {
        "root": "pelvis",
        "hips": ("left_hip", "right_hip"),
        "actions": ("walk", "wave"),
        "frame_rate_hz": 10.0,
    }
    return PoseMetrics(NAMES, **{**defaults, **options})


def walking(**options) -> PoseMetrics:
    metrics = metrics_of(**options)
    metrics.start_sequence("walk")
    return metrics


def measure(predicted: Tensor, truth: Tensor) -> PoseResult:
    metrics = walking()
    metrics.add_frames(predicted, truth)
    return metrics.compute()


# --- Projection ------------------------------------------------------------------------------


def test_perspective_by_hand():
    # Half a metre right at 2 m: a quarter of the focal length right of the centre.
    joints = torch.tensor([[[0.5, -1.0, 2.0], [0.0, 0.0, 5.0]]])
    points = project_perspective(joints, torch.tensor([[400.0, 200.0]]), torch.tensor([[64.0, 48]]))
    assert points.tolist() == [[[164, -52], [64, 48]]]


def test_what_is_not_before_the_camera_has_no_image_and_no_gradient():
    depths = torch.tensor([-2.0, 0.0, 0.0999, 0.1, 3.0])
    joints = torch.stack([torch.ones(5), torch.ones(5), depths], -1).requires_grad_()
    points = project_perspective(joints, torch.tensor([100.0, 100.0]), torch.zeros(2))
    seen = [False, False, False, True, True]
    assert in_front(joints).tolist() == seen
    assert points.isfinite().all(-1).tolist() == seen
    assert points[~in_front(joints)].isnan().all()
    points.where(in_front(joints)[:, None], 0).sum().backward()
    assert joints.grad.isfinite().all()
    assert (joints.grad != 0).all(-1).tolist() == seen


def test_perspective_of_batches_of_clips():
    joints = poses(2, 3) + torch.tensor([0.0, 0.0, 9.0])
    focal, centre = torch.rand(2, 3, 2).double() + 1, torch.rand(2, 3, 2).double()
    points = project_perspective(joints, focal, centre)
    for index in ((0, 0), (1, 2)):
        own = project_perspective(joints[index], focal[index], centre[index])
        torch.testing.assert_close(points[index], own)
    shared = project_perspective(joints, focal[:1, :1], centre[:1, :1])
    torch.testing.assert_close(shared[0, 0], points[0, 0])


def test_gradients_of_the_projections():
    joints = (poses(2) + torch.tensor([0.0, 0.0, 8.0])).requires_grad_()
    pair = [torch.rand(2, 2).double().requires_grad_() for _ in range(2)]
    assert torch.autograd.gradcheck(project_perspective, (joints, *pair))


# --- Loss ------------------------------------------------------------------------------------


def tensors(seed: int, *, frames: int = 4, **changes) -> PoseTensors:
    """A batch of two clips with everything in it, float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> Tensor:
        return torch.randn(2, frames, *size, generator=generator, dtype=torch.float64)

    values = {
        "rotations": random_rotations(2, frames, 3, seed=seed),
        "joints": draw(5, 3),
        "points": 20 * draw(5, 2),
        "shape": draw(10),
        "translation": draw(3),
    }
    return PoseTensors(**{**values, **changes})


def loss_of(
    term: str, predicted: PoseTensors, truth: PoseTensors, size: tuple[int, int] = (32, 64)
) -> Tensor:
    """One term, with weight 1."""
    weights = PoseLossWeights(**{**NONE, term: 1.0})
    total, parts = pose_loss(predicted, truth, root=0, image_size=size, weights=weights)
    assert list(parts) == [term]
    torch.testing.assert_close(total, parts[term], atol=0, rtol=0, equal_nan=True)
    return total


FIELDS = {
    "rotation": "rotations",
    "joints3d": "joints",
    "joints2d": "points",
    "shape": "shape",
    "translation": "translation",
    "smoothness": "joints",
}


def field_of(term: str, predicted: PoseTensors) -> Tensor:
    return getattr(predicted, FIELDS[term])


def with_values(term: str, pose: PoseTensors, values: Tensor) -> PoseTensors:
    return replace(pose, **{FIELDS[term]: values})


@pytest.mark.parametrize(
    "angle", [0.0, 1e-9, 1e-4, 0.3, 2.0, math.pi - 1e-4, math.pi - 1e-9, math.pi]
)
def test_the_rotation_term_is_the_angle(angle):
    base = random_rotations(1, 1, 1)
    for turned in (base @ rotation_about_z(angle), base @ rotation_about_z(-angle)):
        loss = loss_of("rotation", PoseTensors(rotations=turned), PoseTensors(rotations=base))
        assert loss.item() == pytest.approx(angle, abs=1e-14, rel=1e-6)


@pytest.mark.parametrize("angle", [1e-4, 0.3, math.pi - 1e-4])
def test_the_gradient_of_the_angle_is_one_radian_per_radian(angle):
    turn = torch.tensor(angle, dtype=torch.float64, requires_grad=True)
    c, s, zero, one = turn.cos(), turn.sin(), turn * 0, turn * 0 + 1
    matrix = torch.stack([c, -s, zero, s, c, zero, zero, zero, one]).reshape(1, 1, 1, 3, 3)
    truth = PoseTensors(rotations=torch.eye(3).double().expand(1, 1, 1, 3, 3))
    loss_of("rotation", PoseTensors(rotations=matrix), truth).backward()
    assert turn.grad.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("angle", [0.0, math.pi])
def test_the_gradient_of_the_angle_is_finite_at_its_ends(angle):
    turned = rotation_about_z(angle).expand(1, 1, 1, 3, 3).float().clone().requires_grad_()
    truth = PoseTensors(rotations=torch.eye(3).expand(1, 1, 1, 3, 3))
    loss_of("rotation", PoseTensors(rotations=turned), truth).backward()
    assert turned.grad.isfinite().all()
    assert turned.grad.abs().max() <= 1


def test_joints_in_space_by_hand():
    # The root is 1 m off, which does not count. Relative to it the second joint is off by
    # (0.3, 0, -0.6), a mean of 0.3 m; the mean over both joints is 0.15 m.
    truth = torch.tensor([[[[0.0, 0, 0], [1.0, 1, 1]]]])
    predicted = torch.tensor([[[[0.0, 0, 1.0], [1.3, 1, 1.4]]]])
    loss = loss_of("joints3d", PoseTensors(joints=predicted), PoseTensors(joints=truth))
    assert loss.item() == pytest.approx(0.15)


def test_points_by_hand():
    # 8 and 16 px of 64, the longer side; the second point is not visible.
    predicted = torch.tensor([[[[18.0, 26.0], [99.0, 99.0]]]])
    truth = PoseTensors(points=torch.tensor([[[[10.0, 10.0], [math.nan, math.nan]]]]))
    loss = loss_of("joints2d", PoseTensors(points=predicted), truth, (32, 64))
    assert loss.item() == pytest.approx((8 + 16) / 2 / 64)
    assert loss_of("joints2d", PoseTensors(points=predicted), truth, (64, 32)).item() == loss.item()


def test_shape_and_translation_by_hand():
    predicted = PoseTensors(
        shape=torch.tensor([[[1.0, 3.0]]]), translation=torch.tensor([[[0.0, 1.0, 5.0]]])
    )
    truth = PoseTensors(shape=torch.zeros(1, 1, 2), translation=torch.tensor([[[0.0, 0, 3.0]]]))
    assert loss_of("shape", predicted, truth).item() == pytest.approx((1 + 9) / 2)
    assert loss_of("translation", predicted, truth).item() == pytest.approx((1 + 2) / 3)


def test_smoothness_compares_with_the_true_acceleration():
    t = torch.arange(5, dtype=torch.float64)
    fast = torch.zeros(1, 5, 2, 3, dtype=torch.float64)
    fast[0, :, 1, 0] = 0.3 * t**2  # accelerates by 0.6 m / frame^2
    still = torch.zeros_like(fast)
    steady = fast.clone()
    steady[0, :, 1, 1] += 7 - 2 * t  # other place and speed, the same acceleration

    def smoothness(predicted: Tensor, truth: Tensor) -> float:
        return loss_of(
            "smoothness", PoseTensors(joints=predicted), PoseTensors(joints=truth)
        ).item()

    assert smoothness(fast, fast) == 0
    assert smoothness(steady, fast) == pytest.approx(0, abs=1e-12)
    # One of two joints, one of three coordinates: to hold still is as wrong as to invent motion.
    assert smoothness(still, fast) == pytest.approx(0.6 / 6)
    assert smoothness(fast, still) == pytest.approx(0.6 / 6)


def test_smoothness_needs_three_labelled_frames_in_a_row():
    predicted, truth = tensors(0, frames=5), tensors(1, frames=5)
    truth.joints[0, 2] = math.nan  # the first clip has two frames before and two after
    truth.joints[1, 4] = math.nan
    loss = loss_of("smoothness", predicted, truth)
    error = (predicted.joints - truth.joints)[1, :4]
    error = error - error[:, :1]
    expected = (error[2:] - 2 * error[1:-1] + error[:-2]).abs().mean()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("frames", [1, 2])
def test_clips_of_less_than_three_frames_have_no_smoothness(frames):
    predicted, truth = tensors(0, frames=frames), tensors(1, frames=frames)
    predicted.joints.requires_grad_()
    loss = loss_of("smoothness", predicted, truth)
    loss.backward()
    assert loss.item() == 0
    assert (predicted.joints.grad == 0).all()


def test_terms_add_with_their_weights():
    predicted, truth = tensors(0), tensors(1)
    weights = PoseLossWeights(
        rotation=2, joints3d=3, joints2d=5, shape=7, translation=11, smoothness=13
    )
    total, parts = pose_loss(predicted, truth, root=0, image_size=(32, 64), weights=weights)
    assert set(parts) == set(TERMS)
    for name, part in parts.items():
        torch.testing.assert_close(part, loss_of(name, predicted, truth))
    expected = sum(asdict(weights)[name] * part.item() for name, part in parts.items())
    assert total.item() == pytest.approx(expected)


@pytest.mark.parametrize("term", TERMS)
def test_a_perfect_prediction_costs_nothing(term):
    predicted = tensors(0)
    values = field_of(term, predicted).clone().requires_grad_()
    loss = loss_of(term, with_values(term, predicted, values), predicted)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert values.grad.isfinite().all()


@pytest.mark.parametrize("term", TERMS)
def test_gradients(term):
    predicted, truth = tensors(0), tensors(1)
    field_of(term, truth)[0, 0] = math.nan
    values = field_of(term, predicted).clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: loss_of(term, with_values(term, predicted, x), truth), values
    )


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("absent", ["nan", "none"])
def test_without_labels_loss_and_gradient_are_zero(term, absent):
    predicted, truth = tensors(0), tensors(1)
    nothing = torch.full_like(field_of(term, truth), math.nan) if absent == "nan" else None
    values = field_of(term, predicted).clone().requires_grad_()
    loss = loss_of(term, with_values(term, predicted, values), with_values(term, truth, nothing))
    loss.backward()
    assert loss.item() == 0
    assert (values.grad == 0).all()


@pytest.mark.parametrize("term", TERMS)
def test_what_is_not_labelled_changes_neither_loss_nor_gradient(term):
    truth = tensors(1)
    field_of(term, truth)[0, 0] = math.nan
    if term in ("rotation", "joints3d", "joints2d"):
        field_of(term, truth)[1, 1, 2] = math.nan
    hidden = field_of(term, truth).isnan()
    losses, gradients = [], []
    for filling in (0.0, 7.0, math.nan, math.inf):
        values = field_of(term, tensors(0)).masked_fill(hidden, filling).requires_grad_()
        losses.append(loss_of(term, with_values(term, tensors(0), values), truth))
        gradients += torch.autograd.grad(losses[-1], values)
    for loss, gradient in zip(losses, gradients, strict=True):
        assert loss.equal(losses[0])
        assert gradient.equal(gradients[0])
    assert losses[0] > 0
    assert (gradients[0][hidden] == 0).all()
    assert (gradients[0][~hidden] != 0).any()


def test_frames_without_a_root_have_no_joints_in_space():
    predicted, truth = tensors(0), tensors(1)
    truth.joints[0, :, 0] = math.nan
    loss = loss_of("joints3d", predicted, truth)
    error = (predicted.joints - truth.joints)[1]
    torch.testing.assert_close(loss, (error - error[:, :1]).abs().mean())


def test_joints_behind_the_camera_do_not_spoil_the_loss():
    joints = (poses(2, 4) + torch.tensor([0.0, 0.0, 4.0])).requires_grad_()
    with torch.no_grad():
        joints[0, 0, 1, 2] = -1.0
    camera = torch.full((2, 4, 2), 50.0).double()
    predicted = PoseTensors(points=project_perspective(joints, camera, camera))
    seen = tensors(1).points.where(in_front(joints)[..., None], math.nan)
    loss = loss_of("joints2d", predicted, PoseTensors(points=seen))
    loss.backward()
    assert loss.isfinite()
    assert joints.grad.isfinite().all()
    assert (joints.grad[0, 0, 1] == 0).all()


@pytest.mark.parametrize("term", TERMS)
def test_nan_predicted_at_a_label_is_seen(term):
    predicted = tensors(0)
    field_of(term, predicted)[1, 2] = math.nan
    assert loss_of(term, predicted, tensors(1)).isnan()


def test_half_precision_is_computed_in_float32():
    def halved(pose: PoseTensors) -> PoseTensors:
        return PoseTensors(
            **{name: getattr(pose, name).bfloat16() for name in set(FIELDS.values())}
        )

    def floats(pose: PoseTensors) -> PoseTensors:
        return PoseTensors(**{name: getattr(pose, name).float() for name in set(FIELDS.values())})

    predicted, truth = halved(tensors(0)), tensors(1)
    options = {"root": 0, "image_size": (32, 64), "weights": PoseLossWeights()}
    expected, _ = pose_loss(floats(predicted), floats(truth), **options)
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = pose_loss(predicted, truth, **options)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, expected)


def test_heat_is_to_lie_where_the_joint_is():
    """The cross-entropy with a spot; joints outside and unlabelled ones cost nothing."""
    points = torch.tensor([[[16.0, 40.0], [-3.0, 5.0], [math.nan, math.nan]]])
    rows, columns = ((torch.arange(16) + 0.5) / 16 for _ in range(2))
    spot = torch.exp(
        -((rows[:, None] - 40 / 64) ** 2 + (columns[None] - 16 / 64) ** 2) / (2 * SPOT**2)
    )
    spot = spot / spot.sum()
    heat = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    heat = heat.flatten(2).log_softmax(-1).unflatten(-1, (16, 16)).requires_grad_()
    loss = heat_loss(heat, points, size=64)
    torch.testing.assert_close(loss, -(spot * heat[0, 0]).sum())
    loss.backward()
    assert (heat.grad[0, 1:] == 0).all()
    assert spot.argmax() == heat.grad[0, 0].argmin()
    assert heat_loss(heat, points[:, 1:2].expand(-1, 3, -1), size=64) == 0


def test_weights_check_themselves():
    for weight in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="loss weight shape must be a number from 0 up, got"):
            PoseLossWeights(shape=weight)
    with pytest.raises(ValueError, match="all weights of the pose loss are 0; set at least one"):
        PoseLossWeights(**NONE)


def test_predictions_must_be_there_and_fit():
    with pytest.raises(ValueError, match="weight shape is above 0, but nothing predicts shape"):
        loss_of("shape", tensors(0, shape=None), tensors(1))
    with pytest.raises(
        ValueError, match=r"predicted joints are \[2, 4, 5, 3\] and true ones \[2, 3"
    ):
        loss_of("joints3d", tensors(0), tensors(1, frames=3))


# --- Procrustes ------------------------------------------------------------------------------


def horn_align(source: Tensor, target: Tensor) -> Tensor:
    """The same alignment from the unit quaternion of Horn (1987), which knows no reflection.

    The best rotation is the eigenvector of the largest eigenvalue of a symmetric 4 x 4 matrix, and
    the scale of least squares follows from it.
    """
    x, y = source - source.mean(0), target - target.mean(0)
    s = x.T @ y
    delta = [s[1, 2] - s[2, 1], s[2, 0] - s[0, 2], s[0, 1] - s[1, 0]]
    n = torch.zeros(4, 4, dtype=torch.float64)
    n[0, 0] = s.trace()
    n[0, 1:] = n[1:, 0] = torch.stack(delta)
    n[1:, 1:] = s + s.T - s.trace() * torch.eye(3)
    w, *v = torch.linalg.eigh(n).eigenvectors[:, -1]
    v = torch.stack(v)
    cross = torch.tensor([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]]).double()
    rotation = (w**2 - v @ v) * torch.eye(3) + 2 * torch.outer(v, v) + 2 * w * cross
    turned = x @ rotation.T
    return (turned * y).sum() / x.square().sum() * turned + target.mean(0)


EVERY = torch.ones(5, dtype=torch.bool)


@pytest.mark.parametrize("mirrored", [False, True])
def test_procrustes_agrees_with_horn(mirrored):
    for seed in range(20):
        target = poses(seed=seed)
        # Far from the target, or near its mirror image, where an improper rotation would fit best.
        source = poses(seed=seed + 100)
        if mirrored:
            source = target * torch.tensor([-1.0, 1.0, 1.0]) + 0.05 * source
        aligned = procrustes_align(source, target, EVERY)
        torch.testing.assert_close(aligned, horn_align(source, target))


def test_procrustes_finds_a_similarity():
    truth = poses(6)
    turn, scale = random_rotations(6), torch.tensor([0.1, 0.5, 1, 2, 9, 40.0]).double()
    moved = scale[:, None, None] * truth @ turn.mT + poses(6, seed=1)[:, :1]
    torch.testing.assert_close(procrustes_align(moved, truth, EVERY.expand(6, 5)), truth)


def test_frames_are_aligned_one_by_one_and_batches_keep_their_axes():
    source, target = poses(2, 3), poses(2, 3, seed=1)
    aligned = procrustes_align(source, target, EVERY.expand(2, 3, 5))
    for index in ((0, 0), (1, 2)):
        own = procrustes_align(source[index], target[index], EVERY)
        torch.testing.assert_close(aligned[index], own)


def test_only_known_joints_decide_about_the_alignment():
    source, target = poses(), poses(seed=1)
    known = torch.tensor([True, True, False, True, True])
    aligned = procrustes_align(source, target, known)
    other = target.clone()
    other[2] = 1e3
    torch.testing.assert_close(procrustes_align(source, other, known), aligned)
    torch.testing.assert_close(aligned[known], horn_align(source[known], target[known]))


def test_procrustes_takes_float32_and_computes_in_float64():
    source, target = poses().float(), poses(seed=1).float()
    aligned = procrustes_align(source, target, EVERY)
    assert aligned.dtype == torch.float64
    assert aligned.equal(procrustes_align(source.double(), target.double(), EVERY))


def test_a_point_comes_to_the_mean_of_the_target():
    target = poses()
    # Joints that differ by the rounding of float32 are in one point, not a tiny pose.
    points = (1 + torch.arange(15).reshape(5, 3) % 4 * 2.0**-23) * torch.tensor([0.1, 0.3, 4.0])
    assert (points != points[0]).any()
    aligned = procrustes_align(points, target, EVERY)
    torch.testing.assert_close(aligned, target.mean(0).expand(5, 3))
    at = torch.full((5, 3), 3.0).double()
    torch.testing.assert_close(procrustes_align(poses(), at, EVERY), at)
    torch.testing.assert_close(procrustes_align(at, at, EVERY), at)


def test_joints_on_a_line():
    steps = torch.tensor([0.0, 1, 2, 3, 4]).double()[:, None]
    across, along = steps * torch.tensor([1.0, 2, 0]), 3 + steps * torch.tensor([0.0, 0, 5])
    torch.testing.assert_close(procrustes_align(across, along, EVERY), along)
    # Backwards is half a turn, not a reflection.
    torch.testing.assert_close(procrustes_align(across.flip(0), along, EVERY), along)
    torch.testing.assert_close(
        procrustes_align(across, poses(), EVERY), horn_align(across, poses())
    )
    assert procrustes_align(poses(), along, EVERY).isfinite().all()


def test_without_known_joints_nothing_is_nan():
    aligned = procrustes_align(poses(), poses(seed=1), ~EVERY)
    assert (aligned == 0).all()


# --- Metrics ---------------------------------------------------------------------------------


def test_errors_in_space_by_hand():
    truth = torch.zeros(5, 3, dtype=torch.float64)
    truth[1, 0], truth[2, 0], truth[3, 1], truth[4, 1] = 0.1, -0.1, 0.5, 0.7
    predicted = truth + torch.tensor([9.0, 9.0, 9.0])
    predicted[1, 2] += 0.06
    predicted[2, 2] += 0.06
    predicted[3] += torch.tensor([0.03, 0.04, 0.0])
    predicted[4] += torch.tensor([0.0, 0.2, 0.0])
    result = measure(predicted[None], truth[None])
    # Roots together: 0, 60, 60, 50 and 200 mm, of which the last is not within 150 mm.
    assert result.overall.mpjpe_mm == pytest.approx((0 + 60 + 60 + 50 + 200) / 5)
    assert result.overall.pck_3d == pytest.approx(4 / 5)
    assert [s.mpjpe_mm for s in result.joints.values()] == pytest.approx([0, 60, 60, 50, 200])
    assert [s.pck_3d for s in result.joints.values()] == [1, 1, 1, 1, 0]
    # Hips together: they lie 60 mm behind the root.
    neck, head = math.hypot(50, 60), math.hypot(200, 60)
    assert result.overall.pel_mpjpe_mm == pytest.approx((60 + 0 + 0 + neck + head) / 5)
    assert [s.pel_mpjpe_mm for s in result.joints.values()] == pytest.approx([60, 0, 0, neck, head])
    assert result.overall.pel_pck_3d == pytest.approx(4 / 5)  # within 100 mm
    away = (1000 * (predicted - truth).norm(dim=-1)).tolist()  # by 9 m and more
    assert result.overall.absolute_mpjpe_mm == pytest.approx(sum(away) / 5)
    assert [s.absolute_mpjpe_mm for s in result.joints.values()] == pytest.approx(away)
    aligned = horn_align(predicted, truth)
    distances = (1000 * (aligned - truth).norm(dim=-1)).tolist()
    assert result.overall.pa_mpjpe_mm == pytest.approx(sum(distances) / 5)
    assert [s.pa_mpjpe_mm for s in result.joints.values()] == pytest.approx(distances)
    assert result.overall.acceleration_error_mm_per_frame2 is None
    assert result.overall.acceleration_error_mm_per_s2 is None
    assert (result.overall.pck_2d, result.overall.pckh) == (None, None)
    assert result.frames == 1


def test_procrustes_error_by_hand():
    # A cross in a plane whose horizontal bar is twice too long. No rotation helps, and the best
    # scale is (2 * 1 * 2 + 2 * 1 * 1) / (2 * 4 + 2 * 1) = 0.6: the bars end at 1.2 and at 0.6.
    truth = torch.tensor([[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    predicted = truth * torch.tensor([2.0, 1, 1])
    result = measure(predicted[None], truth[None])
    scores = [s.pa_mpjpe_mm for s in result.joints.values()]
    assert scores == pytest.approx([0, 200, 200, 400, 400], abs=1e-9)
    assert result.overall.pa_mpjpe_mm == pytest.approx(240)


def test_a_reflected_pose_is_not_aligned_by_reflection():
    truth = poses(8)
    mirrored = truth * torch.tensor([-1.0, 1.0, 1.0])
    for frame in range(8):
        one = slice(frame, frame + 1)
        assert measure(mirrored[one], truth[one]).overall.pa_mpjpe_mm > 100
    # Half a turn makes of it what a reflection of another axis is: no less wrong.
    turned = mirrored @ rotation_about_z(math.pi).T
    a, b = measure(mirrored, truth).overall, measure(turned, truth).overall
    assert a.pa_mpjpe_mm == pytest.approx(b.pa_mpjpe_mm)


def test_what_the_errors_do_not_see():
    truth, predicted = poses(4), poses(4, seed=1)
    before = measure(predicted, truth).overall
    moved = measure(predicted + poses(4, seed=2)[:, :1], truth).overall
    for name in ("mpjpe_mm", "pel_mpjpe_mm", "pa_mpjpe_mm", "pck_3d"):
        assert getattr(moved, name) == pytest.approx(getattr(before, name))
    scale = torch.tensor([0.2, 1, 3, 8]).double()[:, None, None]
    similar = measure(scale * predicted @ random_rotations(4) + 5, truth).overall
    assert similar.pa_mpjpe_mm == pytest.approx(before.pa_mpjpe_mm)
    assert similar.mpjpe_mm > before.mpjpe_mm + 100
    perfect = measure(scale * truth @ random_rotations(4) + 5, truth).overall
    assert perfect.pa_mpjpe_mm == pytest.approx(0, abs=1e-9)
    assert before.pa_mpjpe_mm <= before.mpjpe_mm


def test_the_threshold_in_space_is_not_within():
    truth = torch.zeros(1, 5, 3, dtype=torch.float64)
    predicted = truth.clone()
    predicted[0, 1:, 0] = torch.tensor([0.15, 0.151, 0.149, -0.1495], dtype=torch.float64)
    result = measure(predicted, truth)
    assert [s.pck_3d for s in result.joints.values()] == [1, 0, 0, 1, 1]


def test_missing_joints_do_not_count():
    truth, predicted = poses(6), poses(6, seed=1)
    mask = torch.rand(6, 5) < 0.7
    mask[:, :3] = True
    as_nan = truth.masked_fill(~mask[..., None], math.nan)
    garbage = predicted.masked_fill(~mask[..., None], math.nan)
    results = [measure(predicted, as_nan), measure(garbage, as_nan)]
    assert results[0] == results[1]
    relative = (predicted - predicted[:, :1]) - (truth - truth[:, :1])
    distances = 1000 * relative.norm(dim=-1)
    assert results[0].overall.mpjpe_mm == pytest.approx(distances[mask].mean().item())
    head = distances[:, 4][mask[:, 4]]
    assert results[0].joints["head"].mpjpe_mm == pytest.approx(head.mean().item())


def test_an_alignment_needs_its_joints():
    truth, predicted = poses(4), poses(4, seed=1)
    truth[0, 0] = math.nan  # no root
    truth[1, 1] = math.nan  # no hip
    truth[2, 1:4] = math.nan  # two joints, which always fit
    truth[3] = math.nan
    metrics = walking()
    metrics.add_frames(predicted, truth)
    counts = metrics.sums[0, 1:].view(9, 2, 5)[:, 1].sum(1).tolist()
    assert counts == [4 + 2, 4 + 4, 4, 4 + 4 + 2, 4 + 2, 4, 0, 0, 0]
    assert metrics.compute().frames == 3


def test_acceleration_by_hand():
    # At 10 Hz, the head accelerates by 2 * 0.05 m / frame^2, which nobody predicts.
    t = torch.arange(4).double()
    truth, predicted = poses(1).repeat(4, 1, 1), poses(1).repeat(4, 1, 1)
    truth[:, 4, 2] += 0.05 * t**2
    predicted += torch.stack([t, t**2, t**3], -1)[:, None]  # the root's way does not count
    result = measure(predicted, truth)
    assert result.joints["head"].acceleration_error_mm_per_frame2 == pytest.approx(100)
    assert result.joints["head"].acceleration_error_mm_per_s2 == pytest.approx(10_000)
    assert result.joints["neck"].acceleration_error_mm_per_frame2 == pytest.approx(0, abs=1e-9)
    assert result.overall.acceleration_error_mm_per_frame2 == pytest.approx(20)


def test_acceleration_does_not_reach_across_sequences_or_missing_frames():
    truth, predicted = poses(9), poses(9, seed=1)
    truth[6] = math.nan
    metrics = walking()
    metrics.add_frames(predicted[:2], truth[:2])
    metrics.start_sequence("walk")
    metrics.add_frames(predicted[2:], truth[2:])
    # Only frames 2 to 5 and 7 to 8 follow each other: the triples that start at 2 and at 3.
    error = predicted - truth
    error = error - error[:, :1]
    triples = torch.stack([error[i] - 2 * error[i + 1] + error[i + 2] for i in (2, 3)])
    expected = 1000 * triples.norm(dim=-1).mean().item()
    overall = metrics.compute().overall
    assert overall.acceleration_error_mm_per_frame2 == pytest.approx(expected)
    counts = metrics.sums[0, 1:].view(9, 2, 5)[6, 1]
    assert counts.tolist() == [2] * 5


@pytest.mark.parametrize("cuts", [[1] * 8, [2, 6], [7, 1], [3, 0, 5]])
def test_frames_may_come_in_pieces(cuts):
    truth, predicted = poses(8), poses(8, seed=1)
    truth[3, 4] = math.nan
    metrics = walking()
    for p, t in zip(predicted.split(cuts), truth.split(cuts), strict=True):
        metrics.add_frames(p, t)
    whole = measure(predicted, truth)
    assert metrics.compute().frames == whole.frames
    assert asdict(metrics.compute().overall) == pytest.approx(asdict(whole.overall))


def test_points_by_the_box():
    # The box is 100 wide and 50 high: within 20 px is found.
    truth = torch.tensor([[0.0, 0], [100, 0], [50, 50], [50, 0], [50, 10]])
    off = torch.tensor([0.0, 19.9, 20, 20.1, 5])
    predicted = truth + torch.stack([torch.zeros(5), off], -1)
    metrics = walking()
    metrics.add_points(predicted[None], truth[None])
    result = metrics.compute()
    assert [s.pck_2d for s in result.joints.values()] == [1, 1, 0, 0, 1]
    assert result.overall.pck_2d == pytest.approx(3 / 5)
    assert (result.overall.mpjpe_mm, result.overall.pckh, result.frames) == (None, None, 0)


def test_points_by_box_and_head():
    truth = torch.tensor([[0.0, 0], [-30, 0], [30, 0], [0, -40], [0, -60]])
    off = torch.tensor([9.9, 10.1, 11.9, 12.1, 0.0])
    predicted = truth + torch.stack([off, torch.zeros(5)], -1)
    metrics = metrics_of(head=("neck", "head"))
    metrics.start_sequence("wave")
    metrics.add_points(predicted[None], truth[None])
    result = metrics.compute()
    # The box is 60 px wide and high, of which a fifth; the head measures 20 px, of which a half.
    assert [s.pck_2d for s in result.joints.values()] == [1, 1, 1, 0, 1]
    assert [s.pckh for s in result.joints.values()] == [1, 0, 0, 0, 1]
    assert result.actions["wave"].pckh == pytest.approx(2 / 5)
    assert result.actions["walk"].pckh is None


def test_points_need_the_joints_that_measure_the_person():
    truth = torch.tensor([[0.0, 0], [-30, 0], [30, 0], [0, -40], [0, -60]]).repeat(4, 1, 1)
    truth[1, 4] = math.nan  # no head
    truth[2, 3] = truth[2, 4]  # a head of no length
    truth[3] = math.nan
    metrics = walking(head=("neck", "head"))
    metrics.add_points(truth.nan_to_num(), truth)
    counts = metrics.sums[0, 1:].view(9, 2, 5)[7:, 1].sum(1).tolist()
    assert counts == [5 + 4 + 5, 5]
    result = metrics.compute().overall
    assert (result.pck_2d, result.pckh) == (1, 1)


def test_points_are_averaged_within_joints_first():
    truth = torch.tensor([[0.0, 0], [100, 0], [50, 50], [50, 0], [50, 10]]).repeat(3, 1, 1)
    truth[1:, 4] = math.nan
    predicted = truth.nan_to_num()
    predicted[0, 4] = 500
    metrics = walking()
    metrics.add_points(predicted, truth)
    # 12 of 13 points, but 4 of 5 joints.
    assert metrics.compute().overall.pck_2d == pytest.approx(4 / 5)


def test_actions_are_apart_and_together():
    truth, predicted = poses(6), poses(6, seed=1)
    metrics = metrics_of()
    metrics.start_sequence("wave")
    metrics.add_frames(predicted[:4], truth[:4])
    metrics.start_sequence("walk")
    metrics.add_frames(predicted[4:], truth[4:])
    result = metrics.compute()
    assert result.action_frames == {"walk": 2, "wave": 4}
    wave, walk = measure(predicted[:4], truth[:4]), measure(predicted[4:], truth[4:])
    assert asdict(result.actions["wave"]) == pytest.approx(asdict(wave.overall))
    for name in ("mpjpe_mm", "pa_mpjpe_mm", "pel_mpjpe_mm", "pck_3d"):
        a, b = getattr(wave.overall, name), getattr(walk.overall, name)
        assert getattr(result.actions["walk"], name) == pytest.approx(b)
        assert getattr(result.overall, name) == pytest.approx((4 * a + 2 * b) / 6)
    assert result.actions["walk"].acceleration_error_mm_per_s2 is None
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["actions"]["walk"]["acceleration_error_mm_per_s2"] is None
    assert plain["joints"]["head"]["mpjpe_mm"] == result.joints["head"].mpjpe_mm
    assert plain["frames"] == 6


def test_sums_of_two_processes_add_up_to_those_of_one():
    whole, *parts = (metrics_of(head=("neck", "head")) for _ in range(3))
    for sequence, part in enumerate(parts):
        truth, predicted = poses(5, seed=sequence), poses(5, seed=sequence + 9)
        truth[sequence, 3] = math.nan
        for metrics in (whole, part):
            metrics.start_sequence(("walk", "wave")[sequence])
            metrics.add_frames(predicted, truth)
            metrics.add_points(predicted[..., :2], truth[..., :2])
    parts[0].sums += parts[1].sums
    assert parts[0].compute() == whole.compute()
    assert None not in asdict(whole.compute().overall).values()


def test_degenerate_predictions_give_numbers():
    truth = poses(3)
    predicted = torch.zeros(3, 5, 3)
    predicted[1] = 0.8
    predicted[2] = torch.arange(5)[:, None]
    result = measure(predicted, truth)
    assert all(math.isfinite(v) for v in asdict(result.overall).values() if v is not None)
    mean = (truth - truth.mean(1, keepdim=True)).norm(dim=-1)[0].mean().item()
    assert measure(predicted[:1], truth[:1]).overall.pa_mpjpe_mm == pytest.approx(1000 * mean)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["frames", "points"])
def test_predictions_that_are_no_numbers_give_no_metrics(value, where):
    metrics, other = metrics_of(), metrics_of()
    for one in (metrics, other):
        one.start_sequence("walk")
    metrics.add_frames(poses(3), poses(3, seed=1))
    assert metrics.finite
    broken = poses(3)
    broken[1, 2, 0] = value
    if where == "frames":
        other.add_frames(broken, poses(3))
    else:
        other.add_points(broken[..., :2], poses(3)[..., :2])
    assert not other.finite
    metrics.sums += other.sums
    with pytest.raises(ValueError, match="NaN or infinite; use precision 32-true, or other"):
        metrics.compute()


def test_nothing_labelled_is_an_error():
    metrics = walking()
    metrics.add_frames(poses(3), torch.full((3, 5, 3), math.nan))
    metrics.add_points(poses(3)[..., :2], torch.full((3, 5, 2), math.nan))
    with pytest.raises(ValueError, match="no labelled joint was compared; give a split with"):
        metrics.compute()


def test_poses_that_do_not_fit_are_refused():
    metrics = metrics_of()
    with pytest.raises(ValueError, match=r"belong to a sequence; call start_sequence\(action\)"):
        metrics.add_frames(poses(2), poses(2))
    with pytest.raises(ValueError, match="action 'run' is none of walk, wave"):
        metrics.start_sequence("run")
    metrics.start_sequence("walk")
    with pytest.raises(ValueError, match=r"\[frames, 5, 3\].*predicted \[2, 4, 3\], truth \[2, 5"):
        metrics.add_frames(poses(2)[:, 1:], poses(2))
    with pytest.raises(ValueError, match=r"predicted \[2, 5, 3\], truth \[3, 5, 3\]"):
        metrics.add_frames(poses(2), poses(3))
    with pytest.raises(ValueError, match=r"poses must be \[frames, 5, 2\]"):
        metrics.add_points(poses(2), poses(2))
    assert not metrics.sums.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": "hip"}, "joint 'hip' is none of pelvis, left_hip, right_hip, neck, head"),
        ({"hips": ("left_hip", "right")}, "joint 'right' is none of"),
        ({"head": ("neck", "nose")}, "joint 'nose' is none of"),
        ({"actions": ()}, r"actions must be one or more different names, got \[\]"),
        ({"actions": ("walk", "walk")}, "actions must be one or more different names, got"),
        ({"frame_rate_hz": 0}, "frame_rate_hz must be a number above 0, got 0"),
        ({"frame_rate_hz": math.nan}, "frame_rate_hz must be a number above 0, got nan"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        metrics_of(**options)
