"""The index: layouts are recognised, classes agree, folds are fair."""

from collections import Counter
from pathlib import Path

import pytest

from spikevideoformer.data.problems import DatasetError, Problem
from spikevideoformer.tasks.classification.index import LAYOUTS, read_index
from spikevideoformer.tasks.classification.sample import ClipIndex, ClipSample


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def index_of(
    labels: str, *, groups: str | None = None, split: str = "train", classes: str = "abc"
) -> ClipIndex:
    """An index without files; one letter a sample."""
    return ClipIndex(
        root=Path("root"),
        layout="folders",
        classes=tuple(classes),
        samples=tuple(
            ClipSample(
                path=Path(f"root/{i}.mp4"),
                label=classes.index(letter),
                split=split,
                group=None if groups is None else groups[i],
            )
            for i, letter in enumerate(labels)
        ),
    )


def counts(index: ClipIndex) -> tuple[int, ...]:
    """How many samples each class has."""
    count = Counter(sample.label for sample in index.samples)
    return tuple(count[label] for label in range(len(index.classes)))


class TestClassFolders:
    def test_split_folders(self, tmp_path: Path) -> None:
        touch(
            tmp_path / "train/b/2.mp4",
            tmp_path / "train/b/1.avi",
            tmp_path / "train/a/1.webm",
            tmp_path / "validation/c/1.mp4",
            tmp_path / "train/a/README.md",
            tmp_path / "train/a/.hidden.mp4",
        )
        index = read_index(tmp_path)
        assert index.layout == "folders"
        assert index.classes == ("a", "b", "c")
        assert [s.path.relative_to(tmp_path).as_posix() for s in index.samples] == [
            "train/a/1.webm",
            "train/b/1.avi",
            "train/b/2.mp4",
            "validation/c/1.mp4",
        ]
        assert [s.label for s in index.samples] == [0, 1, 1, 2]
        assert index.splits == ("train", "val")
        assert index.samples[-1].source == "validation/c"
        assert index.problems == ()

    @pytest.mark.parametrize("clip", ["a.mp4", "frames/0.png"])
    def test_a_class_named_like_a_split(self, tmp_path: Path, clip: str) -> None:
        touch(tmp_path / "train" / clip, tmp_path / "bus" / "b.mp4", tmp_path / "car" / "c.mp4")
        message = r"train was taken for the split train, .* bus/, car/ beside it were not read; "
        with pytest.raises(DatasetError, match=message):
            read_index(tmp_path)
        (tmp_path / "train").rename(tmp_path / "trains")
        assert read_index(tmp_path).classes == ("bus", "car", "trains")

    def test_what_lies_beside_true_splits_is_no_matter(self, tmp_path: Path) -> None:
        touch(tmp_path / "train" / "a" / "0.mp4", tmp_path / "docs" / "b.mp4")
        touch(tmp_path / "train" / "stray.mp4")
        assert read_index(tmp_path).classes == ("a",)

    def test_without_split_folders_all_is_train(self, tmp_path: Path) -> None:
        touch(tmp_path / "a/1.mp4", tmp_path / "b/1.mp4")
        assert read_index(tmp_path).splits == ("train",)

    def test_a_folder_of_images_is_a_clip(self, tmp_path: Path) -> None:
        touch(tmp_path / "train/a/walk/0001.png", tmp_path / "train/a/walk/0002.png")
        assert [s.path for s in read_index(tmp_path).samples] == [tmp_path / "train/a/walk"]

    def test_problems(self, tmp_path: Path) -> None:
        touch(tmp_path / "train/a/deeper/1.mp4", tmp_path / "train/a/1.mp4")
        (tmp_path / "train/b").mkdir()
        (tmp_path / "val").mkdir()
        problems = read_index(tmp_path).problems
        assert [(p.kind, p.source, p.split) for p in problems] == [
            ("folder is no clip", "train/a/deeper", "train"),
            ("empty class", "train/b", "train"),
            ("split without samples", "val", "val"),
        ]


