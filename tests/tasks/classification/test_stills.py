"""Still pictures, the whole way: class folders of them, one picture, and videos frame by frame."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikevideoformer.cli import main
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, create_model
from spikevideoformer.tasks.classification.dataset import ClipDataset
from spikevideoformer.tasks.classification.index import read_index
from spikevideoformer.tasks.classification.predictor import VideoPredictor
from spikevideoformer.video.frames import iter_frames, write_video
from spikevideoformer.video.spec import ClipSpec

from ..segmentation.frames import save

SPEC = ClipSpec(frames=1, size=32)


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of pictures of different sizes."""
    root, rng = tmp_path_factory.mktemp("stills"), np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for name, colour in (("blue", (40, 40, 200)), ("red", (200, 40, 40))):
            for i in range(count):
                noise = rng.integers(-40, 40, (40 + i, 50, 3))
                save(root / split / name / f"{i}.png", np.clip(np.array(colour) + noise, 0, 255))
    return root


@pytest.fixture(scope="module")
def network(lively) -> SpikeVideoFormer:
    torch.manual_seed(0)
    model = lively(create_model("svf_nano", num_classes=3)).eval()
    model.clip = SPEC.to_dict()
    return model


def test_train_eval_and_predict(
    stills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Few pictures are learnt one by one; those of a folder are predicted as one is told."""
    run = tmp_path / "run"
    train = f"train --data {stills} --out {run} --model svf_nano --size 32 --epochs 1 --workers 0"
    assert main([*train.split(), "--device", "cpu"]) == 0
    assert "1 frame a clip" in (run / "config.yaml").read_text()
    model = str(run / "model")
    capsys.readouterr()
    assert main(["eval", "--model", model, "--data", str(stills), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clips"] == 4
    photo, folder = stills / "val/red/0.png", str(stills / "val")
    out = tmp_path / "seen"
    assert main(["predict", "--model", model, str(photo), "--out", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["timestamps_s"]) == 1 and {x["name"] for x in result["labels"]} == {
        "red",
        "blue",
    }
    assert len(list(iter_frames(out / "0.svf.mp4"))) == 1
    assert main(["predict", "--model", model, folder, "--json"]) == 1
    assert capsys.readouterr().err.count("for pictures that are no video give --stills") == 2
    assert main(["predict", "--model", model, folder, "--stills", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize("frames", [1, 4])
def test_a_picture_is_one_frame_or_repeated(stills: Path, frames: int) -> None:
    index = read_index(stills, split="val")
    dataset = ClipDataset(index, ClipSpec(frames=frames, size=32))
    for item in (dataset[i] for i in range(len(dataset))):
        assert item.video.shape == (frames, 3, 32, 32)
        assert torch.equal(item.video, item.video[:1].expand(frames, -1, -1, -1))
    assert len({item.video.sum().item() for item in (dataset[0], dataset[1])}) == 2


def test_a_video_frame_by_frame(network: SpikeVideoFormer, tmp_path: Path) -> None:
    """Each picture is judged by itself, as it is alone; an array likewise."""
    pictures = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), np.uint8)
    write_video(tmp_path / "v.mkv", pictures, 12.5, codec="ffv1")
    predictor = VideoPredictor(network, device="cpu")
    result = predictor.predict(tmp_path / "v.mkv")
    assert len(result.windows) == len(result.timestamps_s) == 7
    assert result.timestamps_s == pytest.approx([i / 12.5 for i in range(7)], abs=1e-3)
    for i, frame in enumerate(iter_frames(tmp_path / "v.mkv")):
        Image.fromarray(frame.image).save(tmp_path / f"{i}.png")
        alone = predictor.predict(tmp_path / f"{i}.png")
        assert alone.labels == result.windows[i].labels
    images = np.stack([frame.image for frame in iter_frames(tmp_path / "v.mkv")])
    by_array = predictor.predict(images, frame_rate_hz=12.5)
    assert [w.labels for w in by_array.windows] == [w.labels for w in result.windows]
    assert len(predictor.predict(tmp_path / "v.mkv", window_s=0.28).windows) == 2
    many = list(predictor.predict_many([tmp_path / "absent.mp4", tmp_path / "v.mkv"]))
    assert many[1].windows == result.windows
