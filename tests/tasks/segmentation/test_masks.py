"""Masks and pictures: what is accepted, what is refused and in which words, and damage."""

import pickle
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikevideoformer.data.pictures import MAX_PIXELS, picture_size, read_picture
from spikevideoformer.tasks.segmentation.masks import (
    MaskError,
    distinct_palette,
    read_mask,
    write_mask,
)
from spikevideoformer.tasks.segmentation.sequence import IGNORED, MaskCode
from spikevideoformer.video.frames import iter_frames
from spikevideoformer.video.interface import VideoError

from ...video.malformed import damages
from .frames import save

CODE = MaskCode(values={0: 0, 1: 1, 2: 2, 3: 3, 9: IGNORED, 255: IGNORED})
COLOURS = MaskCode(values={(0, 0, 0): IGNORED, (255, 0, 0): 0, (0, 0, 255): 1})


def grey_png(path: Path, depth: int, row: bytes, width: int = 4, height: int = 1) -> Path:
    """A grey PNG of any bit depth, which Pillow itself does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" + row))
        + chunk(b"IEND", b"")
    )
    return path


class TestValues:
    def test_grey(self, tmp_path: Path) -> None:
        path = save(tmp_path / "m.png", [[0, 1, 2], [3, 9, 255]])
        mask = read_mask(path, CODE)
        assert mask.dtype == np.uint8
        assert mask.tolist() == [[0, 1, 2], [3, IGNORED, IGNORED]]

    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    def test_of_a_palette_the_numbers_count(self, tmp_path: Path, bits: int) -> None:
        image = Image.frombytes("P", (2, 1), bytes([1, 0]))
        image.putpalette([2, 2, 2, 3, 3, 3] + [0] * 6)
        image.save(tmp_path / "m.png", bits=bits)
        assert read_mask(tmp_path / "m.png", CODE).tolist() == [[1, 0]]

    @pytest.mark.parametrize(
        ("depth", "row", "values"),
        [
            (1, b"\x50", [0, 1, 0, 1]),
            (2, b"\x1b", [0, 1, 2, 3]),
            (4, b"\x01\x29", [0, 1, 2, IGNORED]),
            (16, b"\0\0\0\1\0\3\0\xff", [0, 1, 3, IGNORED]),
        ],
    )
    def test_grey_of_other_depths(
        self, tmp_path: Path, depth: int, row: bytes, values: list[int]
    ) -> None:
        mask = read_mask(grey_png(tmp_path / "m.png", depth, row), CODE)
        assert mask.tolist() == [values]
        assert mask.dtype == np.uint8

    def test_a_16_bit_value_is_not_cut_to_8(self, tmp_path: Path) -> None:
        path = grey_png(tmp_path / "m.png", 16, b"\1\1\0\1\0\1\0\1")
        with pytest.raises(MaskError, match="value 257 in 1 pixel is no class"):
            read_mask(path, CODE)

    def test_an_unknown_value(self, tmp_path: Path) -> None:
        path = save(tmp_path / "m.png", [[0, 7, 7], [8, 1, 255]])
        with pytest.raises(MaskError) as error:
            read_mask(path, CODE)
        assert str(error.value) == (
            f"{path}: value 7 in 2 pixels (and 1 other value) is no class; accepted are 0-3, 9, 255"
        )

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
    def test_other_kinds_of_file(self, tmp_path: Path, mode: str) -> None:
        Image.new(mode, (3, 2)).save(tmp_path / "m.png")
        with pytest.raises(MaskError, match=r"m\.png: holds .* but masks here have one channel"):
            read_mask(tmp_path / "m.png", CODE)

    def test_jpeg_is_no_mask(self, tmp_path: Path) -> None:
        Image.new("L", (8, 8)).save(tmp_path / "m.jpg")
        with pytest.raises(MaskError, match=r"not an image that is read here \(PNG, BMP\)"):
            read_mask(tmp_path / "m.jpg", CODE)


class TestColours:
    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
    def test_look_up(self, tmp_path: Path, mode: str) -> None:
        pixels = np.array([[[255, 0, 0], [0, 0, 255]], [[0, 0, 0], [255, 0, 0]]], np.uint8)
        Image.fromarray(pixels).convert(mode).save(tmp_path / "m.png")
        assert read_mask(tmp_path / "m.png", COLOURS).tolist() == [[0, 1], [IGNORED, 0]]

    def test_an_unknown_colour(self, tmp_path: Path) -> None:
        path = save(tmp_path / "m.png", [[[255, 0, 0], [255, 0, 1]]])
        with pytest.raises(MaskError) as error:
            read_mask(path, COLOURS)
        assert str(error.value) == (
            f"{path}: colour (255, 0, 1) in 1 pixel is not of the data set; accepted are its 3"
            " colours"
        )

    def test_a_file_of_values(self, tmp_path: Path) -> None:
        path = save(tmp_path / "m.png", [[0, 1]])
        with pytest.raises(MaskError, match="holds grey values, but its data set draws masks in"):
            read_mask(path, COLOURS)


class TestPictures:
    def test_colours_and_grey(self, tmp_path: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        assert (read_picture(save(tmp_path / "c.png", pixels)) == pixels).all()
        grey = read_picture(save(tmp_path / "g.png", pixels[..., 0]))
        assert (grey == pixels[..., :1]).all()

    def test_what_a_palette_leaves_clear_lies_on_white(self, tmp_path: Path) -> None:
        image = Image.frombytes("P", (2, 1), bytes([0, 1]))
        image.putpalette([10, 20, 30, 40, 50, 60])
        image.save(tmp_path / "p.png", transparency=bytes([0, 128]))
        assert read_picture(tmp_path / "p.png").tolist() == [[[255] * 3, [147, 152, 157]]]

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_it_is_turned_as_in_a_video(self, tmp_path: Path, orientation: int) -> None:
        """A picture and its mask: by Exif, as viewers and `svf predict` show them."""
        exif = Image.Exif()
        exif[0x0112] = orientation
        values = np.arange(12, dtype=np.uint8).reshape(3, 4) % 2
        stored = np.kron(values, np.ones((16, 16), np.uint8))
        Image.fromarray(200 * np.stack([stored] * 3, -1)).save(tmp_path / "0.png", exif=exif)
        picture = read_picture(tmp_path / "0.png")
        (frame,) = iter_frames(tmp_path / "0.png")
        assert (picture == frame.image).all()
        assert picture_size(tmp_path / "0.png") == picture.shape[:2]
        Image.fromarray(stored).save(tmp_path / "m.png", exif=exif)
        assert (read_mask(tmp_path / "m.png", CODE) * 200 == picture[..., 0]).all()

    def test_16_bits(self, tmp_path: Path) -> None:
        path = save(tmp_path / "p.png", [[1, 2]], np.uint16)
        with pytest.raises(VideoError, match="holds 16-bit values; convert it to 8 bits"):
            read_picture(path)


class TestBadFiles:
    @pytest.mark.parametrize("name", ["gone.png", "folder.png", "text.png", "empty.png"])
    def test_named_in_one_line(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "folder.png").mkdir()
        (tmp_path / "text.png").write_text("words\n" * 100)
        (tmp_path / "empty.png").touch()
        path = tmp_path / name
        with pytest.raises(MaskError, match=name) as mask:
            read_mask(path, CODE)
        with pytest.raises(VideoError, match=name) as picture:
            read_picture(path)
        with pytest.raises(VideoError, match=name):
            picture_size(path)
        assert "\n" not in str(mask.value) + str(picture.value)

    def test_an_odd_name_stays_on_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(MaskError):
            read_mask(tmp_path / "a\nb.png", CODE)

    def test_survives_a_loader_worker(self) -> None:
        error = MaskError("m.png", "value 7")
        assert str(pickle.loads(pickle.dumps(error))) == str(error) == "m.png: value 7"
        assert str(MaskError(str(error))) == str(error)

    @pytest.mark.parametrize("side", [8193, 20000])
    def test_a_bomb(self, tmp_path: Path, side: int) -> None:
        path = grey_png(tmp_path / "m.png", 1, b"", width=side, height=side)
        assert side * side > MAX_PIXELS
        with pytest.raises(MaskError, match="pixels"):
            read_mask(path, CODE)
        with pytest.raises(VideoError, match="pixels"):
            picture_size(path)

    def test_damaged_png_is_refused_or_read_rightly(self, tmp_path: Path) -> None:
        draw = np.random.default_rng(0)
        path = save(tmp_path / "m.png", np.kron(draw.integers(0, 4, (6, 8)), np.ones((4, 4))))
        good = read_mask(path, CODE)
        refused = 0
        for damage, data in damages(path.read_bytes(), random.Random(0), 200):
            path.write_bytes(data)
            try:
                assert (read_mask(path, CODE) == good).all(), damage
            except MaskError as error:
                assert "\n" not in str(error)  # noqa: PT017
                refused += 1
        assert refused > 150

    def test_damaged_jpeg_is_refused_or_read(self, tmp_path: Path) -> None:
        draw = np.random.default_rng(0)
        path = save(tmp_path / "p.jpg", draw.integers(0, 256, (24, 32, 3)))
        refused = 0
        for _, data in damages(path.read_bytes(), random.Random(0), 200):
            path.write_bytes(data)
            try:
                read_picture(path)
            except VideoError as error:
                assert "\n" not in str(error)  # noqa: PT017
                refused += 1
        assert refused > 50

    def test_cut_short(self, tmp_path: Path) -> None:
        path = save(tmp_path / "p.jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3)))
        path.write_bytes(path.read_bytes()[:-400])
        with pytest.raises(VideoError, match="truncated"):
            read_picture(path)
        assert picture_size(path) == (64, 64)


class TestWriting:
    def test_round_trip(self, tmp_path: Path) -> None:
        mask = np.array([[0, 1, 2], [255, 2, 0]], np.uint8)
        write_mask(tmp_path / "m.png", mask, ((9, 8, 7), (6, 5, 4), (3, 2, 1)))
        assert (read_mask(tmp_path / "m.png", CODE) == mask).all()
        with Image.open(tmp_path / "m.png") as image:
            assert image.mode == "P"
            shown = np.array(image.convert("RGB"))
        assert shown[0].tolist() == [[9, 8, 7], [6, 5, 4], [3, 2, 1]]
        assert shown[1, 0].tolist() == [0, 0, 0]
        assert [p.name for p in tmp_path.iterdir()] == ["m.png"]

    def test_a_view_that_is_not_contiguous(self, tmp_path: Path) -> None:
        mask = np.arange(12, dtype=np.uint8).reshape(3, 4)[:, ::-1] % 4
        write_mask(tmp_path / "m.png", mask, distinct_palette(4))
        assert (read_mask(tmp_path / "m.png", CODE) == mask).all()

    def test_a_class_without_a_colour(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="mask holds class 2, but the palette has 2 colours"):
            write_mask(tmp_path / "m.png", np.full((2, 2), 2, np.uint8), distinct_palette(2))
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match=r"m\.png"):
            write_mask(tmp_path / "x/m.png", np.zeros((2, 2), np.uint8), distinct_palette(1))


def test_distinct_palette() -> None:
    assert distinct_palette(3) == ((128, 0, 0), (0, 128, 0), (128, 128, 0))  # as in VOC
    colours = distinct_palette(255)
    assert len({*colours, (0, 0, 0)}) == 256
    assert distinct_palette(20) == colours[:20]
    with pytest.raises(ValueError, match="0 to 255 classes, got 256"):
        distinct_palette(256)


def test_a_class_index_that_marks_something_else(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", [[0]])
    with pytest.raises(ValueError, match="class indices are 0 to 253 or 255, got 254"):
        read_mask(path, MaskCode(values={0: 254}))
