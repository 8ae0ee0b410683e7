"""Masks drawn over a video: colours, legend, files beside the video, and interruptions."""

import logging
from collections.abc import Iterator
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

from spikevideoformer.tasks.segmentation import draw as module
from spikevideoformer.tasks.segmentation.answer import SegmentationPrediction, SegmentedFrame
from spikevideoformer.tasks.segmentation.draw import Overlay, blended, plot_areas
from spikevideoformer.tasks.segmentation.masks import distinct_palette
from spikevideoformer.tasks.segmentation.predictor import VideoSegmenter
from spikevideoformer.video.frames import VideoError, check_decodes, iter_frames


@pytest.fixture(scope="module")
def segmenter(mask_model_folder: Path) -> VideoSegmenter:
    return VideoSegmenter.from_pretrained(mask_model_folder, device="cpu", engine="model")


def frame(mask: np.ndarray, classes: int) -> SegmentedFrame:
    mask = mask.astype(np.uint8)
    return SegmentedFrame(
        timestamp_s=0.0,
        duration_s=0.1,
        image=np.full((*mask.shape, 3), 100, np.uint8),
        mask=mask,
        area=(np.bincount(mask.ravel(), minlength=classes) / mask.size).astype(np.float32),
        firing_rate=None,
    )


def prediction(area: np.ndarray, names: list[str] | None = None) -> SegmentationPrediction:
    T, K = area.shape
    return SegmentationPrediction(
        path=None,
        duration_s=T / 10,
        classes=tuple(names or map(str, range(K))),
        masks=None,
        timestamps_s=tuple(i / 10 for i in range(T)),
        area=area.astype(np.float32),
        mean_area=area.mean(0).astype(np.float32),
        firing_rate=None,
        firing_rate_per_frame=None,
        engine="model",
    )


def test_regions_are_half_covered_and_end_in_full_colour() -> None:
    mask = np.zeros((4, 6), np.uint8)
    mask[:, 3:] = 1
    colours = np.array([[0, 0, 200], [255, 0, 1]], np.uint8)
    drawn = blended(np.full((4, 6, 3), 101, np.uint8), mask, colours)
    assert (drawn[:, :3] == (50, 50, 150)).all()
    assert (drawn[:, 3] == (255, 0, 1)).all()  # where the second region begins
    assert (drawn[:, 4:] == (178, 50, 51)).all()


def test_legend_bars_have_the_length_of_the_area() -> None:
    """Of three classes with 50, 25 and 25 % of the picture, each bar in its own colour."""
    mask = np.zeros((40, 640))
    mask[20:, :320], mask[20:, 320:] = 1, 2
    palette = [(200, 10, 10), (10, 200, 10), (10, 10, 250)]
    drawing = Overlay(["road", "sky", "car"], palette)
    band = drawing.draw(frame(mask, 3))[40:]
    widths = []
    for colour in palette:
        rows = (band == colour).all(2).sum(1)
        # a swatch and its bar lie side by side: the bar is what changes with the area
        widths.append(rows.max())
    empty = drawing.draw(frame(np.zeros((40, 640)), 3))[40:]
    swatches = [(empty == colour).all(2).sum(1).max() for colour in palette]
    bars = [w - s for w, s in zip(widths[1:], swatches[1:], strict=True)]
    full = swatches[0] - swatches[1]  # class 0 has all of the picture
    assert swatches[1] == swatches[2] > 8
    assert full > 30
    assert bars == pytest.approx([full / 4] * 2, abs=1)
    assert widths[0] - swatches[1] == pytest.approx(full / 2, abs=1)


@pytest.mark.parametrize(
    ("count", "size"),  # of more than 40 classes the largest are shown
    [
        (1, (360, 480)),
        (2, (48, 64)),
        (19, (720, 1280)),
        (40, (48, 64)),
        (41, (360, 480)),
        (255, (48, 64)),
        (255, (720, 1280)),
    ],
)
def test_legend_of_any_number_of_classes_fits(count: int, size: tuple[int, int]) -> None:
    mask = np.arange(size[0] * size[1]).reshape(size) % count
    drawing = Overlay([f"class {i} $x_1$ of $y" for i in range(count)], distinct_palette(count))
    picture = drawing.draw(frame(mask, count))
    height, width, _ = picture.shape
    shown = module.fit_frame(np.zeros((*size, 3), np.uint8)).shape
    assert width == shown[1]
    rows = (height - shown[0]) / (22 * max(0.85, (width / 640) ** 0.5))
    assert 1 <= rows <= 22
    # a swatch of each class that is shown, at least 10 pixels high and wide
    band = picture[shown[0] :]
    for colour in distinct_palette(count)[: min(count, 40)]:
        swatch = (band == colour).all(2)
        assert swatch.sum() >= 100


def test_of_many_classes_the_largest_so_far_are_shown() -> None:
    palette = distinct_palette(60)
    drawing = Overlay([str(i) for i in range(60)], palette)

    def shown(mask: np.ndarray) -> set[int]:
        band = drawing.draw(frame(mask, 60))[480:]
        return {i for i, colour in enumerate(palette) if (band == colour).all(2).sum() >= 100}

    assert shown(np.full((480, 640), 0)) == set(range(40))
    later = shown(np.full((480, 640), 59))
    assert later == {*range(39), 59}
    assert shown(np.full((480, 640), 0)) == later  # what has been seen stays


