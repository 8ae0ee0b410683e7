"""Clocks that jump, fall back, wrap or pause: time as players have it."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from spikevideoformer.video.clock import Clock, ClockError
from spikevideoformer.video.frames import VideoError, check_decodes, iter_frames, probe, read_clip
from spikevideoformer.video.spec import ClipSpec

from .clips import encode, grey, index_of

CODEC = {".mpg": "mpeg2video", ".flv": "flv", ".webm": "libvpx"}
SPREAD = ClipSpec(frames=4, size=32)


def remux(source: Path, path: Path, time_of: Callable[[float], float], **options: str) -> Path:
    """The same packets at other times: `time_of` gives them, in seconds."""
    with av.logging.Capture(), av.open(source) as given, av.open(path, "w", options=options) as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                for name in ("pts", "dts"):
                    seconds = float(getattr(packet, name) * packet.time_base)
                    setattr(packet, name, round(time_of(seconds) / packet.time_base))
                packet.stream = stream
                out.mux(packet)
    return path


def clip_of(path: Path, count: int = 20, **options: object) -> Path:
    return encode(
        path, [grey(i) for i in range(count)], rate=10, codec=CODEC.get(path.suffix, "libx264"),
        **options,
    )  # fmt: skip


@pytest.mark.parametrize("ending", [".ts", ".mpg"])
@pytest.mark.parametrize("jump_s", [15.0, 100.0, 40_000.0])
def test_the_jump_of_a_broadcast_is_no_time(tmp_path: Path, ending: str, jump_s: float) -> None:
    source = clip_of(tmp_path / f"plain{ending}", options={"g": "5", "bf": "0"})
    path = remux(source, tmp_path / f"jump{ending}", lambda t: t + jump_s * (t > 1.35))
    frames = list(iter_frames(path))
    assert [f.timestamp_s for f in frames] == pytest.approx([i / 10 for i in range(20)], abs=0.11)
    assert check_decodes(path).duration_s == pytest.approx(2.0, abs=0.15)
    clip = read_clip(path, SPREAD)
    assert [index_of(frame) for frame in clip.frames] == pytest.approx([2, 7, 12, 17], abs=1)


def test_a_pause_that_sound_bridges_is_time(tmp_path: Path) -> None:
    """Three pictures over 60 s of sound, as of a talk with slides."""
    for ending in (".ts", ".mkv", ".mp4"):
        path = tmp_path / f"slides{ending}"
        with av.logging.Capture(), av.open(path, "w") as out:
            video, sound = out.add_stream("libx264", rate=10), out.add_stream("aac", rate=8000)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            video.options = {"bf": "0", "tune": "zerolatency"}
            sound.layout = "mono"
            for second in range(60):
                if second % 25 == 0:
                    frame = av.VideoFrame.from_ndarray(grey(second // 25))
                    frame.pts = 10 * second
                    out.mux(video.encode(frame))
                for part in range(10):
                    quiet = np.zeros((1, 800), np.float32)
                    heard = av.AudioFrame.from_ndarray(quiet, format="fltp", layout="mono")
                    heard.sample_rate, heard.pts = 8000, 800 * (10 * second + part)
                    out.mux(sound.encode(heard))
            out.mux(video.encode())
            out.mux(sound.encode())
        times = [frame.timestamp_s for frame in iter_frames(path)]
        assert times == pytest.approx([0.0, 25.0, 50.0], abs=0.1), ending


def test_the_clock_of_a_broadcast_wraps(tmp_path: Path) -> None:
    """33 bits at 90 kHz: after 26.5 hours it begins anew."""
    source = clip_of(tmp_path / "plain.ts", options={"bf": "0"})
    begin_s = 2**33 / 90_000 - 3  # the muxer adds some
    path = remux(source, tmp_path / "wrap.ts", lambda t: t + begin_s)
    times = [frame.timestamp_s for frame in iter_frames(path)]
    assert times == pytest.approx([i / 10 for i in range(20)], abs=1e-3)


@pytest.mark.parametrize("ending", [".mkv", ".mpg", ".webm"])
@pytest.mark.parametrize("count", [5, 8, 30])
def test_joined_recordings_follow_each_other(tmp_path: Path, ending: str, count: int) -> None:
    """As `cat` joins them: shorter than a second, and longer."""
    piece = clip_of(tmp_path / f"piece{ending}", count).read_bytes()
    path = tmp_path / f"joined{ending}"
    path.write_bytes(piece * 2)
    frames = list(iter_frames(path))
    times = [i / 10 for i in range(2 * count)]
    assert [f.timestamp_s for f in frames] == pytest.approx(times, abs=0.11)
    assert [index_of(f.image) for f in frames] == 2 * list(range(count))
    clip = read_clip(path, ClipSpec(frames=2, size=32))
    assert [index_of(f) for f in clip.frames] == pytest.approx([count // 2] * 2, abs=1)


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".gif", ".flv"])
def test_joined_recordings_that_no_player_shows_are_refused(tmp_path: Path, ending: str) -> None:
    codec = {".gif": {"codec": "gif", "pix_fmt": "gray"}, ".flv": {"codec": "flv"}}.get(ending, {})
    piece = encode(tmp_path / f"piece{ending}", [grey(i) for i in range(8)], **codec)
    path = tmp_path / f"joined{ending}"
    path.write_bytes(piece.read_bytes() * 2)
    with pytest.raises(VideoError, match="a second recording is joined to it"):
        check_decodes(path)


@pytest.mark.parametrize("ending", [".mkv", ".webm"])
@pytest.mark.parametrize("gap_s", [20.0, 90.0, 7200.0])
def test_a_screen_that_stands_still_in_a_live_recording(
    tmp_path: Path, ending: str, gap_s: float
) -> None:
    pts = [round(1000 * (i / 10 + gap_s * (i > 2))) for i in range(6)]
    path = encode(
        tmp_path / f"live{ending}",
        [grey(i) for i in range(6)],
        pts,
        codec=CODEC.get(ending, "libx264"),
        options={} if ending == ".webm" else {"bf": "0"},
        container_options={"live": "1"},
    )
    assert probe(path).duration_s is None
    frames = list(iter_frames(path))
    assert [f.timestamp_s for f in frames] == pytest.approx([p / 1000 for p in pts], abs=2e-3)


def test_a_clock_that_leaps_and_comes_back_is_refused(tmp_path: Path) -> None:
    """Damage, and no pause: the packets after it have the old time."""
    with av.open(clip_of(tmp_path / "plain.flv")) as container:
        clock = Clock("flv", 0.1)
        for index, packet in enumerate(container.demux(video=0)):
            if index == 5:
                packet.dts, packet.pts = packet.dts + 100_000, packet.pts + 100_000  # ms
            if index == 6:
                with pytest.raises(ClockError, match=r"jumps from 0\.50 s to .* and later back"):
                    clock.set(packet)
                return
            clock.set(packet)


def test_a_clock_that_stands_still_is_refused(tmp_path: Path) -> None:
    path = encode(
        tmp_path / "one.mkv", [grey(i) for i in range(6)], [0] * 6, codec="ffv1", pix_fmt="bgr0"
    )
    with pytest.raises(VideoError, match="all of its 6 pictures have one time"):
        check_decodes(path)
