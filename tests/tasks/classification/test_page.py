"""The page about a clip: whole in itself, with all its parts, for any network."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from spikevideoformer.bench.inputs import made_clip
from spikevideoformer.energy.report import energy_report
from spikevideoformer.models.spikevideoformer import create_model
from spikevideoformer.task import get_task
from spikevideoformer.tasks.classification.page import (
    clip_page,
    frame_numbers,
    heat_map,
    part_of,
    prediction_page,
)
from spikevideoformer.tasks.classification.predictor import VideoPredictor
from spikevideoformer.video.frames import iter_windows
from spikevideoformer.video.spec import ClipSpec


class Page(HTMLParser):
    """Headings, cells, pictures and addresses of a page; every tag that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []
        self.large = len(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        assert tag != "script"
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] == "h2":
            self.headings[-1] += data


def test_page_of_a_prediction(model_folder: Path, video_folder: Path) -> None:
    predictor = VideoPredictor.from_pretrained(model_folder, device="cpu")
    result = predictor.predict(video_folder / "three.avi", window_s=1.0)
    told: list[str] = []
    size = predictor.clip.size
    windows = iter_windows(result.path, predictor.clip, window_s=1.0, resize_short=size)
    surest = max(
        zip(windows, result.windows, strict=True), key=lambda w: w[1].labels[0].probability
    )
    text = prediction_page(predictor, result, surest[0], tell=told.append)
    page = Page(text)
    assert page.headings == [
        "What the network saw, and where it fired",
        "Predictions over time",
        "Firing rates",
        "Energy",
        "Operations of attention against the number of frames",
    ]
    assert all(address.startswith("data:image/") for address in page.addresses)
    # four frames of the clip and of five stages, then drawings
    kinds = [re.match(r"data:image/([a-z+]+)", a)[1] for a in page.addresses]  # type: ignore[index]
    assert (kinds.count("jpeg"), kinds.count("png"), kinds.count("svg+xml")) == (4, 20, 7)
    assert "three.avi" in page.text
    assert "stage 1a" in page.text and "stage1a" not in page.text
    for word in ("spike", "firing rate", "executed", "merged", "ZCU104"):
        assert f"<dt>{word}</dt>" in text
    assert "<dt>membrane</dt>" not in text
    assert result.labels[0].name in page.text
    best = [window.labels[0].probability for window in result.windows]
    assert f"window {best.index(max(best)) + 1} of 3" in page.text
    assert page.large < 1_000_000
    assert len(told) == 3


def test_energy_on_the_page_is_that_of_the_report(model_folder: Path) -> None:
    predictor = VideoPredictor.from_pretrained(model_folder, device="cpu")
    clip = made_clip(get_task("classification"), predictor.clip)
    video = torch.randn(1, 4, 3, 32, 32)
    report = energy_report(predictor.model, video, merge=False)
    text = clip_page(
        predictor.model,
        clip,
        predictor.clip,
        title="<b>&",
        about=[("a", "<i>")],
        classes=predictor.classes,
        energy=report,
    )
    page = Page(text)
    assert "<b>&" in page.text and "<i>" in page.text
    for totals in report.totals:
        assert f"{totals.energy_mj:.4g}" in page.text


def test_class_names_are_no_formulas(model_folder: Path) -> None:
    predictor = VideoPredictor.from_pretrained(model_folder, device="cpu")
    clip = made_clip(get_task("classification"), predictor.clip)
    names = ("$\\frac$", "_hidden", "<b>", "a", "b", "c")
    text = clip_page(
        predictor.model,
        clip,
        predictor.clip,
        title="x",
        about=[],
        classes=names,
        windows=[(0.0, 1.0, "$\\frac$", 0.5), (1.0, 2.0, "_hidden", 0.5)],
    )
    drawings = [a for a in Page(text).addresses if a.startswith("data:image/svg")]
    assert len(drawings) == 4


@pytest.mark.parametrize("name", ["ann_nano", "gru_nano"])
def test_pages_of_networks_without_spikes(name: str) -> None:
    spec = ClipSpec(frames=3, size=32)
    model = create_model(name, num_classes=2).eval()
    text = clip_page(
        model,
        made_clip(get_task("classification"), spec),
        spec,
        title="x",
        about=[],
        classes=("a", "b"),
    )
    headings = Page(text).headings
    assert "Firing rates" not in headings
    assert ("Predictions over time" in headings) == (name == "ann_nano")


def test_frame_numbers() -> None:
    assert frame_numbers(3, 8) == [0, 1, 2]
    assert frame_numbers(100, 5) == [0, 25, 50, 74, 99]


def test_heat_map_of_silence_is_one_colour() -> None:
    assert heat_map(torch.zeros(2, 2), 0.0) == heat_map(torch.zeros(2, 2), 1.0)
    assert heat_map(torch.ones(2, 2), 1.0) != heat_map(torch.zeros(2, 2), 1.0)


def test_parts_are_the_same_before_and_after_folding() -> None:
    parts = {
        "backbone.stage3.blocks.0.attention.0.steps.0.q_conv.pw1": "stage 3, block 1, attention",
        "backbone.stage3.blocks.0": "stage 3, block 1, residuals",
        "backbone.stage1a.downsample.bn": "stage 1a, downsampling",
        "head.fc": "head",
        "": "",
    }
    assert {module: part_of(module) for module in parts} == parts
