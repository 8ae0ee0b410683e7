"""What is said of every frame: one behaviour of all such predictors, whatever the task."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch

from spikevideoformer.inference import base
from spikevideoformer.inference.answer import FailedPrediction
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, create_model
from spikevideoformer.synth.motions import standing_skeleton
from spikevideoformer.tasks.classification.predictor import VideoPredictor
from spikevideoformer.tasks.pose.predictor import PoseTracker
from spikevideoformer.tasks.pose.spec import PoseSpec
from spikevideoformer.tasks.segmentation.predictor import VideoSegmenter
from spikevideoformer.tasks.segmentation.spec import SegmentationSpec
from spikevideoformer.video import frames as video_io
from spikevideoformer.video.frames import VideoError, iter_frames

FRAMES, RATE_HZ = 10, 10.0  # of one.mp4


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A predictor, and what of it is compared.

    Attributes:
        kind: the class.
        model: a network that fires.
        spec: of its clips.
        said: the field of a prediction that holds what is said of the frames.
        step: every how many pictures the network sees one.
    """

    kind: type[Any]
    model: SpikeVideoFormer
    spec: Any
    said: str
    step: int = 1

    def predictor(self, **options: Any) -> Any:
        return self.kind(self.model, clip=self.spec, device="cpu", engine="model", **options)


def posing(lively: Any, **changes: Any) -> Stream:
    spec = PoseSpec(frames=4, size=32, **changes)
    torch.manual_seed(0)
    channels = {"in_channels": spec.in_channels}
    model = lively(create_model("svf_nano", "pose", body=standing_skeleton(), **channels)).eval()
    torch.nn.init.normal_(model.head.fc.weight, std=0.01)
    step = 1 if spec.frame_rate_hz is None else round(RATE_HZ / spec.frame_rate_hz)
    return Stream(kind=PoseTracker, model=model, spec=spec, said="joints", step=step)


@pytest.fixture(params=["segmentation", "pose", "grey at half the rate", "events"])
def stream(request: pytest.FixtureRequest, lively: Any, mask_model_folder: Path) -> Stream:
    if request.param == "segmentation":
        model = SpikeVideoFormer.from_pretrained(mask_model_folder)
        spec = SegmentationSpec.from_dict(model.clip or {})
        return Stream(kind=VideoSegmenter, model=model, spec=spec, said="masks")
    if request.param == "grey at half the rate":
        return posing(lively, input="grey", frame_rate_hz=RATE_HZ / 2)
    return posing(lively, input="events" if request.param == "events" else "rgb")


@pytest.fixture
def video(video_folder: Path) -> Path:
    return video_folder / "one.mp4"


def pictures(video: Path) -> np.ndarray:
    return np.stack([frame.image for frame in iter_frames(video)])


