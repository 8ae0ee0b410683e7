"""Masks as a stream: those of the model itself, whatever the length, the rate and the input."""

import copy
import io
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from spikevideoformer.deploy import engine
from spikevideoformer.inference import base
from spikevideoformer.models.spikevideoformer import create_model
from spikevideoformer.nn.neuron import record_firing_rates
from spikevideoformer.tasks.segmentation.answer import SegmentationPrediction
from spikevideoformer.tasks.segmentation.dataset import picture_input
from spikevideoformer.tasks.segmentation.predictor import VideoSegmenter
from spikevideoformer.tasks.segmentation.tiling import class_scores, upsampled_classes
from spikevideoformer.video.frames import iter_frames, write_video
from spikevideoformer.video.spec import ClipSpec


@pytest.fixture(scope="module")
def segmenter(mask_model_folder: Path) -> VideoSegmenter:
    return VideoSegmenter.from_pretrained(mask_model_folder, device="cpu", engine="model")


def pictures(video: Path) -> np.ndarray:
    return np.stack([frame.image for frame in iter_frames(video)])


def by_hand(segmenter: VideoSegmenter, frames: np.ndarray, **looks: object) -> np.ndarray:
    """Masks of consecutive clips of T frames, the last one shorter."""
    masks = []
    size = frames.shape[1:3]
    for clip in torch.from_numpy(frames).split(segmenter.clip.frames):
        with torch.no_grad():
            scores = class_scores(segmenter.model, picture_input(clip, segmenter.clip), **looks)
        masks += [upsampled_classes(frame, size).numpy() for frame in scores]
    return np.stack(masks)


def test_masks_are_those_of_the_model(segmenter: VideoSegmenter, video_folder: Path) -> None:
    video = video_folder / "one.mp4"  # 10 frames: three clips of three, and one of one
    frames = pictures(video)
    result = segmenter.predict(video)
    assert isinstance(result, SegmentationPrediction)
    assert result.masks.shape == (10, 48, 64)
    assert result.masks.dtype == np.uint8
    assert np.array_equal(result.masks, by_hand(segmenter, frames))
    assert len(np.unique(result.masks)) > 2
    assert result.path == str(video)
    assert result.duration_s == pytest.approx(1.0)
    assert result.timestamps_s == pytest.approx([i / 10 for i in range(10)])
    shares = [np.bincount(m.ravel(), minlength=5) / m.size for m in result.masks]
    assert result.area == pytest.approx(np.array(shares), abs=1e-6)
    assert result.mean_area == pytest.approx(np.mean(shares, axis=0), abs=1e-6)
    assert result.engine == "model"


def test_firing_rates_are_those_of_the_model(segmenter: VideoSegmenter, video_folder: Path) -> None:
    result = segmenter.predict(video_folder / "one.mp4", keep_masks=False)
    assert result.masks is None
    clip = torch.from_numpy(pictures(video_folder / "one.mp4")[3:6])
    with torch.no_grad(), record_firing_rates(segmenter.model) as rates:
        segmenter.model(picture_input(clip, segmenter.clip)[None])
    expected = torch.stack(list(rates.per_frame.values())).mean(0)[:, 0]  # [T]
    assert result.firing_rate_per_frame[3:6] == pytest.approx(expected.tolist())
    assert result.firing_rate == pytest.approx(np.mean(result.firing_rate_per_frame))
    assert 0.01 < result.firing_rate < 1


@pytest.mark.parametrize(
    "looks",
    [{"window": (32, 32)}, {"scales": (0.5, 1.0)}, {"flip": True}],
    ids=["window", "scales", "flip"],
)
def test_looks(
    segmenter: VideoSegmenter, mask_model_folder: Path, video_folder: Path, looks: dict
) -> None:
    video = video_folder / "one.mp4"
    other = VideoSegmenter.from_pretrained(mask_model_folder, device="cpu", engine="model", **looks)
    masks = other.predict(video).masks
    assert np.array_equal(masks, by_hand(segmenter, pictures(video), **looks))
    assert not np.array_equal(masks, segmenter.predict(video).masks)


