"""Prediction: what is reported, independence from the batch, arrays, failures, real clips."""

import copy
import csv
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spikevideoformer.data.transforms import eval_transform
from spikevideoformer.inference.answer import FailedPrediction
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, create_model
from spikevideoformer.tasks.classification.answer import PredictionResult
from spikevideoformer.tasks.classification.predictor import VideoPredictor
from spikevideoformer.video.frames import VideoError, iter_frames, iter_windows
from spikevideoformer.video.spec import ClipSpec


@pytest.fixture(scope="module")
def predictor(model_folder: Path) -> VideoPredictor:
    return VideoPredictor.from_pretrained(model_folder, device="cpu")


def at_rate(predictor: VideoPredictor, rate_hz: float) -> VideoPredictor:
    """The same network with windows of a fixed length."""
    return VideoPredictor(
        predictor.model, clip=replace(predictor.clip, frame_rate_hz=rate_hz), device="cpu"
    )


def test_repr_says_what_it_is(predictor: VideoPredictor) -> None:
    assert repr(predictor) == (
        "VideoPredictor(classification, 6 classes: wave, jump, run, ...; 4 frames of 32 pixels; "
        f"{predictor.model.num_parameters():,} parameters; engine float on cpu)"
    )


def test_cameras_are_not_read_yet(predictor: VideoPredictor) -> None:
    with pytest.raises(VideoError, match=r"^0: cameras are not read yet; record a video first"):
        predictor.predict(0)  # type: ignore[arg-type]
    (failure,) = predictor.predict_many(0)  # type: ignore[arg-type]
    assert isinstance(failure, FailedPrediction)
    assert failure.reason.startswith("cameras are not read yet")


def test_result_of_a_whole_video(predictor: VideoPredictor, video_folder: Path) -> None:
    result = predictor.predict(video_folder / "two.mkv", top_k=3)
    assert result.path == str(video_folder / "two.mkv")
    assert result.duration_s == pytest.approx(2.0, abs=0.01)
    assert [label.probability for label in result.labels] == sorted(
        (label.probability for label in result.labels), reverse=True
    )
    assert len(result.labels) == 3
    assert all(predictor.classes[label.index] == label.name for label in result.labels)
    assert result.windows[0].labels == result.labels
    assert len(result.windows) == 1
    # four slices of half a second, sampled at their centres; pictures come every tenth
    assert result.timestamps_s == pytest.approx((0.2, 0.7, 1.2, 1.7), abs=0.051)
    assert len(result.firing_rate_per_frame) == 4
    assert result.firing_rate == pytest.approx(np.mean(result.firing_rate_per_frame))
    assert 0.01 < result.firing_rate < 1
    assert json.loads(json.dumps(result.to_dict()))["labels"][0]["name"] == result.labels[0].name


def test_probabilities_are_those_of_the_model(
    predictor: VideoPredictor, video_folder: Path
) -> None:
    result = predictor.predict(video_folder / "one.mp4", top_k=100)
    assert len(result.labels) == 6
    assert sum(label.probability for label in result.labels) == pytest.approx(1.0)


def test_windows_share_the_video_and_average(predictor: VideoPredictor, video_folder: Path) -> None:
    result = at_rate(predictor, 4.0).predict(video_folder / "three.avi", top_k=6)
    assert [(w.start_s, w.end_s) for w in result.windows] == [
        pytest.approx((i, i + 1.0)) for i in range(3)
    ]
    assert len(result.timestamps_s) == 12
    assert list(result.timestamps_s) == sorted(result.timestamps_s)
    for label in result.labels:
        each = [p.probability for w in result.windows for p in w.labels if p.index == label.index]
        assert label.probability == pytest.approx(np.mean(each))


def test_a_short_last_window_counts_for_its_length(
    predictor: VideoPredictor, video_folder: Path
) -> None:
    result = predictor.predict(video_folder / "three.avi", window_s=2.0, top_k=6)
    first, last = (
        {label.name: label.probability for label in window.labels} for window in result.windows
    )
    assert result.windows[1].end_s == pytest.approx(3.0)
    assert first != last
    for label in result.labels:
        expected = (2 * first[label.name] + last[label.name]) / 3
        assert label.probability == pytest.approx(expected)


def test_window_length_can_be_chosen(predictor: VideoPredictor, video_folder: Path) -> None:
    result = predictor.predict(video_folder / "three.avi", window_s=1.5)
    assert [(w.start_s, w.end_s) for w in result.windows] == [
        pytest.approx((0.0, 1.5)),
        pytest.approx((1.5, 3.0)),
    ]