def test_no_more_than_a_clip_is_read_ahead(
    stream: Stream, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0

    def count(frames: Iterator[video_io.VideoFrame]) -> Iterator[video_io.VideoFrame]:
        nonlocal read
        for frame in frames:
            read += 1
            yield frame

    def counted(*args: object, **options: object) -> video_io.Pictures:
        pictures = video_io.open_pictures(*args, **options)  # type: ignore[arg-type]
        return replace(pictures, frames=count(pictures.frames))

    monkeypatch.setattr(base, "open_pictures", counted)
    predictor = stream.predictor()
    frames = predictor.segment(video) if stream.said == "masks" else predictor.track(video)
    ahead = [read - number * stream.step for number, _ in enumerate(frames)]
    assert read == FRAMES
    assert max(ahead) == stream.spec.frames * stream.step


def test_arrays_and_folders_of_pictures(stream: Stream, video: Path, tmp_path: Path) -> None:
    predictor, frames = stream.predictor(), pictures(video)
    expected = predictor.predict(video)
    for number, image in enumerate(frames):
        matplotlib.image.imsave(tmp_path / f"{number}.png", image)
    for given, path, rate in (
        (frames, None, {"frame_rate_hz": RATE_HZ}),
        (torch.from_numpy(frames), None, {"frame_rate_hz": RATE_HZ}),
        (tmp_path, str(tmp_path), {"sequence_rate_hz": RATE_HZ}),
    ):
        result = predictor.predict(given, **rate)
        assert np.array_equal(getattr(result, stream.said), getattr(expected, stream.said))
        assert result.path == path
        assert result.timestamps_s == pytest.approx(expected.timestamps_s, abs=1e-4)
        assert result.duration_s == pytest.approx(1.0)


def test_a_picture_is_a_video_of_one_frame(stream: Stream, video: Path, tmp_path: Path) -> None:
    image = pictures(video)[0]
    matplotlib.image.imsave(tmp_path / "photo.png", image)
    predictor = stream.predictor()
    result = predictor.predict(tmp_path / "photo.png")
    expected = predictor.predict(image[None], frame_rate_hz=25.0)
    assert len(result.timestamps_s) == len(getattr(result, stream.said)) == 1
    assert np.array_equal(getattr(result, stream.said), getattr(expected, stream.said))


def test_many_videos_and_bad_ones(stream: Stream, video: Path, tmp_path: Path) -> None:
    predictor, cut = stream.predictor(), tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[:-400])
    one, bad, absent, of_array = predictor.predict_many(
        [video, cut, tmp_path / "absent.mp4", pictures(video)], frame_rate_hz=RATE_HZ
    )
    assert np.array_equal(getattr(one, stream.said), getattr(of_array, stream.said))
    for failure, path in ((bad, cut), (absent, tmp_path / "absent.mp4")):
        assert isinstance(failure, FailedPrediction)
        assert failure.path == str(path)
        assert "\n" not in failure.reason
    with pytest.raises(VideoError):
        predictor.predict(cut)
    (alone,) = predictor.predict_many(video)
    assert np.array_equal(getattr(alone, stream.said), getattr(one, stream.said))


def test_progress_tells_how_many_frames(stream: Stream, video: Path) -> None:
    count = -(-FRAMES // stream.step)
    for given, options in ((video, {}), (pictures(video), {"frame_rate_hz": RATE_HZ})):
        told: list[tuple[int, int | None]] = []
        stream.predictor().predict(given, progress=lambda *n, told=told: told.append(n), **options)
        assert told == [(done, count) for done in range(1, count + 1)]


def test_the_predictor_of_a_folder_fits_its_task(
    stream: Stream, model_folder: Path, video: Path, tmp_path: Path
) -> None:
    stream.model.save_pretrained(tmp_path, clip=stream.spec.to_dict())
    found = VideoPredictor.from_pretrained(tmp_path, device="cpu", engine="model")
    assert isinstance(found, stream.kind)
    expected = getattr(stream.predictor().predict(video), stream.said)
    assert np.array_equal(getattr(found.predict(video), stream.said), expected)
    with pytest.raises(ValueError, match=f"made for classification, and {stream.kind.__name__}"):
        stream.kind.from_pretrained(model_folder)
    with pytest.raises(ValueError, match=f"made for {stream.model.task}, and VideoPredictor"):
        VideoPredictor(found.model)


def test_an_ordinary_network_has_no_firing_rates(stream: Stream, video: Path) -> None:
    options = {"body": stream.model.body} if stream.said == "joints" else {"num_classes": 3}
    options |= {"pad_input": True, "in_channels": stream.model.config.in_channels}
    model = create_model("ann_nano", stream.model.task, **options)
    predictor = stream.kind(model, clip=stream.spec, device="cpu")
    result = predictor.predict(video)
    assert result.engine == "model"
    assert result.firing_rate is result.firing_rate_per_frame is None
    if stream.said == "masks":  # without names and colours
        assert predictor.classes == ("0", "1", "2")
        assert len(set(predictor.palette)) == 3


def test_rates_that_make_no_sense(stream: Stream, video: Path) -> None:
    with pytest.raises(ValueError, match="frame_rate_hz is for arrays"):
        stream.predictor().predict(video, frame_rate_hz=10.0)
    with pytest.raises(ValueError, match="does not know its times"):
        stream.predictor().predict(np.zeros((2, 32, 32, 3), np.uint8))
