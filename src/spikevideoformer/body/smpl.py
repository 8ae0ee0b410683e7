"""SMPL, from the file that its licence lets each user download but nobody pass on.

The official file is a pickle, which can run any program when it is read. :func:`convert_smpl`
reads it inertly and writes what joints need as safetensors: 24 joints, as linear functions of 10
shape values. Vertices, their weights and the pose blend shapes are left out: without vertices they
have no effect.

Source: Loper et al., "SMPL: A Skinned Multi-Person Linear Model" (SIGGRAPH Asia 2015).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from spikevideoformer.body.inert_pickle import MOST_BYTES, read_inert_pickle, reason_of
from spikevideoformer.body.skeleton import BodyModel, Skeleton, forward_kinematics
from spikevideoformer.body.smpl_file import WHERE, require_smpl_file
from spikevideoformer.files import write_atomically

SMPL_JOINTS: tuple[str, ...] = tuple(
    "pelvis left_hip right_hip spine1 left_knee right_knee spine2 left_ankle right_ankle spine3"
    " left_foot right_foot neck left_collar right_collar head left_shoulder right_shoulder"
    " left_elbow right_elbow left_wrist right_wrist left_hand right_hand".split()
)
"""The 24 joints in the order of the official file."""

SMPL_PARENTS: tuple[int, ...] = (
    -1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21,
)  # fmt: skip
"""Its `kintree_table`."""

NUM_BETAS = 10

_FORMAT = "spikevideoformer.smpl.1"
_FARTHEST = 1000.0  # metres; no NaN is nearer


class SmplBody(BodyModel):
    """The joints of SMPL: 24 rotations, 10 shape values (betas) and a translation.

    Equation: ``J(b) = J0 + D b``, then forward kinematics with the offsets ``J_j(b) - J_p(b)``; the
    root is at ``J_0(b) + translation``.

    Args:
        joint_template: J0, where the joints of the mean body are, in metres.
        joint_shape_directions: D, how far each shape value moves them.
    """

    joint_template: Tensor
    joint_shape_directions: Tensor

    def __init__(
        self,
        joint_template: Float[Tensor, "24 3"],
        joint_shape_directions: Float[Tensor, "24 3 S"],
    ) -> None:
        super().__init__(SMPL_JOINTS, SMPL_PARENTS)
        self.num_shape = joint_shape_directions.shape[-1]
        self.register_buffer("joint_template", joint_template, persistent=False)
        self.register_buffer("joint_shape_directions", joint_shape_directions, persistent=False)

    def joints(
        self,
        rotations: Float[Tensor, "*batch J 3 3"],
        translation: Float[Tensor, "*#batch 3"],
        shape: Float[Tensor, "*#batch S"] | None = None,
    ) -> Float[Tensor, "*batch J 3"]:
        """Positions of the joints in metres.

        Args:
            rotations: of each joint, local to its parent.
            translation: added to all joints, as `trans` and `transl` in data sets.
            shape: betas; None: zeros, the mean body.
        """
        offsets = self._offsets(shape).to(rotations)
        joints = forward_kinematics(self.parents, rotations, offsets)[0]
        return joints + translation[..., None, :]

    def skeleton(self, shape: Float[Tensor, " S"] | None = None) -> Skeleton:
        """The bones of one body, for files. Its root is the pelvis, at translation 0 and not J_0.

        Args:
            shape: betas; None: the mean body.
        """
        return Skeleton(self.joint_names, self.parents, self._offsets(shape))

    def _offsets(self, shape: Tensor | None) -> Tensor:
        """Of each joint from its parent, [..., 24, 3]; of the first, its position."""
        joints = self.joint_template
        if shape is not None:
            directions = self.joint_shape_directions
            joints = joints + (directions @ shape.to(directions)[..., None, :, None]).squeeze(-1)
        return torch.cat(
            (joints[..., :1, :], joints[..., 1:, :] - joints[..., self.parents[1:], :]), -2
        )


def load_body(path: Path | None) -> SmplBody:
    """Load SMPL from what `convert_smpl` has written.

    Args:
        path: the safetensors file; None: none is there.

    Raises:
        ValueError: no path, no such file, or no file of `convert_smpl`; says where to get SMPL.
    """
    if path is None:
        raise ValueError(f"no SMPL file given. {WHERE}")
    require_smpl_file(path)
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path} is not converted: convert_smpl({str(path)!r}, 'smpl.safetensors')"
        )
    try:
        with safe_open(path, "pt") as file:
            written_as = (file.metadata() or {}).get("format")
            if written_as != _FORMAT:
                raise ValueError(f"{path} is {written_as or 'no SMPL'}, not {_FORMAT}. {WHERE}")
            template = file.get_tensor("joint_template")
            directions = file.get_tensor("joint_shape_directions")
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); convert it again") from error
    if template.shape != (24, 3) or directions.shape != (24, 3, NUM_BETAS):
        raise ValueError(f"{path} is damaged (sizes of its tensors); convert it again")
    return SmplBody(template, directions)


# --- The official file ---------------------------------------------------------------------------


def convert_smpl(source: Path, out: Path) -> None:
    """Write what joints need of an official SMPL file as safetensors. Nothing in it is executed.

    Args:
        source: `.pkl` as downloaded (with arrays of numpy, scipy and chumpy, none of the last two
            needed), or `.npz` with the same names.
        out: `.safetensors`; its folder exists.

    Raises:
        ValueError: a file that is absent, unsafe, damaged or another model.
    """
    if not source.is_file():
        raise ValueError(f"no file {source}. {WHERE}")
    if out.suffix != ".safetensors":
        raise ValueError(f"{out} must end in .safetensors, the only format that is written")
    if source.stat().st_size > MOST_BYTES:
        raise ValueError(f"{source} has more than {MOST_BYTES // 2**20} MiB; give an SMPL file")
    read = {".pkl": _read_pickle, ".npz": _read_npz}.get(source.suffix)
    if read is None:
        raise ValueError(f"{source} must be .pkl or .npz, as downloaded. {WHERE}")
    template, directions = _joint_model(source, read(source))
    tensors = {
        "joint_template": torch.from_numpy(template),
        "joint_shape_directions": torch.from_numpy(directions),
        "parents": torch.tensor(SMPL_PARENTS),
    }
    metadata = {"format": _FORMAT, "joint_names": json.dumps(SMPL_JOINTS)}
    content = save(tensors, metadata)
    write_atomically(out, lambda file: file.write(content))


_NEEDED = ("J_regressor", "v_template", "shapedirs", "kintree_table")


def _joint_model(
    source: Path, entries: Mapping[str, Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Regress joints from the vertices of the mean body and of each shape direction."""
    if missing := [name for name in _NEEDED if name not in entries]:
        raise ValueError(f"{source} has no {', '.join(missing)}; give an SMPL file. {WHERE}")
    arrays = {name: _array(source, name, entries[name]) for name in _NEEDED}
    regressor, vertices = arrays["J_regressor"], arrays["v_template"]
    directions, tree = arrays["shapedirs"], arrays["kintree_table"]
    count = len(vertices) if vertices.ndim == 2 else 0
    if regressor.ndim != 2 or len(regressor) != len(SMPL_JOINTS):
        raise ValueError(
            f"{source} has a J_regressor of size {regressor.shape}; give SMPL with 24 joints (not"
            " SMPL-H, SMPL-X or STAR)"
        )
    if (
        vertices.shape != (count, 3)
        or regressor.shape != (len(SMPL_JOINTS), count)
        or directions.shape[:2] != (count, 3)
        or directions.ndim != 3
        or directions.shape[2] < NUM_BETAS
    ):
        sizes = ", ".join(f"{name} {arrays[name].shape}" for name in _NEEDED[:3])
        raise ValueError(f"{source} has sizes that do not go together ({sizes}); download it again")
    # The root's parent is -1, as an unsigned number of 32 bits.
    if tree.shape != (2, 24) or (
        tree[0, 1:].tolist() != list(SMPL_PARENTS[1:]) or tree[1].tolist() != list(range(24))
    ):
        raise ValueError(f"{source} has another kintree_table than SMPL's; give an SMPL file")
    template = regressor @ vertices
    moved = np.einsum("jv,vck->jck", regressor, directions[:, :, :NUM_BETAS])
    if not all((np.abs(metres) < _FARTHEST).all() for metres in (template, moved)):
        raise ValueError(f"{source} has joints that are nowhere on a body; download it again")
    return template.astype(np.float32), np.ascontiguousarray(moved, np.float32)


def _array(source: Path, name: str, value: Any) -> NDArray[np.float64]:
    """An entry of the file as numbers."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise ValueError(f"{source} has no numbers as {name}; download it again")
    return value.astype(np.float64)


def _read_npz(source: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(source) as archive:
            if sum(member.file_size for member in archive.infolist()) > MOST_BYTES:
                raise ValueError(f"unpacks to more than {MOST_BYTES // 2**20} MiB")
        with np.load(source, allow_pickle=False) as file:
            return {name: file[name] for name in _NEEDED if name in file}
    except Exception as error:  # a damaged archive can fail in any way
        raise ValueError(f"{source} cannot be read ({reason_of(error)}). {WHERE}") from error


def _read_pickle(source: Path) -> dict[str, Any]:
    try:
        return read_inert_pickle(source, _NEEDED)
    except ValueError as error:
        raise ValueError(f"{error}. {WHERE}") from error
