"""Folders of images: their order, one size, their turn, and what is no picture of a sequence."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from spikevideoformer.video.frames import VideoError, check_decodes, iter_frames, probe, read_clip
from spikevideoformer.video.spec import ClipSpec

from .clips import encode, grey, index_of


def test_image_folder(tmp_path: Path) -> None:
    folder = tmp_path / "100% frames"
    folder.mkdir()
    for index in (0, 1, 2, 9, 10, 11):
        encode(folder / f"frame_{index}.png", [grey(index)], codec="png", pix_fmt="rgb24")
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden.png").write_bytes(b"")
    info = check_decodes(folder, sequence_rate_hz=10.0)
    assert (info.codec, info.decoded_frames, info.duration_s) == ("images", 6, 0.6)
    frames = list(iter_frames(folder))
    assert [index_of(frame.image) for frame in frames] == [0, 1, 2, 9, 10, 11]
    assert frames[1].timestamp_s == 1 / 25
    clip = read_clip(
        folder, ClipSpec(frames=2, size=32), start_s=0.2, end_s=0.4, sequence_rate_hz=10.0
    )
    assert [index_of(frame) for frame in clip.frames] == [2, 9]

    encode(folder / "frame_5.png", [grey(5, 32, 32)], codec="png", pix_fmt="rgb24")
    with pytest.raises(VideoError, match=r"frame_5\.png is 32x32, frame_0\.png is 64x48"):
        list(iter_frames(folder))
    data = (folder / "frame_10.png").read_bytes()
    (folder / "frame_5.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError, match=r"frames: frame_5\.png: "):
        check_decodes(folder)
    for rate_hz in (0.0, -25.0, float("nan")):
        with pytest.raises(ValueError, match="sequence_rate_hz must be above 0"):
            probe(folder, sequence_rate_hz=rate_hz)


def drawing() -> Image.Image:
    """A picture that looks different in each of the eight orientations."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:16, :16], image[:16, -16:], image[-16:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    return Image.fromarray(image)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_come_as_exif_turns_them(tmp_path: Path, ending: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if ending == ".webp" else {}
    drawing().save(tmp_path / f"0{ending}", exif=exif, **lossless)
    with Image.open(tmp_path / f"0{ending}") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    (frame,) = iter_frames(tmp_path)
    info = probe(tmp_path)
    assert (info.height, info.width) == expected.shape[:2]
    assert frame.image.shape == expected.shape
    assert np.abs(frame.image.astype(int) - expected).mean() < 4
    (frame,) = iter_frames(tmp_path / f"0{ending}")  # a still named as a video
    assert np.abs(frame.image.astype(int) - expected).mean() < 4


def test_a_picture_under_two_endings_is_refused(tmp_path: Path) -> None:
    for name in ("f0.jpg", "f1.png", "f1.JPG"):
        drawing().save(tmp_path / name)
    with pytest.raises(VideoError, match=r"repeated frame: f1\.\w+ and f1\.\w+ have one name"):
        probe(tmp_path)


@pytest.mark.parametrize("ending", [".webp", ".png", ".tif"])
def test_many_pictures_in_a_file_of_a_folder_are_refused(tmp_path: Path, ending: str) -> None:
    first, second = drawing(), drawing().transpose(Image.Transpose.ROTATE_180)
    first.save(tmp_path / f"0{ending}", save_all=True, append_images=[second])
    with pytest.raises(VideoError, match=r"holds 2 pictures; give the file itself"):
        list(iter_frames(tmp_path))
    assert len(list(iter_frames(tmp_path / f"0{ending}"))) == 2


def test_what_is_clear_lies_on_white(tmp_path: Path) -> None:
    image = np.zeros((48, 64, 4), np.uint8)
    image[:24], image[24:, :, 3] = (255, 0, 0, 0), 255
    Image.fromarray(image).save(tmp_path / "0.png")
    (frame,) = iter_frames(tmp_path)
    assert frame.image[10, 10].tolist() == [255, 255, 255]
    assert frame.image[40, 10].tolist() == [0, 0, 0]
    (small,) = iter_frames(tmp_path, resize_short=6)
    assert small.image[0, 0].tolist() == [255, 255, 255]
