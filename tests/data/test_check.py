"""The check before step 0: each kind of problem is found, located and skippable."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from spikevideoformer.data.problems import DatasetError
from spikevideoformer.tasks.classification.check import CheckReport, check_index
from spikevideoformer.tasks.classification.index import read_index
from spikevideoformer.tasks.classification.sample import ClipIndex

from .reports import explained, found, skipped

MakeVideo = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path, make_video: MakeVideo) -> Path:
    """A sound data set: two classes, two splits, listed in splits.csv."""
    folder = tmp_path / "data"
    lines = ["path,label,split"]
    for split in ("train", "val"):
        for label in ("bow", "wave"):
            for i in range(2):
                make_video(folder / f"{label}/{split}{i}.mp4")
                lines.append(f"{label}/{split}{i}.mp4,{label},{split}")
    (folder / "splits.csv").write_text("\n".join(lines) + "\n")
    return folder


def add_lines(root: Path, *lines: str) -> None:
    with (root / "splits.csv").open("a") as file:
        file.writelines(line + "\n" for line in lines)


def check(root: Path, **options: object) -> CheckReport:
    return explained(check_index(read_index(root), **options))  # type: ignore[arg-type]


def names(index: ClipIndex) -> list[str]:
    return [s.path.relative_to(index.root).as_posix() for s in index.samples]


def test_a_sound_data_set_has_none(root: Path, tmp_path: Path) -> None:
    report = check(root, required_splits=("train", "val"))
    assert report.problems == ()
    assert "no problem in 8 clips" in report.summary()
    assert report.settle(folder=tmp_path) is report.index
    assert not (tmp_path / "problems.csv").exists()


class TestFiles:
    def test_missing(self, root: Path) -> None:
        (root / "bow/train1.mp4").unlink()
        assert found(check(root)) == [("missing file", "splits.csv:3")]

    def test_a_link_to_nothing(self, root: Path) -> None:
        (root / "bow/train1.mp4").unlink()
        (root / "bow/train1.mp4").symlink_to("gone.mp4")
        assert found(check(root)) == [("missing file", "splits.csv:3")]

    def test_below_a_file(self, root: Path) -> None:
        add_lines(root, "bow/train1.mp4/x.mp4,bow,train")
        assert found(check(root)) == [("unreadable file", "splits.csv:10")]

    def test_empty(self, root: Path) -> None:
        (root / "bow/val0.mp4").write_bytes(b"")
        (root / "nothing").mkdir()
        add_lines(root, "nothing,bow,train")
        assert found(check(root)) == [
            ("empty file", "splits.csv:6"),
            ("empty file", "splits.csv:10"),
        ]

    @pytest.mark.parametrize("decode", ["full", "open"])
    def test_no_video(self, root: Path, decode: str) -> None:
        (root / "wave/val1.mp4").write_text("hello " * 1000)
        report = check(root, decode=decode)
        assert found(report) == [("unreadable video", "splits.csv:9")]
        assert "wave/val1.mp4" in str(report.problems[0])
        assert check(root, decode="none").problems == ()

    def test_damage_in_the_middle(self, root: Path, make_video: MakeVideo) -> None:
        path = make_video(root / "wave/val1.mp4", frames=40, size=64)
        data = bytearray(path.read_bytes())
        start = data.index(b"mdat") + 4
        middle = start + (data.index(b"moov") - start) // 2
        data[middle : middle + 200] = bytes(200)
        path.write_bytes(data)
        assert found(check(root)) == [("unreadable video", "splits.csv:9")]
        assert found(check(root, decode="open")) == []

    def test_shorter_than_announced(self, root: Path, make_video: MakeVideo) -> None:
        path = make_video(root / "long.avi", frames=40)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        add_lines(root, "long.avi,bow,train")
        assert found(check(root)) == [("unreadable video", "splits.csv:10")]

    def test_one_bad_file_on_two_lines(self, root: Path) -> None:
        add_lines(root, "gone.mp4,bow,train", "gone.mp4,bow,val")
        report = check(root)
        assert found(report)[:2] == [
            ("missing file", "splits.csv:10"),
            ("missing file", "splits.csv:11"),
        ]

    def test_a_part_past_the_end(self, root: Path) -> None:
        (root / "splits.csv").write_text(
            "path,label,split,start_s\n"
            "bow/train0.mp4,bow,train,0.7\n"
            "wave/train0.mp4,wave,train,0.9\n"
        )
        assert found(check(root)) == [("part outside the file", "splits.csv:3")]

    def test_progress_is_told(self, root: Path) -> None:
        for name in ("bow/train0", "bow/train1", "wave/val0"):
            (root / f"{name}.mp4").write_text(name)
        index = read_index(root)
        steps: list[tuple[int, int]] = []
        check_index(index, progress=lambda *step: steps.append(step))
        assert steps == [(i, 8) for i in range(1, 9)]


class TestDuplicates:
    def test_same_file_in_two_splits(self, root: Path) -> None:
        add_lines(root, "bow/../bow/val0.mp4,bow,train", "bow/val0.mp4,bow,test")
        report = check(root)
        assert found(report) == [
            ("duplicate across splits", "splits.csv:6"),
            ("duplicate across splits", "splits.csv:10"),
        ]
        kept = [s for s in report.cleaned.samples if s.path.name == "val0.mp4"]
        assert [(s.path.parent.name, s.split) for s in kept] == [("wave", "val"), ("bow", "test")]

    def test_same_content_in_two_splits(self, root: Path) -> None:
        shutil.copy(root / "bow/val0.mp4", root / "copy.mp4")
        add_lines(root, "copy.mp4,bow,train")
        report = check(root)
        assert found(report) == [("duplicate across splits", "splits.csv:10")]
        assert "same content as bow/val0.mp4" in str(report.problems[0])
        assert "copy.mp4" not in names(report.cleaned)

    def test_same_images_in_two_splits(self, tmp_path: Path) -> None:
        for split in ("train", "val"):
            for label in ("a", "b"):
                folder = tmp_path / split / label / f"{split}clip"
                folder.mkdir(parents=True)
                for i in range(2):
                    (folder / f"{split}{i}.png").write_bytes(f"{label}{i}".encode())
        report = check(tmp_path, decode="none")
        assert found(report) == [
            ("duplicate across splits", "train/a"),
            ("duplicate across splits", "train/b"),
        ]

    def test_same_content_within_a_split_is_allowed(self, root: Path) -> None:
        shutil.copy(root / "bow/val0.mp4", root / "copy.mp4")
        add_lines(root, "copy.mp4,bow,val")
        assert check(root).problems == ()

    def test_other_parts_of_a_file(self, root: Path) -> None:
        (root / "splits.csv").write_text(
            "path,label,split,start_s,end_s\n"
            "bow/val0.mp4,bow,train,0,0.4\n"
            "bow/val0.mp4,bow,val,0.4,\n"
            "bow/val1.mp4,bow,train,0,0.4\n"
            "bow/val1.mp4,bow,val,0.3,\n"
        )
        assert found(check(root)) == [("duplicate across splits", "splits.csv:4")]

    def test_repeated_line(self, root: Path) -> None:
        add_lines(root, "bow/train0.mp4,bow,train")
        report = check(root)
        assert found(report) == [("repeated clip", "splits.csv:10")]
        assert "splits.csv:2" in str(report.problems[0])

    def test_contradictory_labels(self, root: Path) -> None:
        add_lines(root, "bow/train0.mp4,wave,train")
        report = check(root)
        assert found(report) == [
            ("contradictory labels", "splits.csv:2"),
            ("contradictory labels", "splits.csv:10"),
        ]
        assert "bow/train0.mp4" not in names(report.cleaned)


class TestClassesAndSplits:
    def test_a_class_without_training_clips(self, root: Path) -> None:
        add_lines(root, "extra.mp4,jump,val")
        shutil.copy(root / "bow/val0.mp4", root / "extra.mp4")
        report = check(root, required_splits=["train"])
        assert [p.kind for p in report.problems] == ["empty class"]
        assert "'jump'" in str(report.problems[0])
        assert check(root).problems == ()  # evaluation does not need it

    def test_an_empty_class_folder(self, tmp_path: Path, make_video: MakeVideo) -> None:
        make_video(tmp_path / "val/a/1.mp4")
        (tmp_path / "val/b").mkdir()
        assert found(check(tmp_path)) == [("empty class", "val/b")]

    def test_a_split_that_is_needed(self, root: Path) -> None:
        report = check(root, required_splits=("train", "test"))
        assert [(p.kind, p.split) for p in report.problems] == [("split without samples", "test")]

    def test_what_reading_found_comes_first(self, root: Path) -> None:
        (root / "bow/train0.mp4").unlink()
        add_lines(root, "half a line")
        assert found(check(root)) == [
            ("malformed line", "splits.csv:10"),
            ("missing file", "splits.csv:2"),
        ]


class TestSettle:
    def test_stops_with_one_line_and_a_list(self, root: Path, tmp_path: Path) -> None:
        (root / "bow/train0.mp4").unlink()
        (root / "wave/val0.mp4").write_text("no video")
        report = check(root)
        with pytest.raises(DatasetError) as error:
            report.settle(folder=tmp_path / "run")
        text = str(error.value)
        assert "\n" not in text
        assert text.startswith(f"2 problems in {root} (1 missing file, 1 unreadable video); first:")
        assert "splits.csv:2" in text
        assert f"all are listed in {tmp_path / 'run/problems.csv'}" in text
        assert "--skip-bad" in text
        assert error.value.problems == report.problems
        assert [row["source"] for row in skipped(tmp_path / "run", "problems.csv")] == [
            "splits.csv:2",
            "splits.csv:8",
        ]

    def test_goes_on_and_records_what_it_left_out(self, root: Path, tmp_path: Path) -> None:
        (root / "bow/train0.mp4").unlink()
        add_lines(root, "half a line", "odd\x07.mp4,bow,val")
        before = read_index(root)
        report = check_index(before)
        index = report.settle(skip_bad=True, folder=tmp_path / "run")
        assert index.problems == ()
        assert index.classes == before.classes
        assert set(names(before)) - set(names(index)) == {"bow/train0.mp4", "odd\x07.mp4"}
        assert [(r["path"], r["source"], r["kind"]) for r in skipped(tmp_path / "run")] == [
            ("", "splits.csv:10", "malformed line"),
            ("bow/train0.mp4", "splits.csv:2", "missing file"),
            ("odd\x07.mp4", "splits.csv:11", "missing file"),
        ]
        assert [p.name for p in (tmp_path / "run").iterdir()] == ["skipped.csv"]
        assert check_index(index).problems == ()

    def test_tells_what_it_left_out_where_there_is_no_folder(
        self, root: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (root / "bow/train0.mp4").unlink()
        check(root).settle(skip_bad=True)
        (told,) = caplog.messages
        assert "left out: splits.csv:2: missing file" in told

    def test_a_class_that_is_lost_is_recorded(self, root: Path, tmp_path: Path) -> None:
        for i in range(2):
            (root / f"bow/train{i}.mp4").unlink()
        index = check(root).settle(skip_bad=True, folder=tmp_path)
        assert index.classes == ("bow", "wave")
        last = skipped(tmp_path)[-1]
        assert (last["kind"], "'bow'" in last["reason"]) == ("empty class", True)

    def test_does_not_go_on_without_a_split(self, root: Path, tmp_path: Path) -> None:
        for path in root.glob("*/val*.mp4"):
            path.unlink()
        with pytest.raises(DatasetError, match="without its bad clips the split val is empty"):
            check(root).settle(skip_bad=True, folder=tmp_path)
        assert not (tmp_path / "skipped.csv").exists()

    def test_does_not_go_on_with_nothing(self, root: Path) -> None:
        (root / "splits.csv").write_text("path,label,split\nhalf\n")
        with pytest.raises(DatasetError, match="the data set is empty"):
            check(root).settle(skip_bad=True)


def test_real_clips(shared_data: Path) -> None:
    index = read_index(shared_data / "action", split="val")
    assert check_index(index, decode="open").problems == ()
