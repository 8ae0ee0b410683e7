"""What the readers of pose data sets share: arrays out of files that may hold anything."""

from pathlib import Path

import numpy as np
import pytest

from spikevideoformer.tasks.pose.layouts.files import (
    Shape,
    bad_file,
    check_array,
    float32,
    read_npz,
    rotations_from_axis_angles,
)

SHAPES: dict[str, Shape] = {"points": (None, 2), "names": (None,)}


def test_arrays_come_back(tmp_path: Path) -> None:
    """Those that are asked for; others may be anything."""
    path = tmp_path / "a.npz"
    points, names = np.arange(6.0).reshape(3, 2), np.array(["a", "b"])
    np.savez(path, points=points, names=names, more=np.array([None]))
    arrays = read_npz(path, SHAPES, texts=("names",))
    assert list(arrays) == ["points", "names"]
    np.testing.assert_array_equal(arrays["points"], points)
    assert arrays["names"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"points": np.zeros((3, 2))}, "a.npz has no names"),
        ({"points": np.zeros((3, 3)), "names": np.array(["a"])}, r"points \[3, 3\]; .*\[any, 2\]"),
        ({"points": np.zeros(2), "names": np.array(["a"])}, r"points \[2\]; expected \[any, 2\]"),
        ({"points": np.array([["a", "b"]]), "names": np.array(["a"])}, "no array of numbers"),
        ({"points": np.zeros((3, 2)), "names": np.zeros(3)}, "names that is no array of text"),
        ({"points": np.array([None])}, "a.npz cannot be read .Object arrays cannot be loaded"),
    ],
)
def test_other_arrays(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_npz(tmp_path / "a.npz", SHAPES, texts=("names",))


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04", "cut", "flipped"])
def test_damaged_files(content: bytes | str | None, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, points=np.zeros((3, 2)), names=np.array(["a"]))
    whole = path.read_bytes()
    if content is None:
        path.unlink()
    elif content == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif content == "flipped":
        at = whole.index(b"\x93NUMPY") + 140  # among the numbers, which have a checksum
        path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
    else:
        assert isinstance(content, bytes)
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz cannot be read \(.+\)"):
        read_npz(path, SHAPES, texts=("names",))


@pytest.mark.parametrize("array", [None, [1, 2], 3.0, np.array([1j, 2])])
def test_what_is_no_array_of_numbers(array: object) -> None:
    with pytest.raises(ValueError, match=r"a\.pkl has (no betas|betas that is no array)"):
        check_array(Path("a.pkl"), "betas", array, (2,))


def test_numbers_that_are_too_large_become_infinite() -> None:
    assert float32(np.array([1e300, -1e300, 0.5, np.nan])).tolist()[:3] == [np.inf, -np.inf, 0.5]


def test_rotations() -> None:
    """A quarter turn about z takes x to y; what is not known stays so."""
    found = rotations_from_axis_angles(np.array([[0, 0, np.pi / 2, 0, 0, 0], [np.nan] * 6]))
    assert found.shape == (2, 2, 3, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found[0, 0], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(found[0, 1], np.eye(3), atol=1e-6)
    assert np.isnan(found[1]).all()


def test_the_problem_of_a_bad_file(tmp_path: Path) -> None:
    problem = bad_file(tmp_path / "b" / "a.npz", tmp_path, ValueError("has no beta"), "val")
    assert (problem.source, problem.split, problem.path) == (
        "b/a.npz",
        "val",
        tmp_path / "b" / "a.npz",
    )
    assert str(problem) == "b/a.npz: unusable poses: has no beta; restore it, or leave it out"
