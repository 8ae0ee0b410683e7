"""The check of frames with masks: each kind of problem is found, located and skippable."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from spikevideoformer.data.problems import DatasetError
from spikevideoformer.tasks.segmentation.check import SequenceReport, check_sequences, count_pixels
from spikevideoformer.tasks.segmentation.index import read_sequences
from spikevideoformer.tasks.segmentation.masks import MaskError
from spikevideoformer.tasks.segmentation.sequence import SequenceIndex

from ...data.reports import explained, found, skipped
from .frames import flat, lengths, names, picture, save, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sound data set: a sequence of five frames in train, the last not labelled; two in val."""
    folder = tmp_path / "data"
    lines = ["image,label,split"]
    for split, count in (("train", 5), ("val", 2)):
        for i in range(count):
            picture(folder / f"{split}/{i}.png")
            flat(folder / f"{split}/m{i}.png", i % 2)
            lines.append(f"{split}/{i}.png,{split}/m{i}.png,{split}")
    lines[5] = "train/4.png,,train"
    write(folder / "splits.csv", "\n".join(lines) + "\n")
    write(folder / "classes.csv", "id,name\n0,road\n1,car\n")
    return folder


def check(root: Path, **options: object) -> SequenceReport:
    return explained(check_sequences(read_sequences(root), **options))  # type: ignore[arg-type]


def labelled(index: SequenceIndex) -> list[str]:
    return [f.image.stem for s in index.sequences for f in s.frames if f.label is not None]


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def test_a_sound_data_set_has_none(root: Path, tmp_path: Path) -> None:
    report = check(root, required_splits=("train", "val"))
    assert report.problems == ()
    assert "no problem in 7 frames" in report.summary()
    assert report.settle(folder=tmp_path) is report.index
    assert not (tmp_path / "problems.csv").exists()


class TestFiles:
    def test_missing_and_empty(self, root: Path) -> None:
        (root / "train/1.png").unlink()
        (root / "train/m2.png").unlink()
        (root / "train/4.png").write_bytes(b"")
        (root / "val/m0.png").write_bytes(b"")
        for decode in ("full", "open", "none"):
            assert found(check(root, decode=decode)) == [
                ("missing file", "splits.csv:3"),
                ("missing file", "splits.csv:4"),
                ("empty file", "splits.csv:6"),
                ("empty file", "splits.csv:7"),
            ]

    def test_damage_is_seen_where_it_is_decoded(self, root: Path) -> None:
        for name in ("train/0", "train/m1", "train/4"):
            cut_short(root / f"{name}.png")
        assert found(check(root)) == [
            ("unreadable picture", "splits.csv:2"),
            ("unusable mask", "splits.csv:3"),
        ]  # of a frame without a mask only the header is read
        assert found(check(root, decode="open")) == []

    def test_no_image(self, root: Path) -> None:
        (root / "train/4.png").write_text("words")
        (root / "val/m0.png").write_text("words")
        assert found(check(root, decode="open")) == [
            ("unreadable picture", "splits.csv:6"),
            ("unusable mask", "splits.csv:7"),
        ]
        assert found(check(root, decode="none")) == []

    def test_a_value_that_is_no_class(self, root: Path) -> None:
        flat(root / "train/m2.png", 2)
        report = check(root)
        assert found(report) == [("unusable mask", "splits.csv:4")]
        assert "value 2 in 24 pixels is no class; accepted are 0-1, 255" in str(report.problems[0])
        assert found(check(root, decode="open")) == []

    @pytest.mark.parametrize("decode", ["full", "open"])
    def test_a_mask_of_another_size(self, root: Path, decode: str) -> None:
        flat(root / "train/m2.png", 0, height=6, width=4)
        report = check(root, decode=decode)
        assert found(report) == [("size of mask", "splits.csv:4")]
        assert "m2.png is 4x6, its picture 6x4" in str(report.problems[0])

    @pytest.mark.parametrize("decode", ["full", "open"])
    def test_a_picture_of_another_size(self, root: Path, decode: str) -> None:
        picture(root / "train/0.png", 8, 8)
        flat(root / "train/m0.png", 0, 8, 8)
        report = check(root, decode=decode)
        assert found(report) == [("size of picture", "splits.csv:2")]
        assert "0.png is 8x8, most of train 6x4" in str(report.problems[0])
        assert found(check(root, decode="none")) == []

    def test_progress_is_told(self, root: Path) -> None:
        cut_short(root / "train/0.png")
        (root / "train/m3.png").unlink()
        index = read_sequences(root)
        steps: list[tuple[int, int]] = []
        check_sequences(index, progress=lambda *step: steps.append(step))
        assert steps == [(i, 7) for i in range(1, 8)]


