"""SMPL, from the file that its licence lets each user download but nobody pass on.

The official file is a pickle, which can run any program when it is read. :func:`convert_smpl`
reads it with nothing but inert classes of ours and writes what joints need as safetensors:
24 joints, as linear functions of 10 shape values. Vertices, their weights and the pose blend shapes
are left out: without vertices they have no effect.

Source: Loper et al., "SMPL: A Skinned Multi-Person Linear Model" (SIGGRAPH Asia 2015).
"""

from __future__ import annotations

import json
import math
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from spikevideoformer.body.skeleton import BodyModel, Skeleton, forward_kinematics
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
_MOST_BYTES = 2**30  # the official files have 40 to 250 MB
_FARTHEST = 1000.0  # metres; no NaN is nearer
_MOST_VERTICES = 100_000  # SMPL has 6890
_WHERE = (
    "SMPL is licensed to each user and not part of this package: register at"
    " https://smpl.is.tue.mpg.de, accept the licence (non-commercial), download SMPL 1.1.0 for"
    " Python, and convert its basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl (smplx calls it"
    ' SMPL_NEUTRAL.pkl) once with spikevideoformer.body.smpl.convert_smpl(FILE, "smpl.safetensors")'
)


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
    if path is None or not path.is_file():
        raise ValueError(f"{'no SMPL file given' if path is None else f'no file {path}'}. {_WHERE}")
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path} is not converted: convert_smpl({str(path)!r}, 'smpl.safetensors')"
        )
    try:
        with safe_open(path, "pt") as file:
            written_as = (file.metadata() or {}).get("format")
            if written_as != _FORMAT:
                raise ValueError(f"{path} is {written_as or 'no SMPL'}, not {_FORMAT}. {_WHERE}")
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
        raise ValueError(f"no file {source}. {_WHERE}")
    if out.suffix != ".safetensors":
        raise ValueError(f"{out} must end in .safetensors, the only format that is written")
    if source.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{source} has more than {_MOST_BYTES // 2**20} MiB; give an SMPL file")
    read = {".pkl": _read_pickle, ".npz": _read_npz}.get(source.suffix)
    if read is None:
        raise ValueError(f"{source} must be .pkl or .npz, as downloaded. {_WHERE}")
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
        raise ValueError(f"{source} has no {', '.join(missing)}; give an SMPL file. {_WHERE}")
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
            if sum(member.file_size for member in archive.infolist()) > _MOST_BYTES:
                raise ValueError(f"unpacks to more than {_MOST_BYTES // 2**20} MiB")
        with np.load(source, allow_pickle=False) as file:
            return {name: file[name] for name in _NEEDED if name in file}
    except Exception as error:  # a damaged archive can fail in any way
        raise ValueError(f"{source} cannot be read ({_one_line(error)}). {_WHERE}") from error


def _read_pickle(source: Path) -> dict[str, Any]:
    try:
        with source.open("rb") as file:
            entries = _InertUnpickler(file, encoding="latin1").load()
        if not isinstance(entries, dict):
            raise pickle.UnpicklingError("it holds no dictionary")
        return {name: _resolve(entries[name]) for name in _NEEDED if name in entries}
    except Exception as error:  # a damaged pickle can fail in any way
        raise ValueError(f"{source} cannot be read ({_one_line(error)}). {_WHERE}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


class _Inert:
    """Stands for an object in a pickle: keeps what it is made of, and does nothing."""

    args: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> NDArray[Any]:
        """The numbers that the object stands for."""
        raise pickle.UnpicklingError("an array is something else")

    def field(self, name: str) -> Any:
        """An attribute that the object was saved with."""
        if not isinstance(self.state, dict) or name not in self.state:
            raise pickle.UnpicklingError(f"an object has no {name}")
        return _resolve(self.state[name])


def _resolve(value: Any) -> Any:
    return value.array() if isinstance(value, _Inert) else value


class _Reconstructor(_Inert):
    """`copyreg._reconstructor`, by which old protocols make an object of a class."""

    def array(self) -> NDArray[Any]:
        kind = self.args[0]
        if not isinstance(kind, type) or not issubclass(kind, _Inert):
            raise pickle.UnpicklingError("an object is of no class")
        made = kind()
        made.__setstate__(self.state)
        return made.array()


class _Latin1(_Inert):
    """`_codecs.encode`, by which Python 3 writes bytes in old protocols."""


class _Dtype(_Inert):
    def dtype(self) -> np.dtype[Any]:
        code, order = self.args[0], self.state[1]
        if not re.fullmatch(r"[fiu][1248]", code) or order not in ("<", ">", "|"):
            raise pickle.UnpicklingError(f"an array is of type {code!r:.20}, not of numbers")
        return np.dtype(order + code)


class _Array(_Inert):
    """`numpy.core.multiarray._reconstruct`: what an array holds is its state."""

    def array(self) -> NDArray[Any]:
        _, shape, dtype, fortran, data = self.state
        return _numbers(data, dtype, shape, "F" if fortran else "C")


class _Buffer(_Inert):
    """`numpy.core.numeric._frombuffer`: likewise, as arguments."""

    def array(self) -> NDArray[Any]:
        data, dtype, shape, order = self.args
        return _numbers(data, dtype, shape, order)


def _numbers(
    data: Any, dtype: Any, shape: tuple[int, ...], order: Literal["C", "F"]
) -> NDArray[Any]:
    if isinstance(data, _Latin1):
        data = data.args[0]
    if isinstance(data, str):  # bytes of Python 2, read as latin1
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray) or not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("an array holds objects, not numbers")
    return np.frombuffer(data, dtype.dtype()).reshape(shape, order=order)


class _Chumpy(_Inert):
    """`chumpy.Ch`, a constant of the library that SMPL was fitted with."""

    def array(self) -> NDArray[Any]:
        return self.field("x")


class _Csc(_Inert):
    """`scipy.sparse.csc_matrix`, made dense."""

    rows_compressed = False

    def array(self) -> NDArray[Any]:
        shape = tuple(int(n) for n in self.field("_shape"))
        data, indices, starts = (self.field(name) for name in ("data", "indices", "indptr"))
        if len(shape) != 2 or not all(0 < n <= _MOST_VERTICES for n in shape):
            raise pickle.UnpicklingError(f"a sparse matrix is of size {shape}")
        if math.prod(shape) * 8 > _MOST_BYTES:
            raise pickle.UnpicklingError(f"a sparse matrix is of size {shape}")
        lines, across = shape if self.rows_compressed else shape[::-1]
        per_line = np.diff(starts)
        if (
            len(per_line) != lines
            or starts[0] != 0
            or (per_line < 0).any()
            or not len(data) == len(indices) == starts[-1]
            or ((indices < 0) | (indices >= across)).any()
        ):
            raise pickle.UnpicklingError("a sparse matrix has indices beyond its size")
        dense = np.zeros((lines, across))
        np.add.at(dense, (np.repeat(np.arange(lines), per_line), indices), data)
        return dense if self.rows_compressed else dense.T


class _Csr(_Csc):
    rows_compressed = True


_STANDS_FOR: dict[tuple[str, str], type[_Inert]] = {
    ("numpy", "ndarray"): _Inert,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _Inert,
    ("numpy.core.numeric", "_frombuffer"): _Buffer,
    ("scipy.sparse.csc", "csc_matrix"): _Csc,
    ("scipy.sparse.csr", "csr_matrix"): _Csr,
    ("chumpy.ch", "Ch"): _Chumpy,
    ("copyreg", "_reconstructor"): _Reconstructor,
    ("builtins", "object"): _Inert,
    ("builtins", "set"): _Inert,
    ("_codecs", "encode"): _Latin1,
}
# Modules have had other names: in Python 2, before numpy 2 and in newer scipy.
_RENAMED = {"copy_reg": "copyreg", "__builtin__": "builtins"} | {
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
    "scipy.sparse._csc": "scipy.sparse.csc",
    "scipy.sparse._csr": "scipy.sparse.csr",
}


class _InertUnpickler(pickle.Unpickler):
    """Reads a pickle to plain values and `_Inert` objects; any other name is an error.

    Everything that a pickle can call it must first look up here, so it can call these classes,
    which keep their arguments, and nothing else.
    """

    def find_class(self, module: str, name: str) -> type[_Inert]:
        stand_in = _STANDS_FOR.get((_RENAMED.get(module, module), name))
        if stand_in is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which may be harmful")
        return stand_in
