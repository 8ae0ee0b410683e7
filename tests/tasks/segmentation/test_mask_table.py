"""Frames with masks listed in splits.csv, and the classes of classes.csv."""

from pathlib import Path

import numpy as np
import pytest

from spikevideoformer.data.problems import DatasetError
from spikevideoformer.tasks.segmentation.check import check_sequences
from spikevideoformer.tasks.segmentation.index import read_sequences
from spikevideoformer.tasks.segmentation.layouts.mask_table import read_class_table
from spikevideoformer.tasks.segmentation.masks import distinct_palette, read_mask
from spikevideoformer.tasks.segmentation.sequence import IGNORED

from .frames import assert_sound, flat, lengths, names, picture, problems, write

CLASSES = "id,name,r,g,b\n4,car,1,2,3\n2,road,,,\n7,Void,0,0,0\n"


def table(root: Path, *lines: str, header: str = "image,label,split") -> Path:
    write(root / "classes.csv", CLASSES)
    write(root / "splits.csv", "\n".join((header, *lines)) + "\n")
    return root


class TestClasses:
    def test_order_colours_and_what_is_no_class(self, tmp_path: Path) -> None:
        write(tmp_path / "classes.csv", CLASSES)
        table = read_class_table(tmp_path)
        assert table.names == ("road", "car")
        assert table.palette == (distinct_palette(1)[0], (1, 2, 3))
        assert dict(table.code.values) == {2: 0, 4: 1, 7: IGNORED, 255: IGNORED}

    @pytest.mark.parametrize("name", ["unlabelled", "Unlabeled", "VOID", "ignore", "Ignored"])
    def test_names_of_no_class(self, tmp_path: Path, name: str) -> None:
        write(tmp_path / "classes.csv", f"id,name\n0,{name}\n1,background\n")
        assert read_class_table(tmp_path).names == ("background",)

    def test_a_class_may_have_the_id_255(self, tmp_path: Path) -> None:
        write(tmp_path / "classes.csv", "id,name\n0,a\n255,b\n")
        assert dict(read_class_table(tmp_path).code.values) == {0: 0, 255: 1}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("id\n0\n", r"classes\.csv:1: the header has no column name; begin the file with: id"),
            ("id,name\n0,a\nx,b\n", r"classes\.csv:3: id is 'x' and name 'b'"),
            ("id,name\n-1,a\n", r"classes\.csv:2: id is '-1'"),
            ("id,name\n0,\n", r"classes\.csv:2: id is '0' and name ''"),
            ("id,name\n0,a\n0,b\n", r"classes\.csv:3: id 0 or name 'b' comes twice"),
            ("id,name\n0,a\n1,a\n", r"classes\.csv:3: id 1 or name 'a' comes twice"),
            ("id,name,r,g,b\n0,a,1,2,256\n", r"classes\.csv:2: r,g,b is 1,2,256"),
            ("id,name,r,g,b\n0,a,1,2\n", r"classes\.csv:2: 4 fields where the header has 5"),
            ('id,name\n0,"a\n', r"classes\.csv:2: a quote is not closed"),
            ("id,name\n0,void\n", "has 0 classes; list 1 to 254"),
        ],
    )
    def test_mistakes(self, tmp_path: Path, text: str, message: str) -> None:
        write(tmp_path / "classes.csv", text)
        with pytest.raises(DatasetError, match=message):
            read_class_table(tmp_path)

    def test_no_list(self, tmp_path: Path) -> None:
        write(tmp_path / "splits.csv", "image,label,split\na.png,,train\n")
        with pytest.raises(DatasetError, match="write the classes of the masks there, first a"):
            read_sequences(tmp_path)


