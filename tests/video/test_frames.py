"""Decoding, sampling, windows, limits and writing, on real clips and on files written here."""

import csv
import gc
import itertools
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from spikevideoformer.video.frames import (
    DecodeLimits,
    VideoError,
    check_decodes,
    iter_frames,
    iter_windows,
    probe,
    read_clip,
    write_video,
)
from spikevideoformer.video.spec import ClipSpec

from .clips import encode, grey, index_of, with_sound

REAL = """
torchcodec__nasa_13013.mp4 torchcodec__av1_video.mkv torchcodec__h265_video.mp4
torchcodec__h265_10bits.mp4 torchcodec__bt709_full_range.mp4 decord__corrupted.mp4
decord__video_0.mov decord__video_90.mov decord__video_180.mov decord__flipping_a_pancake.mkv
mmaction2__demo.mp4 mmaction2__demo_spatiotemporal_det.mp4 sam2__05_default_juggle.mp4
derived__vp9_odd_161x121.webm derived__h264_vfr.mp4 derived__mpeg2_160x120.mpg
derived__gray_h264_160x120.mp4 derived__tiny_16x16_3frames.mp4 derived__single_frame.mp4
broken__truncated_60pct.mp4 broken__empty.mp4 broken__text_not_video.mp4
""".split()


@pytest.fixture
def counting(tmp_path: Path) -> Path:
    """Thirty pictures at 10 Hz, with B-frames and several key frames."""
    return encode(
        tmp_path / "counting.mp4", [grey(i) for i in range(30)], rate=10, options={"g": "6"}
    )


