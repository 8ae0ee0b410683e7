"""What the readers of pose data sets share: arrays from files, and the problem of a bad file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy.typing import NDArray

from spikevideoformer.body.inert_pickle import reason_of
from spikevideoformer.body.rotations import matrix_from_axis_angle
from spikevideoformer.data.problems import Problem, relative

Shape = tuple[int | None, ...]


def read_npz(
    path: Path, shapes: Mapping[str, Shape], *, texts: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """Read arrays from an archive of numpy. Python objects are not loaded.

    Args:
        path: `.npz` file.
        shapes: of each array by its name, None for a length that may be any.
        texts: names of those that hold texts; the others hold numbers.

    Raises:
        ValueError: the file is absent or damaged, holds Python objects, or lacks such an array.
    """
    try:
        # Given its name, numpy would leave a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in shapes if name in archive}
    except Exception as error:  # a damaged archive can fail in any way
        raise ValueError(f"{path} cannot be read ({reason_of(error)})") from error
    for name, shape in shapes.items():
        check_array(path, name, arrays.get(name), shape, kinds="U" if name in texts else "iuf")
    return arrays


def check_array(path: Path, name: str, array: Any, shape: Shape, *, kinds: str = "iuf") -> None:
    """Check what a file holds.

    Args:
        path: the file.
        name: of the array in it.
        array: what was found; None: nothing.
        shape: None for a length that may be any.
        kinds: letters of the types of numpy that it may have.

    Raises:
        ValueError: it is no such array.
    """
    if array is None:
        raise ValueError(f"{path} has no {name}")
    if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds:
        expected = "text" if kinds == "U" else "numbers"
        raise ValueError(f"{path} has {name} that is no array of {expected}")
    fits = array.ndim == len(shape) and all(
        expected in (None, length) for length, expected in zip(array.shape, shape, strict=True)
    )
    if not fits:
        expected = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(f"{path} has {name} {list(array.shape)}; expected [{expected}]")


def float32(array: np.ndarray) -> NDArray[np.float32]:
    """The numbers in single precision; those that are too large for it become infinite."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def rotations_from_axis_angles(
    vectors: Float[np.ndarray, "F n"],
) -> Float32[np.ndarray, "F J 3 3"]:
    """Matrices of J joints from their J times 3 numbers, axis times angle in radians."""
    axis_angles = torch.from_numpy(vectors.astype(np.float64)).unflatten(-1, (-1, 3))
    return matrix_from_axis_angle(axis_angles).float().numpy()


def bad_file(path: Path, root: Path, error: ValueError, split: str | None) -> Problem:
    """The problem of a file whose poses cannot be used."""
    reason = str(error)
    remedy = "restore it, or leave it out"
    return Problem("unusable poses", relative(path, root), reason, remedy, path=path, split=split)
