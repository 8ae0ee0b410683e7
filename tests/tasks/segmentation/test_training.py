"""Training and evaluation of segmentation: real files, real steps, metrics recounted by hand."""

import copy
import csv
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, create_model
from spikevideoformer.nn.statistics import measure_statistics
from spikevideoformer.synth.moving_shapes import CLASSES, PALETTE, write_scenes
from spikevideoformer.tasks.segmentation.dataset import SegmentationDataset
from spikevideoformer.tasks.segmentation.index import read_sequences
from spikevideoformer.tasks.segmentation.plots import JudgedFrame
from spikevideoformer.tasks.segmentation.predictor import VideoSegmenter
from spikevideoformer.tasks.segmentation.sequence import IGNORED
from spikevideoformer.tasks.segmentation.spec import SegmentationSpec
from spikevideoformer.tasks.segmentation.training import SegmentationTraining
from spikevideoformer.training import (
    SegmentationOptions,
    TrainConfig,
    evaluate_folder,
    evaluate_segmentation,
    start_from,
    train,
)
from spikevideoformer.training.checkpoint import load_checkpoint
from spikevideoformer.training.devices import launch

from ...training.killing import killed_and_resumed

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, train=2, val=2)
    return root


@pytest.fixture
def tiny(scenes: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """``tiny(**changes)``: nano, 2 frames, crops of 32 x 32, 4 steps in an epoch."""

    def make(**changes: object) -> TrainConfig:
        values = {
            "task": "segmentation",
            "data": scenes,
            "out": tmp_path / "run",
            "frames": 2,
            "size": 32,
            "epochs": 1,
            "batch_size": 4,
            "device": "cpu",
            "workers": 0,
        }
        return TrainConfig(**{**values, **changes})

    return make


def firing_model(dataset: SegmentationDataset, **options: str) -> SpikeVideoFormer:
    """A network with the statistics of the first clips: its neurons fire."""
    torch.manual_seed(0)
    model = create_model("svf_nano", task="segmentation", num_classes=6, pad_input=True, **options)
    measure_statistics(
        model, [torch.stack([dataset[i].video for i in range(min(4, len(dataset)))])]
    )
    return model.eval()


@cache
def _made(scenes: Path, frames: int, step: int) -> tuple[SpikeVideoFormer, SegmentationDataset]:
    spec = SegmentationSpec(frames=frames, short_side=40, crop=(32, 32), step=step)
    dataset = SegmentationDataset(read_sequences(scenes, split="val"), spec)
    return firing_model(dataset), dataset


def model_and_data(scenes: Path, frames: int = 4, step: int = 1):
    model, dataset = _made(scenes, frames, step)
    return copy.deepcopy(model), dataset


def training_of(config: TrainConfig) -> SegmentationTraining:
    """What the loop asks, without the loop."""
    fabric = launch(device="cpu", devices=1, precision="32-true")
    return SegmentationTraining(config, None, fabric)


class TestTraining:
    def test_a_run_from_files_to_a_released_model(self, tiny):
        result = train(tiny(epochs=2))
        assert {path.name for path in result.out.iterdir()} >= {
            "config.yaml",
            "metrics.csv",
            "checkpoints",
            "model",
            "evaluation.json",
            "learning_curves.png",
            "iou.png",
            "contact_sheet.png",
        }
        with (result.out / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == [
            "epoch",
            "step",
            "learning_rate",
            "train_loss",
            "train_pixel_accuracy",
            "gradient_norm",
            "val_loss",
            "val_miou",
            "val_pixel_accuracy",
            "clips_per_second",
        ]
        assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])
        model = SpikeVideoFormer.from_pretrained(result.model)
        assert (model.task, model.classes, model.palette) == ("segmentation", CLASSES, PALETTE)
        assert SegmentationSpec.from_dict(model.clip or {}).short_side == 32
        assert model.familiarity is not None
        segmenter = VideoSegmenter(model, device="cpu")
        noise = np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), np.uint8)
        assert segmenter.predict(noise, frame_rate_hz=10.0).unlike_training
        with Image.open(result.out / "contact_sheet.png") as picture:
            picture.verify()

        judged = evaluate_folder(
            result.model, read_sequences(tiny().data, split="val"), device="cpu"
        )
        assert judged == result.evaluation
        assert json.loads((result.out / "evaluation.json").read_text()) == judged.to_dict()

    def test_killed_and_resumed_gives_the_same_bits(self, tiny, monkeypatch):
        options = SegmentationOptions(class_weights="inverse_log", dice_weight=0.5)
        config = tiny(
            options=options, checkpoint_every_steps=1, epochs=2, batch_size=8, check="none"
        )
        out = killed_and_resumed(config, 3, monkeypatch)  # of four steps
        *_, newest = sorted((out / "checkpoints").glob("step-*.pt"))
        assert load_checkpoint(newest)["config"]["task"] == "segmentation"

    def test_losses_and_weights_change_what_is_learned(self, tiny):
        losses = set()
        for options in (
            {},
            {"class_weights": "median_frequency"},
            {"dice_weight": 1.0},
            {"lovasz_weight": 1.0},
            {"step": 3},
            {"scale": (0.5, 0.6)},
            {"crop_height": 16, "crop_width": 48},
        ):
            task = training_of(tiny(options=SegmentationOptions(**options)))
            (batch,) = task.batches([[(0, i) for i in range(0, 16, 4)]], torch.device("cpu"))
            torch.manual_seed(0)
            losses.add(task.loss(task.create_model()(batch.video), batch).item())
        assert len(losses) == 7

    def test_class_weights_are_of_what_is_trained_on(self, tiny, tmp_path, caplog):
        """The same for every way of checking, though a scene of val lies in train as well."""
        write_scenes(tmp_path / "twice", train=3, val=1)
        shutil.copytree(tmp_path / "twice/val/000000", tmp_path / "twice/train/000000")
        caplog.set_level(logging.INFO)
        for check in ("full", "none"):
            if check == "none":  # as the full check leaves it
                shutil.rmtree(tmp_path / "twice/train/000000")
            options = SegmentationOptions(class_weights="inverse_log")
            data, out = tmp_path / "twice", tmp_path / check
            training_of(tiny(data=data, out=out, check=check, skip_bad=True, options=options))
        told = [line for line in caplog.messages if line.startswith("class weights: ground ")]
        assert len(told) == 2 and told[0] == told[1]

    def test_splits_by_their_other_names(self, tiny):
        task = training_of(tiny(train_split="training", val_split="validation"))
        assert (task.clips, len(task.val_set)) == (16, 16)

    def test_few_labels_are_enough(self, tiny, tmp_path):
        write_scenes(tmp_path / "few", train=2, val=2, label_every=5)
        task = training_of(tiny(data=tmp_path / "few"))
        (batch,) = task.batches([[(0, i) for i in range(task.clips)]], torch.device("cpu"))
        model = task.create_model()
        assert bool(task.loss(model(batch.video), batch).isfinite())
        result = evaluate_segmentation(model.eval(), task.val_set)
        assert result.frames == 2 * 4  # frames 0, 5, 10 and 15

    def test_starting_from_other_masks_leaves_out_the_last_layer_only(self, tmp_path):
        options = {"task": "segmentation", "pad_input": True}
        other = create_model("svf_nano", num_classes=9, **options)
        other.save_pretrained(tmp_path, classes=list("abcdefghi"))
        model = create_model("svf_nano", num_classes=6, **options)
        assert start_from(model, tmp_path)[1] == ["head.fc.weight", "head.fc.bias"]

    def test_starting_from_a_classification_model_says_what_it_took(self, tiny, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        classifier = create_model("svf_nano", num_classes=3)
        classifier.save_pretrained(tmp_path / "classifier")
        result = train(tiny(learning_rate=1e-12, init_from=tmp_path / "classifier"))
        model = SpikeVideoFormer.from_pretrained(result.model)
        with (result.out / "init_from.csv").open() as file:
            origin = {row["tensor"]: row["origin"] for row in csv.DictReader(file)}
        assert list(origin) == list(model.state_dict())
        for name in origin:
            assert origin[name] == ("taken" if name.startswith("backbone.") else "new")
        own, old = model.backbone.stage1a.downsample.conv, classifier.backbone.stage1a
        assert torch.allclose(own.weight, old.downsample.conv.weight, atol=1e-8)
        assert "new: head.lateral4" in caplog.text

    def test_the_check_stops_the_run_before_step_0(self, tiny, tmp_path):
        write_scenes(tmp_path / "bad", train=2, val=1)
        mask = next((tmp_path / "bad" / "train").glob("*/labels/000004.png"))
        Image.fromarray(np.full((64, 64), 77, np.uint8)).save(mask)
        config = tiny(data=tmp_path / "bad")
        with pytest.raises(ValueError, match=r"000004.png.* 77"):
            train(config)
        assert (config.out / "problems.csv").exists()
        assert not (config.out / "config.yaml").exists()
        assert training_of(replace(config, skip_bad=True)).clips == 16  # but for one mask
        assert (config.out / "skipped.csv").exists()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"readout": "membrane"},
                "readout is 'membrane', which task segmentation does not have",
            ),
            ({"eval_clips": 3}, "eval_clips is 3, which task segmentation does not have"),
            ({"fold": 2}, "fold is 2, which task segmentation does not have"),
            (
                {"augmentation": {"crop_scale": [0.1, 0.2]}},
                r"augmentation.crop_scale is \(0.1, 0.2\), which task segmentation does not have",
            ),
            ({"frame_rate_hz": 5.0}, "frame_rate_hz is 5.0, which task segmentation does not have"),
            (
                {"task": "classification", "segmentation": {"step": 2}},
                "settings of segmentation are given; set task to segmentation",
            ),
            ({"segmentation": {"crop_height": 20}}, "crop must be height and width"),
            ({"segmentation": {"crop_hight": 32}}, "did you mean segmentation.crop_height"),
            ({"segmentation": {"scale": [2.0, 1.0]}}, "scale must be two numbers"),
            ({"segmentation": {"class_weights": "median"}}, "class_weights is 'median'; expected"),
            ({"segmentation": {"dice_weight": -1}}, "dice_weight is -1.0; give a number at least"),
            ({"segmentation": {"passes": 0}}, "passes is 0; give a number at least 1"),
        ],
    )
    def test_bad_settings(self, tiny, changes, message):
        values = {**tiny().to_dict(), **changes}
        with pytest.raises(ValueError, match=message):
            TrainConfig.from_dict(values)