# --- Real files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REAL)
def test_real_file_gives_what_its_table_says(shared_data: Path, name: str) -> None:
    path = shared_data / "clips" / name
    with (shared_data / "clips" / "clips.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if row["file"] == name)
    spec = ClipSpec(frames=4, size=32)
    if row["pyav_result"] not in ("", "vfr"):
        for read in (check_decodes, lambda p: read_clip(p, spec), lambda p: list(iter_frames(p))):
            with pytest.raises(VideoError) as caught:
                read(path)
            assert str(caught.value).startswith(f"{path}: ")
        return
    info = check_decodes(path)
    assert info.decoded_frames == int(row["decoded_frames"])
    assert (info.declared_frames or 0) == int(row["declared_frames"])
    # Its pixels are 64 by 51: players show 427x256.
    wide = 427 if name == "mmaction2__demo.mp4" else int(row["width"])
    sides = [wide, int(row["height"])]
    turned = int(row["rotation_deg"]) % 180 != 0
    assert [info.width, info.height] == (sides[::-1] if turned else sides)
    assert info.rotation_deg == int(row["rotation_deg"]) % 360
    assert info.frame_rate_hz == pytest.approx(float(Fraction(row["avg_rate"])))
    frames = list(iter_frames(path, resize_short=16))
    assert len(frames) == info.decoded_frames
    assert frames[0].timestamp_s == 0
    times = [frame.timestamp_s for frame in frames]
    assert all(a < b for a, b in itertools.pairwise(times))
    if not row["pyav_result"]:  # a constant rate
        assert info.duration_s == pytest.approx(len(frames) / info.frame_rate_hz, abs=0.01)
    clip = read_clip(path, spec, resize_short=40)
    assert clip.frames.shape == (4, *clip.frames.shape[1:3], 3)
    assert min(clip.frames.shape[1:3]) == min(40, *sides)
    assert clip.real_frames == 4


def test_corrupted_file_says_how_far_it_went(shared_data: Path) -> None:
    with pytest.raises(VideoError, match=r"after 28 pictures, 2\.80 s of 5\.00 s"):
        check_decodes(shared_data / "clips" / "decord__corrupted.mp4")


def test_real_phone_videos_stand_upright(shared_data: Path) -> None:
    """One scene, filmed with the phone held three ways."""
    grids = {}
    for angle in (0, 90, 180):
        frame = next(iter_frames(shared_data / "clips" / f"decord__video_{angle}.mov"))
        grids[angle] = frame.image.shape[:2]
    assert grids == {0: (320, 568), 90: (568, 320), 180: (320, 568)}
    # The same key stands in the pictures of 0 and 90 degrees: its image is found upright only.
    patch = _grey_at(shared_data, 0, 125)[98:122, 175:206]  # the cap that reads AltGr
    seen = _grey_at(shared_data, 90, 125)
    scores = [_best_match(np.rot90(seen, k), patch) for k in range(4)]
    assert scores.index(max(scores)) == 0, scores


def _grey_at(shared_data: Path, angle: int, short: int) -> np.ndarray:
    path = shared_data / "clips" / f"decord__video_{angle}.mov"
    return next(iter_frames(path, resize_short=short)).image.mean(2)


def _best_match(picture: np.ndarray, patch: np.ndarray) -> float:
    windows = np.lib.stride_tricks.sliding_window_view(picture, patch.shape)[::2, ::2]
    windows = windows - windows.mean((2, 3), keepdims=True)
    patch = patch - patch.mean()
    norms = np.sqrt((windows**2).sum((2, 3)) * (patch**2).sum())
    return float(((windows * patch).sum((2, 3)) / norms).max())


# --- Orientation, time, formats -----------------------------------------------------------------


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_rotation_is_undone(tmp_path: Path, angle: int) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:16, :16] = 255  # marked: upper left
    turned = np.ascontiguousarray(np.rot90(image, -angle // 90))  # as a tilted camera stores it
    path = encode(tmp_path / "turned.mp4", [turned] * 3, rotate_deg=angle)
    info = probe(path)
    assert (info.width, info.height, info.rotation_deg) == (64, 48, angle)
    frame = next(iter_frames(path)).image
    assert np.abs(frame.astype(int) - image).mean() < 6


def test_variable_rate_goes_by_time(tmp_path: Path) -> None:
    """Nine pictures in the first 0.9 s, then one that stays for 8 s."""
    pts = [*range(0, 900, 100), 900, 9000]
    path = encode(tmp_path / "vfr.mp4", [grey(i) for i in range(11)], pts, options={"bf": "0"})
    times = [frame.timestamp_s for frame in iter_frames(path)]
    assert times == pytest.approx([t / 1000 for t in pts], abs=1e-3)
    clip = read_clip(path, ClipSpec(frames=3, size=32), start_s=0.0, end_s=9.0)
    assert [index_of(frame) for frame in clip.frames] == [9, 9, 9]
    clip = read_clip(path, ClipSpec(frames=4, size=32, frame_rate_hz=10.0), start_s=0.0, end_s=0.4)
    assert [index_of(frame) for frame in clip.frames] == [0, 1, 2, 3]


def test_late_start_counts_from_the_first_picture(tmp_path: Path) -> None:
    pts = [5000 + 100 * i for i in range(10)]
    path = encode(tmp_path / "late.mkv", [grey(i) for i in range(10)], pts, options={"bf": "0"})
    frames = list(iter_frames(path))
    assert [round(frame.timestamp_s, 3) for frame in frames] == [i / 10 for i in range(10)]
    clip = read_clip(path, ClipSpec(frames=5, size=32), end_s=1.0)
    assert [index_of(frame) for frame in clip.frames] == [1, 3, 5, 7, 9]


@pytest.mark.parametrize(
    ("ending", "codec", "pix_fmt"),
    [
        (".mp4", "libx264", "yuv420p"),
        (".mp4", "libx265", "yuv420p10le"),
        (".mkv", "libx264", "yuv444p"),
        (".mkv", "ffv1", "bgra"),
        (".mkv", "ffv1", "gray"),
        (".webm", "libvpx-vp9", "yuv420p"),
        (".avi", "mpeg4", "yuv420p"),
        (".avi", "libx264", "yuv420p"),
        (".mov", "mjpeg", "yuvj420p"),
        (".mpg", "mpeg2video", "yuv420p"),
        (".gif", "gif", "gray"),
    ],
)
def test_formats_become_rgb(tmp_path: Path, ending: str, codec: str, pix_fmt: str) -> None:
    path = encode(
        tmp_path / f"video{ending}",
        [grey(i) for i in range(12)],
        codec=codec,
        pix_fmt=pix_fmt,
        options={"x265-params": "log-level=none"} if codec == "libx265" else {},
    )
    assert check_decodes(path).decoded_frames == 12
    frames = list(iter_frames(path))
    assert frames[0].image.dtype == np.uint8
    assert frames[0].image.shape == (48, 64, 3)
    assert [index_of(frame.image) for frame in frames] == list(range(12))
    assert [frame.timestamp_s for frame in frames] == pytest.approx(
        [i / 25 for i in range(12)], abs=2e-3
    )


def test_first_default_video_stream_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(path, "w") as out:
        streams = [out.add_stream("libx264", rate=10) for _ in range(2)]
        for stream, side in zip(streams, (32, 64), strict=True):
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
        streams[0].disposition = av.stream.Disposition(0)
        streams[1].disposition = av.stream.Disposition.default
        for index in range(5):
            for stream, side in zip(streams, (32, 64), strict=True):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(grey(index, side, side))))
        for stream in streams:
            out.mux(stream.encode())
    assert probe(path).width == 64


