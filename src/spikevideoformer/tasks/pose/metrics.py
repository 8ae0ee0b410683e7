"""3-D pose in every frame: projection, the loss, and metrics as sums that processes can add.

Plain tensors throughout, no body model: whoever calls computes the joints from the rotations. J is
the number of joints. Metres and radians inside; millimetres where a name says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spikevideoformer.messages import one_line, require_finite
from spikevideoformer.tasks.pose.loss import _acceleration

MIN_DEPTH_M = 0.1
"""Points nearer to the plane of the camera than this, or behind it, have no image."""

PCK_MM = 150.0
"""Joints nearer than this in space, after the roots are aligned, count as found."""

PEL_PCK_MM = 100.0
"""The same after the midpoints of the hips are aligned. Source: EventHPE (ICCV 2021)."""

PCK_SHARE = 0.2
"""Share of the size of a person in the picture within which a point counts as found."""

PCKH_SHARE = 0.5
"""Share of the head segment within which PCKh counts a point as found."""


# --- Projection ----------------------------------------------------------------------------------


def in_front(joints: Float[Tensor, "*batch J 3"]) -> Bool[Tensor, "*batch J"]:
    """Which joints have an image: those at least `MIN_DEPTH_M` before the camera.

    Args:
        joints: in metres, camera coordinates (x right, y down, z forward).
    """
    return joints[..., 2] >= MIN_DEPTH_M


def project_perspective(
    joints: Float[Tensor, "*batch J 3"],
    focal: Float[Tensor, "*#batch 2"],
    centre: Float[Tensor, "*#batch 2"],
) -> Float[Tensor, "*batch J 2"]:
    """Where a pinhole camera sees joints.

    Equation: ``(u, v) = focal * (x, y) / z + centre``.

    A joint that is not `in_front` has no image: its point is NaN, and no gradient goes through it.
    A point clamped to some depth would look like any other, and a loss would drag it sideways.

    Args:
        joints: in metres, camera coordinates (x right, y down, z forward).
        focal: focal lengths in x and y, in pixels.
        centre: principal point (x, y), in pixels.

    Returns:
        Points (x, y) in pixels.
    """
    seen = in_front(joints)[..., None]
    # The depth is replaced before the division: a gradient of 0 times infinity would be NaN.
    depth = joints[..., 2:].where(seen, 1)
    points = focal[..., None, :] * joints[..., :2] / depth + centre[..., None, :]
    return points.where(seen, math.nan)


# --- Metrics -------------------------------------------------------------------------------------


def procrustes_align(
    source: Float[Tensor, "*batch J 3"],
    target: Float[Tensor, "*batch J 3"],
    known: Bool[Tensor, "*batch J"],
) -> Float[Tensor, "*batch J 3"]:
    """Bring each pose onto another by the rotation, scale and translation of least squares.

    Equation: ``s R x + t`` with s, R, t that minimise ``sum_j |s R x_j + t - y_j|^2`` over the
    known joints, det R = 1: a mirrored pose is not mirrored back. Computed in float64.

    A source with all joints in one point comes to the mean of the target. Where joints lie on a
    line R is not unique, but the distances to the target are.

    Args:
        source: x, finite, also where not known.
        target: y, likewise.
        known: joints that decide about the alignment. Without any, the source becomes zero.

    Returns:
        All joints of the source, aligned, float64.

    Source: Umeyama, "Least-squares estimation of transformation parameters" (1991), equations 40 to
        42; `compute_similarity_transform` in mmpose (from memory), which takes all joints.
    """
    weight = known[..., None].double()
    source, target = source.double(), target.double()
    count = weight.sum(-2, keepdim=True).clamp_min(1)
    source_mean = (weight * source).sum(-2, keepdim=True) / count
    target_mean = (weight * target).sum(-2, keepdim=True) / count
    x, y = source - source_mean, target - target_mean
    u, s, vh = torch.linalg.svd((weight * x).mT @ y)
    signs = torch.ones_like(s)
    signs[..., 2] = torch.linalg.det(u @ vh).sign()
    spread = (weight * x.square()).sum((-2, -1))
    # A millionth of the distance from the origin is rounding of float32, no shape to be scaled up.
    shapeless = spread <= 1e-12 * (weight * source.square()).sum((-2, -1))
    scale = ((s * signs).sum(-1) / spread.where(~shapeless, 1)).where(~shapeless, 0)
    rotation = (u * signs[..., None, :]) @ vh  # R^T, as poses are rows
    return scale[..., None, None] * (x @ rotation) + target_mean


@dataclass(frozen=True, kw_only=True)
class PoseScores:
    """Metrics of all joints, of one joint or of one action; None where nothing was compared.

    Attributes:
        mpjpe_mm: mean distance of joints, after both roots are brought to the origin. The root
            itself counts with 0, as in mmpose.
        pa_mpjpe_mm: mean distance of joints after `procrustes_align`, frame by frame.
        pel_mpjpe_mm: mean distance of joints, after the midpoints of the hips are brought to the
            origin.
        absolute_mpjpe_mm: mean distance of joints as they are, the place of the body included: what
            papers on MMHPSD call MPJPE.
        pck_3d: share of joints within the threshold in space, after the alignment of mpjpe_mm.
        pel_pck_3d: share of joints within `PEL_PCK_MM` in space, after the alignment of
            pel_mpjpe_mm: what these papers call PCK.
        acceleration_error_mm_per_frame2: mean length of the difference of the accelerations of
            joints relative to the root.
        acceleration_error_mm_per_s2: the same, times the square of the frame rate.
        pck_2d: share of points within the threshold in the picture.
        pckh: share of points within `PCKH_SHARE` of the length of the head segment.
    """

    mpjpe_mm: float | None
    pa_mpjpe_mm: float | None
    pel_mpjpe_mm: float | None
    absolute_mpjpe_mm: float | None
    pck_3d: float | None
    pel_pck_3d: float | None
    acceleration_error_mm_per_frame2: float | None
    acceleration_error_mm_per_s2: float | None
    pck_2d: float | None
    pckh: float | None


@dataclass(frozen=True, kw_only=True)
class PoseResult:
    """Metrics of one evaluation.

    Attributes:
        frames: number of frames with a labelled joint in space.
        action_frames: the same of each action.
        overall: metrics over all.
        joints: metrics of each joint.
        actions: metrics of each action.
    """

    frames: int
    action_frames: dict[str, int]
    overall: PoseScores
    joints: dict[str, PoseScores]
    actions: dict[str, PoseScores]

    def __repr__(self) -> str:
        def text(value: float | None) -> str:
            return "unknown" if value is None else f"{value:.1f} mm"

        return (
            f"PoseResult(MPJPE {text(self.overall.mpjpe_mm)}, PA-MPJPE "
            f"{text(self.overall.pa_mpjpe_mm)} of {self.frames} frames, {len(self.joints)} joints)"
        )

    def _repr_html_(self) -> str:
        from spikevideoformer import notebook

        errors = ((name, scores.mpjpe_mm) for name, scores in self.joints.items())
        rows = [(name, error) for name, error in errors if error is not None]
        drawing = notebook.bars(rows, show="{:.1f} mm".format, caption="MPJPE of each joint")
        return notebook.card(repr(self), drawing)

    def lines(self) -> list[str]:
        """The metrics as a command prints them."""

        def text(value: float | None, form: str = ".1f", unit: str = " mm") -> str:
            return "unknown" if value is None else f"{value:{form}}{unit}"

        all_ = self.overall
        pck_3d, pck_2d, pckh = (text(v, ".1%", "") for v in (all_.pck_3d, all_.pck_2d, all_.pckh))
        acceleration = text(all_.acceleration_error_mm_per_s2, unit=" mm/s^2")
        lines = [
            f"MPJPE {text(all_.mpjpe_mm)}, PA-MPJPE {text(all_.pa_mpjpe_mm)}, "
            f"PEL-MPJPE {text(all_.pel_mpjpe_mm)} of {self.frames} frames",
            f"as they are MPJPE {text(all_.absolute_mpjpe_mm)}, joints within {PEL_PCK_MM:g} mm "
            f"about the hips {text(all_.pel_pck_3d, '.1%', '')}",
            f"acceleration error {acceleration}, joints found: in space {pck_3d}, in the picture "
            f"{pck_2d}, PCKh {pckh}",
        ]
        for table in (self.joints, self.actions):
            width = max(map(len, table))
            lines += [
                one_line(
                    f"  {name:<{width}}  MPJPE {text(scores.mpjpe_mm):>9}  "
                    f"PA-MPJPE {text(scores.pa_mpjpe_mm):>9}"
                )
                for name, scores in table.items()
            ]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dicts and numbers, ready for JSON."""
        return asdict(self)


