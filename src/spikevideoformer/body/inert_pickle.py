"""Pickles of arrays, read without executing anything.

A pickle can run any program when it is read, and licensed body models and some data sets come as
pickles. They are read here with nothing but inert classes of ours, which stand for those of numpy,
scipy and chumpy; none of the last two is needed. What joblib writes is read likewise: a pickle
whose arrays stand behind their descriptions in the file, all of it compressed or not.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 2**30  # SMPL has 40 to 250 MB, a sequence of 3DPW some MB
_MOST_LINES = 100_000  # of a sparse matrix; SMPL has 6890 vertices


def read_inert_pickle(path: Path, names: Iterable[str]) -> dict[str, Any]:
    """Read entries of the dictionary in a pickle of Python 2 or 3.

    Args:
        path: the file.
        names: of the entries; those that are absent are left out.

    Returns:
        Plain values, arrays of numbers, and lists of these.

    Raises:
        ValueError: the file is absent, too large, damaged or no dictionary, asks for any name but
            those of arrays, or has something else than plain values and numbers in an entry.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise pickle.UnpicklingError(f"it has more than {MOST_BYTES // 2**20} MiB")
        with path.open("rb") as file:
            entries = _InertUnpickler(file, encoding="latin1").load()
        if not isinstance(entries, dict):
            raise pickle.UnpicklingError("it holds no dictionary")
        found = {name: entries[name] for name in names if name in entries}
        return {
            name: [_resolve(item) for item in value] if type(value) is list else _resolve(value)
            for name, value in found.items()
        }
    except Exception as error:  # a damaged pickle can fail in any way
        raise ValueError(f"{path} cannot be read ({reason_of(error)})") from error


def read_inert_joblib(path: Path) -> Any:
    """Read what ``joblib.dump`` wrote, uncompressed or by zlib or gzip.

    Args:
        path: the file.

    Returns:
        Plain values, arrays of numbers, and lists, tuples and dicts of these.

    Raises:
        ValueError: the file is absent, too large, compressed otherwise or damaged, asks for any
            name but those of arrays, or has something else than plain values and numbers.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise pickle.UnpicklingError(f"it has more than {MOST_BYTES // 2**20} MiB")
        return _plain(_JoblibUnpickler(io.BytesIO(_unpacked(path.read_bytes()))).load())
    except Exception as error:  # a damaged pickle can fail in any way
        raise ValueError(f"{path} cannot be read ({reason_of(error)})") from error


def reason_of(error: BaseException) -> str:
    """What an error of another library says, on one short line."""
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
        if not re.fullmatch(r"[fiu][1248]|b1", code) or order not in ("<", ">", "|"):
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
        if len(shape) != 2 or not all(0 < n <= _MOST_LINES for n in shape):
            raise pickle.UnpicklingError(f"a sparse matrix is of size {shape}")
        if math.prod(shape) * 8 > MOST_BYTES:
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


class _Scalar(_Inert):
    """`numpy.core.multiarray.scalar`."""

    def array(self) -> Any:
        dtype, data = self.args
        return _numbers(data, dtype, (), "C").item()


_STANDS_FOR: dict[tuple[str, str], type[_Inert]] = {
    ("numpy", "ndarray"): _Inert,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _Scalar,
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
        return _stand_in(module, name)


def _stand_in(module: str, name: str) -> type[_Inert]:
    stand_in = _STANDS_FOR.get((_RENAMED.get(module, module), name))
    if stand_in is None:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which may be harmful")
    return stand_in


# --- joblib ---------------------------------------------------------------------------------------


class _StoredArray(_Inert):
    """`joblib.numpy_pickle.NumpyArrayWrapper`: its numbers follow it in the file.

    Source: joblib 1.6.0, ``numpy_pickle.py``.
    """

    def read(self, file: io.BytesIO) -> NDArray[Any]:
        """The array; the file stands behind it afterwards."""
        shape, order, dtype = (self.state[name] for name in ("shape", "order", "dtype"))
        if self.state.get("numpy_array_alignment_bytes") is not None:
            file.read(file.read(1)[0])  # what brings the numbers to a round address
        if not isinstance(dtype, _Dtype) or order not in ("C", "F"):
            raise pickle.UnpicklingError("an array holds objects, not numbers")
        size = math.prod(int(n) for n in shape) * dtype.dtype().itemsize
        return _numbers(file.read(size), dtype, tuple(int(n) for n in shape), order)


class _JoblibUnpickler(pickle._Unpickler):
    """As `_InertUnpickler`, in Python, so that arrays can be taken out of the file in between."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._file = file

    def find_class(self, module: str, name: str) -> type[_Inert]:
        if (module, name) == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
            return _StoredArray
        return _stand_in(module, name)

    def load_build(self) -> None:
        super().load_build()  # type: ignore[misc]
        stack = self.stack  # type: ignore[attr-defined]
        if isinstance(stack[-1], _StoredArray):
            stack[-1] = stack[-1].read(self._file)

    dispatch[pickle.BUILD[0]] = load_build


def _unpacked(content: bytes) -> bytes:
    if content[:1] == b"\x80":  # a pickle of protocol 2 or later
        return content
    if content[:1] != b"x" and content[:2] != b"\x1f\x8b":
        raise pickle.UnpicklingError(
            "it is not of joblib, or compressed otherwise than by zlib or gzip"
        )
    unpacking = zlib.decompressobj(wbits=47)  # either
    unpacked = unpacking.decompress(content, MOST_BYTES)
    if not unpacking.eof:
        raise pickle.UnpicklingError(f"it is cut off, or unpacks to {len(unpacked)} bytes or more")
    return unpacked


def _plain(value: Any) -> Any:
    """Without stand-ins."""
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    if type(value) is dict:
        return {_plain(key): _plain(item) for key, item in value.items()}
    return _resolve(value)
