"""VSPW, on small files in its official layout."""

import json
from pathlib import Path

import pytest

from spikevideoformer.data.problems import DatasetError
from spikevideoformer.tasks.segmentation.index import read_sequences
from spikevideoformer.tasks.segmentation.masks import read_mask
from spikevideoformer.tasks.segmentation.sequence import IGNORED

from .frames import assert_sound, flat, lengths, names, picture, problems, save, write

NUMBERS = {f"thing {number}": number for number in range(1, 125)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for video, count in (("10_a", 2), ("11_b", 1), ("12_c", 1)):
        for number in range(8, 8 + count):
            picture(tmp_path / f"data/{video}/origin/{number:08d}.jpg")
            if video != "12_c":
                flat(tmp_path / f"data/{video}/mask/{number:08d}.png", 124)
    for split, video in (("train", "10_a"), ("val", "11_b"), ("test", "12_c")):
        write(tmp_path / f"{split}.txt", f"{video}\n")
    return tmp_path


def test_videos(root: Path) -> None:
    index = read_sequences(root)
    assert index.layout == "vspw"
    assert lengths(index) == {
        "train/10_a": ("train", 2, 2),
        "val/11_b": ("val", 1, 1),
        "test/12_c": ("test", 1, 0),
    }
    assert [f.number for f in index.sequences[0].frames] == [8, 9]
    assert index.sequences[1].frames[0].source == "val.txt:1"
    assert_sound(index)


def test_values(root: Path) -> None:
    path = save(root / "data/10_a/mask/00000008.png", [[0, 1, 124, 255]])
    assert read_mask(path, read_sequences(root).code).tolist() == [[IGNORED, 0, 123, IGNORED]]


def test_names(root: Path) -> None:
    index = read_sequences(root)
    assert (index.classes[0], index.classes[-1]) == ("class_1", "class_124")
    assert len(set(index.palette)) == 124
    write(root / "label_num_dic_final.json", json.dumps({"others": 0} | NUMBERS))
    assert read_sequences(root).classes == tuple(NUMBERS)


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"a": "x"}', json.dumps(dict(list(NUMBERS.items())[1:]))]
)
def test_bad_names(root: Path, text: str) -> None:
    write(root / "label_num_dic_final.json", text)
    with pytest.raises(DatasetError, match="does not map names to the numbers 1 to 124"):
        read_sequences(root)


def test_what_does_not_fit_is_collected(root: Path) -> None:
    write(root / "train.txt", "10_a\n13_d\na/b\n10_a\n")
    write(root / "test.txt", "")
    flat(root / "data/10_a/mask/00000099.png", 1)
    picture(root / "data/10_a/origin/last.jpg")
    picture(root / "data/10_a/origin/9.jpg")
    index = read_sequences(root)
    assert problems(index) == [
        ("label without image", "data/10_a/mask"),
        ("unknown name", "train.txt:1"),
        ("repeated frame", "train.txt:1"),
        ("missing file", "train.txt:2"),
        ("malformed line", "train.txt:3"),
        ("malformed line", "train.txt:4"),
        ("split without samples", "test.txt"),
    ]
    assert names(index) == ["00000008", "00000009", "00000008"]