def test_frames_past_the_end_are_not_reported(
    predictor: VideoPredictor, video_folder: Path
) -> None:
    result = at_rate(predictor, 2.5).predict(video_folder / "two.mkv")  # windows of 1.6 s
    assert result.windows[-1].end_s == pytest.approx(2.0, abs=0.01)
    assert len(result.timestamps_s) == 4 + 1
    assert len(result.firing_rate_per_frame) == 5


def test_results_do_not_depend_on_other_videos(
    predictor: VideoPredictor, video_folder: Path
) -> None:
    windowed = at_rate(predictor, 4.0)
    paths = sorted(video_folder.iterdir())
    alone = [windowed.predict(path) for path in paths]
    assert len({result.labels[0].probability for result in alone}) == len(paths)
    assert list(windowed.predict_many(paths)) == alone
    assert list(windowed.predict_many(paths[::-1])) == alone[::-1]


@pytest.mark.parametrize("batch_size", [2, 5, 8])
def test_results_do_not_depend_on_the_rest_of_a_batch(
    predictor: VideoPredictor, video_folder: Path, batch_size: int
) -> None:
    """Six windows of three videos; sums may round by their place in the batch, spikes do not."""
    windowed = at_rate(predictor, 4.0)
    paths = sorted(video_folder.iterdir())
    for path, result in zip(
        paths, windowed.predict_many(paths, batch_size=batch_size), strict=True
    ):
        assert isinstance(result, PredictionResult)
        alone = windowed.predict(path, batch_size=batch_size)
        assert result.firing_rate_per_frame == alone.firing_rate_per_frame
        for got, want in zip(result.windows, alone.windows, strict=True):
            assert [label.index for label in got.labels] == [label.index for label in want.labels]
            assert [label.probability for label in got.labels] == pytest.approx(
                [label.probability for label in want.labels], abs=1e-6
            )


def test_a_bad_file_fails_alone_and_in_its_place(
    predictor: VideoPredictor, video_folder: Path, tmp_path: Path
) -> None:
    whole = (video_folder / "three.avi").read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: len(whole) * 3 // 5])
    paths = [video_folder / "one.mp4", cut, tmp_path / "absent.mp4", video_folder / "two.mkv"]
    windowed = at_rate(predictor, 8.0)
    one, bad, absent, two = windowed.predict_many(paths)
    assert (one, two) == (windowed.predict(paths[0]), windowed.predict(paths[3]))
    for failure, path in ((bad, cut), (absent, paths[2])):
        assert isinstance(failure, FailedPrediction)
        assert failure.path == str(path)
        assert failure.reason
        assert "\n" not in failure.reason
    with pytest.raises(VideoError, match=r"cut\.avi: "):
        windowed.predict(cut)


def test_results_come_as_videos_are_read(predictor: VideoPredictor, video_folder: Path) -> None:
    taken: list[str] = []

    def paths() -> object:
        for name in ("one.mp4", "two.mkv", "three.avi"):
            taken.append(name)
            yield video_folder / name

    results = predictor.predict_many(paths(), batch_size=1)  # type: ignore[arg-type]
    next(results)
    assert taken == ["one.mp4"]


def test_array_is_predicted_like_its_file(predictor: VideoPredictor, video_folder: Path) -> None:
    path = video_folder / "three.avi"
    frames = np.stack([frame.image for frame in iter_frames(path, resize_short=32)])
    windowed = at_rate(predictor, 4.0)
    from_file = windowed.predict(path)
    for array in (frames, torch.from_numpy(frames)):
        assert windowed.predict(array, frame_rate_hz=10.0) == replace(from_file, path=None)
    assert predictor.predict(frames, frame_rate_hz=10.0, window_s=1.0).duration_s == 3.0


def test_image_sequence_folder(
    predictor: VideoPredictor, video_folder: Path, tmp_path: Path
) -> None:
    import matplotlib.image

    for i, frame in enumerate(iter_frames(video_folder / "one.mp4")):
        matplotlib.image.imsave(tmp_path / f"{i:03d}.png", frame.image)
    result = predictor.predict(tmp_path)
    assert result.duration_s == pytest.approx(10 / 25)
    assert len(result.labels) == 5
    slow = predictor.predict(tmp_path, sequence_rate_hz=10.0)
    assert slow.duration_s == pytest.approx(1.0)
    assert slow.labels == result.labels  # the same pictures
    assert list(predictor.predict_many(tmp_path, sequence_rate_hz=10.0)) == [slow]


