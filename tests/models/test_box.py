"""The box: networks that come with the package are found by name, and their cards are theirs."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file

import spikevideoformer as svf
from spikevideoformer.cli import main
from spikevideoformer.models import box
from spikevideoformer.models.box import BOX, OF_TASK, Card, boxed, boxed_folder
from spikevideoformer.models.folder import local_folder, read_about

REPOSITORY = Path(__file__).resolve().parents[2]
MOST_BYTES = 12_000_000
CARD = {
    "about": "what hands do",
    "licence": "Apache-2.0",
    "data": ["made clips (CC0)"],
    "recipe": "recipes/hands",
    "training": "In a minute.",
    "metrics": [{"what": "top-1", "on": "ten clips", "value": 0.5, "low": 0.25, "high": 0.75}],
    "firing_rate": 0.125,
    "energy_mj": {"paper": 0.5},
    "limits": ["Feet."],
}


@pytest.fixture(scope="session")
def pack():
    """The script that fills the box, as a module."""
    spec = importlib.util.spec_from_file_location("pack", REPOSITORY / "recipes" / "pack.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def filled_box(tmp_path_factory, model_folder, mask_model_folder, pack):
    folder = tmp_path_factory.mktemp("box")
    for name, model in (("scene-motion", model_folder), ("hands", mask_model_folder)):
        pack.rounded(model, folder / name)
        (folder / name / "card.json").write_text(json.dumps(CARD))
    return folder


@pytest.fixture
def own_box(tmp_path, filled_box, monkeypatch, pack):
    """Another box with two networks, in a folder of its own; the hub is not asked."""
    shutil.copytree(filled_box, tmp_path / "box")
    for module in (box, pack):
        monkeypatch.setattr(module, "BOX", tmp_path / "box")

    def refuse(*_args, **_kwargs):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub, "HfApi", refuse)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    return tmp_path / "box"


def test_a_folder_is_all_that_a_network_needs(own_box, model_folder, video_folder) -> None:
    assert list(boxed()) == ["svf/hands", "svf/scene-motion"]
    model = svf.SpikeVideoFormer.from_pretrained("svf/scene-motion")
    original = svf.SpikeVideoFormer.from_pretrained(model_folder)
    expected = original.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-6)  # and the dtype
    assert type(svf.VideoPredictor.from_pretrained("svf/hands")).__name__ == "VideoSegmenter"
    result = svf.VideoPredictor.from_pretrained("svf/scene-motion").predict(
        video_folder / "one.mp4"
    )
    assert result.labels[0].name in model.classes


def test_kernels_are_halves(own_box) -> None:
    for name, value in load_file(own_box / "hands" / "model.safetensors").items():
        assert (value.dtype == torch.float16) == (value.ndim > 1), name


def test_damage_is_refused(own_box) -> None:
    weights = own_box / "hands" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match="SHA-256"):
        svf.SpikeVideoFormer.from_pretrained("svf/hands")


@pytest.mark.parametrize("name", ["svf/person-pose", "svf/feet"])
def test_what_is_not_there_is_told_in_a_line(own_box, name) -> None:
    with pytest.raises(ValueError, match="it holds svf/hands, svf/scene-motion") as told:
        svf.SpikeVideoFormer.from_pretrained(name)
    assert ("not in the box of this version yet" in str(told.value)) == (name in OF_TASK.values())


def test_the_box_is_before_a_folder_of_that_name(own_box, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "svf" / "hands").mkdir(parents=True)
    assert local_folder("svf/hands") == own_box / "hands"
    assert local_folder("./svf/hands") == Path("svf/hands")
    with pytest.raises(ValueError, match="the network in the box is svf/hands"):
        local_folder("hands")


@pytest.mark.parametrize(
    "change",
    [{"metrics": [{"what": "top-1", "on": "ten clips"}]}, {"licens": "MIT"}, {"data": 3}],
)
def test_a_card_that_is_none_is_refused(own_box, change) -> None:
    path = own_box / "hands" / "card.json"
    path.write_text(json.dumps(CARD | change))
    with pytest.raises(ValueError, match=r"card\.json"):
        Card.read(path.parent)


def test_predict_without_a_model_takes_the_box(own_box, video_folder, capfd) -> None:
    assert main(["predict", str(video_folder / "one.mp4"), "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["labels"]
    assert "svf/scene-motion, what hands do" in err
    assert main(["predict", str(video_folder / "one.mp4"), "--task", "pose"]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "svf/person-pose is not in the box of this version yet" in err


def test_training_begins_with_a_network_of_the_box(own_box, clips, tmp_path, capfd) -> None:
    run = tmp_path / "run"
    small = "--epochs 1 --batch-size 4 --frames 2 --size 16 --workers 0 --device cpu".split()
    start = ["--init-from", "svf/scene-motion"]
    assert main(["train", "--data", str(clips), "--out", str(run), *start, *small]) == 0
    assert "init_from: svf/scene-motion" in (run / "config.yaml").read_text()
    assert "backbone" in (run / "init_from.csv").read_text()


def test_the_list_says_what_a_network_is_worth(own_box, capfd) -> None:
    assert main(["models", "--weights", "--json"]) == 0
    hands, _ = json.loads(capfd.readouterr().out)["weights"]
    assert hands["name"] == "svf/hands" and hands["metrics"][0]["low"] == 0.25
    assert hands["sha256"] == read_about("svf/hands")["sha256"]
    assert hands["bytes"] == (own_box / "hands" / "model.safetensors").stat().st_size
    assert main(["models", "--weights"]) == 0
    told = capfd.readouterr().out
    assert "top-1 0.5 (0.25 to 0.75) on ten clips" in told and hands["sha256"] in told


def test_a_page_has_what_the_box_has(own_box, pack) -> None:
    page = pack.page("svf/hands")
    for text in ("What hands do.", "0.25 to 0.75", read_about("svf/hands")["sha256"], "- Feet."):
        assert text in page
    (own_box / "hands" / "card.json").write_text(json.dumps(CARD | {"firing_rate": 0.2}))
    assert pack.page("svf/hands") != page


# --- What is in the box of this version ----------------------------------------------------------


def test_the_box_is_small_and_free() -> None:
    assert sum(path.stat().st_size for path in BOX.rglob("*")) < MOST_BYTES
    for name in boxed():
        card = Card.read(boxed_folder(name))
        assert card.licence == "Apache-2.0" and card.data and card.metrics and card.limits
        assert (REPOSITORY / card.recipe / "README.md").is_file()


@pytest.mark.parametrize("name", list(boxed()))
def test_the_page_in_the_documentation_is_of_the_network_in_the_box(name, pack) -> None:
    path = REPOSITORY / "docs" / "weights" / f"{name.removeprefix('svf/')}.md"
    assert path.read_text() == pack.page(name), f"make it again: python recipes/pack.py {name}"
