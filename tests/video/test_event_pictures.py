"""Recordings and simulated cameras as sources of pictures, and what each network opens."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from spikevideoformer.data.transforms import eval_transform
from spikevideoformer.events.spec import EventCamera, EventView
from spikevideoformer.video.event_pictures import (
    MOST_EVENTS,
    EventPath,
    event_counts,
    read_event_picture,
    seen,
)
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

VIEW = EventView(rate_hz=10.0, camera=EventCamera(threshold_noise=0.0))
SPEC = ClipSpec(frames=4, size=8, input="events", events=VIEW)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """1000 events of a sensor of 12x8 pixels in 0.8 s."""
    rng = np.random.default_rng(0)
    times = np.sort(rng.integers(0, 800_000, 1000))
    times[0], times[-1] = 0, 799_999
    columns = {"x": rng.integers(0, 12, 1000), "y": rng.integers(0, 8, 1000)}
    return {"t_us": times, **columns, "p": rng.integers(0, 2, 1000)}


@pytest.fixture(scope="module")
def recording(events: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("events") / "e.npz"
    np.savez(path, **events, height=8, width=12)
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright square over a dark ground for 1 s, which moves right in the second half."""
    frames = np.full((20, 48, 64, 3), 40, np.uint8)
    for i, frame in enumerate(frames):
        left = 16 + max(0, i - 9)
        frame[16:32, left : left + 12] = 220
    path = tmp_path_factory.mktemp("video") / "square.mkv"
    write_video(path, iter(frames), 20.0, codec="ffv1")
    return path


def test_a_recording_is_a_video(recording: Path, events: dict[str, np.ndarray]) -> None:
    path = EventPath(recording, VIEW)
    info = check_decodes(path)
    assert (info.width, info.height, info.frame_rate_hz, info.codec) == (12, 8, 10.0, "events")
    assert info.duration_s == pytest.approx(0.8)
    assert (info.declared_frames, info.decoded_frames) == (8, 8)
    frames = list(iter_frames(path))
    assert [frame.timestamp_s for frame in frames] == pytest.approx([i / 10 for i in range(8)])
    assert all(frame.events is not None for frame in frames)
    for i, frame in enumerate(frames):
        inside = events["t_us"] // 100_000 == i
        for polarity, channel in ((1, 0), (0, 2)):
            of = inside & (events["p"] == polarity)
            count = np.zeros((8, 12), int)
            np.add.at(count, (events["y"][of], events["x"][of]), 1)
            shown = 2 ** (frame.image[..., channel] / 63.75) - 1
            np.testing.assert_allclose(shown, np.minimum(count, MOST_EVENTS), rtol=0.02)
        assert not frame.image[..., 1].any()


def test_a_network_sees_the_logarithm_of_counts(recording: Path) -> None:
    path = seen(recording, SPEC)
    clip = read_clip(path, SPEC, resize_short=8)
    video = eval_transform(clip.frames, SPEC)
    shown = list(iter_frames(path))[1].events  # 0.1 s, the middle of the first quarter
    assert shown is not None
    counts = torch.from_numpy(event_counts(shown, 8, 12))[:, :, 2:10]  # the middle square
    torch.testing.assert_close(video[0, ::2], (1 + counts.float()).log2(), rtol=0.01, atol=0.01)


def test_smaller_pictures_have_all_events(recording: Path) -> None:
    small = list(iter_frames(EventPath(recording, VIEW), resize_short=4))
    assert small[0].image.shape == (4, 6, 3)
    for frame in small:
        assert frame.events is not None
        assert event_counts(frame.events, 4, 6).sum() == len(frame.events)


def test_a_stretch_is_that_of_the_whole(recording: Path) -> None:
    path = EventPath(recording, VIEW)
    spec = ClipSpec(frames=2, size=8, frame_rate_hz=10.0)
    late = read_clip(path, spec, start_s=0.5, end_s=0.7)
    whole = [frame.image for frame in iter_frames(path)]
    np.testing.assert_array_equal(late.frames.numpy(), np.stack(whole[5:7]))
    windows = list(iter_windows(path, spec))
    assert [window.start_s for window in windows] == pytest.approx([0.0, 0.2, 0.4, 0.6])