# Rows of the sums: each measures some joints of a frame.
_MPJPE, _PA, _PEL, _ABSOLUTE, _PCK_3D, _PEL_PCK, _ACCELERATION, _PCK_2D, _PCKH = range(9)
_ROWS = 9


class PoseMetrics:
    """Running sums over frames; `sums` is one tensor, so processes agree by adding theirs.

    Sequences are walked whole and in order, each by one process: `start_sequence`, then the frames
    with `add_frames`, those without labels too, as acceleration needs to know which
    frames follow each other. `add_points` compares joints in the picture.

    Conventions are those of mmpose, from memory: errors in space are averaged over all labelled
    joints of all frames (`keypoint_mpjpe`), points in the picture over each joint first and then
    over joints (`keypoint_pck_accuracy`), and to be found is to be strictly nearer than the
    threshold. The differences: Procrustes alignment sees labelled joints only; and PCKh takes the
    segment between two joints for the size of the head, where MPII has 0.6 of the diagonal of an
    annotated box and leaves out pelvis and thorax. Acceleration is as in VIBE (from memory), but
    relative to the root, where VIBE takes the midpoint of the hips.
    """

    def __init__(
        self,
        joint_names: Sequence[str],
        *,
        root: str,
        hips: tuple[str, str],
        actions: Sequence[str],
        frame_rate_hz: float,
        head: tuple[str, str] | None = None,
    ) -> None:
        """Start at zero, in no sequence.

        Args:
            joint_names: in index order, each once.
            root: joint that MPJPE aligns (the pelvis).
            hips: joints whose midpoint PEL-MPJPE aligns.
            actions: names of all actions, each once; the same in all processes.
            frame_rate_hz: of the sequences.
            head: ends of the head segment, for PCKh; None: no PCKh.

        Raises:
            ValueError: a name that is not there or there twice, or a number that is not above 0.
        """
        self.joint_names, self.actions = tuple(joint_names), tuple(actions)
        for what, names in (("joints", self.joint_names), ("actions", self.actions)):
            if not names or len(set(names)) < len(names):
                raise ValueError(f"{what} must be one or more different names, got {list(names)}")
        if not 0 < frame_rate_hz < math.inf:
            raise ValueError(f"frame_rate_hz must be a number above 0, got {frame_rate_hz}")
        self.frame_rate_hz = frame_rate_hz
        self._root = self._index(root)
        self._hips = [self._index(name) for name in hips]
        self._head = None if head is None else [self._index(name) for name in head]
        # Of each action: frames, then for each row the sum and number of each joint. float64 holds
        # counts up to 2^53 exactly.
        self.sums = torch.zeros(
            len(self.actions), 1 + _ROWS * 2 * len(self.joint_names), dtype=torch.float64
        )
        self._action: int | None = None

    @property
    def finite(self) -> bool:
        """Whether every prediction was a number; after one that was not, there are no metrics."""
        return bool(self.sums.isfinite().all())

    def start_sequence(self, action: str) -> None:
        """Say that the next frame does not follow the last one.

        Args:
            action: what the sequence shows, one of `actions`.

        Raises:
            ValueError: an unknown action.
        """
        if action not in self.actions:
            raise ValueError(f"action {action!r} is none of {', '.join(self.actions)}")
        self._action = self.actions.index(action)
        # Errors of the last two frames relative to the root, and which joints are known.
        joints = len(self.joint_names)
        self._last = torch.zeros(0, joints, 3).double(), torch.zeros(0, joints).bool()

    def add_frames(self, predicted: Float[Tensor, "T J 3"], truth: Float[Tensor, "T J 3"]) -> None:
        """Count the next frames of the sequence, in space.

        MPJPE, PCK and acceleration need the root, PEL-MPJPE both hips, PA-MPJPE three joints (two
        can always be brought to fit), acceleration the joint in three frames in a row.

        Args:
            predicted: in metres; anything at joints that are not labelled. NaN elsewhere spoils the
                sums: `finite`.
            truth: in metres, NaN at joints that are not labelled.

        Raises:
            ValueError: other sizes, or no sequence was started.
        """
        row, p, t, known = self._take(predicted, truth, axes=3)
        row[0] += known.any(-1).sum()
        errors, rooted = _errors_from(p, t, known, [self._root])
        distance_mm = 1000 * errors.norm(dim=-1)
        self._count(_MPJPE, distance_mm, rooted)
        self._count(_PCK_3D, distance_mm < PCK_MM, rooted)
        from_hips, on_hips = _errors_from(p, t, known, self._hips)
        distance_mm = 1000 * from_hips.norm(dim=-1)
        self._count(_PEL, distance_mm, on_hips)
        self._count(_PEL_PCK, distance_mm < PEL_PCK_MM, on_hips)
        self._count(_ABSOLUTE, 1000 * (p - t).norm(dim=-1), known)
        shaped = known & (known.sum(-1, keepdim=True) >= 3)
        self._count(_PA, 1000 * (procrustes_align(p, t, known) - t).norm(dim=-1), shaped)
        # Both are linear: the error of the acceleration is the acceleration of the error.
        errors, rooted = torch.cat([self._last[0], errors]), torch.cat([self._last[1], rooted])
        acceleration, steady = _acceleration(errors, rooted)
        self._count(_ACCELERATION, 1000 * acceleration.norm(dim=-1), steady)
        self._last = errors[-2:], rooted[-2:]

    def add_points(self, predicted: Float[Tensor, "T J 2"], truth: Float[Tensor, "T J 2"]) -> None:
        """Count joints in pictures of the sequence, in any order.

        The longer side of the box around the labelled joints is the size of a person. Pictures
        where it is 0, or a joint that measures the head is not labelled, do not count.

        Args:
            predicted: in pixels; anything at joints that are not labelled. NaN elsewhere spoils the
                sums: `finite`.
            truth: in pixels, NaN at joints that are not labelled.

        Raises:
            ValueError: other sizes, or no sequence was started.
        """
        _, p, t, known = self._take(predicted, truth, axes=2)
        distance = (p - t).norm(dim=-1)
        corners = t.where(known[..., None], -math.inf), t.where(known[..., None], math.inf)
        size = (corners[0].amax(-2) - corners[1].amin(-2)).amax(-1)
        sized = known & (size > 0)[:, None]
        self._count(_PCK_2D, distance < PCK_SHARE * size[:, None], sized)
        if self._head is not None:
            size = _segment_length(t, known, self._head)
            sized = known & (size > 0)[:, None]
            self._count(_PCKH, distance < PCKH_SHARE * size[:, None], sized)

    def compute(self) -> PoseResult:
        """Turn the sums into metrics.

        Raises:
            ValueError: nothing has been compared, or predictions were NaN.
        """
        require_finite(self.finite)
        table = self.sums[:, 1:].reshape(len(self.actions), _ROWS, 2, -1)
        if not table[:, :, 1].any():
            raise ValueError(
                "no labelled joint was compared; give a split with labelled poses, roots included"
            )
        total, frames = table.sum(0), [int(n) for n in self.sums[:, 0].tolist()]
        return PoseResult(
            frames=sum(frames),
            action_frames=dict(zip(self.actions, frames, strict=True)),
            overall=self._scores(total),
            joints={name: self._scores(total[..., [j]]) for j, name in enumerate(self.joint_names)},
            actions={name: self._scores(table[a]) for a, name in enumerate(self.actions)},
        )

    def _scores(self, table: Tensor) -> PoseScores:
        """Metrics from the sums and numbers of some joints, [rows, 2, joints]."""
        sums, counts = table.unbind(1)
        pooled = (sums.sum(-1) / counts.sum(-1)).tolist()  # NaN where nothing was counted
        by_joint = (sums / counts).nanmean(-1).tolist()
        *found, acceleration = map(_or_none, pooled[:_PCK_2D])
        names = [field.name for field in fields(PoseScores)]  # of the rows, in their order
        return PoseScores(
            **dict(zip(names, found, strict=False)),
            acceleration_error_mm_per_frame2=acceleration,
            acceleration_error_mm_per_s2=(
                None if acceleration is None else acceleration * self.frame_rate_hz**2
            ),
            pck_2d=_or_none(by_joint[_PCK_2D]),
            pckh=_or_none(by_joint[_PCKH]),
        )

    def _index(self, name: str) -> int:
        if name not in self.joint_names:
            raise ValueError(f"joint {name!r} is none of {', '.join(self.joint_names)}")
        return self.joint_names.index(name)

    def _take(
        self, predicted: Tensor, truth: Tensor, *, axes: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Row of the sums for this action, both poses and what is known; zero where unknown."""
        if self._action is None:
            raise ValueError("frames belong to a sequence; call start_sequence(action) first")
        expected = [len(truth), len(self.joint_names), axes]
        sizes = [list(predicted.shape), list(truth.shape)]
        if sizes != [expected, expected]:
            raise ValueError(
                f"poses must be [frames, {len(self.joint_names)}, {axes}], got predicted "
                f"{sizes[0]}, truth {sizes[1]}"
            )
        predicted, truth = predicted.detach().cpu().double(), truth.detach().cpu().double()
        known = truth.isfinite().all(-1)
        predicted, truth = predicted.where(known[..., None], 0), truth.where(known[..., None], 0)
        row = self.sums[self._action]
        if not (numbers := predicted.isfinite()).all():
            row.fill_(math.nan)
            predicted = predicted.where(numbers, 0)  # the decomposition of `_PA` refuses NaN
        return row, predicted, truth, known

    def _count(self, metric: int, values: Tensor, known: Tensor) -> None:
        """Add the known of values [T, J] to a row of the sums."""
        assert self._action is not None
        table = self.sums[self._action, 1:].view(_ROWS, 2, -1)
        table[metric, 0] += values.where(known, 0).sum(0)
        table[metric, 1] += known.sum(0)


def _errors_from(
    predicted: Tensor, truth: Tensor, known: Tensor, origin: list[int]
) -> tuple[Tensor, Tensor]:
    """Errors [T, J, 3] after the mean of the origin joints is brought to 0, and which are known."""
    errors = predicted - truth
    errors = errors - errors[:, origin].mean(1, keepdim=True)
    return errors, known & known[:, origin].all(1, keepdim=True)


def _segment_length(points: Tensor, known: Tensor, ends: list[int]) -> Tensor:
    """Distance [T] between two of the points [T, J, 2]; 0 where one is not known."""
    a, b = ends
    return (points[:, a] - points[:, b]).norm(dim=-1) * (known[:, a] & known[:, b])


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
