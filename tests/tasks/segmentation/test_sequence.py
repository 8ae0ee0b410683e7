"""Frame sequences: order, pieces, splits."""

from pathlib import Path

import pytest

from spikevideoformer.data.problems import DatasetError, Problem
from spikevideoformer.tasks.segmentation.sequence import (
    FrameSequence,
    MaskCode,
    SequenceFrame,
    SequenceIndex,
    cut,
    in_order,
    number_by_position,
)
from spikevideoformer.tasks.segmentation.spec import SegmentationSpec


def frame(name: str, number: int, label: str | None = None) -> SequenceFrame:
    return SequenceFrame(
        image=Path(name), label=None if label is None else Path(label), number=number, source=name
    )


def test_in_order() -> None:
    frames, problems = in_order([frame("c", 7), frame("a", 2), frame("b", 7)], "val")
    assert [f.image.name for f in frames] == ["a", "c"]
    assert [(p.kind, p.source, p.split) for p in problems] == [("repeated frame", "b", "val")]


def test_number_by_position() -> None:
    assert [f.number for f in number_by_position([frame("b", 9), frame("a", 3)])] == [0, 1]


@pytest.mark.parametrize(
    ("gaps", "pieces"),
    [(set(), [[0, 1, 2, 3]]), ({0, 2}, [[0, 1], [2, 3]]), ({1, 2, 3}, [[0], [1], [2], [3]])],
)
def test_cut(gaps: set[int], pieces: list[list[int]]) -> None:
    frames = [frame("x", i) for i in range(4)]
    assert [[f.number for f in piece] for piece in cut(frames, gaps.__contains__)] == pieces
    assert cut([], gaps.__contains__) == []


def test_index_counts_and_selects() -> None:
    def problem(split: str | None) -> Problem:
        return Problem(kind="k", source="s", reason="r", remedy="m", split=split)

    index = SequenceIndex(
        root=Path("root"),
        layout="table",
        classes=("a",),
        palette=((1, 2, 3),),
        code=MaskCode(values={0: 0}),
        sequences=(
            FrameSequence(name="v", split="val", frames=(frame("1", 0, "m"), frame("2", 1))),
            FrameSequence(name="t", split="train", frames=(frame("3", 0),)),
        ),
        problems=(problem("train"), problem("val"), problem(None)),
    )
    assert (index.splits, index.frames, index.labelled) == (("train", "val"), 3, 1)
    part = index.select("validation")
    assert [s.name for s in part.sequences] == ["v"]
    assert [p.split for p in part.problems] == ["val", None]
    with pytest.raises(DatasetError, match="has no split 'test' \\(it has: train, val\\)"):
        index.select("test")


def test_code_knows_its_kind() -> None:
    assert MaskCode(values={(0, 0, 0): 0}).of_colours
    assert not MaskCode(values={0: 0}).of_colours


class TestSpec:
    def test_round_trip(self) -> None:
        spec = SegmentationSpec(frames=4, short_side=None, crop=(64, 96), step=2)
        assert SegmentationSpec.from_dict(spec.to_dict()) == spec

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"frames": 0}, "frames must be a whole number of at least 1, got 0"),
            ({"short_side": 0}, "short_side must be"),
            ({"crop": [64, 60]}, "crop must be height and width in pixels, multiples of 16"),
            ({"std": [1.0, 1.0, 0.0]}, "std must be three numbers from 0.001 to 1000"),
            ({"sie": 1}, "unknown clip setting sie; did you mean"),
        ],
    )
    def test_mistakes(self, change: dict[str, object], message: str) -> None:
        good = {"frames": 4, "short_side": 64, "crop": [64, 64]}
        with pytest.raises(ValueError, match=message):
            SegmentationSpec.from_dict(good | change)

    def test_a_missing_key(self) -> None:
        with pytest.raises(ValueError, match="clip setting crop is missing"):
            SegmentationSpec.from_dict({"frames": 4, "short_side": 64})