def test_video_is_seen_by_a_simulated_camera(video: Path) -> None:
    frames = list(iter_frames(EventPath(video, VIEW)))
    assert len(frames) == 10
    assert [bool(frame.image.any()) for frame in frames] == [i >= 4 for i in range(10)]
    image = frames[7].image
    # the bright square moves right: light rises at its right edge and falls at its left one
    assert image[..., 0].sum(0).argmax() > image[..., 2].sum(0).argmax()
    clip = read_clip(seen(video, SPEC), SPEC, start_s=0.6, end_s=1.0)
    np.testing.assert_array_equal(clip.frames[0].numpy(), frames[6].image)
    assert probe(EventPath(video, VIEW)).duration_s == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("video_hz", "rate_hz"), [(8.0, 25.0), (25.0, 25.0), (20.0, 8.0), (30.0, 4.0)]
)
def test_video_of_any_rate_is_seen_at_any_rate(tmp_path: Path, video_hz, rate_hz) -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (16, 16, 16, 3), np.uint8)
    write_video(tmp_path / "v.mkv", iter(pictures), video_hz, codec="ffv1")
    view = EventView(rate_hz=rate_hz, camera=EventCamera(threshold_noise=0.0))
    frames = list(iter_frames(EventPath(tmp_path / "v.mkv", view)))
    assert len(frames) == math.ceil(16 / video_hz * rate_hz - 1e-6)
    assert any(frame.image.any() for frame in frames)


def test_who_watches_sees_the_video_and_of_a_recording_the_events(
    video: Path, recording: Path
) -> None:
    seen_by: dict[Path, list[np.ndarray]] = {video: [], recording: []}
    for path, pictures in seen_by.items():
        watch = lambda picture, to=pictures: to.append(picture.rgb(width=12, height=8))  # noqa: E731
        windows = list(iter_windows(EventPath(path, VIEW), SPEC, window_s=0.5, watch=watch))
        assert windows
    shown = [f.image for f in iter_frames(video)]
    assert len(seen_by[video]) == len(shown) == 20
    assert all(image.min() > 30 for image in seen_by[video])  # no events on black
    assert len(seen_by[recording]) == 8


def test_a_frame_alone(recording: Path, tmp_path: Path) -> None:
    assert read_event_picture(recording, VIEW).shape == (8, 12, 3)
    none = tmp_path / "none.npz"
    np.savez(none, **{name: np.zeros(0, int) for name in "txyp"}, height=8, width=12)
    assert not read_event_picture(none, VIEW).any()


def test_networks_of_pictures_refuse_recordings(recording: Path) -> None:
    assert seen(recording, None) == seen(recording, ClipSpec(frames=1, size=8)) == recording
    with pytest.raises(VideoError, match="a recording of events, and this network sees pictures"):
        probe(recording)


def test_what_is_wrong_is_said_as_of_a_video(recording: Path, tmp_path: Path) -> None:
    broken = tmp_path / "e.npz"
    broken.write_bytes(recording.read_bytes()[:500])
    with pytest.raises(VideoError, match=r"e\.npz: cannot be read"):
        check_decodes(EventPath(broken, VIEW))
    with pytest.raises(VideoError, match="no such file"):
        probe(EventPath(tmp_path / "no.mp4", VIEW))
    few = DecodeLimits(max_frames=7)
    with pytest.raises(VideoError, match=r"lasts 1 s, 8 pictures .*give the unit of its times"):
        probe(EventPath(recording, VIEW), limits=few)


def test_settings() -> None:
    plain = ClipSpec(frames=1, size=8).to_dict()
    assert "input" not in plain and "events" not in plain  # as models have had it
    assert ClipSpec.from_dict(SPEC.to_dict()) == SPEC
    assert SPEC.mean == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="input must be rgb or events, got 'x'"):
        ClipSpec(frames=1, size=8, input="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rate_hz must be above 0, got 0"):
        EventView(rate_hz=0.0)
