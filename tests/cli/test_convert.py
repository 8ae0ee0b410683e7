"""``svf convert``: what is written, what it says that it recognised, and how the folder is used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import spikevideoformer as svf
from spikevideoformer.body.smpl import NUM_BETAS, SmplBody
from spikevideoformer.cli import main
from spikevideoformer.tasks.pose.predictor import PoseTracker
from spikevideoformer.video.frames import write_video

from ..models.test_published import _published_state
from ..tasks.segmentation.frames import save

V2, V3 = "Spike-Driven Transformer V2", "E-SpikeFormer (SDT-V3)"
# file: task, family, assumed beside the heads that are told, frames of a clip
KINDS: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "sdt2_cls_state_dict": (
        "classification", V2, {"attention": "spatial_dot", "frames": 1}, 1,
    ),
    "sdt2_seg": ("segmentation", V2, {"attention": "spatial_dot", "frames": 4}, 1),
    "v3_base": ("classification", V3, {"levels": 4}, 1),
    "v3_large_kd": ("classification", f"{V3}, large", {"levels": 4}, 1),
    "v3_seg": ("segmentation", V3, {"levels": 4}, 1),
    "pose": ("pose", V2, {"attention": "spatial_dot", "poses": "between"}, 8),
}  # fmt: skip


def converted(*arguments: Any) -> int:
    return main(["convert", *map(str, arguments)])


@pytest.mark.parametrize("name", KINDS)
def test_each_kind(
    name: str, golden_family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder is the model that `load_published` gives, with clips that suit it."""
    task, family, assumed, frames = KINDS[name]
    path, out = golden_family / f"{name}.pth", tmp_path / "model"
    assert converted(path, "--out", out, "--heads", 2, "--json") == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["task"], about["family"]) == (task, family)
    assert (about["told"], about["assumed"], about["not_needed"]) == ({"heads": 2}, assumed, [])
    assert about["clip"]["frames"] == frames
    model, expected = svf.SpikeVideoFormer.from_pretrained(out), svf.load_published(path, heads=2)
    assert model.clip == about["clip"] and model.config == expected.config
    assert about["tensors"] == len(expected.state_dict())
    assert about["parameters"] == expected.num_parameters()
    found = model.state_dict()
    for key, value in expected.state_dict().items():
        assert torch.equal(found[key], value)
    assert converted(path, "--out", out, "--heads", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        f"wrote {out}: {task} by {family}, {about['parameters']:,} parameters"
    )
    widths = "/".join(map(str, expected.config.widths))
    assert f"read off the tensors: widths {widths}, blocks" in lines[1]
    assert lines[2] == "  told: --heads 2"
    assert lines[3].startswith("  assumed, as tensors do not tell it: --")
    assert len(lines) == 4


