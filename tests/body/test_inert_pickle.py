"""Pickles of arrays as plain values; how SMPL and 3DPW fare is tested with them."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevideoformer.body import inert_pickle
from spikevideoformer.body.inert_pickle import read_inert_pickle


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
