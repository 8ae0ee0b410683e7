"""Folders of pictures with masks beside them."""

from pathlib import Path

import pytest

from spikevideoformer.data.problems import DatasetError
from spikevideoformer.tasks.segmentation.index import read_sequences
from spikevideoformer.tasks.segmentation.layouts.mask_folders import pair, pictures_in

from .frames import assert_sound, flat, lengths, names, picture, problems, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two sequences of train, one of them half labelled, and one of val."""
    write(tmp_path / "classes.csv", "id,name\n0,a\n1,b\n")
    for sequence, count in (("train/s1", 3), ("train/s2", 2), ("validation/s1", 1)):
        for i in range(count):
            picture(tmp_path / sequence / f"images/f{i * 5}.png")
            flat(tmp_path / sequence / f"labels/f{i * 5}.png", i % 2)
    (tmp_path / "train/s1/labels/f5.png").unlink()
    return tmp_path


def test_sequences(root: Path) -> None:
    index = read_sequences(root)
    assert index.layout == "folders"
    assert lengths(index) == {
        "train/s1": ("train", 3, 2),
        "train/s2": ("train", 2, 2),
        "validation/s1": ("val", 1, 1),
    }
    assert names(index)[:3] == ["f0", "f5", "f10"]
    assert [f.number for f in index.sequences[0].frames] == [0, 1, 2]
    assert index.classes == ("a", "b")
    assert_sound(index)


def test_what_does_not_fit_is_collected(root: Path) -> None:
    flat(root / "train/s1/labels/f99.png", 0)
    picture(root / "train/s1/images/f0.jpg")
    (root / "train/empty").mkdir()
    write(root / "train/s1/images/.f1.png", "hidden")
    write(root / "train/s1/images/notes.txt", "notes")
    assert problems(read_sequences(root)) == [
        ("empty sequence", "train/empty"),
        ("label without image", "train/s1/labels"),
        ("repeated frame", "train/s1"),
    ]


def test_without_classes(root: Path) -> None:
    (root / "classes.csv").unlink()
    with pytest.raises(DatasetError, match=r"classes\.csv does not exist; write the classes"):
        read_sequences(root)


def test_pictures_in(root: Path) -> None:
    assert [p.name for p in pictures_in(root / "train/s1/images")] == [
        "f0.png",
        "f5.png",
        "f10.png",
    ]
    assert pictures_in(root / "train/s1/nothing") == []


def test_pair(tmp_path: Path) -> None:
    images, labels = [Path("i/1.jpg"), Path("i/2.jpg")], [Path("l/2_L.png"), Path("l/3_L.png")]
    found, unpaired = pair(
        images, labels, root=tmp_path, split="val", name_of_label=lambda p: p.stem[:-2]
    )
    assert found == {images[0]: None, images[1]: labels[0]}
    assert [(p.kind, p.path, p.split) for p in unpaired] == [
        ("label without image", labels[1], "val")
    ]
