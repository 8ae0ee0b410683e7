"""Human pose in every frame: the head, and what its numbers mean.

The head gives ``6 J + S + 3`` numbers a frame, which a :class:`PoseOutput` names: a rotation for
each of J joints in the 6-D representation, S shape values, and a weak-perspective camera of which
:func:`pose_from_output` makes a translation. The published head gives that translation itself
(:class:`RegressedOutput`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spikevideoformer.body.rotations import matrix_from_6d, sixd_from_matrix
from spikevideoformer.body.skeleton import BodyModel
from spikevideoformer.models.config import ModelConfig
from spikevideoformer.models.heads import Head
from spikevideoformer.nn.neuron import make_neuron

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

    def part(self, some: int | slice) -> PoseOutput:
        """Some of the first axis."""
        return PoseOutput(*(values[some] for values in self))


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

    def part(self, some: int | slice) -> RegressedOutput:
        """Some of the first axis."""
        return RegressedOutput(*(values[some] for values in self))


AnyPoseOutput = PoseOutput | RegressedOutput


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Pose:
    """Bodies in frames, in camera coordinates, in metres.

    Attributes:
        rotations: of each joint against its parent, the first against the camera.
        shape: shape values.
        translation: as the body model takes it.
        joints: where the joints are.
    """

    rotations: Float[Tensor, "*batch J 3 3"]
    shape: Float[Tensor, "*batch S"]
    translation: Float[Tensor, "*batch 3"]
    joints: Float[Tensor, "*batch J 3"]


def pose_from_output(
    output: AnyPoseOutput,
    body: BodyModel,
    *,
    size: int,
    focal_px: Float[Tensor, "*#batch 2"],
    centre_px: Float[Tensor, "*#batch 2"],
) -> Pose:
    """The bodies that a :class:`PoseOutput` or a :class:`RegressedOutput` means.

    The latter says itself where they are. The camera (u, v, w) of the former says where the root is
    seen, in picture widths right of and below the middle of the input, and how wide the picture is
    at its distance, as a logarithm over `USUAL_WIDTH_M`. A network cannot see its focal length f;
    that turns the width into a depth.

    Equation: ``z = f_x / size * 2.5 exp(w)`` and ``x = ((u + 1/2) size - c_x) z / f_x``, and y
    alike.

    Args:
        output: of a model; computed in float32 at least.
        body: the body model that the head was made for.
        size: height and width of the model input, in pixels.
        focal_px: focal lengths in x and y, in pixels of the model input.
        centre_px: principal point (x, y), likewise.
    """
    with torch.autocast(output.shape.device.type, enabled=False):
        sixd, shape, camera = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in output)
        rotations = matrix_from_6d(sixd)
        if isinstance(output, RegressedOutput):
            joints = body.joints(rotations, camera, shape)
            return Pose(rotations=rotations, shape=shape, translation=camera, joints=joints)
        focal, centre = focal_px.to(camera), centre_px.to(camera)
        width_m = USUAL_WIDTH_M * camera[..., 2:].clamp(-_MOST, _MOST).exp()
        depth = focal[..., :1] / size * width_m
        place = ((camera[..., :2] + 0.5) * size - centre) * depth / focal
        root = torch.cat((place, depth), -1)
        # At translation 0 a body need not have its root at the origin (SMPL has not).
        at_zero = body.joints(rotations, torch.zeros_like(root), shape)
        translation = root - at_zero[..., 0, :]
        joints = at_zero + translation[..., None, :]
    return Pose(rotations=rotations, shape=shape, translation=translation, joints=joints)


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
