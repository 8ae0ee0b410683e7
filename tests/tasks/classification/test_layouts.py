"""Every data set family, on small real files in its official layout."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from spikevideoformer.data.problems import DatasetError
from spikevideoformer.tasks.classification.check import check_index
from spikevideoformer.tasks.classification.index import read_index
from spikevideoformer.tasks.classification.sample import ClipIndex

from ..segmentation.frames import picture

MakeVideo = Callable[..., Path]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def listed(index: ClipIndex) -> list[tuple[str, str, str]]:
    """Path below the root, class and split of each sample."""
    return [
        (s.path.relative_to(index.root).as_posix(), index.classes[s.label], s.split)
        for s in index.samples
    ]


def problems(index: ClipIndex) -> list[tuple[str, str]]:
    assert all("\n" not in str(p) and p.remedy for p in index.problems)
    return [(p.kind, p.source) for p in index.problems]


def assert_sound(index: ClipIndex) -> None:
    assert [str(p) for p in check_index(index).problems] == []


class TestStills:
    def test_pictures_in_a_class_folder_are_clips(self, tmp_path: Path) -> None:
        """As ImageNet lies on disk."""
        for name in (
            "train/n01/a_1.JPEG",
            "train/n01/a_10.jpg",
            "train/n02/b.png",
            "val/n02/c.bmp",
        ):
            picture(tmp_path / name)
        write(tmp_path / "train/n01/notes.txt", "")
        picture(tmp_path / "train/n01/.hidden.png")
        index = read_index(tmp_path)
        assert (index.layout, index.classes) == ("folders", ("n01", "n02"))
        assert listed(index) == [
            ("train/n01/a_1.JPEG", "n01", "train"),
            ("train/n01/a_10.jpg", "n01", "train"),
            ("train/n02/b.png", "n02", "train"),
            ("val/n02/c.bmp", "n02", "val"),
        ]
        assert_sound(index)

    def test_beside_clips_they_are_none(self, tmp_path: Path, make_video: MakeVideo) -> None:
        """A folder of pictures is one clip, as it was; `stills` takes each picture."""
        make_video(tmp_path / "a/1.mp4")
        for name in ("a/thumb.png", "b/walk/0.png", "b/walk/1.png", "b/cover.png"):
            picture(tmp_path / name)
        index = read_index(tmp_path)
        assert [path for path, _, _ in listed(index)] == ["a/1.mp4", "b/walk"]
        assert_sound(index)
        picture(tmp_path / "b/.thumbs/0.png")
        told = read_index(tmp_path, layout="stills")
        assert told.layout == "stills"
        assert listed(told) == [
            ("a/thumb.png", "a", "train"),
            ("b/cover.png", "b", "train"),
            ("b/walk/0.png", "b", "train"),
            ("b/walk/1.png", "b", "train"),
        ]
        assert_sound(told)

    def test_a_class_called_train(self, tmp_path: Path) -> None:
        for name in ("train/0.png", "bus/1.png"):
            picture(tmp_path / name)
        with pytest.raises(DatasetError, match="train was taken for the split train, but it holds"):
            read_index(tmp_path)

    def test_a_damaged_picture_is_found(self, tmp_path: Path) -> None:
        picture(tmp_path / "a/0.png")
        (tmp_path / "a/1.png").write_bytes((tmp_path / "a/0.png").read_bytes()[:50])
        (problem,) = check_index(read_index(tmp_path)).problems
        assert problem.path == tmp_path / "a/1.png" and "unreadable" in problem.kind


class TestSplitsCsv:
    def test_columns(self, tmp_path: Path, make_video: MakeVideo) -> None:
        make_video(tmp_path / "wave/1.mp4")
        make_video(tmp_path / "a, b.mp4")
        write(
            tmp_path / "splits.csv",
            "\ufeffpath,label,subject,split,start_s,end_s,note\n"
            "wave/1.mp4,wave,s1,train,,,x\n"
            "\n"
            '"a, b.mp4",bow,,Validation,0.2,0.5,\n'
            "wave/1.mp4,bow,s1,train,0.4,,\n",
        )
        index = read_index(tmp_path)
        assert index.layout == "splits"
        assert listed(index) == [
            ("wave/1.mp4", "wave", "train"),
            ("a, b.mp4", "bow", "val"),
            ("wave/1.mp4", "bow", "train"),
        ]
        assert [s.source for s in index.samples] == [f"splits.csv:{n}" for n in (2, 4, 5)]
        assert [s.group for s in index.samples] == ["s1", None, "s1"]
        assert [(s.start_s, s.end_s) for s in index.samples] == [
            (None, None),
            (0.2, 0.5),
            (0.4, None),
        ]
        assert_sound(index)

    def test_any_name_is_a_split(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        write(
            tmp_path / "splits.csv",
            "path,label,split\n1.mp4,a,Fold B\n2.mp4,a,train\n3.mp4,b,Holdout\n4.mp4,b,fold b\n",
        )
        with caplog.at_level("INFO", "spikevideoformer"):
            index = read_index(tmp_path)
        assert index.splits == ("train", "fold b", "holdout")
        assert "used where they are named: fold b, holdout" in caplog.text
        assert [s.source for s in index.select("FOLD B ").samples] == [
            "splits.csv:2",
            "splits.csv:5",
        ]
        assert len(read_index(tmp_path, split="holdout")) == 1
        for name in ("foldb", ""):
            with pytest.raises(DatasetError, match=r"\(it has: train, fold b, holdout\)"):
                index.select(name)

    def test_one_clip_in_two_splits_of_any_names(
        self, tmp_path: Path, make_video: MakeVideo
    ) -> None:
        make_video(tmp_path / "1.mp4")
        lines = "".join(f"1.mp4,a,{name}\n" for name in ("train", "two", "one", "val"))
        write(tmp_path / "splits.csv", f"path,label,split\n{lines}")
        found = check_index(read_index(tmp_path)).problems
        assert [(p.source, p.kind) for p in found] == [
            (f"splits.csv:{n}", "duplicate across splits") for n in (2, 3, 4)
        ]

    def test_bad_lines_are_collected(self, tmp_path: Path) -> None:
        write(
            tmp_path / "splits.csv",
            "path,label,split,start_s,end_s\n"
            "1.mp4,a,train\n"
            '"1.mp4,a,train,,\n'
            "1.mp4,a, ,,\n"
            ",a,train,,\n"
            "1.mp4,,val,,\n"
            "1.mp4,a,train,two,\n"
            "1.mp4,a,train,2,1\n"
            "1.mp4,a,train,nan,\n"
            "1.mp4,a,train,-1,\n"
            "1\0.mp4,a,train,,\n"
            "1.mp4,a,train,,\n",
        )
        index = read_index(tmp_path)
        assert problems(index) == [("malformed line", f"splits.csv:{n}") for n in range(2, 12)]
        assert len(index) == 1

    def test_a_header_without_a_column(self, tmp_path: Path) -> None:
        write(tmp_path / "splits.csv", "path,label\n1.mp4,a\n")
        index = read_index(tmp_path)
        assert problems(index) == [("malformed line", "splits.csv:1")]
        assert "no column split" in str(index.problems[0])

    def test_names_that_are_not_utf8(self, tmp_path: Path, make_video: MakeVideo) -> None:
        make_video(tmp_path / "x.mp4").rename(tmp_path / "caf\udce9.mp4")
        (tmp_path / "splits.csv").write_bytes(b"path,label,split\ncaf\xe9.mp4,a,train\n")
        assert_sound(read_index(tmp_path))


class TestClassList:
    def test_gives_names_and_order(self, tmp_path: Path) -> None:
        write(tmp_path / "classes.txt", "wave\nbow\n")
        write(tmp_path / "splits.csv", "path,label,split\n1.mp4,bow,train\n2.mp4,jump,train\n")
        index = read_index(tmp_path)
        assert index.classes == ("wave", "bow")
        assert listed(index) == [("1.mp4", "bow", "train")]
        assert problems(index) == [("unknown label", "splits.csv:3")]

    def test_numbers_are_indices_into_it(self, tmp_path: Path) -> None:
        write(tmp_path / "classes.txt", "wave\nbow\n")
        write(tmp_path / "train.txt", "1.mp4 0\n2.mp4 1\n3.mp4 2\n4.mp4 -1\n")
        index = read_index(tmp_path)
        assert listed(index) == [("1.mp4", "wave", "train"), ("2.mp4", "bow", "train")]
        assert problems(index) == [
            ("label out of range", "train.txt:3"),
            ("label out of range", "train.txt:4"),
        ]

    def test_a_repeated_name(self, tmp_path: Path) -> None:
        write(tmp_path / "classes.txt", "wave\nbow\nwave\n")
        write(tmp_path / "train.txt", "1.mp4 bow\n")
        assert problems(read_index(tmp_path)) == [("malformed line", "classes.txt:3")]


class TestLists:
    def test_separators_and_header(self, tmp_path: Path, make_video: MakeVideo) -> None:
        for name in ("a b.mp4", "c.mp4", "d.mp4", "e,f.mp4"):
            make_video(tmp_path / "clips" / name)
        write(tmp_path / "train.csv", "path,label\nclips/a b.mp4,high jump\nclips/e,f.mp4,run\n")
        write(tmp_path / "val_list.txt", f"{tmp_path}/clips/c.mp4 run\n")
        write(tmp_path / "test.txt", "clips/d.mp4\thigh jump\n")
        index = read_index(tmp_path)
        assert index.layout == "lists"
        assert index.classes == ("high jump", "run")
        assert sorted(listed(index)) == [
            ("clips/a b.mp4", "high jump", "train"),
            ("clips/c.mp4", "run", "val"),
            ("clips/d.mp4", "high jump", "test"),
            ("clips/e,f.mp4", "run", "train"),
        ]
        assert_sound(index)

    def test_numbers_are_sorted_as_numbers(self, tmp_path: Path) -> None:
        write(tmp_path / "train.txt", "a.mp4 10\nb.mp4 9\nc.mp4 009\nd.mp4 -3\n")
        index = read_index(tmp_path)
        assert index.classes == ("9", "10")
        assert [s.label for s in index.samples] == [1, 0, 0]
        assert problems(index) == [("label out of range", "train.txt:4")]

    def test_the_classes_are_those_of_all_lists(self, tmp_path: Path) -> None:
        write(tmp_path / "train.txt", "a.mp4 b\n")
        write(tmp_path / "val.txt", "b.mp4 a\n")
        assert read_index(tmp_path, split="train").classes == ("a", "b")

    def test_bad_lines_and_an_empty_list(self, tmp_path: Path) -> None:
        write(tmp_path / "train.csv", 'a.mp4,x\nonly-a-path.mp4\n,x\n"b.mp4,x\n')
        write(tmp_path / "val.csv", "path,label\n")
        assert problems(read_index(tmp_path)) == [
            ("malformed line", "train.csv:2"),
            ("malformed line", "train.csv:3"),
            ("malformed line", "train.csv:4"),
            ("split without samples", "val.csv"),
        ]


class TestUcf101:
    @pytest.fixture
    def root(self, tmp_path: Path, make_video: MakeVideo) -> Path:
        lists = tmp_path / "ucfTrainTestlist"
        write(lists / "classInd.txt", "1 ApplyEyeMakeup\n2 ApplyLipstick\n3 Archery\n")
        write(
            lists / "trainlist01.txt",
            "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\n"
            "ApplyLipstick/v_ApplyLipstick_g08_c02.avi 2\r\n"
            "Archery/v_Archery_g09_c01.avi 3\r\n",
        )
        write(lists / "testlist01.txt", "Archery/v_Archery_g01_c01.avi\r\n")
        write(lists / "trainlist02.txt", "Archery/v_Archery_g01_c01.avi 3\n")
        write(lists / "testlist02.txt", "Archery/v_Archery_g09_c01.avi\n")
        for clip in (
            "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi",
            "ApplyLipstick/v_ApplyLipstick_g08_c02.avi",
            "Archery/v_Archery_g09_c01.avi",
            "Archery/v_Archery_g01_c01.avi",
        ):
            make_video(tmp_path / "UCF-101" / clip)
        return tmp_path

    def test_official_layout(self, root: Path) -> None:
        index = read_index(root)
        assert index.layout == "ucf101"
        assert index.classes == ("ApplyEyeMakeup", "ApplyLipstick", "Archery")
        assert listed(index) == [
            ("UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", "ApplyEyeMakeup", "train"),
            ("UCF-101/ApplyLipstick/v_ApplyLipstick_g08_c02.avi", "ApplyLipstick", "train"),
            ("UCF-101/Archery/v_Archery_g09_c01.avi", "Archery", "train"),
            ("UCF-101/Archery/v_Archery_g01_c01.avi", "Archery", "test"),
        ]
        assert index.samples[1].group == "ApplyLipstick_g08"
        assert index.samples[3].source == "ucfTrainTestlist/testlist01.txt:1"
        assert_sound(index)

    def test_the_other_folds(self, root: Path) -> None:
        assert [s.path.stem for s in read_index(root, fold=2, split="test").samples] == [
            "v_Archery_g09_c01"
        ]
        with pytest.raises(DatasetError, match="choose a fold 1-3"):
            read_index(root, fold=3)

    def test_videos_directly_in_the_root(self, root: Path) -> None:
        for folder in (root / "UCF-101").iterdir():
            folder.rename(root / folder.name)
        (root / "UCF-101").rmdir()
        assert_sound(read_index(root))

    def test_bad_lines(self, root: Path) -> None:
        write(
            root / "ucfTrainTestlist/trainlist01.txt",
            "no-folder.avi 1\n"
            "Archery/v_Archery_g09_c01.avi 102\n"
            "Archery/v_Archery_g09_c01.avi 1\n"
            "Arxery/v_Archery_g09_c01.avi 2\n",
        )
        write(root / "ucfTrainTestlist/testlist01.txt", "")
        write(root / "ucfTrainTestlist/classInd.txt", "1 ApplyEyeMakeup\n3 Archery\n2 Archery\n")
        assert problems(read_index(root)) == [
            ("malformed line", "ucfTrainTestlist/classInd.txt:2"),
            ("malformed line", "ucfTrainTestlist/trainlist01.txt:1"),
            ("label out of range", "ucfTrainTestlist/trainlist01.txt:2"),
            ("unknown label", "ucfTrainTestlist/trainlist01.txt:3"),
            ("unknown label", "ucfTrainTestlist/trainlist01.txt:4"),
            ("split without samples", "ucfTrainTestlist/testlist01.txt"),
        ]


class TestHmdb51:
    LISTS = "testTrainMulti_7030_splits"
    CLIPS = (
        "brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi",
        "brush_hair/(HQ)_Life#2_brush_hair_f_cm_np1_ba_med_1.avi",
        "brush_hair/Unused_brush_hair_u_nm_np1_fr_goo_2.avi",
        "shoot/Movie_shoot_u_nm_np1_fr_goo_0.avi",
        "shoot_ball/Game_shoot_ball_u_nm_np1_fr_goo_0.avi",
    )

    @pytest.fixture
    def root(self, tmp_path: Path, make_video: MakeVideo) -> Path:
        for clip in self.CLIPS:
            make_video(tmp_path / clip)
        write(
            tmp_path / self.LISTS / "brush_hair_test_split1.txt",
            "April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1 \n"
            "(HQ)_Life#2_brush_hair_f_cm_np1_ba_med_1.avi 2 \n"
            "Unused_brush_hair_u_nm_np1_fr_goo_2.avi 0 \n",
        )
        write(
            tmp_path / self.LISTS / "shoot_test_split1.txt",
            "Movie_shoot_u_nm_np1_fr_goo_0.avi 1 \n",
        )
        write(
            tmp_path / self.LISTS / "shoot_ball_test_split1.txt",
            "Game_shoot_ball_u_nm_np1_fr_goo_0.avi 1 \n",
        )
        return tmp_path

    def test_official_layout(self, root: Path) -> None:
        index = read_index(root)
        assert index.layout == "hmdb51"
        assert index.classes == ("brush_hair", "shoot", "shoot_ball")
        assert listed(index) == [
            (self.CLIPS[0], "brush_hair", "train"),
            (self.CLIPS[1], "brush_hair", "test"),
            (self.CLIPS[3], "shoot", "train"),
            (self.CLIPS[4], "shoot_ball", "train"),
        ]
        assert index.samples[0].group == "April_09"
        assert index.samples[1].source == f"{self.LISTS}/brush_hair_test_split1.txt:2"
        assert_sound(index)

    def test_bad_lines_and_folds(self, root: Path) -> None:
        write(root / self.LISTS / "shoot_test_split1.txt", "a.avi 3\n1\n")
        assert problems(read_index(root)) == [
            ("malformed line", f"{self.LISTS}/shoot_test_split1.txt:{n}") for n in (1, 2)
        ]
        with pytest.raises(DatasetError, match="choose a fold 1-3"):
            read_index(root, fold=2)


class TestKinetics:
    @pytest.fixture
    def root(self, tmp_path: Path, make_video: MakeVideo) -> Path:
        header = "label,youtube_id,time_start,time_end,split\n"
        write(
            tmp_path / "annotations/train.csv",
            header
            + "testifying,---QUuC4vJs,84,94,train\n"
            + '"playing a, b",-_0aB,0,10,train\n'
            + "eating spaghetti,abc,1.0,11.0,train\n",
        )
        write(tmp_path / "annotations/val.csv", header + "testifying,xyz,5,15,val\n")
        write(
            tmp_path / "annotations/test.csv", "youtube_id,time_start,time_end,split\nq,5,15,test\n"
        )
        make_video(tmp_path / "train/---QUuC4vJs_000084_000094.mp4")
        make_video(tmp_path / "train/playing a, b/-_0aB_000000_000010.mp4")
        make_video(tmp_path / "train/eating_spaghetti/abc_000001_000011.mp4")
        make_video(tmp_path / "val/xyz_000005_000015.mp4")
        return tmp_path

    def test_official_layout(self, root: Path) -> None:
        index = read_index(root)
        assert index.layout == "kinetics"
        assert index.classes == ("eating spaghetti", "playing a, b", "testifying")
        assert listed(index) == [
            ("train/---QUuC4vJs_000084_000094.mp4", "testifying", "train"),
            ("train/playing a, b/-_0aB_000000_000010.mp4", "playing a, b", "train"),
            ("train/eating_spaghetti/abc_000001_000011.mp4", "eating spaghetti", "train"),
            ("val/xyz_000005_000015.mp4", "testifying", "val"),
        ]
        assert index.samples[0].group == "---QUuC4vJs"
        assert index.samples[0].source == "annotations/train.csv:2"
        assert_sound(index)

    def test_a_list_without_labels_is_not_read(self, root: Path) -> None:
        with pytest.raises(DatasetError, match="no split 'test'"):
            read_index(root, split="test")

    def test_lists_in_the_root(self, root: Path) -> None:
        (root / "annotations/train.csv").rename(root / "kinetics-400_train.csv")
        (root / "annotations/val.csv").rename(root / "kinetics_val.csv")
        index = read_index(root)
        assert index.splits == ("train", "val")
        assert index.samples[0].source == "kinetics-400_train.csv:2"

    def test_a_file_that_is_not_there(self, root: Path) -> None:
        (root / "val/xyz_000005_000015.mp4").unlink()
        report = check_index(read_index(root))
        assert [(p.kind, p.source) for p in report.problems] == [
            ("missing file", "annotations/val.csv:2")
        ]

    def test_bad_lines(self, root: Path) -> None:
        write(
            root / "annotations/val.csv",
            "label,youtube_id,time_start,time_end,split\n"
            "testifying,xyz,5,15\n"
            "testifying,xyz,15,5,val\n"
            "testifying,../xyz,5,15,val\n"
            ",xyz,5,15,val\n",
        )
        index = read_index(root)
        assert problems(index) == [
            ("malformed line", f"annotations/val.csv:{n}") for n in range(2, 6)
        ]
        assert read_index(root, split="train").problems == ()


class TestSomething:
    @pytest.fixture
    def root(self, tmp_path: Path, make_video: MakeVideo) -> Path:
        write(
            tmp_path / "labels/labels.json",
            json.dumps({"Holding something": "1", "Approaching something with your camera": "0"}),
        )
        write(
            tmp_path / "labels/train.json",
            '[\n{"id":"78687","label":"holding potato","template":"Holding [something]",'
            '"placeholders":["potato"]},\n'
            '{"id":"42326","label":"approaching a cup with your camera",'
            '"template":"Approaching [something] with your camera","placeholders":["a cup"]}\n]\n',
        )
        entry = {"id": "74225", "template": "Holding [something]", "placeholders": ["a pen"]}
        write(tmp_path / "labels/validation.json", json.dumps([entry], indent=2))
        write(tmp_path / "labels/test.json", '[{"id":"1420"}]')
        for clip in ("78687", "42326", "74225", "1420"):
            make_video(tmp_path / f"20bn-something-something-v2/{clip}.webm")
        return tmp_path

    def test_official_layout(self, root: Path) -> None:
        index = read_index(root)
        assert index.layout == "something"
        assert index.classes == ("Approaching something with your camera", "Holding something")
        assert listed(index) == [
            ("20bn-something-something-v2/78687.webm", index.classes[1], "train"),
            ("20bn-something-something-v2/42326.webm", index.classes[0], "train"),
            ("20bn-something-something-v2/74225.webm", index.classes[1], "val"),
        ]
        assert [s.source for s in index.samples] == [
            "labels/train.json:2",
            "labels/train.json:3",
            "labels/validation.json:2",
        ]
        assert_sound(index)

    def test_the_test_split_where_its_answers_are(self, root: Path) -> None:
        with pytest.raises(DatasetError, match="no split 'test'"):
            read_index(root, split="test")
        write(root / "labels/test-answers.csv", "1420;Holding something\n")
        assert listed(read_index(root, split="test")) == [
            ("20bn-something-something-v2/1420.webm", "Holding something", "test")
        ]

    def test_bad_entries(self, root: Path) -> None:
        write(
            root / "labels/train.json",
            '[\n{"id":"../x","template":"Holding [something]"},\n7,\n"text",\n'
            '{"id":"42326"},\n{"id":"42326","template":"Flying"},\n{"id":',
        )
        write(root / "labels/validation.json", "{}")
        assert problems(read_index(root)) == [
            ("malformed line", "labels/train.json:2"),
            ("malformed line", "labels/train.json:3"),
            ("malformed line", "labels/train.json:4"),
            ("malformed line", "labels/train.json:5"),
            ("unknown label", "labels/train.json:6"),
            ("malformed line", "labels/train.json:7"),
            ("malformed line", "labels/validation.json:1"),
        ]

    @pytest.mark.parametrize("text", ["", "[]", "3", '{"a": "1"}', '{"a": {}}', '{"a": "x"}'])
    def test_a_broken_label_list(self, root: Path, text: str) -> None:
        write(root / "labels/labels.json", text)
        with pytest.raises(DatasetError, match=r"labels\.json is not a mapping"):
            read_index(root)


def test_what_a_class_folder_does_not_give_is_told(tmp_path, caplog):
    for name in (
        "a/one.mp4",
        "a/two.avif",
        "a/three.png",
        "a/README.md",
        "a/.hidden.mkv",
        "b/x.JPG",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    with caplog.at_level("INFO", logger="spikevideoformer"):
        index = read_index(tmp_path)
        read_index(tmp_path)
    assert sorted(s.path.name for s in index.samples) == ["one.mp4", "x.JPG"]
    (line,) = [r.getMessage() for r in caplog.records if "passed over" in r.getMessage()]
    assert "passed over files that are no clips here (a/three.png and 1 more); a splits.csv" in line