class TestEvaluation:
    def test_metrics_are_those_of_the_model_run_by_hand(self, scenes):
        model, dataset = model_and_data(scenes)
        confusion = np.zeros((6, 6), dtype=np.int64)
        nll, pixels = 0.0, 0
        for i in range(len(dataset)):
            clip = dataset[i]
            with torch.no_grad():
                probabilities = model(clip.video[None])[0].softmax(1)
            large = F.interpolate(probabilities, (64, 64), mode="bilinear", align_corners=False)
            for scores, labels in zip(large, clip.labels, strict=True):
                np.add.at(confusion, (labels.flatten(), scores.argmax(0).flatten()), 1)
                own = scores.gather(0, labels[None].long())
                nll, pixels = nll - float(own.double().log().sum()), pixels + own.numel()
        result = evaluate_segmentation(model, dataset)
        assert np.array_equal(result.confusion, confusion)
        assert result.loss == pytest.approx(nll / pixels, rel=1e-6)
        assert result.frames == 32
        assert result.mvc8 is not None

    def test_ignored_pixels_never_count(self, scenes, tmp_path):
        """With half of every mask ignored, what is predicted there makes no difference."""
        model, dataset = model_and_data(scenes)
        frames = [frame for s in dataset.index.sequences for frame in s.frames]
        sequences = []
        for sequence in dataset.index.sequences:
            half = []
            for frame in sequence.frames:
                mask = np.array(Image.open(frame.label))
                mask[:, 32:] = IGNORED
                path = tmp_path / f"{sequence.name.replace('/', '-')}-{frame.number}.png"
                Image.fromarray(mask).save(path)
                half.append(replace(frame, label=path))
            sequences.append(replace(sequence, frames=tuple(half)))
        halved = SegmentationDataset(
            replace(dataset.index, sequences=tuple(sequences)), dataset.spec
        )
        result = evaluate_segmentation(model, halved)
        assert result.pixels == len(frames) * 64 * 32

        class Spoiled(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, video):
                logits = self.model(video).clone()
                logits[..., 22:] += 1.0  # of 40 columns: none that half of the mask sees
                logits[..., 0, :, 22:] += 9.0
                return logits

        spoiled = evaluate_segmentation(Spoiled(), halved)
        assert spoiled == result

    @pytest.mark.parametrize("step", [1, 2, 3])
    def test_frames_are_judged_once_and_in_order(self, scenes, step):
        model, dataset = model_and_data(scenes, step=step)
        seen: list[JudgedFrame] = []
        evaluate_segmentation(model, dataset, after_frame=seen.append)
        wanted = [frame.image for s in dataset.index.sequences for frame in s.frames]
        assert [frame.image for frame in seen] == wanted
        assert [frame.number for frame in seen] == list(range(32))

    def test_unlabelled_frames_change_predictions_on_labelled_ones(self, tmp_path):
        """Through the membranes alone (neuron_only), and through attention as well (joint)."""
        write_scenes(tmp_path, train=1, val=1, label_every=16)
        index = read_sequences(tmp_path, split="train")
        (sequence,) = index.sequences
        labelled = [frame for frame in sequence.frames if frame.label is not None]
        assert len(labelled) == 1
        frames = list(sequence.frames)
        # the label moves to the fourth frame: three unlabelled ones come before it
        frames[3] = replace(frames[3], label=frames[0].label)
        frames[0] = replace(frames[0], label=None)
        spec = SegmentationSpec(frames=4, short_side=32, crop=(32, 32))
        losses = {}
        for design in ("joint", "neuron_only", "spatial_only"):
            one = replace(index, sequences=(replace(sequence, frames=tuple(frames)),))
            model = firing_model(SegmentationDataset(one, spec), design=design)
            for context in ("true", "black"):
                shown = list(frames)
                if context == "black":
                    black = tmp_path / "black.png"
                    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(black)
                    shown[:3] = [replace(frame, image=black) for frame in frames[:3]]
                one = replace(index, sequences=(replace(sequence, frames=tuple(shown)),))
                result = evaluate_segmentation(model, SegmentationDataset(one, spec))
                assert result.frames == 1
                losses[design, context] = result.loss
        for design, changes in (("joint", True), ("neuron_only", True), ("spatial_only", False)):
            assert (losses[design, "true"] != losses[design, "black"]) is changes

    def test_a_clip_of_one_frame(self, scenes):
        model, dataset = model_and_data(scenes, frames=1)
        assert evaluate_segmentation(model, dataset).frames == 32

    def test_windows_scales_and_mirror_change_the_answer_and_fit_the_data(self, scenes):
        model, dataset = model_and_data(scenes)
        results = [
            evaluate_segmentation(model, dataset, **options)
            for options in (
                {},
                {"sliding_window": True},
                {"scales": (0.75, 1.25)},
                {"flip": True},
            )
        ]
        assert len({result.loss for result in results}) == 4
        assert {result.pixels for result in results} == {32 * 64 * 64}

    @pytest.mark.parametrize("step", [1, 2])
    def test_a_model_that_gives_nan(self, scenes, step):
        model, dataset = model_and_data(scenes, step=step)
        torch.nn.init.constant_(model.head.fc.bias, torch.nan)
        with pytest.raises(ValueError, match="outputs of the model are NaN or infinite"):
            evaluate_segmentation(model, dataset)

    def test_a_classification_model(self, scenes, tmp_path):
        create_model("svf_nano", num_classes=3).save_pretrained(tmp_path / "model")
        with pytest.raises(ValueError, match="is made for classification"):
            evaluate_folder(tmp_path / "model", read_sequences(scenes, split="val"))

    def test_other_classes(self, scenes, tmp_path):
        model, dataset = model_and_data(scenes)
        model.save_pretrained(tmp_path, classes=list("abcdef"), clip=dataset.spec.to_dict())
        with pytest.raises(ValueError, match="evaluate on data with the same classes"):
            evaluate_folder(tmp_path, read_sequences(scenes, split="val"))