def test_many_of_every_kind(predictor: VideoPredictor, video_folder: Path, tmp_path: Path) -> None:
    """Folders, globs, files and arrays together; what holds no video fails in its place."""
    paths = sorted(video_folder.iterdir())
    alone = [predictor.predict(path) for path in paths]
    frames = np.stack([f.image for f in iter_frames(video_folder / "two.mkv", resize_short=32)])
    array = predictor.predict(frames, frame_rate_hz=10.0)
    assert list(predictor.predict_many(video_folder)) == alone
    assert list(predictor.predict_many(f"{video_folder}/*.mkv")) == [alone[2]]
    assert list(predictor.predict_many(frames, frame_rate_hz=10.0)) == [array]
    inputs = [f"{video_folder}/t*", frames, tmp_path, video_folder, f"{tmp_path}/*.mp4"]
    *predicted, none = predictor.predict_many(inputs, frame_rate_hz=10.0)
    empty = predicted.pop(3)
    assert predicted == [alone[1], alone[2], array, alone[0]]
    for failure, path in ((empty, tmp_path), (none, tmp_path / "*.mp4")):
        assert isinstance(failure, FailedPrediction)
        assert failure.path == str(path)
    with pytest.raises(ValueError, match="give the rate"):
        list(predictor.predict_many([frames]))


@pytest.mark.parametrize(
    ("array", "rate", "message"),
    [
        (np.zeros((4, 8, 8, 3), np.uint8), None, "give the rate"),
        (np.zeros((4, 8, 8, 3), np.uint8), -1.0, "give the rate"),
        (np.zeros((4, 3, 8, 8), np.uint8), 10.0, "expected uint8 RGB frames"),
        (np.zeros((4, 8, 8, 3), np.float32), 10.0, "expected uint8 RGB frames"),
        (np.zeros((0, 8, 8, 3), np.uint8), 10.0, "expected uint8 RGB frames"),
        (np.zeros((8, 8, 3), np.uint8), 10.0, "expected uint8 RGB frames"),
    ],
)
def test_arrays_that_are_no_video(
    predictor: VideoPredictor, array: np.ndarray, rate: float | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        predictor.predict(array, frame_rate_hz=rate)


def test_wrong_arguments(predictor: VideoPredictor, video_folder: Path) -> None:
    path = video_folder / "one.mp4"
    with pytest.raises(ValueError, match="top_k is 0"):
        predictor.predict(path, top_k=0)
    with pytest.raises(ValueError, match="batch_size is 0"):
        predictor.predict(path, batch_size=0)
    with pytest.raises(ValueError, match="window_s"):
        predictor.predict(path, window_s=-1.0)
    with pytest.raises(ValueError, match="window_s"):
        at_rate(predictor, 4.0).predict(path, window_s=1.0)
    with pytest.raises(ValueError, match="frame_rate_hz is for arrays"):
        predictor.predict(path, frame_rate_hz=10.0)


def test_wrong_settings(model_folder: Path, predictor: VideoPredictor) -> None:
    with pytest.raises(ValueError, match="precision 'half' is unknown"):
        VideoPredictor.from_pretrained(model_folder, precision="half")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="device 'tpu' is unknown"):
        VideoPredictor.from_pretrained(model_folder, device="tpu")
    with pytest.raises(ValueError, match="2 class names for 6 outputs"):
        VideoPredictor(predictor.model, classes=["a", "b"])
    with pytest.raises(ValueError, match="needs CUDA"):
        VideoPredictor(predictor.model, device="cpu", precision="16-mixed")


def test_model_without_clip_settings_or_names(predictor: VideoPredictor) -> None:
    from spikevideoformer.models.spikevideoformer import create_model

    bare = create_model("svf_nano", num_classes=2)
    with pytest.raises(ValueError, match="does not say how clips are made"):
        VideoPredictor(bare)
    assert VideoPredictor(bare, clip=ClipSpec(frames=2, size=16), device="cpu").classes == (
        "0",
        "1",
    )


def test_bfloat16_agrees_in_kind(model_folder: Path, video_folder: Path) -> None:
    low = VideoPredictor.from_pretrained(model_folder, device="cpu", precision="bf16-mixed")
    result = low.predict(video_folder / "one.mp4")
    assert isinstance(result, PredictionResult)
    assert sum(label.probability for label in result.labels) <= 1 + 1e-9