class TestReadIndex:
    def test_a_missing_folder_a_file_and_an_empty_folder(self, tmp_path: Path) -> None:
        touch(tmp_path / "file")
        (tmp_path / "empty").mkdir()
        for name, text in [
            ("nowhere", "does not exist"),
            ("file", "is a file"),
            ("empty", "holds no clips"),
        ]:
            with pytest.raises(DatasetError, match=text):
                read_index(tmp_path / name)

    def test_an_unknown_layout(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="choose one of splits, ucf101"):
            read_index(tmp_path, layout="kinetcs")

    @pytest.mark.parametrize(
        "layout", [name for name in LAYOUTS if name not in ("folders", "stills")]
    )
    def test_a_layout_that_the_folder_does_not_have(self, tmp_path: Path, layout: str) -> None:
        with pytest.raises(DatasetError):
            read_index(tmp_path, layout=layout)

    def test_layout_overrides_recognition(self, tmp_path: Path) -> None:
        touch(tmp_path / "a/1.mp4")
        (tmp_path / "splits.csv").write_text("path,label,split\na/1.mp4,x,train\n")
        assert read_index(tmp_path).classes == ("x",)
        assert read_index(tmp_path, layout="folders").classes == ("a",)

    def test_folds_only_where_there_are_any(self, tmp_path: Path) -> None:
        touch(tmp_path / "a/1.mp4")
        with pytest.raises(DatasetError, match="no official folds"):
            read_index(tmp_path, fold=2)

    def test_one_split(self, tmp_path: Path) -> None:
        touch(tmp_path / "train/a/1.mp4", tmp_path / "test/b/1.mp4")
        index = read_index(tmp_path, split="test")
        assert index.classes == ("a", "b")
        assert [s.split for s in index.samples] == ["test"]
        with pytest.raises(DatasetError, match=r"no split 'val' \(it has: train, test\)"):
            read_index(tmp_path, split="val")
        with pytest.raises(DatasetError, match="no split 'dev'"):
            read_index(tmp_path, split="dev")

    def test_real_list(self, shared_data: Path) -> None:
        index = read_index(shared_data / "action")
        assert index.classes == ("handshake", "hug", "kick", "point", "punch", "push")
        assert index.splits == ("train", "val")
        assert counts(index) == (16,) * 6
        assert counts(index.select("val")) == (4,) * 6
        assert all(s.path.is_file() for s in index.samples)
        assert index.samples[0].group == "seq01"
        assert index.samples[0].source == "splits.csv:2"
        assert index.problems == ()
        for fold in index.folds(5):
            assert min(counts(fold.select("val"))) >= 2


class TestClasses:
    def test_are_matched_by_name(self) -> None:
        index = index_of("abca").with_classes(["c", "x", "b", "a"])
        assert index.classes == ("c", "x", "b", "a")
        assert [s.label for s in index.samples] == [3, 2, 0, 3]

    def test_a_class_without_clips_may_be_unknown(self) -> None:
        assert index_of("aa").with_classes(["a"]).classes == ("a",)

    def test_an_unknown_class_is_named(self) -> None:
        with pytest.raises(DatasetError, match="the model has no class 'b', 'c'"):
            index_of("abc").with_classes(["a", "B"])


class TestFolds:
    def test_each_sample_is_validated_once_and_groups_stay_together(self) -> None:
        index = index_of("abcabcabcabc", groups="112233445566")
        folds = index.folds(3, seed=1)
        assert len(folds) == 3
        times_in_val = Counter(s.path for f in folds for s in f.select("val").samples)
        assert times_in_val == Counter(s.path for s in index.samples)
        for fold in folds:
            groups = {split: {s.group for s in fold.select(split).samples} for split in fold.splits}
            assert not groups["train"] & groups["val"]
            assert len(fold) == len(index)

    def test_are_balanced_in_classes(self) -> None:
        for fold in index_of("a" * 10 + "b" * 5 + "c" * 5).folds(5):
            assert counts(fold.select("val")) == (2, 1, 1)

    def test_depend_on_the_seed_alone(self) -> None:
        index = index_of("aabbcc" * 4)
        assert index.folds(4, seed=3) == index.folds(4, seed=3)
        assert index.folds(4, seed=3) != index.folds(4, seed=4)

    @pytest.mark.parametrize("k", [0, 1, 4])
    def test_of_too_few_groups(self, k: int) -> None:
        with pytest.raises(DatasetError, match="choose between 2 and 3"):
            index_of("aabbcc", groups="112233").folds(k)


class TestWithValidation:
    def test_sets_a_part_aside(self) -> None:
        index = index_of("aaaaabbbbbccccc").with_validation(0.2)
        assert counts(index.select("val")) == (1, 1, 1)
        assert counts(index.select("train")) == (4, 4, 4)
        assert [s.path for s in index.samples] == [s.path for s in index_of("a" * 15).samples]

    def test_keeps_what_there_is(self) -> None:
        index = index_of("abc", split="val")
        assert index.with_validation() is index

    def test_keeps_groups_together(self) -> None:
        index = index_of("abcabc", groups="111222").with_validation(0.1)
        assert counts(index.select("val")) == (1, 1, 1)

    def test_refuses_a_senseless_part(self) -> None:
        with pytest.raises(ValueError, match="above 0 and at most"):
            index_of("abc").with_validation(1.5)
        with pytest.raises(DatasetError, match="folds"):
            index_of("abc", groups="111").with_validation()

    def test_never_takes_the_only_clip_of_a_class(self) -> None:
        for seed in range(8):
            index = index_of("abbbbbbbbb").with_validation(0.2, seed)
            assert counts(index.select("train"))[0] == 1
            assert counts(index.select("val"))[1] == 2

    @pytest.mark.parametrize("groups", [None, "123"])
    def test_refuses_where_a_class_would_be_lost(self, groups: str | None) -> None:
        with pytest.raises(DatasetError, match=r"class '[abc]' would .* --val-split none"):
            index_of("abc", groups=groups).with_validation()


def test_a_problem_is_one_line_whatever_the_file_is_called() -> None:
    problem = Problem(
        kind="missing file", source="a\n\udcff.csv:3", reason="no \x1b[31m", remedy="look"
    )
    assert str(problem) == "a\\n\\udcff.csv:3: missing file: no \\x1b[31m; look"
