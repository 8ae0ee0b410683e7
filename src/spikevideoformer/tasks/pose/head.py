"""Human pose in every frame: the head, and what its numbers mean.

The head gives ``6 J + S + 3`` numbers a frame, which a :class:`PoseOutput` names: a rotation for
each of J joints in the 6-D representation, S shape values, and a weak-perspective camera of which
:func:`pose_from_output` makes a translation. The published head gives that translation itself
(:class:`RegressedOutput`), and one with maps where each joint is seen (:class:`SeenOutput`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spikevideoformer.body.rotations import matrix_from_6d, sixd_from_matrix
from spikevideoformer.body.skeleton import BodyModel, Skeleton
from spikevideoformer.models.config import ModelConfig
from spikevideoformer.models.heads import Head
from spikevideoformer.models.pyramid import PyramidHead
from spikevideoformer.nn.neuron import make_neuron
from spikevideoformer.tasks.pose.metrics import MIN_DEPTH_M

GRID = 4
"""Height and width in cells of the map that the head reads."""

USUAL_WIDTH_M = 2.5
"""What the picture's width spans at the body's distance where the head says 0."""

_MOST = 3.0  # of the logarithm of that width over the usual one: 12 cm to 50 m


class PoseOutput(NamedTuple):
    """What a network for pose says of frames ``[*batch]``, ``[B, T]`` as a model gives it.

    Attributes:
        rotations_6d: of each joint against its parent, the first against the camera, ``[*, J, 6]``.
        shape: shape values, ``[*, S]``.
        camera: where the root is seen, (u, v, w) of :func:`pose_from_output`, ``[*, 3]``.
    """

    rotations_6d: Float[Tensor, "*batch J 6"]
    shape: Float[Tensor, "*batch S"]
    camera: Float[Tensor, "*batch 3"]


class RegressedOutput(NamedTuple):
    """The same of the published head, which says the place of the body in metres.

    Attributes:
        rotations_6d: as in :class:`PoseOutput`, ``[*, J, 6]``.
        shape: shape values, ``[*, S]``.
        translation: as the body model takes it, in the frame of the camera, ``[*, 3]``.
    """

    rotations_6d: Float[Tensor, "*batch J 6"]
    shape: Float[Tensor, "*batch S"]
    translation: Float[Tensor, "*batch 3"]


class SeenOutput(NamedTuple):
    """What a head with maps says: where the joints are seen, and how far away they are.

    Attributes:
        places: of joints, in sides of the square input right of and below its middle,
            ``[*, J, 2]``.
        depths: of joints behind the plane of which the input shows `width`, in such widths,
            ``[*, J]``.
        width: of what the input shows of that plane, as w of :func:`pose_from_output`,
            ``[*, 1]``.
        heat: logarithms of how likely each joint is in each cell of the input, shares that add up
            to 1, ``[*, J, H, W]``.
    """

    places: Float[Tensor, "*batch J 2"]
    depths: Float[Tensor, "*batch J"]
    width: Float[Tensor, "*batch 1"]
    heat: Float[Tensor, "*batch J H W"]


AnyPoseOutput = PoseOutput | RegressedOutput | SeenOutput


def between_frames(x: Float[Tensor, "T B C"]) -> Float[Tensor, "T+1 B C"]:
    """What the moments before, between and after T frames see: the mean of their neighbours."""
    return torch.cat((x[:1], (x[:-1] + x[1:]) / 2, x[-1:]))


class PoseHead(Head):
    """Mean over the cells of a 4 x 4 grid, Linear: each frame for itself, time is the backbone's.

    Where a joint is in the picture matters, so space is not averaged away, as it is for classes. A
    last neuron before the mean (``readout="spike"``) lets Linear read spikes; without it
    (``"membrane"``) it reads the mean membranes.

    With ``pose_head="regressor"`` there is one cell, and the last three numbers are the
    translation: decpose, decbeta and dectrans of HumanPoseTracking_SNN as one Linear. With
    ``poses="between"`` T frames give the T + 1 poses before, between and after them.

    Args:
        config: the architecture.
        body: whose joints and shape values are to be found.
    """

    def __init__(self, config: ModelConfig, body: BodyModel) -> None:
        super().__init__()
        if config.readout == "gru":
            raise ValueError(
                "readout 'gru' is for classification; pose reads every frame: choose membrane or"
                " spike"
            )
        self.neuron = (
            make_neuron(config.neuron, config.design == "spatial_only")
            if config.readout == "spike"
            else nn.Identity()
        )
        self.joints = joints = len(body.joint_names)
        self.regresses, self.between = config.pose_head == "regressor", config.poses == "between"
        cells = 1 if self.regresses else GRID * GRID
        self.fc = nn.Linear(config.widths[-1] * cells, 6 * joints + body.num_shape + 3)
        nn.init.trunc_normal_(self.fc.weight, std=0.01)
        self.start_at(torch.eye(3).expand(joints, 3, 3))

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Numbers ``[B, T, 6 J + S + 3]`` of each frame from the last ``[T, B, C, H, W]``."""
        x = self.neuron(features[-1])
        if self.regresses:
            cells = self.real.mean(x.flatten(3), 3)  # [T, B, C]
        else:
            cells = self.real.cells(x.flatten(0, 1), GRID).flatten(1)  # [T B, C * 16]
            cells = cells.unflatten(0, x.shape[:2])
        output: Tensor = self.fc(between_frames(cells) if self.between else cells)
        return output.transpose(0, 1)

    def finished(self, output: Tensor, video: Tensor) -> AnyPoseOutput:
        """The numbers by their names."""
        return self.named(output)

    def named(self, numbers: Float[Tensor, "*batch D"]) -> AnyPoseOutput:
        """What the numbers are."""
        sixd, shape, place = numbers.tensor_split((6 * self.joints, numbers.shape[-1] - 3), -1)
        kind = RegressedOutput if self.regresses else PoseOutput
        return kind(sixd.unflatten(-1, (self.joints, 6)), shape, place)

    @torch.no_grad()
    def start_at(
        self, rotations: Float[Tensor, "J 3 3"], translation: Float[Tensor, " 3"] | None = None
    ) -> None:
        """Let the head begin with this pose, of the usual shape, in the middle of the picture.

        Args:
            rotations: of each joint against its parent, such as the mean of the training poses.
            translation: where a head that says so in metres begins; None: `USUAL_WIDTH_M` before
                the camera.
        """
        bias: Tensor = self.fc.bias
        bias.zero_()
        bias[: 6 * len(rotations)] = sixd_from_matrix(rotations).flatten().to(bias)
        if self.regresses:
            usual = bias.new_tensor((0.0, 0.0, USUAL_WIDTH_M))
            bias[-3:] = usual if translation is None else translation.to(bias)