def test_the_model_is_left_as_it_was(predictor: VideoPredictor, video_folder: Path) -> None:
    predictor.predict(video_folder / "one.mp4")
    assert not any(module._forward_hooks for module in predictor.model.modules())
    assert all(parameter.grad is None for parameter in predictor.model.parameters())


@pytest.mark.gpu
def test_cuda(model_folder: Path, video_folder: Path) -> None:
    for precision in ("32-true", "bf16-mixed", "16-mixed"):
        on_gpu = VideoPredictor.from_pretrained(
            model_folder,
            device="cuda",
            precision=precision,  # type: ignore[arg-type]
        )
        result = on_gpu.predict(video_folder / "one.mp4")
        assert result.timestamps_s


def test_real_clips(predictor: VideoPredictor, shared_data: Path) -> None:
    """Every file of the robustness set: the right times and counts, or one reason."""
    with (shared_data / "clips" / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    paths = [shared_data / "clips" / row["file"] for row in rows]
    windowed = at_rate(predictor, 2.0)  # windows of 2 s
    for row, result in zip(rows, windowed.predict_many(paths, top_k=4), strict=True):
        if row["pyav_result"] not in ("", "vfr"):
            assert isinstance(result, FailedPrediction), row["file"]
            assert result.reason
            assert "\n" not in result.reason
            continue
        assert isinstance(result, PredictionResult), result
        rate_hz = 75 / 2.98 if row["pyav_result"] == "vfr" else rate_of(row["avg_rate"])
        assert result.duration_s == pytest.approx(int(row["decoded_frames"]) / rate_hz, abs=0.1)
        assert len(result.windows) == max(1, np.ceil((result.duration_s - 1e-3) / 2.0))
        assert all(len(window.labels) == 4 for window in result.windows)
        assert result.windows[0].start_s == 0
        assert result.windows[-1].end_s == pytest.approx(result.duration_s)
        times = result.timestamps_s
        assert list(times) == sorted(times)
        assert times[0] >= 0
        assert times[-1] < result.duration_s
        assert len(times) == len(result.firing_rate_per_frame)


def rate_of(text: str) -> float:
    numerator, _, denominator = text.partition("/")
    return float(numerator) / float(denominator or 1)


def test_the_engine_gives_what_the_model_gives(
    predictor: VideoPredictor, video_folder: Path
) -> None:
    exact = VideoPredictor(predictor.model, device="cpu", engine="exact")
    by_model = VideoPredictor(predictor.model, device="cpu", engine="model")
    for name in ("one.mp4", "two.mkv"):
        fast, plain = (p.predict(video_folder / name, top_k=6) for p in (exact, by_model))
        assert fast.firing_rate_per_frame == plain.firing_rate_per_frame
        assert [label.name for label in fast.labels] == [label.name for label in plain.labels]
        assert [label.probability for label in fast.labels] == pytest.approx(
            [label.probability for label in plain.labels], abs=1e-6
        )
        assert (fast.engine, plain.engine) == ("exact", "model")
        # integers of 24 bits, the default on a CPU: as accurate, with rounding of their own
        found = predictor.predict(video_folder / name, top_k=6)
        assert found.engine == "float"
        assert found.firing_rate == pytest.approx(plain.firing_rate, abs=1e-3)


def test_weights_that_cannot_be_integers_run_in_the_model(
    predictor: VideoPredictor, caplog: pytest.LogCaptureFixture
) -> None:
    model = copy.deepcopy(predictor.model)
    model.head.fc.weight.data[0] = 1e30  # no spikes come in there: it is added up as it is
    assert VideoPredictor(model, device="cpu").engine == "float"
    with pytest.raises(ValueError, match=r"use model\.float\(\)"):
        VideoPredictor(copy.deepcopy(model).double(), device="cpu")
    model.backbone.stages()[3].downsample.conv.weight.data[0] = 1e36
    assert VideoPredictor(model, device="cpu").engine == "model"
    assert "a unit lies outside" in caplog.text
    with pytest.raises(ValueError, match="a unit lies outside"):
        VideoPredictor(model, device="cpu", engine="float")


def test_int8_is_by_option_and_says_so(predictor: VideoPredictor, video_folder: Path) -> None:
    rounded = VideoPredictor(predictor.model, device="cpu", engine="int8")
    result = rounded.predict(video_folder / "one.mp4")
    exact = predictor.predict(video_folder / "one.mp4")
    assert result.engine == "int8"
    assert result.firing_rate == pytest.approx(exact.firing_rate, abs=0.02)
    assert result.firing_rate != exact.firing_rate


def test_engines_that_are_not_possible_are_refused(predictor: VideoPredictor) -> None:
    model = predictor.model
    assert VideoPredictor(model, device="cpu", precision="bf16-mixed").engine == "model"
    with pytest.raises(ValueError, match="engine exact runs in precision 32-true, not in bf16"):
        VideoPredictor(model, device="cpu", precision="bf16-mixed", engine="exact")
    with pytest.raises(ValueError, match="choose one of auto, model, exact, float, int16, int8"):
        VideoPredictor(model, device="cpu", engine="fast")  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["exact", "float", "int8"])
