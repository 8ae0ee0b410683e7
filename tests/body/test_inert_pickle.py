"""Pickles of arrays as plain values; how SMPL and 3DPW fare is tested with them."""

import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from spikevideoformer.body import inert_pickle
from spikevideoformer.body.inert_pickle import read_inert_joblib, read_inert_pickle

from ..payload import Payload


def written(path: Path, entries: Any, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(entries, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_values_arrays_and_lists(protocol: int, tmp_path: Path) -> None:
    arrays = [
        np.arange(6.0).reshape(2, 3).T,
        np.array([True, False]),
        np.array([7, 2**16 - 1], ">u2"),
    ]
    entries = {"list": arrays, "array": arrays[0], "text": "walk", "numbers": [1, 2.5], "rest": {1}}
    path = written(tmp_path / "a.pkl", entries, protocol)
    found = read_inert_pickle(path, ("list", "array", "text", "numbers", "absent"))
    assert list(found) == ["list", "array", "text", "numbers"]
    for array, expected in zip([*found["list"], found["array"]], [*arrays, arrays[0]], strict=True):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == expected.dtype
    assert (found["text"], found["numbers"]) == ("walk", [1, 2.5])


def test_objects_matter_only_in_what_is_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path / "a.pkl", {"good": np.ones(2), "bad": [np.array([{}])]})
    assert read_inert_pickle(path, ["good"])["good"].tolist() == [1, 1]
    with pytest.raises(ValueError, match=r"a.pkl cannot be read \(an array holds objects, not num"):
        read_inert_pickle(path, ["bad"])


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"none.pkl cannot be read \(.*No such file"):
        read_inert_pickle(tmp_path / "none.pkl", [])
    with pytest.raises(ValueError, match=r"\(it asks for pathlib\..*, which may be harmful\)"):
        read_inert_pickle(written(tmp_path / "a.pkl", {"a": Path("x")}), [])
    path = written(tmp_path / "b.pkl", {"a": 1})
    monkeypatch.setattr(inert_pickle, "MOST_BYTES", 3)
    with pytest.raises(ValueError, match=r"b.pkl cannot be read \(it has more than 0 MiB\)"):
        read_inert_pickle(path, ["a"])


# --- joblib ---------------------------------------------------------------------------------------


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, np.ndarray):
        return found.dtype == expected.dtype and np.array_equal(found, expected)
    if isinstance(expected, (list, tuple)):
        return type(found) is type(expected) and all(map(same, found, expected))
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[k], expected[k]) for k in found)
    return bool(found == expected)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("compress", [0, 3, ("zlib", 1), ("gzip", 9)])
def test_what_joblib_writes(compress: Any, protocol: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.random((1, 10)), np.asfortranarray(rng.random((24, 3))), np.zeros((0, 3))]
    arrays += [np.arange(9, dtype=">i4")[::2], np.array(True), rng.random(9999)]
    held = {"arrays": tuple(arrays), "numbers": [1, 2, np.int64(7), np.float32(2.5)], "rest": None}
    for value in (held, arrays, [3, 5], arrays[1]):
        joblib.dump(value, tmp_path / "a.pkl", compress=compress, protocol=protocol)
        assert same(read_inert_joblib(tmp_path / "a.pkl"), value)


@pytest.mark.parametrize("compress", [0, 3])
def test_a_payload_is_not_run(compress: int, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "a.pkl"
    joblib.dump([np.zeros(3), Payload(canary)], path, compress=compress)
    with pytest.raises(ValueError, match=r"a\.pkl cannot be read \(it asks for .*mkdir") as error:
        read_inert_joblib(path)
    assert "\n" not in str(error.value) and not canary.exists()
    joblib.load(path)  # the canary works
    assert canary.exists()


def test_other_files_of_joblib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pkl"
    for value, compress, says in (
        (np.zeros(3), ("bz2", 3), "compressed otherwise than by zlib or gzip"),
        (np.array([None, {}], object), 0, "an array is of type 'O8'"),
        ({"a": Path("x")}, 3, "it asks for pathlib"),
    ):
        joblib.dump(value, path, compress=compress)
        with pytest.raises(ValueError, match=says):
            read_inert_joblib(path)
    for compress in (0, 3):
        joblib.dump([np.arange(40.0), np.ones((3, 3))], path, compress=compress)
        whole = path.read_bytes()
        for end in range(0, len(whole) - 1, 5):
            path.write_bytes(whole[:end])
            with pytest.raises(ValueError, match="cannot be read"):
                read_inert_joblib(path)
    path.write_bytes(whole)
    monkeypatch.setattr(inert_pickle, "MOST_BYTES", len(whole))
    with pytest.raises(ValueError, match="it is cut off, or unpacks to"):
        read_inert_joblib(path)
