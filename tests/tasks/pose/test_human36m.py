"""Human3.6M in its official layout."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevideoformer.body.skeleton import Skeleton
from spikevideoformer.data.problems import DatasetError
from spikevideoformer.tasks.pose.index import read_poses
from spikevideoformer.tasks.pose.layouts.human36m import (
    HUMAN36M_JOINTS,
    HUMAN36M_PARENTS,
    read_human36m,
)
from spikevideoformer.tasks.pose.sequence import fit_skeleton

from .poses import assert_sound, assert_truth, body, only_problem, write_cdf, write_human36m

FOLDER = Path("S1/MyPoseFeatures")
TAKE = "Directions 1.54138969"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    pytest.importorskip("cdflib", reason="CDF files are read by the package cdflib")
    return write_human36m(tmp_path)


def test_what_is_read(root: Path) -> None:
    (root / FOLDER / "D3_Positions_mono/_ALL.54138969.cdf").write_bytes(b"not read")
    index = read_poses(root)
    assert_sound(index)
    assert (index.layout, index.splits) == ("human36m", ("train", "val"))
    assert [(s.name, s.action, s.split) for s in index.sequences] == [
        ("S1/Directions 1.54138969", "Directions", "train"),
        ("S1/Walking.54138969", "Walking", "train"),
        ("S9/Directions.54138969", "Directions", "val"),
    ]
    for sequence in index.sequences:
        take = sequence.name[3:].partition(".")[0]
        assert_truth(sequence, body(HUMAN36M_PARENTS, 4, seed=len(take)), turned=False)
        assert sequence.frame_rate_hz == 50
        assert sequence.pictures == root / sequence.name[:2] / f"Videos/{sequence.name[3:]}.mp4"
    lengths = np.linalg.norm(body(HUMAN36M_PARENTS, 4).offsets, axis=-1)
    np.testing.assert_allclose(fit_skeleton(index).offsets.norm(dim=-1), lengths, atol=1e-5)
    with pytest.raises(DatasetError, match=r"has no split 'test' \(it has: train, val\)"):
        read_poses(root, split="test")


def test_its_tree() -> None:
    skeleton = Skeleton(HUMAN36M_JOINTS, HUMAN36M_PARENTS, np.ones((17, 3)).tolist())
    assert skeleton.hips == (4, 1)
    assert len(skeleton.symmetric_pairs) == 6
    above = {name: HUMAN36M_JOINTS[p] for name, p in zip(HUMAN36M_JOINTS, HUMAN36M_PARENTS)}  # noqa: B905
    assert above["left_wrist"] == "left_elbow" and above["right_ankle"] == "right_knee"
    assert above["left_shoulder"] == above["right_shoulder"] == above["neck"] == "thorax"


def cdf(folder: str, shape: tuple[int, ...], **options: Any) -> Callable[[Path], None]:
    return lambda root: write_cdf(root / FOLDER / folder / f"{TAKE}.cdf", np.ones(shape), **options)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cdf("D3_Positions_mono", (1, 4, 96), name="Other"), "cannot be read .*Pose"),
        (cdf("D3_Positions_mono", (1, 4, 51)), r"has Pose \[4, 51\]; expected \[any, 96\]"),
        (cdf("D3_Positions_mono", (2, 4, 96)), r"has Pose \[2, 4, 96\]; expected \[any, 96\]"),
        (cdf("D2_Positions", (1, 5, 64)), "has 4 frames, its file in D2_Positions 5"),
        (cdf("D2_Positions", (1, 4, 64)), "joints and points fit no camera"),
        (cdf("D3_Positions_mono", (1, 4, 96)), "all joints are in one line with the camera"),
        (
            lambda root: (root / FOLDER / f"D2_Positions/{TAKE}.cdf").unlink(),
            "D2_Positions/.* cannot be read .*not found",
        ),
        (
            lambda root: (root / FOLDER / f"D3_Positions_mono/{TAKE}.cdf").write_bytes(b"damaged"),
            "cannot be read .*not a CDF file",
        ),
    ],
)
def test_malformed(damage: Callable[[Path], Any], message: str, root: Path) -> None:
    damage(root)
    index = read_human36m(root)
    problem = only_problem(index)
    assert problem.source == f"{FOLDER}/D3_Positions_mono/{TAKE}.cdf"
    assert re.search(message, str(problem))
    assert len(index.sequences) == 2


def test_without_cdflib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FOLDER / "D3_Positions_mono").mkdir(parents=True)
    monkeypatch.setattr("spikevideoformer.tasks.pose.layouts.human36m.find_spec", lambda name: None)
    with pytest.raises(DatasetError, match=r'pip install "spikevideoformer\[human36m\]"'):
        read_poses(tmp_path)
