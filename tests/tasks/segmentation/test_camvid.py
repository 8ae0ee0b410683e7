"""CamVid's original release, on small files laid out that way."""

from pathlib import Path

import numpy as np
import pytest

from spikevideoformer.tasks.segmentation.index import read_sequences
from spikevideoformer.tasks.segmentation.layouts.camvid import read_camvid
from spikevideoformer.tasks.segmentation.masks import read_mask
from spikevideoformer.tasks.segmentation.sequence import IGNORED, SequenceFrame, SequenceIndex

from .frames import assert_sound, flat, lengths, names, picture, problems, save, write

IMAGES, LABELS = "701_StillsRaw_full", "LabeledApproved_full"
BUILDING, ARCHWAY, VOID = (128, 0, 0), (192, 0, 128), (0, 0, 0)


def add(root: Path, *stems: str) -> None:
    for stem in stems:
        picture(root / IMAGES / f"{stem}.png")
        flat(root / LABELS / f"{stem}_L.png", BUILDING)


def first_mask(index: SequenceIndex) -> list[int]:
    label = index.sequences[0].frames[0].label
    assert label is not None
    return sorted(np.unique(read_mask(label, index.code)).tolist())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    add(tmp_path, "0001TP_006690", "0001TP_006720", "0006R0_f00930", "Seq05VD_f00000")
    return tmp_path


def test_recordings_make_the_splits(root: Path) -> None:
    index = read_sequences(root)
    assert index.layout == "camvid"
    assert lengths(index) == {
        "train/0001TP_006690": ("train", 2, 2),
        "val/0006R0_000930": ("val", 1, 1),
        "test/Seq05VD_000000": ("test", 1, 1),
    }
    assert_sound(index)


def test_eleven_classes_or_all(root: Path) -> None:
    save(root / LABELS / "0001TP_006690_L.png", [[BUILDING, ARCHWAY, VOID]])
    index = read_sequences(root)
    assert " ".join(index.classes) == (
        "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist"
    )
    assert index.palette[1] == BUILDING
    assert first_mask(index) == [1, IGNORED]

    index = read_sequences(root, layout="camvid32")
    assert (index.layout, len(index.classes)) == ("camvid32", 31)
    assert "Void" not in index.classes
    archway, building = (index.classes.index(name) for name in ("Archway", "Building"))
    assert first_mask(index) == [archway, building, IGNORED]
    assert (index.palette[archway], index.palette[building]) == (ARCHWAY, BUILDING)


@pytest.mark.parametrize("layout", ["camvid", "camvid32"])
def test_every_colour_has_its_meaning(root: Path, layout: str) -> None:
    index = read_camvid(root, layout=layout)
    assert len(index.code.values) == 32
    assert {*index.code.values.values()} == {*range(len(index.classes)), IGNORED}
    assert len({*index.palette}) == len(index.classes)


def test_colours_from_the_file(root: Path) -> None:
    write(root / "label_colors.txt", "1 2 3\t\tBuilding\n192 0 128\tArchway\n")
    index = read_sequences(root)
    assert index.palette[1] == (1, 2, 3)
    assert dict(index.code.values)[1, 2, 3] == 1  # type: ignore[index]
    assert BUILDING not in index.code.values


def test_bad_lines_of_colours(root: Path) -> None:
    write(root / "label_colors.txt", "1 2 Building\n1 2 300 Car\n1 2 3 Boat\n64 0 128 Car\n")
    index = read_sequences(root)
    assert problems(index) == [("malformed line", f"label_colors.txt:{n}") for n in (1, 2, 3)]


def test_lists_of_segnet(root: Path) -> None:
    add(root, "0001TP_006750")
    write(
        root / "train.txt",
        "/SegNet/CamVid/train/0001TP_006690.png /SegNet/CamVid/trainannot/0001TP_006690.png\n"
        "0006R0_f00930.png\n"
        "0006R0_f00960.png\n"
        "0006R0_f00930.png\n",
    )
    write(root / "val.txt", "0001TP_006720.png\n")
    write(root / "test.txt", "\n")
    index = read_sequences(root)
    assert lengths(index) == {
        "train/0001TP_006690": ("train", 1, 1),
        "train/0006R0_000930": ("train", 1, 1),
        "val/0001TP_006720": ("val", 1, 1),
    }
    assert index.sequences[0].frames[0].source == "train.txt:1"
    assert problems(index) == [
        ("split without samples", "test.txt"),
        ("missing file", "train.txt:3"),
        ("malformed line", "train.txt:4"),
    ]


def test_what_does_not_fit_is_collected(root: Path) -> None:
    (root / IMAGES / "0001TP_006690.png").unlink()
    (root / LABELS / "0001TP_006720_L.png").unlink()
    picture(root / IMAGES / "copy of 0001TP.png")
    picture(root / IMAGES / "0006R0_00930.png")
    index = read_sequences(root)
    assert problems(index) == [
        ("label without image", LABELS),
        ("unknown name", IMAGES),
        ("repeated frame", IMAGES),
    ]
    assert lengths(index)["train/0001TP_006720"] == ("train", 1, 0)


@pytest.mark.parametrize(
    ("numbers", "pieces"),
    [
        # 0016E5: 1 Hz, a gap, 1 Hz with 901 for 900, 15 Hz, 1 Hz
        (
            [*range(810, 960, 30), *range(4350, 4500, 30), *range(7959, 7969, 2), 8000, 8030],
            [5, 5, 5, 2],
        ),
        ([840, 870, 901, 930, 960], [5]),
        ([0, 1, 2, 4, 5], [3, 2]),
        ([0, 30], [2]),
        ([0], [1]),
    ],
)
def test_cut_where_the_step_changes(tmp_path: Path, numbers: list[int], pieces: list[int]) -> None:
    (tmp_path / LABELS).mkdir()
    for number in numbers:
        picture(tmp_path / IMAGES / f"0016E5_{number:05d}.png", 1, 1)
    index = read_sequences(tmp_path)
    assert [len(s) for s in index.sequences] == pieces
    assert [int(name.split("_")[1]) for name in names(index)] == numbers


def test_cut_of_the_real_recordings(shared_data: Path, tmp_path: Path) -> None:
    """The real frame numbers, under the original names, give the pieces that the README lists."""
    frames: list[SequenceFrame] = [
        f for s in read_sequences(shared_data / "vss").sequences for f in s.frames
    ]
    (tmp_path / LABELS).mkdir()
    (tmp_path / IMAGES).mkdir()
    for frame in frames:
        (tmp_path / IMAGES / f"{frame.image.stem}.png").touch()
    assert {name: count for name, (_, count, _) in lengths(read_sequences(tmp_path)).items()} == {
        "train/0001TP_006690": 124,  # its two segments are contiguous in time
        "val/0006R0_000930": 101,
        "train/0016E5_000390": 68,
        "train/0016E5_004350": 120,
        "train/0016E5_007959": 101,
        "train/0016E5_008190": 16,
    }
