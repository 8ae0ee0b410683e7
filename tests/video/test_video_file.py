"""Which stream of a file is shown, which demuxer is trusted, and how long a file is."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from spikevideoformer.video.frames import (
    VideoError,
    check_decodes,
    iter_frames,
    iter_windows,
    probe,
    read_clip,
)
from spikevideoformer.video.spec import ClipSpec

from .clips import encode, grey, index_of, with_sound

_DTYPES = {"s16": np.int16, "s16p": np.int16, "s32p": np.int32, "fltp": np.float32}


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("still", ["mjpeg", "libx264"])
def test_a_first_stream_of_one_picture_is_passed_over(
    tmp_path: Path, ending: str, still: str
) -> None:
    """A thumbnail that is not marked as one."""
    if ending == ".ts" and still == "mjpeg":
        pytest.skip("there is no such stream in a transport stream")
    path = tmp_path / f"thumb{ending}"
    with av.logging.Capture(), av.open(path, "w") as out:
        streams = [out.add_stream(codec, rate=10) for codec in (still, "libx264")]
        for stream, side in zip(streams, (32, 64), strict=True):
            stream.width = stream.height = side
            stream.pix_fmt = "yuvj420p" if stream.codec_context.name == "mjpeg" else "yuv420p"
            stream.disposition = av.stream.Disposition.default
        for index in range(8):
            for stream, side in zip(streams, (32, 64), strict=True):
                if side == 64 or index == 0:
                    out.mux(stream.encode(av.VideoFrame.from_ndarray(grey(index, side, side))))
        for stream in streams:
            out.mux(stream.encode())
    info = check_decodes(path)
    assert (info.width, info.decoded_frames) == (64, 8)


@pytest.mark.parametrize("ending", [".mp3", ".m4a", ".flac"])
def test_sound_with_a_cover_is_no_video(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"song{ending}"
    codec = {".mp3": "libmp3lame", ".flac": "flac"}.get(ending, "aac")
    muxer = "mp4" if ending == ".m4a" else None
    with av.logging.Capture(), av.open(path, "w", format=muxer) as out:
        sound = out.add_stream(codec, rate=16000)
        sound.layout = "mono"
        picture = out.add_stream("mjpeg", rate=1)
        picture.width = picture.height = 32
        picture.pix_fmt = "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        out.mux(picture.encode(av.VideoFrame.from_ndarray(grey(3, 32, 32))))
        out.mux(picture.encode())
        kind = sound.codec_context.format.name
        for index in range(20):
            samples = np.zeros((1, 1024), _DTYPES[kind])
            frame = av.AudioFrame.from_ndarray(samples, format=kind, layout="mono")
            frame.sample_rate, frame.pts = 16000, 1024 * index
            out.mux(sound.encode(frame))
        out.mux(sound.encode())
    with pytest.raises(VideoError, match="no video in it, only audio and a cover picture"):
        probe(path)
    alone = with_sound(tmp_path / "alone.mp4", video_frames=0, sound_s=1)
    with pytest.raises(VideoError, match=r"no video in it, only audio$"):
        probe(alone)


@pytest.mark.parametrize(
    ("codec", "own"), [("libx264", ".h264"), ("libx265", ".hevc"), ("mjpeg", ".mjpeg"),
                       ("mpeg2video", ".m2v")],
)  # fmt: skip
def test_raw_streams_are_read_under_their_own_name_only(
    tmp_path: Path, codec: str, own: str
) -> None:
    path = raw(tmp_path / f"raw{own}", codec, 20)
    assert check_decodes(path).decoded_frames == 20
    for name in ("raw.mov", "raw.avi", "raw"):
        other = tmp_path / name
        other.write_bytes(path.read_bytes())
        with pytest.raises(VideoError, match=f"under another name; if it is one, call it|{own}"):
            check_decodes(other)


@pytest.mark.parametrize(
    ("codec", "own"), [("libx264", ".264"), ("libx265", ".h265"), ("mpeg2video", ".m2v")]
)
def test_raw_streams_that_begin_between_key_frames(tmp_path: Path, codec: str, own: str) -> None:
    path = raw(tmp_path / f"raw{own}", codec, 40, begin=7)
    info = check_decodes(path)
    assert info.decoded_frames == 28  # from the next key frame, at 12, on
    (window,) = iter_windows(path, ClipSpec(frames=4, size=32))
    assert [window.end_s, info.duration_s] == pytest.approx([28 / 25] * 2)


def test_sound_may_be_the_first_stream(tmp_path: Path) -> None:
    """The pictures that a decoder holds back come at the end."""
    for ending in (".mp4", ".mkv", ".ts"):
        path = with_sound(tmp_path / f"a{ending}", video_frames=12, sound_s=1, sound_first=True)
        assert check_decodes(path).decoded_frames == 12


def raw(path: Path, codec: str, count: int, begin: int = 0) -> Path:
    """A stream without a container, with a key frame every 12 pictures, from one packet on."""
    muxer = {".264": "h264", ".h265": "hevc", ".m2v": "mpeg2video"}.get(path.suffix)
    options = {"g": "12", "bf": "0", "keyint_min": "12", "sc_threshold": "0"}
    if codec == "libx265":
        options = {"x265-params": "log-level=none:keyint=12:min-keyint=12:bframes=0:scenecut=0"}
    draw = np.random.default_rng(0)
    image = draw.integers(0, 200, (48, 64, 3), np.uint8)
    with av.logging.Capture(), av.open(path, "w", format=muxer) as out:
        stream = out.add_stream(codec, rate=Fraction(25), options=options)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        packets = [
            packet
            for index in range(count)
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.roll(image, index, 1)))
        ]
        packets += stream.encode()
        for packet in packets[begin:]:
            out.mux(packet)
    return path


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("begin_ms", [5000, 40_000_000])
def test_a_late_start_is_no_length(tmp_path: Path, begin_ms: int, live: bool) -> None:
    pts = [begin_ms + 100 * i for i in range(10)]
    path = encode(
        tmp_path / "late.mkv",
        [grey(i) for i in range(10)],
        pts,
        rate=10,
        options={"bf": "0"},
        container_options={"live": "1"} if live else {},
    )
    clip = read_clip(path, ClipSpec(frames=5, size=32))
    assert [index_of(frame) for frame in clip.frames] == [1, 3, 5, 7, 9]
    assert [round(frame.timestamp_s, 3) for frame in iter_frames(path)] == [
        i / 10 for i in range(10)
    ]
