"""Cityscapes, on small files in its official layout."""

from pathlib import Path

import numpy as np
import pytest

from spikevideoformer.tasks.segmentation.check import check_sequences
from spikevideoformer.tasks.segmentation.index import read_sequences
from spikevideoformer.tasks.segmentation.masks import read_mask
from spikevideoformer.tasks.segmentation.sequence import IGNORED

from .frames import assert_sound, flat, lengths, picture, problems, save


def image(root: Path, split: str, stem: str, folder: str = "leftImg8bit_sequence") -> Path:
    city = stem.partition("_")[0]
    return picture(root / folder / split / city / f"{stem}_leftImg8bit.png")


def label(root: Path, split: str, stem: str, value: int = 7) -> Path:
    city = stem.partition("_")[0]
    folder = root / "gtFine" / split / city
    flat(folder / f"{stem}_gtFine_color.png", (1, 2, 3))
    flat(folder / f"{stem}_gtFine_instanceIds.png", value)
    return flat(folder / f"{stem}_gtFine_labelIds.png", value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in (0, 1, 2, 30, 31):
        image(tmp_path, "train", f"aachen_000000_{number:06d}")
    image(tmp_path, "train", "aachen_000001_000003")
    image(tmp_path, "val", "lindau_000000_000019")
    label(tmp_path, "train", "aachen_000000_000002")
    label(tmp_path, "train", "aachen_000000_000030")
    label(tmp_path, "val", "lindau_000000_000019")
    return tmp_path


def test_snippets(root: Path) -> None:
    index = read_sequences(root)
    assert index.layout == "cityscapes"
    assert lengths(index) == {
        "aachen_000000_000000": ("train", 3, 1),
        "aachen_000000_000030": ("train", 2, 1),
        "aachen_000001_000003": ("train", 1, 0),
        "lindau_000000_000019": ("val", 1, 1),
    }
    assert [f.label is not None for f in index.sequences[0].frames] == [False, False, True]
    assert_sound(index)


def test_labelled_pictures_alone(tmp_path: Path) -> None:
    for number in (19, 49):
        image(tmp_path, "train", f"aachen_000000_{number:06d}", "leftImg8bit")
        label(tmp_path, "train", f"aachen_000000_{number:06d}")
    assert [count for _, count, _ in lengths(read_sequences(tmp_path)).values()] == [1, 1]


def test_a_split_without_sequences_uses_its_pictures(root: Path) -> None:
    image(root, "test", "berlin_000000_000019", "leftImg8bit")
    image(root, "val", "munster_000000_000019", "leftImg8bit")
    found = lengths(read_sequences(root))
    assert found["berlin_000000_000019"] == ("test", 1, 0)
    assert "munster_000000_000019" not in found


def test_ids(root: Path) -> None:
    path = root / "gtFine/train/aachen/aachen_000000_000002_gtFine_labelIds.png"
    save(path, [[7, 33, 26], [0, 34, 255], [29, 30, 6]])
    index = read_sequences(root)
    assert index.classes[0] == "road"
    assert (index.classes[-1], index.palette[-1]) == ("bicycle", (119, 11, 32))
    assert len(index.classes) == len(set(index.palette)) == 19
    mask = read_mask(path, index.code)
    assert mask.tolist() == [[0, 18, 13], [IGNORED] * 3, [IGNORED] * 3]


def test_each_train_id_has_its_class(root: Path) -> None:
    code = read_sequences(root).code
    ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    values = dict(code.values)
    assert [values[i] for i in ids] == list(range(19))  # type: ignore[index]
    assert {c for i, c in values.items() if i not in ids} == {IGNORED}


def test_dummies_of_the_test_split(root: Path) -> None:
    image(root, "test", "berlin_000000_000019")
    label(root, "test", "berlin_000000_000019", value=0)
    report = check_sequences(read_sequences(root))
    assert report.problems == ()
    assert report.class_pixels is not None
    assert np.sum(report.class_pixels["test"]) == 0


def test_what_does_not_fit_is_collected(root: Path) -> None:
    label(root, "train", "aachen_000009_000019")
    image(root, "train", "aachen_x")
    (root / "leftImg8bit_sequence/test").mkdir()
    assert problems(read_sequences(root)) == [
        ("label without image", "gtFine/train/aachen"),
        ("unknown name", "leftImg8bit_sequence/train/aachen"),
        ("split without samples", "leftImg8bit_sequence/test"),
    ]