class TestSplits:
    def test_the_same_picture_in_two_splits(self, root: Path) -> None:
        with (root / "splits.csv").open("a") as file:
            file.write("train/../val/0.png,val/m0.png,train\nval/1.png,,test\n")
        report = check(root)
        assert found(report) == [
            ("duplicate across splits", "splits.csv:9"),
            ("duplicate across splits", "splits.csv:8"),
        ]
        assert {n: c for n, (_, c, _) in lengths(report.cleaned).items()} == {
            "train": 5,
            "val/val": 1,
            "test/val": 1,
        }

    def test_the_same_content_in_two_splits(self, root: Path) -> None:
        shutil.copy(root / "val/0.png", root / "train/3.png")
        for decode in ("full", "none"):
            report = check(root, decode=decode)
            assert found(report) == [("duplicate across splits", "splits.csv:5")]
            assert "same content as val/0.png" in str(report.problems[0])

    def test_the_same_content_within_a_split_is_allowed(self, root: Path) -> None:
        shutil.copy(root / "train/0.png", root / "train/1.png")
        assert check(root).problems == ()

    def test_a_split_that_is_needed(self, root: Path) -> None:
        lines = (root / "splits.csv").read_text().splitlines()
        write(root / "splits.csv", "\n".join([*lines[:6], "val/0.png,,val"]) + "\n")
        report = check(root, required_splits=("train", "validation", "test"))
        assert [(p.kind, p.split) for p in report.problems] == [
            ("split without samples", "val"),
            ("split without samples", "test"),
        ]
        assert check(root).problems == ()


class TestPixels:
    def test_counts(self, root: Path) -> None:
        save(root / "train/m0.png", [[0] * 6, [1] * 6, [255] * 6, [0] * 6])
        report = check(root)
        assert report.class_pixels == {"train": (12 + 24, 6 + 48), "val": (24, 24)}
        index = read_sequences(root)
        steps: list[tuple[int, int]] = []
        counts = count_pixels(index.select("train"), progress=lambda *step: steps.append(step))
        assert counts.tolist() == [36, 54]
        assert counts.dtype == np.int64
        assert steps == [(i, 4) for i in range(1, 5)]
        assert count_pixels(index).tolist() == [60, 78]
        assert check(root, decode="open").class_pixels is None

    def test_of_sound_frames_only(self, root: Path) -> None:
        (root / "train/0.png").unlink()
        flat(root / "train/m1.png", 7)
        flat(root / "train/m2.png", 0, 9, 9)
        assert check(root).class_pixels == {"train": (0, 24), "val": (24, 24)}

    def test_a_bad_mask_stops_the_count(self, root: Path) -> None:
        flat(root / "train/m1.png", 7)
        with pytest.raises(MaskError, match=r"m1\.png: value 7"):
            count_pixels(read_sequences(root))

    def test_a_class_that_train_lacks_is_told(
        self, root: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        for i in (1, 3):
            flat(root / f"train/m{i}.png", 0)
        with caplog.at_level(logging.WARNING):
            assert check(root).problems == ()
            assert caplog.messages == ["class 'car' has no pixel in train: it cannot be learnt"]
            caplog.clear()
            assert check_sequences(read_sequences(root, split="val")).problems == ()
        assert caplog.messages == []


class TestSettle:
    def test_leaves_out_what_is_bad_and_says_so(self, root: Path, tmp_path: Path) -> None:
        cut_short(root / "train/2.png")  # in the middle of its sequence
        flat(root / "train/m3.png", 7)
        with (root / "splits.csv").open("a") as file:
            file.write("half a line\n")
        index = check(root).settle(skip_bad=True, folder=tmp_path / "run")
        assert lengths(index) == {
            "train": ("train", 2, 2),
            "train@3": ("train", 2, 0),
            "val": ("val", 2, 2),
        }
        assert names(index) == ["0", "1", "3", "4", "0", "1"]
        assert labelled(index) == ["0", "1", "0", "1"]
        assert [(r["path"], r["source"], r["kind"]) for r in skipped(tmp_path / "run")] == [
            ("", "splits.csv:9", "malformed line"),
            ("train/2.png", "splits.csv:4", "unreadable picture"),
            ("train/m3.png", "splits.csv:5", "unusable mask"),
        ]
        assert check_sequences(index).problems == ()

    @pytest.mark.parametrize(("bad", "kept"), [(0, [4]), (4, [4]), (1, [1, 3])])
    def test_cuts_the_sequence_at_a_bad_picture(
        self, root: Path, bad: int, kept: list[int]
    ) -> None:
        (root / f"train/{bad}.png").unlink()
        index = check(root).settle(skip_bad=True).select("train")
        assert [len(s) for s in index.sequences] == kept
        assert index.sequences[0].name == "train"

    @pytest.mark.parametrize("pattern", ["val/?.png", "val/m?.png"])
    def test_does_not_go_on_without_a_label(self, root: Path, tmp_path: Path, pattern: str) -> None:
        for path in root.glob(pattern):
            path.unlink()
        with pytest.raises(DatasetError, match="the split val has no labelled frame: 2 problems"):
            check(root).settle(skip_bad=True, folder=tmp_path)
        assert not (tmp_path / "skipped.csv").exists()
        assert len(skipped(tmp_path, "problems.csv")) == 2

    def test_does_not_go_on_with_nothing(self, root: Path) -> None:
        write(root / "splits.csv", "image,label,split\nhalf\n")
        with pytest.raises(DatasetError, match="the data set has no labelled frame"):
            check(root).settle(skip_bad=True)

    def test_a_split_that_never_had_labels_stays(self, root: Path) -> None:
        picture(root / "test/0.png")
        with (root / "splits.csv").open("a") as file:
            file.write("test/0.png,,test\n")
        (root / "train/0.png").unlink()
        assert check(root).settle(skip_bad=True).splits == ("train", "val", "test")