def test_engines_on_cuda_are_by_option(
    predictor: VideoPredictor, video_folder: Path, engine: Any
) -> None:
    model = copy.deepcopy(predictor.model)  # a predictor moves its model
    expected = predictor.predict(video_folder / "one.mp4")
    assert VideoPredictor(model, device="cuda").engine == "model"
    result = VideoPredictor(model, device="cuda", engine=engine).predict(video_folder / "one.mp4")
    assert result.engine == engine
    assert result.firing_rate == pytest.approx(expected.firing_rate, abs=0.02)


@pytest.mark.parametrize("name", ["ann_nano", "gru_nano"])
def test_an_ordinary_network_predicts_without_firing_rate(name: str, video_folder: Path) -> None:
    model = create_model(name, num_classes=3).eval()
    torch.nn.init.normal_(model.head.fc.weight, std=3.0)
    predictor = VideoPredictor(model, clip=ClipSpec(frames=4, size=32), device="cpu")
    assert predictor.engine == "model"
    result = predictor.predict(video_folder / "two.mkv")
    assert len(result.timestamps_s) == 4
    assert result.firing_rate is None
    assert result.firing_rate_per_frame is None
    said = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (said["firing_rate"], said["firing_rate_per_frame"]) == (None, None)
    size = predictor.clip.size
    clip = next(iter_windows(video_folder / "two.mkv", predictor.clip, resize_short=size))
    with torch.no_grad():
        logits = model(eval_transform(clip.frames, predictor.clip).unsqueeze(0))
    shares = {label.index: label.probability for label in result.labels}
    assert [shares[i] for i in range(3)] == pytest.approx(logits.softmax(1)[0].tolist(), abs=1e-6)
    for engine in ("exact", "int8"):
        with pytest.raises(ValueError, match="kind relu"):
            VideoPredictor(model, clip=predictor.clip, device="cpu", engine=engine)


@pytest.mark.parametrize("engine", ["model", "exact", "int8"])
def test_an_output_that_is_no_number_is_told(
    model_folder: Path, video_folder: Path, engine
) -> None:
    model = SpikeVideoFormer.from_pretrained(model_folder)
    with torch.no_grad():
        model.head.fc.weight.fill_(3e38)  # whose sum overflows
    predictor = VideoPredictor(model, device="cpu", engine=engine)
    with pytest.raises(ValueError, match="outputs of the model are NaN or infinite"):
        predictor.predict(video_folder / "one.mp4")


@pytest.mark.parametrize("name", ["head.fc.bias", "backbone.stage1a.downsample.conv.weight"])
def test_a_network_of_no_numbers_is_refused(model_folder: Path, name: str) -> None:
    """Neurons would hide it: a current of NaN is below each threshold."""
    model = SpikeVideoFormer.from_pretrained(model_folder)
    with torch.no_grad():
        weight = model.get_parameter(name)
        weight[(0,) * weight.ndim] = torch.nan
    for engine in ("model", "exact", "int8"):
        with pytest.raises(ValueError, match=f"cannot be used: {name} holds NaN"):
            VideoPredictor(model, device="cpu", engine=engine)


@pytest.mark.parametrize("engine", ["model", "exact"])
def test_threads_do_not_count_the_spikes_of_each_other(
    model_folder: Path, video_folder: Path, engine: str
) -> None:
    predictor = VideoPredictor.from_pretrained(model_folder, device="cpu", engine=engine)
    videos = sorted(video_folder.glob("*.*"))[:4]
    alone = [predictor.predict(video) for video in videos]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(predictor.predict, videos)) == alone


def test_views_of_arrays(predictor: VideoPredictor) -> None:
    """BGR read as RGB, and time or a side turned: as their copies."""
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    for view in (frames[..., ::-1], frames[::-1], frames[:, :, ::-1]):
        seen, copied = (predictor.predict(a, frame_rate_hz=8.0) for a in (view, view.copy()))
        assert seen.to_dict() == copied.to_dict()