def test_everything_is_written_in_one_pass(
    segmenter: VideoSegmenter, video_folder: Path, tmp_path: Path
) -> None:
    video, out, masks = video_folder / "two.mkv", tmp_path / "two.mp4", tmp_path / "two.masks"
    masks.mkdir()
    for leftover in ("000019.png", "000020.png", "000500.png", "notes.png"):
        (masks / leftover).write_bytes(b"old")
    told: list[tuple[int, int | None]] = []
    result, written = segmenter.write(
        video, out, masks=True, progress=lambda *counts: told.append(counts)
    )
    assert sorted(written) == ["annotated", "json", "masks", "plot"]
    expected = segmenter.predict(video)
    assert result.masks is None
    assert np.array_equal(result.area, expected.area)
    assert result.to_dict() == expected.to_dict()
    assert [done for done, _ in told] == list(range(1, 21))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "two.areas.png",
        "two.json",
        "two.masks",
        "two.mp4",
    ]
    names = [f"{i:06d}.png" for i in range(20)]
    assert sorted(p.name for p in masks.iterdir()) == [*names, "notes.png"]
    for name, mask in zip(names, expected.masks, strict=True):
        with Image.open(masks / name) as image:
            assert image.mode == "P"
            assert np.array_equal(np.asarray(image), mask)
            assert image.getpalette()[:15] == [v for rgb in segmenter.palette for v in rgb]
    assert check_decodes(out).decoded_frames == 20
    assert check_decodes(out).frame_rate_hz == pytest.approx(10.0)
    assert matplotlib.image.imread(tmp_path / "two.areas.png").shape[2] == 4
    # the picture is the source half covered by its mask; encoding blurs edges
    source = next(iter_frames(video)).image
    drawn = blended(source, expected.masks[0], np.array(segmenter.palette, np.uint8))
    written = next(iter_frames(out)).image[:480, :640]
    difference = written.astype(int) - module.fit_frame(drawn).astype(int)
    assert np.abs(difference).mean() < 6


def test_pictures_stand_at_their_own_time(segmenter: VideoSegmenter, tmp_path: Path) -> None:
    """A source of 120 Hz: every frame is counted, every second one is shown."""
    for i in range(12):
        Image.fromarray(np.full((32, 32, 3), 20 * i, np.uint8)).save(tmp_path / f"{i}.png")
    out = tmp_path / "out.mp4"
    result, _ = segmenter.write(tmp_path, out, sequence_rate_hz=120.0)
    assert len(result.timestamps_s) == 12
    info = check_decodes(out)
    assert info.frame_rate_hz == pytest.approx(60.0)
    assert info.decoded_frames in (6, 7)


def test_damaged_video_leaves_nothing(
    segmenter: VideoSegmenter, video_folder: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.mkv"
    cut.write_bytes((video_folder / "two.mkv").read_bytes()[:-3000])
    with pytest.raises(VideoError):
        segmenter.write(cut, tmp_path / "out.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["cut.mkv"]


def test_interruption_leaves_what_is_done(
    segmenter: VideoSegmenter,
    video_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = VideoSegmenter._answers

    def interrupted(self: VideoSegmenter, *args: object, **options: object) -> Iterator:
        for number, shown in enumerate(answers(self, *args, **options)):  # type: ignore[arg-type]
            if number == 28:
                raise KeyboardInterrupt
            yield shown

    monkeypatch.setattr(VideoSegmenter, "_answers", interrupted)
    out = tmp_path / "out.mp4"
    with caplog.at_level(logging.INFO), pytest.raises(KeyboardInterrupt):
        segmenter.write(video_folder / "three.avi", out)
    (part,) = tmp_path.iterdir()
    assert part.name == "out.part.mp4"
    assert str(part) in caplog.text
    assert 1 <= check_decodes(part).decoded_frames <= 28
    monkeypatch.undo()
    segmenter.write(video_folder / "three.avi", out)
    assert not part.exists()
    assert check_decodes(out).decoded_frames == 30


@pytest.mark.parametrize(("frames", "classes"), [(1, 1), (1, 5), (30, 3), (4000, 30)])
def test_plot_of_areas(tmp_path: Path, frames: int, classes: int) -> None:
    area = np.random.default_rng(0).random((frames, classes))
    area /= area.sum(1, keepdims=True)
    names = [f"_$ {i} $ 中" for i in range(classes)]
    plot_areas(prediction(area, names), distinct_palette(classes), tmp_path / "areas.png")
    assert (tmp_path / "areas.png").read_bytes().startswith(b"\x89PNG")


def test_plot_shows_colours_at_their_time(tmp_path: Path) -> None:
    """First half one class, second half another, each over the whole height."""
    area = np.zeros((10, 3))
    area[:5, 2], area[5:, 1] = 1, 1
    path = tmp_path / "areas.png"
    plot_areas(prediction(area), [(9, 200, 9), (250, 0, 0), (0, 0, 250)], path)
    image = np.asarray(Image.open(path).convert("RGB")).astype(int)
    red = np.argwhere((image == (250, 0, 0)).all(2))
    blue = np.argwhere((image == (0, 0, 250)).all(2))
    panel_red = red[red[:, 0] > image.shape[0] // 3]  # below the legend
    panel_blue = blue[blue[:, 0] > image.shape[0] // 3]
    assert panel_blue[:, 1].max() <= panel_red[:, 1].min() + 2
    assert len(panel_red) == pytest.approx(len(panel_blue), rel=0.05)
    assert not (image == (9, 200, 9)).all(2).any()  # a class that never appears


def test_averages_of_long_videos_keep_the_share() -> None:
    area = np.random.default_rng(0).random((2777, 2))
    mean, times = module._averaged(area, np.arange(2777.0))
    assert len(mean) == len(times) == module.PLOT_COLUMNS
    assert times[0] == 0
    assert mean.mean(0) == pytest.approx(area.mean(0), abs=0.01)
    short, _ = module._averaged(area[:7], np.arange(7.0))
    assert np.array_equal(short, area[:7])