class HeatmapHead(PyramidHead):
    """Where each joint is seen, from maps at a quarter of the input: each frame for itself.

    Equation, for joint j with the maps h, o (two) and d of cells c at places x_c in picture widths
    about the middle, and the map w of all joints, whose root is joint 0::

        p_j = softmax_c(h_j), of which `heat` is the logarithm; q_j = p_j^2 / sum_c p_j^2
        place_j = sum_c q_j (x_c + o_j)    depth_j = sum_c q_j d_j    width = sum_c q_0 w

    The offsets o reach joints outside of the picture. The square lets the likelier of two places
    count for more: a hand may be left or right of a body seen from behind, and is not between.

    Source: Sun et al., "Integral human pose regression", 2018, with a depth map (Mehta et al.,
    VNect, 2017) in place of a volume; the square is ours.

    Args:
        config: the architecture, of ``readout="spike"`` and ``poses="frames"``.
        body: whose joints are to be found, a skeleton.

    Raises:
        ValueError: another body, readout or number of poses.
    """

    def __init__(self, config: ModelConfig, body: BodyModel) -> None:
        if not isinstance(body, Skeleton):
            raise ValueError(
                "pose_head 'heatmap' finds joints, of which it poses a skeleton, and the body is "
                "SMPL; give body=, such as standing_skeleton(), or choose grid"
            )
        if config.poses != "frames":
            raise ValueError("pose_head 'heatmap' reads frames; choose grid for poses='between'")
        J = len(body.joint_names)
        super().__init__(config, 4 * J + 1)
        self.joints, self._ends = J, (J, 2 * J, 3 * J, 3 * J + 1)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """``[B, T, J (3 + H W / 16) + 1]`` from all stages': what `finished` tells apart.

        Computed in float64: sums that the size of a batch does not move.
        """
        maps = self.maps(features).transpose(0, 1)
        height, width = maps.shape[-2:]
        kind = torch.promote_types(maps.dtype, torch.float32)
        heat, right, down, depth = maps[:, :, :-1].double().flatten(3).chunk(4, 2)  # [B, T, J, HW]
        heat = heat.log_softmax(-1)
        share = (2 * heat).softmax(-1)
        x, y = ((torch.arange(n).to(heat) + 0.5) / n - 0.5 for n in (width, height))
        root = maps[:, :, -1:].double().flatten(3)
        said = (
            (share * (right + x.repeat(height))).sum(-1),
            (share * (down + y.repeat_interleave(width))).sum(-1),
            (share * depth).sum(-1),
            (share[:, :, :1] * root).sum(-1),
            heat.flatten(2),
        )
        return torch.cat(said, -1).to(kind)

    def finished(self, output: Tensor, video: Tensor) -> SeenOutput:
        """The numbers by their names."""
        right, down, depths, width, heat = output.tensor_split(self._ends, -1)
        cells = tuple(n // 4 for n in video.shape[3:])
        heat = heat.unflatten(-1, (self.joints, *cells))
        return SeenOutput(torch.stack((right, down), -1), depths, width, heat)

    def start_at(
        self, rotations: Float[Tensor, "J 3 3"], translation: Float[Tensor, " 3"] | None = None
    ) -> None:
        """Nothing: it begins with all joints near the middle."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pose:
    """Bodies in frames, in camera coordinates, in metres.

    Attributes:
        joints: where the joints are.
        rotations: of each joint against its parent, the first against the camera; None where only
            joints were found, see :func:`with_rotations`.
        shape: shape values; None likewise.
        translation: as the body model takes it.
    """

    joints: Float[Tensor, "*batch J 3"]
    rotations: Float[Tensor, "*batch J 3 3"] | None
    shape: Float[Tensor, "*batch S"] | None
    translation: Float[Tensor, "*batch 3"]

    def part(self, some: int | slice) -> Pose:
        """Some of the first axis."""
        values: dict[str, Any] = {n: v if v is None else v[some] for n, v in vars(self).items()}
        return Pose(**values)


def with_rotations(pose: Pose, body: BodyModel) -> Pose:
    """The pose, with rotations and shape made of its joints where it has none.

    What they say of the body comes near these joints; bones that start from a joint together (hips
    and neck) keep their angles, so that hardly any body meets all of them.
    """
    if pose.rotations is not None:
        return pose
    assert isinstance(body, Skeleton)  # which `HeatmapHead` requires
    rotations, shape = body.posed(pose.joints)
    return replace(pose, rotations=rotations, shape=shape)


def pose_from_output(
    output: AnyPoseOutput,
    body: BodyModel,
    *,
    size: int,
    focal_px: Float[Tensor, "*#batch 2"],
    centre_px: Float[Tensor, "*#batch 2"],
) -> Pose:
    """The bodies that a :class:`PoseOutput`, :class:`RegressedOutput` or :class:`SeenOutput` means.

    A `RegressedOutput` says itself where they are. The camera (u, v, w) of a `PoseOutput` says
    where the root is seen, in picture widths right of and below the middle of the input, and how
    wide the picture is at its distance, as a logarithm over `USUAL_WIDTH_M`. A network cannot see
    its focal length f; that turns the width into a depth.

    Equation: ``z = f_x / size * 2.5 exp(w)`` and ``x = ((u + 1/2) size - c_x) z / f_x``, and y
    alike. A `SeenOutput` says so of every joint, ``depth`` widths behind that plane at
    ``z + 2.5 exp(w) depth``, but at least at a tenth of z, and where joints have an image.

    Args:
        output: of a model; computed in float32 at least.
        body: the body model that the head was made for.
        size: height and width of the model input, in pixels.
        focal_px: focal lengths in x and y, in pixels of the model input.
        centre_px: principal point (x, y), likewise.
    """
    with torch.autocast(output[0].device.type, enabled=False):
        one, two, camera = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in output[:3])
        focal, centre = focal_px.to(camera), centre_px.to(camera)
        if isinstance(output, SeenOutput):
            joints = _seen(one, two, camera, size, focal, centre)
            place = joints[..., 0, :]
            return Pose(rotations=None, shape=None, translation=place, joints=joints)
        sixd, shape = one, two
        rotations = matrix_from_6d(sixd)
        if isinstance(output, RegressedOutput):
            joints = body.joints(rotations, camera, shape)
            return Pose(rotations=rotations, shape=shape, translation=camera, joints=joints)
        width_m = _width_m(camera[..., 2:])
        depth = focal[..., :1] / size * width_m
        place = ((camera[..., :2] + 0.5) * size - centre) * depth / focal
        root = torch.cat((place, depth), -1)
        # At translation 0 a body need not have its root at the origin (SMPL has not).
        at_zero = body.joints(rotations, torch.zeros_like(root), shape)
        translation = root - at_zero[..., 0, :]
        joints = at_zero + translation[..., None, :]
    return Pose(rotations=rotations, shape=shape, translation=translation, joints=joints)


def _width_m(w: Tensor) -> Tensor:
    return USUAL_WIDTH_M * w.clamp(-_MOST, _MOST).exp()


def _seen(
    places: Tensor, depths: Tensor, width: Tensor, size: int, focal: Tensor, centre: Tensor
) -> Float[Tensor, "*batch J 3"]:
    """Joints in space, of a `SeenOutput`."""
    width_m = _width_m(width)
    depth = focal[..., :1] / size * width_m
    z = torch.maximum(depth + width_m * depths, (0.1 * depth).clamp_min(MIN_DEPTH_M))[..., None]
    seen = (places + 0.5) * size - centre[..., None, :]
    return torch.cat((seen * z / focal[..., None, :], z), -1)


def mean_rotations(rotations: Float[Tensor, "N J 3 3"]) -> Float[Tensor, "J 3 3"]:
    """The rotation of each joint that is nearest to all (least squares of matrices).

    Equation: ``U diag(1, 1, det(U V^T)) V^T`` of the singular value decomposition of the mean.
    """
    u, s, vh = torch.linalg.svd(rotations.double().mean(0))
    signs = torch.ones_like(s)
    signs[..., 2] = torch.linalg.det(u @ vh).sign()
    return u @ (signs[..., None] * vh)


def focal_of_view(size: int, field_of_view_deg: float) -> float:
    """Focal length in pixels of a picture of this size that spans such an angle."""
    return size / 2 / math.tan(math.radians(field_of_view_deg) / 2)
