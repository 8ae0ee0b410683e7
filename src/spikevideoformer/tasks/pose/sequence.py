"""Videos with a labelled body in every frame: what pose data sets are read into.

Coordinates are those of the camera: x to the right, y down, z forward, in metres. What is not
labelled is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from spikevideoformer.body.skeleton import NO_BONE_M, BodyModel, Skeleton, forward_kinematics
from spikevideoformer.data.index import DatasetIndex
from spikevideoformer.tasks.pose.metrics import procrustes_align
from spikevideoformer.tasks.pose.spec import PoseSpec as PoseSpec


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PoseTruth:
    """What is known of the body in F frames of a video with J joints.

    Args:
        joints: in metres, camera coordinates, [F, J, 3]. The first joint is the root.
        points: the joints in the picture (x, y), in pixels, where pixel i covers i to i + 1,
            [F, J, 2].
        rotations: of each joint against its parent, the first against the camera, [F, J, 3, 3];
            None where the data set has none.
        shape: shape values of an SMPL body, [S]; None where there are none.
        focal_px: focal lengths in x and y.
        centre_px: principal point (x, y).

    Raises:
        ValueError: sizes that do not fit each other, an infinite value, or focal lengths that are
            not above 0.
    """

    joints: NDArray[np.float32]
    points: NDArray[np.float32]
    rotations: NDArray[np.float32] | None = None
    shape: NDArray[np.float32] | None = None
    focal_px: tuple[float, float]
    centre_px: tuple[float, float]

    def __post_init__(self) -> None:
        F, J = (*self.joints.shape, 0, 0)[:2]
        sizes = {"joints": (F, J, 3), "points": (F, J, 2), "rotations": (F, J, 3, 3)}
        for name, size in sizes.items():
            values = getattr(self, name)
            if values is not None and values.shape != size:
                raise ValueError(f"{name} are {list(values.shape)}; expected {list(size)}")
        for name in (*sizes, "shape"):
            values = getattr(self, name)
            if values is not None and np.isinf(values).any():
                raise ValueError(f"infinite values in {name}; give NaN where nothing is known")
        if not all(0 < f < math.inf for f in self.focal_px):
            raise ValueError(f"focal lengths are {self.focal_px}; they must be above 0")
        if not all(map(math.isfinite, self.centre_px)):
            raise ValueError(f"the principal point is {self.centre_px}; it must be finite")

    def __repr__(self) -> str:
        F, J = self.joints.shape[:2]
        return f"PoseTruth(frames {F}, joints {J})"


@dataclass(frozen=True, kw_only=True, eq=False)
class PoseSequence:
    """One video and the body in it.

    Args:
        name: unique within the data set.
        action: what is done; metrics are given for each action, too.
        split: train, val or test.
        pictures: a video file, whose picture i is frame i, or a picture file for each frame; empty
            where there are event frames only.
        events: event frames: a packed file for each frame, of what happened since the frame before,
            see `event_frames`, or None where nothing is known of it; empty where there are none,
            and they are simulated from the pictures.
        event_channels: of a packed file; None: as many as the network is made for.
        size_px: height and width of event frames and of pictures as `truth` has them, to which
            larger or smaller pictures are brought; None: those of the pictures.
        frame_rate_hz: frames per second.
        truth: the body in each frame.

    Raises:
        ValueError: no frame, lists of files that do not have a file for each frame, or a frame rate
            that is not above 0.
    """

    name: str
    action: str
    split: str
    pictures: Path | tuple[Path, ...]
    events: tuple[Path | None, ...] = ()
    event_channels: int | None = None
    size_px: tuple[int, int] | None = None
    frame_rate_hz: float
    truth: PoseTruth = field(repr=False)

    def __post_init__(self) -> None:
        for what, files in (("pictures", self.pictures), ("event frames", self.events)):
            if isinstance(files, tuple) and files and len(files) != len(self):
                raise ValueError(f"{self.name} has {len(files)} {what} and {len(self)} poses")
        if not len(self) or not (self.pictures or (self.events and self.size_px)):
            raise ValueError(f"{self.name} has no frame")
        if not 0 < self.frame_rate_hz < math.inf:
            raise ValueError(f"{self.name} has {self.frame_rate_hz} frames a second; give above 0")

    def __len__(self) -> int:
        return len(self.truth.joints)


@dataclass(frozen=True, kw_only=True, eq=False)
class PoseIndex(DatasetIndex[PoseSequence]):
    """The sequences of a data set, all of bodies with the same joints.

    Args:
        joint_names: J of them; the first is the root of the tree.
        parents: index of each joint's parent, -1 for the first.
        sequences: in a fixed order.
    """

    joint_names: tuple[str, ...]
    parents: tuple[int, ...]
    sequences: tuple[PoseSequence, ...]

    @property
    def frames(self) -> int:
        """Frames in all."""
        return sum(map(len, self.sequences))

    @property
    def actions(self) -> tuple[str, ...]:
        """What is done in the sequences, sorted."""
        return tuple(sorted({sequence.action for sequence in self.sequences}))

    def content(self) -> Iterator[bytes]:
        """Sequences by name, and their labels."""
        yield repr((self.joint_names, self.parents)).encode()
        for s in self.sequences:
            yield repr((s.name, s.action, s.frame_rate_hz, bool(s.events))).encode()
            for f in fields(s.truth):
                values = getattr(s.truth, f.name)
                yield b"" if values is None else np.asarray(values).tobytes()


# --- The body of a data set -----------------------------------------------------------------------

_FRAMES_FOR_BONES = 8  # of a sequence; bones do not change their lengths
_MEANS = 4  # times that poses are brought onto their mean


def fit_skeleton(index: PoseIndex) -> Skeleton:
    """The mean body of a data set, as a skeleton.

    With rotations a bone in the frame of its parent is ``G_p^T (x_j - x_p)``, the same in every
    frame; the mean over sequences is taken. Without them the mean pose, seen upright as poses are
    on average, is the one in which nothing is turned, with the mean length of each bone.

    Raises:
        ValueError: no frame in which all joints are labelled, or a bone that has another direction
            in some sequences (bodies that rest in another pose cannot share rotations).
    """
    found = {s.name: bones for s in index.sequences if (bones := _bones(s, index.parents))}
    if not found:
        raise ValueError(
            f"no frame of {index.root} has all joints labelled; such a frame is needed to know the"
            " body"
        )
    lengths = torch.stack([bones.norm(dim=-1) for bones, _ in found.values()]).mean(0)
    turned = {name: bones for name, (bones, rotations) in found.items() if rotations}
    if turned:
        mean = torch.stack(list(turned.values())).mean(0)
        apart = {name: _apart(bones, mean) for name, bones in turned.items()}
        worst = max(apart, key=apart.__getitem__)
        if apart[worst] > 0.2:
            raise ValueError(
                f"{worst} of {index.root} has a body that rests in another pose than the others;"
                " give it a data set of its own"
            )
    else:
        mean = _mean_bones(index, [s for s in index.sequences if s.name in found])
    return Skeleton(index.joint_names, index.parents, _directions(mean) * lengths[:, None])


def shape_values(sequence: PoseSequence, body: BodyModel) -> Float[Tensor, " S"]:
    """The truth about the proportions of the body in a sequence, as `body` counts them.

    For a skeleton the logarithms of the lengths of bones over its own; for SMPL the labelled shape
    values. NaN where nothing is known.
    """
    unknown = torch.full((body.num_shape,), math.nan)
    if not isinstance(body, Skeleton):
        shape = sequence.truth.shape
        return unknown if shape is None else torch.from_numpy(shape[: body.num_shape])
    found = _bones(sequence, body.parents)
    if found is None:
        return unknown
    return body.shape_of(found[0].norm(dim=-1)).float()


def _bones(sequence: PoseSequence, parents: Sequence[int]) -> tuple[Tensor, bool] | None:
    """Bones ``[J, 3]`` in the frames of their parents (or of the camera), and which of the two."""
    truth = sequence.truth
    whole = np.flatnonzero(np.isfinite(truth.joints).all((1, 2)))
    some = whole[:: max(1, len(whole) // _FRAMES_FOR_BONES)][:_FRAMES_FOR_BONES]
    if not len(some):
        return None
    joints = torch.from_numpy(truth.joints[some]).double()
    parent = [max(p, 0) for p in parents]
    bones = joints - joints[:, parent]  # of the root zero
    rotations = truth.rotations
    if rotations is not None and np.isfinite(rotations[some]).all():
        local = torch.from_numpy(rotations[some]).double()
        turns = forward_kinematics(parents, local, torch.zeros(len(parents), 3).double())[1]
        own = (turns[:, parent].mT @ bones[..., None])[..., 0]  # [f, J, 3]
        return own.mean(0), True
    length = bones.norm(dim=-1).mean(0)
    return _directions(bones[0]) * length[:, None], False


def _mean_bones(index: PoseIndex, sequences: Sequence[PoseSequence]) -> Tensor:
    """Bones ``[J, 3]`` of the mean pose, one of each sequence, turned onto each other.

    They are brought onto their mean, which is then turned to where all of them have their joints on
    average: around the vertical that is anywhere, but head and feet are where they belong.
    """
    whole = []
    for sequence in sequences:
        joints = sequence.truth.joints
        frames = np.flatnonzero(np.isfinite(joints).all((1, 2)))
        whole.append(joints[frames[len(frames) // 2]])
    poses = torch.from_numpy(np.stack(whole)).double()
    poses = poses - poses[:, :1]
    known = torch.ones(poses.shape[:2], dtype=torch.bool)
    mean = poses[0]
    for _ in range(_MEANS):
        mean = procrustes_align(poses, mean.expand_as(poses), known).mean(0)
    mean = procrustes_align(mean, poses.mean(0), known[0])
    return mean - mean[[max(p, 0) for p in index.parents]]


def _apart(bones: Tensor, mean: Tensor) -> float:
    """The largest difference of the directions of two bones, 2 for opposite ones."""
    return float((_directions(bones) - _directions(mean)).norm(dim=-1).max())


def _directions(bones: Tensor) -> Tensor:
    """Of length 1, or 0 where there is no bone."""
    lengths = bones.norm(dim=-1, keepdim=True)
    return torch.where(lengths > NO_BONE_M, bones / lengths, 0)


# --- How frames become input ----------------------------------------------------------------------


def window_positions(length: int, spec: PoseSpec, step: int) -> list[tuple[list[int], list[bool]]]:
    """Windows of P poses that cover every ``step``-th frame of a sequence, in order.

    Where poses lie between frames, the last pose of a window is the first of the next. Where the
    last window would reach over the end it begins earlier; of a sequence that is too short the last
    frame is repeated.

    Args:
        length: frames of the sequence, at least 1.
        spec: T and P.
        step: from one pose of a window to the next.

    Returns:
        Positions of the poses of each window, and which of them no earlier window (and no earlier
        pose of this one) shows.
    """
    positions, P = list(range(0, length, step)), spec.num_poses
    if len(positions) <= P:
        padded = positions + positions[-1:] * (P - len(positions))
        return [(padded, [k < len(positions) for k in range(P)])]
    windows, shown = [], 0
    for begin in range(0, len(positions) - (P - spec.frames), spec.frames):
        start = min(begin, len(positions) - P)
        fresh = [start + k >= shown for k in range(P)]
        windows.append((positions[start : start + P], fresh))
        shown = start + P
    return windows