def test_longer_sound_is_not_a_short_video(tmp_path: Path) -> None:
    for ending in (".mkv", ".mp4", ".mov"):
        path = with_sound(tmp_path / f"sound{ending}", video_frames=10, sound_s=4)
        assert check_decodes(path).decoded_frames == 10
        clip = read_clip(path, ClipSpec(frames=5, size=32))
        assert [index_of(frame) for frame in clip.frames] == [1, 3, 5, 7, 9]


# --- Clips --------------------------------------------------------------------------------------


def test_clip_holds_what_is_on_screen(counting: Path) -> None:
    clip = read_clip(counting, ClipSpec(frames=5, size=32))
    assert [index_of(frame) for frame in clip.frames] == [3, 9, 15, 21, 27]
    assert clip.timestamps_s.tolist() == pytest.approx([0.3, 0.9, 1.5, 2.1, 2.7])
    assert (clip.start_s, clip.end_s, clip.real_frames) == (0.0, 3.0, 5)
    assert "[T=5, H=48, W=64, 3]" in repr(clip)
    more = read_clip(counting, ClipSpec(frames=60, size=32))  # more than the video has
    assert [index_of(frame) for frame in more.frames] == [i // 2 for i in range(60)]
    past = read_clip(counting, ClipSpec(frames=6, size=32, frame_rate_hz=10.0), start_s=2.7)
    assert [index_of(frame) for frame in past.frames] == [27, 28, 29, 29, 29, 29]
    assert (past.real_frames, past.end_s) == (3, 3.0)
    given = read_clip(counting, ClipSpec(frames=2, size=32), times_s=[0.1, 2.05])
    assert [index_of(frame) for frame in given.frames] == [1, 20]
    with pytest.raises(ValueError, match="times that do not fall"):
        read_clip(counting, ClipSpec(frames=2, size=32), times_s=[0.2, 0.1])
    with pytest.raises(VideoError, match=r"end at 3\.00 s"):
        read_clip(counting, ClipSpec(frames=2, size=32), start_s=3.0)


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi", ".mpg", ".webm"])
def test_seeking_gives_the_same_frames(tmp_path: Path, ending: str) -> None:
    codec = {".mpg": "mpeg2video", ".avi": "mpeg4", ".webm": "libvpx"}.get(ending, "libx264")
    noise = np.random.default_rng(0).integers(0, 200, (48, 64, 3), np.uint8)
    images = [np.roll(noise, index, 1) for index in range(200)]
    path = encode(tmp_path / f"long{ending}", images, codec=codec, options={"g": "12"})
    frames = list(iter_frames(path))
    for start_s in (1.3, 2.0, 4.44, 7.5):
        clip = read_clip(path, ClipSpec(frames=4, size=32), start_s=start_s, end_s=start_s + 0.4)
        for frame, shown_s in zip(clip.frames, clip.timestamps_s.tolist(), strict=True):
            same = next(f for f in frames if abs(f.timestamp_s - shown_s) < 1e-9)
            assert np.array_equal(frame.numpy(), same.image), (start_s, shown_s)


# --- Windows ------------------------------------------------------------------------------------


def test_windows_lie_side_by_side(counting: Path) -> None:
    spec = ClipSpec(frames=4, size=32, frame_rate_hz=5.0)
    windows = list(iter_windows(counting, spec))
    assert [w.start_s for w in windows] == pytest.approx([0.0, 0.8, 1.6, 2.4])
    assert [w.end_s for w in windows] == pytest.approx([0.8, 1.6, 2.4, 3.0])
    assert [[index_of(f) for f in w.frames] for w in windows] == [
        [1, 3, 5, 7], [9, 11, 13, 15], [17, 19, 21, 23], [25, 27, 29, 29],
    ]  # fmt: skip
    assert [w.real_frames for w in windows] == [4, 4, 4, 3]
    (whole,) = iter_windows(counting, ClipSpec(frames=3, size=32))
    assert [index_of(frame) for frame in whole.frames] == [5, 15, 25]
    assert whole.end_s == 3.0
    halves = list(iter_windows(counting, ClipSpec(frames=3, size=32), window_s=1.5))
    assert [[index_of(f) for f in w.frames] for w in halves] == [[2, 7, 12], [17, 22, 27]]
    with pytest.raises(ValueError, match="leave out window_s"):
        next(iter_windows(counting, spec, window_s=1.0))
    with pytest.raises(ValueError, match="window_s must be above 0"):
        next(iter_windows(counting, ClipSpec(frames=3, size=32), window_s=0.0))


def test_single_picture_is_a_video(tmp_path: Path) -> None:
    path = encode(tmp_path / "one.mp4", [grey(3)])
    clip = read_clip(path, ClipSpec(frames=4, size=32))
    assert [index_of(frame) for frame in clip.frames] == [3] * 4
    (window,) = iter_windows(path, ClipSpec(frames=4, size=32, frame_rate_hz=2.0))
    assert (window.real_frames, window.end_s) == (1, pytest.approx(0.04))


def test_pictures_that_were_read_do_not_wait_for_the_collector(counting: Path) -> None:
    """A circle of references would keep each of them: 240 MB of ten seconds at 1280x720."""
    gc.collect()
    gc.disable()
    try:
        for _ in iter_frames(counting):
            pass
        assert sum(type(thing) is av.VideoFrame for thing in gc.get_objects()) <= 2
    finally:
        gc.enable()


@pytest.mark.processes
def test_long_video_streams_in_flat_memory(tmp_path: Path) -> None:
    """2,000 pictures of 320x240 would be 460 MB; the peak must not grow on the way."""
    strip = np.random.default_rng(0).integers(0, 255, (240, 640, 3), np.uint8)
    images = (strip[:, i % 320 : i % 320 + 320] for i in range(2000))
    write_video(tmp_path / "long.mp4", images, 25.0, codec="mpeg4")
    code = """
        import resource, sys
        from spikevideoformer.video.clip import ClipSpec
        from spikevideoformer.video.frames import iter_windows
        peaks = []
        for clip in iter_windows(sys.argv[1], ClipSpec(frames=8, size=64, frame_rate_hz=12.5)):
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        print(len(peaks), peaks[10], peaks[-1])
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "long.mp4")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    windows, early_kib, late_kib = map(int, run.stdout.split())
    assert windows == 125
    assert late_kib - early_kib < 10 * 1024


# --- Bad files ----------------------------------------------------------------------------------


def test_unusable_inputs_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "words.txt").write_text("hello " * 500)
    fifo = tmp_path / "pipe.mp4"
    os.mkfifo(fifo)
    sound = with_sound(tmp_path / "sound.mp4", video_frames=0, sound_s=1)
    for path, reason in {
        tmp_path / "absent.mp4": "no such file",
        tmp_path / "folder": "a folder without images",
        tmp_path / "words.txt": "text file|cannot be opened",
        fifo: "neither a file nor a folder",
        sound: "no video in it, only audio",
    }.items():
        with pytest.raises(VideoError, match=reason) as caught:
            read_clip(path, ClipSpec(frames=2, size=32))
        assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_file(counting: Path) -> None:
    counting.chmod(0)
    with pytest.raises(VideoError, match="Permission denied"):
        probe(counting)


def test_error_survives_the_way_out_of_a_worker(tmp_path: Path) -> None:
    error = VideoError(tmp_path / "a.mp4", "two\nlines")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == f"{tmp_path / 'a.mp4'}: two lines"
    # A loader rebuilds the error of its worker from one text.
    assert str(VideoError(f"in worker 0: {error}")) == f"in worker 0: {error}"
    assert isinstance(error, ValueError)


def test_trimmed_mp4_is_whole(tmp_path: Path) -> None:
    """An edit list that leaves pictures out is an announcement, not damage."""
    path = encode(tmp_path / "trim.mp4", [grey(i) for i in range(30)], rate=10)
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12
    assert int.from_bytes(data[at : at + 4]) == 3000  # ms
    data[at : at + 4] = (2000).to_bytes(4)
    path.write_bytes(data)
    info = check_decodes(path)
    assert (info.declared_frames, info.decoded_frames) == (30, 20)
    assert info.duration_s == pytest.approx(2.0)


def test_file_without_announced_length(tmp_path: Path) -> None:
    path = encode(
        tmp_path / "live.mkv",
        [grey(i) for i in range(20)],
        rate=10,
        container_options={"live": "1"},
    )
    assert probe(path).duration_s is None
    assert check_decodes(path).decoded_frames == 20
    clip = read_clip(path, ClipSpec(frames=5, size=32))
    assert [index_of(frame) for frame in clip.frames] == [2, 6, 10, 14, 18]


def test_fragmented_mp4(tmp_path: Path) -> None:
    path = encode(
        tmp_path / "fragments.mp4",
        [grey(i) for i in range(30)],
        rate=10,
        options={"g": "10"},
        container_options={"movflags": "frag_keyframe+empty_moov"},
    )
    assert check_decodes(path).decoded_frames == 30
    clip = read_clip(path, ClipSpec(frames=5, size=32))
    assert [index_of(frame) for frame in clip.frames] == [3, 9, 15, 21, 27]


def test_pixel_damage_is_seen_by_the_checksum_of_mkv(tmp_path: Path) -> None:
    """ffv1 and Matroska both check sums; a single flipped bit cannot pass."""
    path = encode(tmp_path / "sum.mkv", [grey(i) for i in range(5)], codec="ffv1")
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4] ^= 1
    path.write_bytes(data)
    with pytest.raises(VideoError):
        check_decodes(path)


# --- Limits -------------------------------------------------------------------------------------


def test_limits_come_before_the_first_picture(
    counting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Iterator[Any]:
        raise AssertionError("nothing may be decoded")

    monkeypatch.setattr("spikevideoformer.video.decoding.DecodingPass.run", never)
    for limits, what in (
        (DecodeLimits(max_frame_pixels=64 * 48 - 1), "pictures of 64x48"),
        (DecodeLimits(max_frames=29), "30 pictures"),
        (DecodeLimits(max_total_pixels=30 * 64 * 48 - 1), "92160 pixels in all"),
    ):
        with pytest.raises(VideoError, match=what) as caught:
            read_clip(counting, ClipSpec(frames=2, size=32), limits=limits)
        assert "--no-decode-limits" in str(caught.value)
        assert "DecodeLimits.unlimited()" in str(caught.value)


def test_limits_hold_without_an_announcement(tmp_path: Path) -> None:
    path = encode(tmp_path / "live.mkv", [grey(i) for i in range(20)])
    for limits in (DecodeLimits(max_frames=10), DecodeLimits(max_total_pixels=10 * 64 * 48)):
        frames = iter_frames(path, limits=limits)
        assert len(list(itertools.islice(frames, 10))) == 10
        with pytest.raises(VideoError, match="over the limit"):
            next(frames)
    with pytest.raises(VideoError, match="4 frames of 64x48 take 36864 bytes"):
        read_clip(path, ClipSpec(frames=4, size=32), limits=DecodeLimits(max_clip_bytes=30_000))
    small = DecodeLimits(max_clip_bytes=30_000)
    assert read_clip(path, ClipSpec(frames=4, size=32), resize_short=24, limits=small).real_frames
    assert check_decodes(path, limits=DecodeLimits.unlimited()).decoded_frames == 20
    with pytest.raises(ValueError, match="max_frames must be at least 1"):
        DecodeLimits(max_frames=0)


def test_limits_pass_ten_minutes_of_4k() -> None:
    limits = DecodeLimits()
    assert limits.max_frame_pixels >= 4096 * 2160
    assert limits.max_total_pixels >= 600 * 60 * 4096 * 2160


@pytest.mark.parametrize("path", ["0", "/dev/video0", "http://host/a.mp4", "RTSP://host/live"])
def test_cameras_and_addresses_are_not_read_yet(path: str) -> None:
    for given in (path, Path(path)):
        with pytest.raises(VideoError, match=r"are not read yet; .*give the file"):
            probe(given)
