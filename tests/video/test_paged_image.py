"""Animations and stacks in one file: all pictures, their times, and damage."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikevideoformer.video.frames import (
    DecodeLimits,
    VideoError,
    check_decodes,
    iter_frames,
    probe,
    read_clip,
)
from spikevideoformer.video.spec import ClipSpec

from .clips import grey, index_of


def animate(path: Path, images: list[np.ndarray], **options: object) -> Path:
    first, *rest = map(Image.fromarray, images)
    first.save(path, save_all=True, append_images=rest, **options)
    return path


@pytest.mark.parametrize(
    ("ending", "options"),
    [
        (".webp", {"lossless": True}),
        (".avif", {"quality": 90}),
        (".gif", {}),
        (".png", {}),
        (".tif", {}),
    ],
)
def test_all_pictures_at_their_times(tmp_path: Path, ending: str, options: dict) -> None:
    images = [grey(i) for i in range(16)]
    timed = {} if ending == ".tif" else {"duration": 200}
    path = animate(tmp_path / f"a{ending}", images, **timed, **options)
    info = check_decodes(path, sequence_rate_hz=5.0)
    assert (info.width, info.height, info.decoded_frames) == (64, 48, 16)
    assert info.duration_s == pytest.approx(3.2)
    frames = list(iter_frames(path, sequence_rate_hz=5.0))
    assert [index_of(frame.image) for frame in frames] == list(range(16))
    assert [f.timestamp_s for f in frames] == pytest.approx([i / 5 for i in range(16)])
    clip = read_clip(path, ClipSpec(frames=4, size=32), sequence_rate_hz=5.0)
    assert [index_of(frame) for frame in clip.frames] == [2, 6, 10, 14]


def test_times_may_differ_and_none_is_a_tenth(tmp_path: Path) -> None:
    images = [grey(i) for i in range(4)]
    path = animate(tmp_path / "a.webp", images, lossless=True, duration=[500, 0, 20, 300])
    frames = list(iter_frames(path))
    assert [f.duration_s for f in frames] == pytest.approx([0.5, 0.1, 0.02, 0.3])
    assert frames[3].timestamp_s == pytest.approx(0.62)


@pytest.mark.parametrize("ending", [".webp", ".avif", ".tif"])
def test_damage_is_one_line(tmp_path: Path, ending: str) -> None:
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(8)]
    path = animate(tmp_path / f"a{ending}", images)
    data, refused = path.read_bytes(), 0
    for keep in range(1, len(data), max(1, len(data) // 25)):
        path.write_bytes(data[:keep])
        try:
            # The last bytes of TIFF may be padding.
            assert (check_decodes(path).decoded_frames, ending) == (8, ".tif")
        except VideoError as error:
            assert str(error).startswith(f"{path}: "), error  # noqa: PT017
            refused += 1
    assert refused > 20


def test_limits_and_sizes(tmp_path: Path) -> None:
    path = animate(tmp_path / "a.webp", [grey(i) for i in range(8)], lossless=True)
    for limits in (DecodeLimits(max_frames=7), DecodeLimits(max_frame_pixels=64 * 48 - 1)):
        with pytest.raises(VideoError, match="over the limit"):
            probe(path, limits=limits)
    path = animate(tmp_path / "a.tif", [grey(0), grey(1, 32, 32)])
    with pytest.raises(VideoError, match="different sizes, 64x48 and 32x32"):
        list(iter_frames(path))


def test_what_is_clear_lies_on_white(tmp_path: Path) -> None:
    images = []
    for index in range(3):
        image = np.zeros((48, 64, 4), np.uint8)
        image[..., 0] = 255
        image[16:32, 8 * index : 8 * index + 16, 3] = 255
        images.append(image)
    for ending in (".webp", ".avif"):
        path = animate(tmp_path / f"a{ending}", images, quality=100)
        for index, frame in enumerate(iter_frames(path)):
            assert frame.image[2, 2].tolist() == pytest.approx([255, 255, 255], abs=4)
            assert frame.image[24, 8 * index + 8].tolist() == pytest.approx([255, 0, 0], abs=12)


def test_heif_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "phone.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(VideoError, match=r"HEIF picture \(HEIC\); save it as JPEG"):
        probe(path)
