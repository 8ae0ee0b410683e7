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
    ".ogv": ("libvpx", "yuv420p", {}),
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


def test_a_part_of_a_transport_packet_that_is_longer_than_it() -> None:
    """A byte and five are more than a byte."""
    begin = b"\x47\x41\x00\x30\xff" + bytes(183)  # a part of stream 256 begins behind 255 bytes
    check_container("mpegts", BytesIO(begin * 5))


def elements(data: bytes, mark: bytes) -> list[int]:
    """Where a mark stands."""
    return [at for at in range(len(data)) if data.startswith(mark, at)]


def flv_pictures(data: bytes) -> list[int]:
    """Where the tags of video begin."""
    at, found = 13, []
    while at < len(data):
        found += [at] if data[at] == 9 else []
        at += 15 + int.from_bytes(data[at + 1 : at + 4])
    return found


@pytest.mark.parametrize(
    ("suffix", "codec", "what"),
    [
        ("gif", "gif", "a control that does not end"),
        ("gif", "gif", "a program's name of another length"),
        ("flv", "flv", "a stream that is not there"),
        ("flv", "flv", "a kind of picture that is not there"),
        ("flv", "flv", "another codec"),
        ("flv", "flv", "a picture as a command"),
        ("flv", "flv", "sound"),
        ("flv", "flv", "of a later kind of file"),
        ("gif", "gif", "a name that swallows pictures"),
        ("webm", "libvpx", "an open block"),
        ("webm", "libvpx", "laced pictures"),
        ("apng", "apng", "another name for the head of an animation"),
        ("avi", "mpeg4", "a chunk of a stream that is not there"),
        ("avi", "mpeg4", "a chunk without a name"),
        ("ogv", "libvpx", "a byte of a page"),
        ("webm", "libvpx", "a block of another track"),
        ("webm", "libvpx", "a block called a number"),
        ("mpg", "mpeg2video", "a picture in the middle of a group"),
        ("mkv", "mpeg1video", "a picture in the middle of a group"),
    ],
)
def test_a_change_of_a_byte_that_hides_a_picture(
    tmp_path: Path, suffix: str, codec: str, what: str
) -> None:
    path = encode(
        tmp_path / f"a.{suffix}",
        [np.kron(moving_bar(index), np.ones((2, 2, 1), np.uint8)) for index in range(FRAMES)],
        codec=codec,
        pix_fmt={"gif": "rgb8", "apng": "rgb24"}.get(codec, "yuv420p"),
        options={"g": "8"},
    )
    data = bytearray(path.read_bytes())
    if suffix == "gif":
        at = elements(data, b"\x21\xf9\x04")[5]
        if what.endswith("pictures"):
            name = data.index(b"NETSCAPE2.0") + 11
            end = elements(data, b"\0\x21\xf9\x04")[2]
            data[name + 1 : end] = data[name + 1 : end][:255]
            data[name] = 255  # a block that ends where the third picture begins
        elif what.startswith("a control"):
            data[at + 7] = 5
        else:
            data[at + 1 : at + 3] = b"\xff\x20"
    elif suffix == "flv":
        at = flv_pictures(data)[5]
        place, value = {
            "a s": (10, 1),
            "a k": (11, 0x72),
            "ano": (11, 0x29),
            "a p": (11, 0x52),
            "sou": (0, 8),
            "of ": (11, 0xA2),
        }[what[:3]]
        data[at + place] = value
    elif suffix == "avi":
        at = elements(data, b"00dc")[5]
        data[at : at + 4] = b"07dc" if what.endswith("there") else b"\1\2\3\4"
    elif suffix == "apng":
        at = elements(data, b"acTL")[0]
        data[at + 1 : at + 4] = bytes(3)
    elif suffix == "ogv":
        data[elements(data, b"OggS")[3] - 1] ^= 1
    elif suffix == "webm":
        with av.open(path) as container:
            at = [p.pos for p in container.demux(video=0) if p.size][5]
        assert at is not None
        assert data[at] in (0xA3, 0x81), hex(data[at])
        at = data.rindex(b"\xa3", 0, at + 1)
        if what.startswith("laced"):
            data[data.index(b"\x81", at + 1) + 3] |= 2
        elif what.startswith("an open"):
            data[at + 1] = 0xFF  # a size that is not known
        elif what.endswith("track"):
            data[data.index(b"\x81", at + 1)] = 0x85
        else:
            data[at] = 0xAB
    else:
        at = elements(data, b"\0\0\1\0")[5]
        data[at + 3] = 0xB2  # user data in the place of a picture
    path.write_bytes(data)
    with pytest.raises(VideoError):
        check_decodes(path)