def test_what_is_told(
    golden_family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backbone gets a head; a picture is repeated; what means nothing is said to."""
    path, names = golden_family / "sdt2_backbone.pth", tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    given = ["--heads", 2, "--num-classes", 2, "--frames", 4, "--classes", names, "--levels", 8]
    assert converted(path, "--out", tmp_path / "a", *given, "--size", 64, "--json") == 0
    about = json.loads(capsys.readouterr().out)
    assert about["told"] == {"heads": 2, "frames": 4}
    assert about["assumed"] == {"attention": "spatial_dot"}
    assert about["not_needed"] == ["levels"]
    assert (about["clip"]["frames"], about["clip"]["size"]) == (1, 64)
    model = svf.SpikeVideoFormer.from_pretrained(tmp_path / "a")
    assert (model.classes, model.config.still_frames) == (("cat", "dog"), 4)
    assert converted(path, "--out", tmp_path / "a", *given) == 0
    assert "  of no meaning here: --levels" in capsys.readouterr().out.splitlines()
    assert (
        converted(
            golden_family / "v3_base.pth", "--heads", 2, "--levels", 8, "--out", tmp_path / "b"
        )
        == 0
    )
    assert svf.SpikeVideoFormer.from_pretrained(tmp_path / "b").config.neuron.levels == 8


@pytest.mark.parametrize("name", ["sdt2_cls_state_dict", "sdt2_seg", "v3_base", "v3_seg"])
def test_pictures_and_videos(
    name: str, golden_family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A photo, and each frame of a video as it were alone."""
    pictures = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), np.uint8)
    Image.fromarray(pictures[0]).save(tmp_path / "photo.jpg")
    write_video(tmp_path / "v.mkv", pictures, 25.0, codec="ffv1")
    out = str(tmp_path / "model")
    path = golden_family / f"{name}.pth"
    assert converted(path, "--out", out, "--heads", 2, "--size", 48) == 0
    capsys.readouterr()
    inputs = [str(tmp_path / "photo.jpg"), str(tmp_path / "v.mkv")]
    assert main(["predict", "--model", out, *inputs, "--json"]) == 0
    photo, video = map(json.loads, capsys.readouterr().out.splitlines())
    assert (len(photo["timestamps_s"]), len(video["timestamps_s"])) == (1, 3)


def test_poses_of_a_video(golden_family: Path, tmp_path: Path) -> None:
    """Events of four channels are simulated, and lie between poses; the body is the user's."""
    assert (
        converted(golden_family / "pose.pth", "--out", tmp_path / "m", "--heads", 2, "--size", 32)
        == 0
    )
    body = SmplBody(torch.randn(24, 3) * 0.3, torch.randn(24, 3, NUM_BETAS) * 0.02)
    tracker = PoseTracker.from_pretrained(tmp_path / "m", body=body, device="cpu")
    assert (tracker.clip.channels.count, tracker.clip.poses) == (4, "between")
    video = np.random.default_rng(0).integers(0, 256, (11, 40, 40, 3), np.uint8)
    result = tracker.predict(video, frame_rate_hz=25.0)
    assert result.joints.shape == (11, 24, 3) and np.isfinite(result.joints).all()


def test_training_goes_on_from_it(tmp_path: Path) -> None:
    """All of a published network but its classifier is taken by the preset of its sizes."""
    torch.manual_seed(0)
    sizes = {"design": "neuron_only", "attention": "dot", "readout": "spike"}
    published = svf.create_model("svf_nano", num_classes=9, **sizes)
    torch.save({"model": _published_state(published)}, tmp_path / "file.pth")
    assert converted(tmp_path / "file.pth", "--out", tmp_path / "m", "--size", 32) == 0
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        split = "val" if i >= 8 else "train"
        save(tmp_path / "data" / split / "ab"[i % 2] / f"{i}.png", pixels)
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in sizes.items())
    train = f"train --data {tmp_path}/data --model svf_nano {options} --init-from {tmp_path}/m \
        --out {tmp_path}/run --size 32 --epochs 1 --workers 0 --device cpu"
    assert main(train.split()) == 0
    lines = (tmp_path / "run/init_from.csv").read_text().splitlines()
    assert [line for line in lines if line.endswith(",new")] == [
        "head.fc.weight,new",
        "head.fc.bias,new",
    ]
    assert sum(line.endswith(",taken") for line in lines) == len(published.state_dict()) - 2


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("sdt2_backbone", [], "give num_classes=N"),
        ("v3_seg", ["--frame-rate-hz", 5], "leave out --frame-rate-hz"),
        ("v3_base", ["--heads", 7], "does not divide into 7 heads"),
        ("v3_base", ["--levels", 999], "levels"),
    ],
)
def test_refusals(
    name: str,
    given: list[Any],
    says: str,
    golden_family: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    heads = [] if "--heads" in given else ["--heads", 2]
    assert converted(golden_family / f"{name}.pth", "--out", tmp_path / "m", *heads, *given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line and not (tmp_path / "m").exists()
