"""What is shown of a stored picture: turned, mirrored, with square pixels, on white."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from spikevideoformer.video.frames import (
    DecodeLimits,
    VideoError,
    check_decodes,
    iter_frames,
    probe,
    read_clip,
)
from spikevideoformer.video.picture import Turn, on_white
from spikevideoformer.video.spec import ClipSpec

from .clips import encode, grey

MARKED = np.zeros((48, 64, 3), np.uint8)
MARKED[:16, :16], MARKED[:16, -16:], MARKED[-16:, :16] = 255, 160, 80

# Where FFmpeg's matrix sends x and y of the stored picture (y downwards), and the upright picture.
MATRICES = {
    (1, 0, 0, 1): MARKED,
    (-1, 0, 0, 1): MARKED[:, ::-1],
    (1, 0, 0, -1): MARKED[::-1],
    (-1, 0, 0, -1): MARKED[::-1, ::-1],
    (0, 1, 1, 0): MARKED.transpose(1, 0, 2),
    (0, -1, -1, 0): MARKED.transpose(1, 0, 2)[::-1, ::-1],
    (0, 1, -1, 0): np.rot90(MARKED, -1),
    (0, -1, 1, 0): np.rot90(MARKED),
}


def with_matrix(path: Path, entries: tuple[float, ...], *, of: bytes = b"tkhd") -> Path:
    """Write the matrix (a, b, c, d) into the header of a video track, or of the whole."""
    data = bytearray(path.read_bytes())
    at = data.index(of) + {b"tkhd": 44, b"mvhd": 40}[of]
    a, b, c, d = (round(entry * 65536) for entry in entries)
    data[at : at + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("ending", [".mp4", ".mov"])
@pytest.mark.parametrize("entries", MATRICES)
def test_matrix_of_a_track_turns_and_mirrors(
    tmp_path: Path, entries: tuple[int, ...], ending: str
) -> None:
    path = with_matrix(encode(tmp_path / f"turned{ending}", [MARKED] * 3), entries)
    expected = MATRICES[entries]
    info = probe(path)
    assert (info.height, info.width) == expected.shape[:2]
    for frame in (next(iter_frames(path)).image, read_clip(path, ClipSpec(frames=2, size=32))):
        image = frame if isinstance(frame, np.ndarray) else frame.frames[0].numpy()
        assert image.shape == expected.shape
        assert np.abs(image.astype(int) - expected).mean() < 6


@pytest.mark.parametrize(
    ("entries", "of"), [((0.7, 0.7, -0.7, 0.7), b"tkhd"), ((1, 4096, 0, 1), b"mvhd")]
)
def test_a_slanted_matrix_is_refused(tmp_path: Path, entries: tuple[float, ...], of: bytes) -> None:
    path = with_matrix(encode(tmp_path / "slanted.mp4", [MARKED] * 3), entries, of=of)
    with pytest.raises(VideoError, match="no multiple of 90 degrees"):
        probe(path)


@pytest.mark.parametrize("orientation", range(10))
def test_turn_is_that_of_pillow(orientation: int) -> None:
    image = Image.fromarray(MARKED)
    image.getexif()[0x0112] = orientation
    turned = Turn.of_exif(orientation)(MARKED)
    assert np.array_equal(turned, np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize(("ratio", "size"), [("2/1", (128, 48)), ("1/2", (64, 96))])
def test_pixels_become_square(
    tmp_path: Path, ending: str, ratio: str, size: tuple[int, int]
) -> None:
    path = tmp_path / f"wide{ending}"
    images = [grey(i) for i in range(4)]
    encode(path, images, options={"x264-params": f"sar={ratio}"})
    info = probe(path)
    assert (info.width, info.height) == size
    frames = list(iter_frames(path))
    assert len(frames) == 4
    assert frames[0].image.shape == (size[1], size[0], 3)
    with pytest.raises(VideoError, match="over the limit"):
        probe(path, limits=DecodeLimits(max_frame_pixels=size[0] * size[1] - 1))


def test_pixels_that_nobody_has_are_refused(tmp_path: Path) -> None:
    """FFmpeg takes a track that is drawn out by its matrix for one of wide pixels."""
    path = encode(tmp_path / "odd.mp4", [grey(i) for i in range(4)])
    assert probe(with_matrix(path, (2, 0, 0, 1))).width == 128
    with pytest.raises(VideoError, match="20 times as wide as high"):
        probe(with_matrix(path, (20, 0, 0, 1)))


def see_through(index: int) -> np.ndarray:
    """Red everywhere, but it shows in a square only, which moves; RGBA."""
    image = np.zeros((48, 64, 4), np.uint8)
    image[..., 0] = 255
    image[16:32, 8 * index : 8 * index + 16, 3] = 255
    return image


@pytest.mark.parametrize(
    ("ending", "codec", "pix_fmt"),
    [
        (".mov", "qtrle", "argb"),
        (".mov", "png", "rgba"),
        (".mkv", "ffv1", "bgra"),
        (".apng", "apng", "rgba"),
        (".webm", "libvpx-vp9", "yuva420p"),
        (".webm", "libvpx", "yuva420p"),
        (".mov", "prores_ks", "yuva444p10le"),
    ],
)
def test_what_alpha_hides_does_not_show(
    tmp_path: Path, ending: str, codec: str, pix_fmt: str
) -> None:
    path = tmp_path / f"clear{ending}"
    with av.logging.Capture(), av.open(path, "w") as out:
        options = {"auto-alt-ref": "0"} if codec == "libvpx" else {}
        stream = out.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        for index in range(5):
            frame = av.VideoFrame.from_ndarray(see_through(index), format="rgba")
            out.mux(stream.encode(frame.reformat(format=pix_fmt)))
        out.mux(stream.encode())
    frames = list(iter_frames(path))
    assert len(frames) == check_decodes(path).decoded_frames == 5
    for index, frame in enumerate(frames):
        expected = on_white(see_through(index))
        assert np.abs(frame.image.astype(int) - expected).mean() < 8, index
