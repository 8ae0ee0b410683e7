"""The layouts of frames with masks are recognised, and mistakes are told in one line."""

from pathlib import Path

import pytest

from spikevideoformer.data.problems import DatasetError
from spikevideoformer.tasks.segmentation.index import SEQUENCE_LAYOUTS, read_sequences

from .frames import picture, write


def table(root: Path) -> None:
    write(root / "classes.csv", "id,name\n0,a\n")
    write(root / "splits.csv", "image,label,split\na/1.png,,train\na/2.png,,val\n")


def test_any_name_is_a_split_of_a_table(tmp_path: Path) -> None:
    table(tmp_path)
    write(tmp_path / "splits.csv", "image,label,split\na/1.png,,Drive 2\na/2.png,,val\n")
    assert read_sequences(tmp_path).splits == ("val", "drive 2")
    assert read_sequences(tmp_path, split="drive 2").frames == 1
    with pytest.raises(DatasetError, match=r"no split 'drive' \(it has: val, drive 2\)"):
        read_sequences(tmp_path, split="drive")


def camvid(root: Path) -> None:
    (root / "LabeledApproved_full").mkdir()
    picture(root / "701_StillsRaw_full/0001TP_006690.png")


def cityscapes(root: Path) -> None:
    (root / "gtFine").mkdir()
    picture(root / "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png")


def vspw(root: Path) -> None:
    write(root / "train.txt", "v\n")
    picture(root / "data/v/origin/00000001.png")


def folders(root: Path) -> None:
    write(root / "classes.csv", "id,name\n0,a\n")
    picture(root / "train/s/images/1.png")


@pytest.mark.parametrize("make", [table, camvid, cityscapes, vspw, folders])
def test_recognised(tmp_path: Path, make: object) -> None:
    make(tmp_path)  # type: ignore[operator]
    index = read_sequences(str(tmp_path))
    assert index.layout == make.__name__  # type: ignore[attr-defined]
    assert index.layout in SEQUENCE_LAYOUTS
    assert index.root == tmp_path
    assert index.problems == ()
    assert index == read_sequences(tmp_path, layout=index.layout)


def test_one_split(tmp_path: Path) -> None:
    table(tmp_path)
    assert read_sequences(tmp_path, split="validation").splits == ("val",)
    with pytest.raises(DatasetError, match="no split 'test'"):
        read_sequences(tmp_path, split="test")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist; give the folder that holds the frames"):
        read_sequences(tmp_path / "x")
    with pytest.raises(DatasetError, match="is a file"):
        read_sequences(write(tmp_path / "f", ""))


def test_no_layout(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no frames with masks: expected splits\.csv"):
        read_sequences(tmp_path)
    with pytest.raises(DatasetError, match="unknown layout 'ade'; choose one of table, camvid"):
        read_sequences(tmp_path, layout="ade")


@pytest.mark.parametrize("layout", ["table", "camvid"])
def test_a_layout_whose_files_are_not_there(tmp_path: Path, layout: str) -> None:
    with pytest.raises(DatasetError, match=r"classes\.csv does not exist|holds no frame"):
        read_sequences(tmp_path, layout=layout)
    write(tmp_path / "classes.csv", "id,name\n0,a\n")
    with pytest.raises(DatasetError, match=r"splits\.csv cannot be read|holds no frame"):
        read_sequences(tmp_path, layout=layout)