class TestSplits:
    def test_sequences_by_segment(self, tmp_path: Path) -> None:
        for i in range(4):
            picture(tmp_path / f"a/{i}.png")
            flat(tmp_path / f"m/{i}.png", (2, 4, 7, 255)[i])
        root = table(
            tmp_path,
            "a/2.png,m/2.png,training,v,v1,30",
            "a/0.png,m/0.png,train,v,v0,9",
            "a/1.png,,train,v,v0,10",
            "a/3.png,m/3.png,val,w,,0",
            header="image,label,split,sequence,segment,frame",
        )
        index = read_sequences(root)
        assert index.layout == "table"
        assert lengths(index) == {
            "v1": ("train", 1, 1),
            "v0": ("train", 2, 1),
            "w": ("val", 1, 1),
        }
        assert names(index) == ["2", "0", "1", "3"]
        assert [f.source for f in index.sequences[1].frames] == ["splits.csv:3", "splits.csv:4"]
        assert [f.number for f in index.sequences[1].frames] == [9, 10]
        assert_sound(index)
        label = index.sequences[0].frames[0].label
        assert label is not None
        assert (read_mask(label, index.code) == IGNORED).all()

    def test_without_columns_the_folder_and_the_name_decide(self, tmp_path: Path) -> None:
        root = table(tmp_path, "a/10.png,,train", "b/1.png,,train", "a/9.png,,train")
        index = read_sequences(root)
        assert lengths(index) == {"a": ("train", 2, 0), "b": ("train", 1, 0)}
        assert names(index) == ["9", "10", "1"]
        assert [f.number for f in index.sequences[0].frames] == [0, 1]

    def test_one_video_in_two_splits_gives_two_sequences(self, tmp_path: Path) -> None:
        index = read_sequences(table(tmp_path, "a/1.png,,train", "a/2.png,,val"))
        assert sorted(lengths(index)) == ["train/a", "val/a"]

    def test_bad_lines_are_collected(self, tmp_path: Path) -> None:
        root = table(
            tmp_path,
            "a/0.png,,train,1",
            "a/1.png,, ,2",
            ",,train,3",
            "a/2.png,m\0,train,3",
            "a/3.png,,train,1.5",
            "a/0.png,,train,4",
            "a/4.png,,train",
            '"a/5.png,,train,6',
            "a/6.png,,train,",
            "a/7.png,,train,1",
            header="image,label,split,frame",
        )
        index = read_sequences(root)
        assert problems(index) == [
            *(("malformed line", f"splits.csv:{n}") for n in range(3, 11)),
            ("repeated frame", "splits.csv:11"),
        ]
        assert names(index) == ["0"]

    def test_a_header_without_a_column(self, tmp_path: Path) -> None:
        index = read_sequences(table(tmp_path, "a.png,train", header="image,split"))
        assert problems(index) == [("malformed line", "splits.csv:1")]
        assert "no column label" in str(index.problems[0])

    def test_no_line(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="read as table, holds no frame"):
            read_sequences(table(tmp_path))


def test_real_camvid(shared_data: Path) -> None:
    index = read_sequences(shared_data / "vss")
    assert index.problems == ()
    assert lengths(index) == {
        "0001TP_s0": ("train", 62, 62),
        "0001TP_s1": ("train", 62, 62),
        "0006R0_s0": ("val", 101, 101),
        "0016E5_s0": ("train", 68, 68),
        "0016E5_s1": ("train", 120, 120),
        "0016E5_s2": ("train", 101, 101),
        "0016E5_s3": ("train", 16, 16),
    }
    assert (index.select("train").labelled, index.select("val").labelled) == (429, 101)
    assert index.classes[:2] == ("Sky", "Building")
    assert len(index.classes) == 11

    report = check_sequences(index, required_splits=("train", "val"))
    assert report.problems == ()
    assert report.class_pixels is not None
    pixels = np.sum(list(report.class_pixels.values()), axis=0)
    share = 100 * pixels / (530 * 360 * 480)
    # The README's shares are of all four drives, of which the third held-out one is not here.
    readme = [15.8, 24.1, 1.0, 29.3, 6.7, 11.2, 1.1, 1.4, 4.6, 0.6, 0.5]
    np.testing.assert_allclose(share, readme, atol=1.5)
    assert 3 < 100 - share.sum() < 4.5  # ignored