def test_frames_far_apart_make_clips_as_in_training(
    segmenter: VideoSegmenter, video_folder: Path
) -> None:
    """With a step of two, even and odd frames are clips of their own."""
    stepped = VideoSegmenter(segmenter.model, clip=replace(segmenter.clip, step=2), device="cpu")
    frames = pictures(video_folder / "one.mp4")
    masks = stepped.predict(video_folder / "one.mp4").masks
    for chosen in ([0, 2, 4], [1, 3, 5], [6, 8], [7, 9]):
        assert np.array_equal(masks[chosen], by_hand(segmenter, frames[chosen]))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_videos_of_few_frames(
    segmenter: VideoSegmenter, video_folder: Path, tmp_path: Path, count: int
) -> None:
    frames = pictures(video_folder / "one.mp4")[:count]
    write_video(tmp_path / "short.mkv", frames, 10.0, codec="ffv1")
    result = segmenter.predict(tmp_path / "short.mkv")
    assert len(result.masks) == len(result.timestamps_s) == count
    decoded = pictures(tmp_path / "short.mkv")
    assert np.array_equal(result.masks, by_hand(segmenter, decoded))


def test_times_are_those_of_the_file(
    segmenter: VideoSegmenter, video_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "variable.mkv"
    ticks = [0, 40, 90, 400, 1000, 1010, 2500]  # ms
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for tick, image in zip(ticks, pictures(video_folder / "one.mp4"), strict=False):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames = list(segmenter.segment(path))
    assert [f.timestamp_s for f in frames] == pytest.approx([t / 1000 for t in ticks], abs=2e-3)
    assert np.array_equal(np.stack([f.mask for f in frames]), by_hand(segmenter, pictures(path)))


def test_json_has_all_but_the_masks(segmenter: VideoSegmenter, video_folder: Path) -> None:
    result = segmenter.predict(video_folder / "one.mp4")
    about = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert list(about) == (
        "path duration_s engine firing_rate distance unlike_training "
        "classes timestamps_s mean_area area".split()
    )
    assert about["classes"] == list(segmenter.classes)
    assert list(about["area"]) == list(about["mean_area"]) == about["classes"]
    assert len(about["timestamps_s"]) == 10
    for index, name in enumerate(about["classes"]):
        assert about["area"][name] == pytest.approx(result.area[:, index].tolist(), abs=1e-6)
    assert sum(about["mean_area"].values()) == pytest.approx(1.0, abs=1e-5)
    # the same, written one class at a time
    written = io.BytesIO()
    result.write_json(written)
    assert written.getvalue().endswith(b"\n")
    assert json.loads(written.getvalue()) == about


def test_the_engine_gives_what_the_model_gives(
    segmenter: VideoSegmenter, video_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = video_folder / "one.mp4"
    fast = VideoSegmenter(segmenter.model, device="cpu").predict(video)
    plain = segmenter.predict(video)
    assert (fast.engine, plain.engine) == ("float", "model")
    assert np.mean(fast.masks == plain.masks) > 0.99  # integers of 24 bits round otherwise
    exact = VideoSegmenter(segmenter.model, device="cpu", engine="exact").predict(video)
    assert exact.firing_rate_per_frame == plain.firing_rate_per_frame
    assert np.mean(exact.masks == plain.masks) > 0.999  # probabilities round, spikes do not
    for place in (base, engine):
        monkeypatch.setattr(place, "cannot_run", lambda _: "no way to run this")
    assert VideoSegmenter(segmenter.model, device="cpu").engine == "model"
    with pytest.raises(ValueError, match="no way to run this"):
        VideoSegmenter(segmenter.model, device="cpu", engine="exact")


def test_wrong_settings(segmenter: VideoSegmenter) -> None:
    model = copy.deepcopy(segmenter.model)
    with pytest.raises(ValueError, match="two classes are named 'a'"):
        VideoSegmenter(model, device="cpu", classes=["a", "b", "a", "c", "d"])
    with pytest.raises(ValueError, match="palette of 1 colours; expected 5"):
        VideoSegmenter(model, device="cpu", palette=[(0, 0, 0)])
    with pytest.raises(ValueError, match="clip is a ClipSpec; segmentation takes a Segmentation"):
        VideoSegmenter(model, device="cpu", clip=ClipSpec(frames=2, size=32))
    model.clip = None
    with pytest.raises(ValueError, match="give clip=SegmentationSpec"):
        VideoSegmenter(model, device="cpu")
    many = create_model("svf_nano", task="segmentation", num_classes=256)
    with pytest.raises(ValueError, match="256 classes; a mask can hold 255"):
        VideoSegmenter(many, clip=segmenter.clip, device="cpu")
