"""Cuts and holes of every container are told, wherever they are."""

import random
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from spikevideoformer.video.containers import check_container
from spikevideoformer.video.frames import VideoError, check_decodes
from spikevideoformer.video.matroska import StructureError

from .clips import encode, grey
from .malformed import FRAMES, moving_bar

KINDS = {
    ".avi": ("mpeg4", "yuv420p", {}),
    ".flv": ("flv", "yuv420p", {}),
    ".gif": ("gif", "rgb8", {}),
    ".mov": ("mjpeg", "yuvj420p", {}),
    ".mpg": ("mpeg2video", "yuv420p", {}),
    ".ogv": ("libtheora", "yuv420p", {}),
    ".ts": ("libx264", "yuv420p", {}),
    ".m2ts": ("libx264", "yuv420p", {}),
    ".apng": ("apng", "rgb24", {}),
    ".wmv": ("wmv2", "yuv420p", {}),
    ".mp4": ("libx264", "yuv420p", {"movflags": "frag_keyframe+empty_moov"}),
}


@pytest.fixture(scope="module", params=KINDS)
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    codec, pix_fmt, options = KINDS[request.param]
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    path = tmp_path_factory.mktemp("sound") / f"sound{request.param}"
    return encode(
        path,
        [np.kron(moving_bar(index), np.ones((2, 2, 1), np.uint8)) for index in range(FRAMES)],
        codec=codec,
        pix_fmt=pix_fmt,
        options={"g": "8"},
        container_options=options,
    )


def test_a_sound_file_is_whole(sound: Path) -> None:
    assert check_decodes(sound).decoded_frames == FRAMES
    with av.open(sound) as container:
        check_container(container.format.name, BytesIO(sound.read_bytes()))


def between_parts(path: Path) -> set[int]:
    """Where a cut leaves a file that says nothing of what is missing (docs/video.md)."""
    data = path.read_bytes()
    if path.suffix in (".ts", ".m2ts"):
        size = 188 if path.suffix == ".ts" else 192
        return set(range(0, len(data), size))
    marks = {".mpg": (b"\0\0\1\xba", b"\0\0\1\xe0"), ".mp4": (b"moof",)}.get(path.suffix, ())
    found = {at for mark in marks for at in range(len(data)) if data.startswith(mark, at)}
    return {at - 4 for at in found} if path.suffix == ".mp4" else found


def test_every_cut_is_told(sound: Path, tmp_path: Path) -> None:
    data, silent = sound.read_bytes(), between_parts(sound)
    path = tmp_path / sound.name
    draw = random.Random(0)
    for keep in sorted({len(data) - 1, *(draw.randrange(1, len(data)) for _ in range(40))}):
        if keep in silent:
            continue
        path.write_bytes(data[:keep])
        try:
            decoded = check_decodes(path).decoded_frames
        except VideoError as error:
            assert "\n" not in str(error)  # noqa: PT017
            continue
        assert decoded == FRAMES, f"{sound.name} cut to {keep} of {len(data)} bytes"


def second_key_frame(path: Path) -> int:
    """Its byte, in streams that may begin anywhere: damage before it looks like a late begin."""
    if path.suffix not in (".mpg", ".ts", ".m2ts"):
        return 0
    with av.open(path) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    return [p.pos or 0 for p in packets if p.is_keyframe][1]


@pytest.mark.parametrize("hole", [16, 600, 3000])
def test_every_hole_is_told(sound: Path, tmp_path: Path, hole: int) -> None:
    if sound.suffix == ".wmv":
        pytest.skip("its packets carry no check of what they hold")
    data = sound.read_bytes()
    path = tmp_path / sound.name
    draw = random.Random(hole)
    for _ in range(25):
        at = draw.randrange(second_key_frame(sound), len(data))
        path.write_bytes(data[:at] + bytes(len(data[at : at + hole])) + data[at + hole :])
        try:
            decoded = check_decodes(path).decoded_frames
        except VideoError as error:
            assert "\n" not in str(error)  # noqa: PT017
            continue
        assert decoded == FRAMES, f"{sound.name}: zeros at {at} of {len(data)} bytes"


def test_apng_is_held_to_its_count(tmp_path: Path) -> None:
    images = [Image.fromarray(grey(i)) for i in range(4)]
    images[0].save(tmp_path / "a.png", save_all=True, append_images=images[1:])
    data = (tmp_path / "a.png").read_bytes()
    begin, end = data.rindex(b"fcTL") - 4, data.rindex(b"IEND") - 4
    with pytest.raises(StructureError, match="holds 3 of 4 pictures announced"):
        check_container("apng", BytesIO(data[:begin] + data[end:]))
