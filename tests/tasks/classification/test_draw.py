"""Annotated video: sizes, times, what moves, and text that never breaks it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spikevideoformer.tasks.classification.answer import Label, PredictionResult, WindowPrediction
from spikevideoformer.tasks.classification.draw import annotate_frames
from spikevideoformer.tasks.classification.predictor import VideoPredictor
from spikevideoformer.video.drawing import constant_rate, fit_frame
from spikevideoformer.video.frames import VideoError, check_decodes, iter_frames, probe


def prediction(names: list[str], windows: int = 2, duration_s: float = 2.0) -> PredictionResult:
    def labels(first: int) -> tuple[Label, ...]:
        order = [(first + i) % len(names) for i in range(len(names))]
        weights = 0.5 ** np.arange(1, len(names) + 1)
        return tuple(
            Label(name=names[i], index=i, probability=float(p))
            for i, p in zip(order, weights, strict=True)
        )

    step = duration_s / windows
    rates = tuple(float(r) for r in np.linspace(0.05, 0.3, 4 * windows))
    return PredictionResult(
        path=None,
        duration_s=duration_s,
        labels=labels(0),
        windows=tuple(
            WindowPrediction(start_s=i * step, end_s=(i + 1) * step, labels=labels(i))
            for i in range(windows)
        ),
        timestamps_s=tuple((i + 0.5) * step / 4 for i in range(4 * windows)),
        firing_rate=float(np.mean(rates)),
        firing_rate_per_frame=rates,
        engine="model",
    )


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((120, 160), (480, 640)),  # small: enlarged by a whole number
        ((16, 16), (480, 480)),
        ((256, 340), (256, 480)),  # narrow: centred
        ((568, 320), (568, 480)),
        ((720, 1280), (720, 1280)),  # as it is
        ((2160, 3840), (720, 1280)),  # large: scaled down
        ((3840, 2160), (960, 540)),
        ((1, 4000), (1, 1280)),
        ((121, 161), (363, 483)),
    ],
)
def test_frames_are_fitted(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    frame = np.full((*size, 3), 200, np.uint8)
    out = fit_frame(frame)
    assert out.shape == (*fitted, 3)
    assert out.dtype == np.uint8
    assert (out[out.shape[0] // 2, out.shape[1] // 2] == 200).all()


def test_source_pixels_stay_as_they_are() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    (out,) = annotate_frames([(0.0, frame)], prediction(["a", "b"]))
    assert (out[:720] == frame).all()
    assert out.shape[0] > 720


@pytest.mark.parametrize(
    "names",
    [
        ["only"],
        ["a", "b"],
        [f"class number {i}" for i in range(400)],
        ["so long that it cannot be shown " * 5, "$\\frac{1}{2}$ & <b>", "牛が歩く", "two\nlines"],
        ["", " "],
    ],
)
@pytest.mark.parametrize("size", [(16, 16), (120, 160), (720, 1280)])
def test_any_names_on_any_size(names: list[str], size: tuple[int, int]) -> None:
    frame = np.zeros((*size, 3), np.uint8)
    pictures = list(annotate_frames([(0.1, frame), (1.9, frame)], prediction(names)))
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()


def test_long_names_leave_the_bars_alone() -> None:
    frame = np.zeros((120, 160, 3), np.uint8)
    short, long = (
        next(annotate_frames([(0.0, frame)], prediction([name, "other"])))
        for name in ("x", "pretending to put something behind something " * 3)
    )
    middle = int(0.55 * short.shape[1])
    assert (short[480:, :middle] != long[480:, :middle]).any()
    assert (short[480:, middle:] == long[480:, middle:]).all()


def test_only_the_cursor_moves_within_a_window() -> None:
    frame = np.zeros((120, 160, 3), np.uint8)
    early, late, next_window = annotate_frames(
        [(0.1, frame), (0.9, frame), (1.1, frame)], prediction(["a", "b", "c"])
    )
    moved = (early != late).any(axis=2)
    columns = np.flatnonzero(moved.any(axis=0))
    assert 0 < len(columns) <= 8
    assert ((early != next_window).any(axis=2)[:600].any(axis=0).sum()) > 8


def test_few_windows_more_than_classes_and_zero_rates() -> None:
    still = replace(prediction(["a"]), firing_rate=0.0, firing_rate_per_frame=(0.0,) * 8)
    (picture,) = annotate_frames([(5.0, np.zeros((48, 64, 3), np.uint8))], still)
    assert picture.ndim == 3


def test_a_network_without_spikes_has_no_row_of_them() -> None:
    frame = np.zeros((120, 160, 3), np.uint8)
    spiking = prediction(["a", "b"])
    ordinary = replace(spiking, firing_rate=None, firing_rate_per_frame=None)
    early, late = annotate_frames([(0.1, frame), (0.9, frame)], ordinary)
    with_rates = next(annotate_frames([(0.1, frame)], spiking))
    assert early.shape[0] < with_rates.shape[0] - 40
    assert (early != late).any(axis=2).any(axis=0).sum() <= 8  # the cursor
    above = 480 + (early.shape[0] - 480) // 2
    assert (early[:above] == with_rates[:above]).all()


def test_constant_rate_holds_and_drops_by_time() -> None:
    def frame(value: int) -> np.ndarray:
        return np.full((1, 1, 3), value, np.uint8)

    irregular = [(0.0, frame(0)), (0.1, frame(1)), (0.5, frame(2)), (0.51, frame(3))]
    shown = [int(f[0, 0, 0]) for _, f in constant_rate(irregular, 10.0)]
    assert shown == [0, 1, 1, 1, 1, 3]
    assert [t for t, _ in constant_rate(irregular, 10.0)] == pytest.approx(
        [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    )


def test_written_video_has_the_times_of_its_source(
    model_folder: Path, video_folder: Path, tmp_path: Path
) -> None:
    predictor = VideoPredictor.from_pretrained(model_folder, device="cpu")
    for name in ("one.mp4", "two.mkv", "three.avi"):
        source = video_folder / name
        out = tmp_path / f"{name}.mp4"
        result, _ = predictor.write(source, out)
        assert result == predictor.predict(source)
        before, after = check_decodes(source), check_decodes(out)
        assert after.decoded_frames == before.decoded_frames
        assert after.duration_s == pytest.approx(before.duration_s, abs=0.01)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "one.mp4.mp4",
        "three.avi.mp4",
        "two.mkv.mp4",
    ]


def test_real_clips_of_all_shapes(model_folder: Path, shared_data: Path, tmp_path: Path) -> None:
    predictor = VideoPredictor.from_pretrained(model_folder, device="cpu")
    for name in (
        "derived__h264_vfr.mp4",
        "decord__video_90.mov",
        "derived__tiny_16x16_3frames.mp4",
    ):
        source = shared_data / "clips" / name
        out = tmp_path / "out.mp4"
        result, _ = predictor.write(source, out)
        info = check_decodes(out)
        assert info.duration_s == pytest.approx(result.duration_s, abs=0.1)
        first = next(iter_frames(out))
        shown = next(iter_frames(source)).image
        assert first.image.shape[0] > fit_frame(shown).shape[0]
        assert probe(out).rotation_deg == 0


def test_pictures_wait_beside_the_output_and_are_gone_after(
    model_folder: Path, video_folder: Path, tmp_path: Path
) -> None:
    predictor = VideoPredictor.from_pretrained(model_folder, device="cpu")
    predictor.write(video_folder / "one.mp4", str(tmp_path / "out.mp4"))
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    shown = fit_frame(next(iter_frames(video_folder / "one.mp4")).image)
    written = next(iter_frames(tmp_path / "out.mp4")).image[: len(shown)]
    assert np.abs(written.astype(int) - shown).mean() < 4
    with pytest.raises(VideoError, match=r"absent: pictures cannot wait .*No such file.*make room"):
        predictor.write(video_folder / "one.mp4", tmp_path / "absent" / "out.mp4")
    with pytest.raises(ValueError, match="for an array use predict"):
        predictor.write(np.zeros((4, 32, 32, 3), np.uint8), tmp_path / "out.mp4")
