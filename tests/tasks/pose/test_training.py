"""Training and evaluation of pose: rendered clips, real steps, metrics recounted by hand."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from spikevideoformer.body.skeleton import Skeleton
from spikevideoformer.body.smpl import NUM_BETAS
from spikevideoformer.data.problems import DatasetError
from spikevideoformer.models.heads import part_of
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, create_model
from spikevideoformer.settings import plain
from spikevideoformer.synth.motions import procedural_motions, standing_skeleton
from spikevideoformer.synth.render import write_motion_clips
from spikevideoformer.synth.spec import RenderSpec
from spikevideoformer.tasks.pose.dataset import PoseDataset, collate_poses
from spikevideoformer.tasks.pose.head import mean_rotations, pose_from_output
from spikevideoformer.tasks.pose.index import read_poses
from spikevideoformer.tasks.pose.predictor import PoseTracker
from spikevideoformer.tasks.pose.sequence import PoseIndex, PoseSequence, fit_skeleton
from spikevideoformer.tasks.pose.spec import PoseLossWeights, PoseSpec
from spikevideoformer.tasks.pose.training import PoseTraining, batch_pose
from spikevideoformer.training import (
    PoseOptions,
    TrainConfig,
    TrainResult,
    evaluate_folder,
    evaluate_pose,
    start_from,
    train,
)
from spikevideoformer.training.devices import launch

from ...training.killing import killed_and_resumed
from .poses import write_mmhpsd

pytestmark = pytest.mark.usefixtures("undrawn")

ACTIONS = ("squat", "wave-left-hand")
JOINTS = standing_skeleton().joint_names


@pytest.fixture(scope="module")
def motions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered clips of 8 frames, 32 x 32: 8 to train on and 2 to validate."""
    root = tmp_path_factory.mktemp("motions")
    write_motion_clips(
        (motion for motion in procedural_motions(5) if motion.label in ACTIONS),
        root,
        spec=RenderSpec(size=32, frames=8, frame_rate_hz=10.0, supersampling=1),
        clips_per_motion=1,
    )
    return root


def tiny_config(data: Path, out: Path, **changes: object) -> TrainConfig:
    values = {
        "task": "pose",
        "data": data,
        "out": out,
        "frames": 3,  # windows of 8 frames: 0-2, 3-5 and 5-7
        "size": 32,
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "device": "cpu",
        "workers": 0,
        "check": "none",
    }
    return TrainConfig(**{**values, **changes})


@pytest.fixture
def tiny(motions: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """``tiny(**changes)``: nano on 32 x 32 pixels, 3 frames, 3 steps in one epoch."""

    def make(**changes: object) -> TrainConfig:
        return tiny_config(**{"data": motions, "out": tmp_path / "run", **changes})

    return make


@pytest.fixture(scope="module")
def run(motions: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A finished run of four epochs."""
    return train(tiny_config(motions, tmp_path_factory.mktemp("run"), epochs=4, check="full"))


@pytest.fixture(scope="module")
def validation(motions: Path) -> PoseIndex:
    return read_poses(motions, split="val")


def model_and_data(run: TrainResult, index: PoseIndex) -> tuple[SpikeVideoFormer, PoseDataset]:
    model = SpikeVideoFormer.from_pretrained(run.model)
    return model, PoseDataset(index, PoseSpec.from_dict(model.clip), model.body)


def changed(index: PoseIndex, **changes: Callable[[PoseSequence], object]) -> PoseIndex:
    """The index with other truth in each sequence."""
    sequences = tuple(
        replace(s, truth=replace(s.truth, **{name: new(s) for name, new in changes.items()}))
        for s in index.sequences
    )
    return replace(index, sequences=sequences)


def every_other_frame_unlabelled(index: PoseIndex) -> PoseIndex:
    """Of the first sequence."""

    def without(values: np.ndarray, first: bool) -> np.ndarray:
        values = values.copy()
        if first:
            values[1::2] = np.nan
        return values

    first = index.sequences[0].name
    return changed(
        index,
        joints=lambda s: without(s.truth.joints, s.name == first),
        points=lambda s: without(s.truth.points, s.name == first),
        rotations=lambda s: without(s.truth.rotations, s.name == first),
    )


def test_a_model_knows_its_clips_from_others(run: TrainResult, validation: PoseIndex) -> None:
    tracker = PoseTracker.from_pretrained(run.model, device="cpu")
    own = tracker.predict(validation.sequences[0].pictures)
    assert own.distance is not None and own.unlike_training is False
    noise = np.random.default_rng(0).integers(0, 256, (6, 48, 48, 3), np.uint8)
    other = tracker.predict(noise, frame_rate_hz=10.0)
    assert other.distance > tracker.limit > own.distance
    assert other.unlike_training
    assert "UNLIKE THE TRAINING CLIPS" in other.lines()[0]
    assert "UNLIKE" not in own.lines()[0]


def training_of(config: TrainConfig, index: PoseIndex | None = None) -> PoseTraining:
    """What the loop asks, without the loop."""
    return PoseTraining(config, index, launch(device="cpu", devices=1, precision="32-true"))


def test_joints_in_the_picture_alone_teach_maps(tiny, motions, tmp_path):
    """Half of the training clips have no joints in space, and the run learns from them too."""
    index = read_poses(motions)
    half = {s.name for s in index.sequences[::2] if s.split == "train"}
    nowhere = changed(
        index,
        joints=lambda s: np.full_like(s.truth.joints, np.nan) if s.name in half else s.truth.joints,
    )
    config = tiny(options=PoseOptions(head="heatmap"), epochs=3)
    training = training_of(config, nowhere)
    batch = collate_poses([training.train_set[0]])
    assert batch.joints.isnan().all() and batch.points.isfinite().all()
    model = training.create_model()
    training.loss(model(batch.video), batch).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.head.parameters())
    assert model.head.fc.weight.grad.norm() > 0
    run = train(config, index=nowhere)
    losses = [row["train_loss"] for row in run.history]
    assert losses[-1] < losses[0]  # and none is NaN
    assert training.weight(batch, 0) == batch.points.isfinite().all(-1).sum() > 0
    folder = evaluate_folder(run.model, read_poses(motions, split="val"), device="cpu")
    assert folder.loss == pytest.approx(run.history[run.best_epoch - 1]["val_loss"], rel=1e-2)


def test_joints_in_space_are_needed_to_validate(tiny, motions):
    index = read_poses(motions)
    nowhere = changed(
        index,
        joints=lambda s: (
            np.full_like(s.truth.joints, np.nan) if s.split == "val" else s.truth.joints
        ),
    )
    with pytest.raises(
        DatasetError, match=r"labelled in the picture alone; choose another val_split"
    ):
        training_of(tiny(), nowhere)


@pytest.mark.parametrize(
    ("options", "readout", "message"),
    [
        ({"poses": "between", "input": "events"}, None, "heatmap reads frames"),
        ({"body": Path("smpl.safetensors")}, None, "leave body out"),
        (
            dict.fromkeys(
                [f"{n}_weight" for n in ("joints3d", "joints2d", "translation", "smoothness")], 0.0
            ),
            None,
            "set one of them above 0",
        ),
        ({}, "membrane", "reads spikes, and the readout is membrane"),
    ],
)
def test_what_maps_cannot_do_is_told_before_the_data_are_looked_at(
    tiny, options, readout, message, tmp_path
):
    with pytest.raises(ValueError, match=message):
        train(tiny(options=PoseOptions(head="heatmap", **options), readout=readout))
    assert not (tmp_path / "run").exists()


class TestTraining:
    def test_a_run_from_files_to_a_released_model(self, run, motions, validation):
        assert {path.name for path in run.out.iterdir()} >= {
            "config.yaml",
            "metrics.csv",
            "checkpoints",
            "model",
            "evaluation.json",
            "learning_curves.png",
            "errors.png",
        }
        with (run.out / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == [
            "epoch",
            "step",
            "learning_rate",
            "train_loss",
            "train_pck_3d",
            "gradient_norm",
            "val_loss",
            "val_pck_3d",
            "val_mpjpe_mm",
            "val_pa_mpjpe_mm",
            "clips_per_second",
        ]
        losses = [float(row["train_loss"]) for row in rows]
        assert losses[-1] < 0.95 * losses[0]
        errors = [float(row["val_mpjpe_mm"]) for row in rows]
        assert errors[run.best_epoch - 1] == min(errors)
        for name in ("errors.png", "learning_curves.png"):
            with Image.open(run.out / name) as picture:
                picture.verify()

        model = SpikeVideoFormer.from_pretrained(run.model)
        assert (model.task, model.classes) == ("pose", JOINTS)
        assert isinstance(model.body, Skeleton)
        expected = fit_skeleton(read_poses(motions, split="train"))
        torch.testing.assert_close(model.body.offsets, expected.offsets)
        assert PoseSpec.from_dict(model.clip) == PoseSpec(frames=3, size=32)

        # The evaluation of a folder is that of the run, and its row.
        folder = evaluate_folder(run.model, validation, device="cpu")
        approximately = evaluate_folder(run.model, validation, device="cpu", batch_size=8)
        assert approximately == run.evaluation
        assert json.loads((run.out / "evaluation.json").read_text()) == run.evaluation.to_dict()
        best = run.history[run.best_epoch - 1]
        for evaluation, tolerance in ((run.evaluation, 1e-9), (folder, 1e-4)):
            scores = evaluation.result.overall
            assert evaluation.loss == pytest.approx(best["val_loss"], rel=tolerance)
            for name in ("mpjpe_mm", "pa_mpjpe_mm", "pck_3d"):
                assert getattr(scores, name) == pytest.approx(best[f"val_{name}"], rel=tolerance)

    def test_killed_and_resumed_gives_the_same_bits(self, tiny, monkeypatch):
        config = tiny(epochs=2, batch_size=12, checkpoint_every_steps=1)
        killed_and_resumed(config, 3, monkeypatch)  # of four steps
        for changes in (
            {"joints": lambda s: s.truth.joints + 1},
            {"points": lambda s: s.truth.points + 1},
            {"rotations": lambda s: s.truth.rotations[:, [*range(len(JOINTS) - 1), 0]]},  # a leaf's
            {"focal_px": lambda s: (1.0, 1.0)},
        ):
            other = changed(read_poses(config.data), **changes)
            with pytest.raises(ValueError, match=r"the clips \(files, labels or splits\)"):
                train(config, index=other, resume=True)

    def test_events_train(self, tiny):
        events = PoseOptions(input="events", polarity="signed", event_mode="binary")
        config = tiny(options=events, batch_size=12, epochs=2, learning_rate=3e-4)
        result = train(config)
        model = SpikeVideoFormer.from_pretrained(result.model)
        assert model.config.in_channels == 1
        assert PoseSpec.from_dict(model.clip) == config.spec
        assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]

    def test_inputs_and_designs_learn_something_else_from_the_same_clips(self, tiny):
        losses = set()
        for changes in (
            {},
            {"design": "spatial_only"},
            {"readout": "membrane"},
            {"frame_rate_hz": 5.0},
            {"options": PoseOptions(crop="person")},
            {"options": PoseOptions(input="grey")},
            {"model": "ann_nano"},
            {"options": PoseOptions(rotation_weight=0.0)},
        ):
            task = training_of(tiny(**changes))
            (batch,) = task.batches([[(0, i) for i in range(4)]], torch.device("cpu"))
            torch.manual_seed(0)
            model = task.create_model()
            torch.nn.init.normal_(model.head.fc.weight, std=0.1)  # it begins at the mean pose
            assert PoseSpec.from_dict(model.clip) == tiny(**changes).spec
            losses.add(task.loss(model(batch.video), batch).item())
        assert len(losses) == 8

    @pytest.mark.parametrize("term", [f.name for f in fields(PoseLossWeights)])
    def test_each_term_of_the_loss_has_its_weight(self, term):
        options = PoseOptions(**{"shape_weight": 0.1, f"{term}_weight": 0.7})
        assert options.weights == PoseLossWeights(**{term: 0.7})

    def test_shape_weighs_more_where_it_is_logarithms(self):
        assert PoseOptions().weights == PoseLossWeights(shape=10.0)
        assert PoseOptions(body=Path("smpl.safetensors")).weights == PoseLossWeights(shape=0.1)

    @pytest.mark.parametrize("known", ["no rotations", "half of the frames"])
    def test_what_is_labelled_is_enough(self, tiny, known):
        index = read_poses(tiny().data)
        if known == "no rotations":
            index = changed(index, rotations=lambda _: None)
        else:
            sequences = every_other_frame_unlabelled(index).sequences
            index = replace(index, sequences=sequences)
        result = train(tiny(batch_size=24), index=index)
        (row,) = result.history
        assert all(np.isfinite(value) for value in row.values())
        assert row["train_loss"] > 0
        weights = SpikeVideoFormer.from_pretrained(result.model).state_dict()
        assert all(value.isfinite().all() for value in weights.values())

    def test_smpl_with_the_events_of_the_data_set(self, tmp_path):
        """The body stays with who has it: a model folder needs it again."""
        data, body = write_mmhpsd(tmp_path / "data"), tmp_path / "smpl.safetensors"
        save_file(
            {
                "joint_template": torch.randn(24, 3) * 0.3,
                "joint_shape_directions": torch.randn(24, 3, NUM_BETAS) * 0.02,
            },
            body,
            metadata={"format": "spikevideoformer.smpl.1"},
        )
        options = PoseOptions(body=body, input="events", event_mode="binary", bins=2)
        config = tiny_config(data, tmp_path / "run", batch_size=1, options=options)
        result = train(replace(config, val_split="test"))
        index = read_poses(data, split="test")
        found = evaluate_folder(result.model, index, body=body, batch_size=1, device="cpu")
        assert found == result.evaluation
        with pytest.raises(ValueError, match=r"no SMPL file given\. SMPL is licensed"):
            evaluate_folder(result.model, index, device="cpu")
        absent = replace(options, body=tmp_path / "absent.safetensors")
        with pytest.raises(ValueError, match=r"no file .*absent\.safetensors\. SMPL is licensed"):
            train(tiny_config(data, tmp_path / "other", options=absent, val_split="test"))

    def test_smpl_on_a_data_set_with_a_skeleton_of_its_own(self, tiny, tmp_path):
        path = tmp_path / "smpl.safetensors"
        tensors = {"joint_template": torch.zeros(24, 3)}
        tensors["joint_shape_directions"] = torch.zeros(24, 3, NUM_BETAS)
        save_file(tensors, path, metadata={"format": "spikevideoformer.smpl.1"})
        with pytest.raises(ValueError, match=r"has the joints Hips, .*SMPL; leave pose\.body out"):
            train(tiny(options=PoseOptions(body=path)))

    def test_several_frame_rates(self, tiny):
        """Refused before the first step; at a rate that all of them have they train."""
        index = read_poses(tiny().data)
        rates = [10.0 * (1 + i % 2) for i in range(len(index.sequences))]
        several = [replace(s, frame_rate_hz=r) for s, r in zip(index.sequences, rates, strict=True)]
        index = replace(index, sequences=tuple(several))
        config = tiny()
        with pytest.raises(ValueError, match="10 to 20 frames per second; train with --frame-rate"):
            train(config, index=index)
        assert not (config.out / "metrics.csv").exists()
        task = training_of(replace(config, frame_rate_hz=10.0), index)
        (batch,) = task.batches([[(0, i) for i in range(task.clips)]], torch.device("cpu"))
        assert bool(batch.video.isfinite().all())

    def test_joints_without_hips(self, tiny):
        index = read_poses(tiny().data)
        names = tuple(f"joint{i}" for i in range(len(index.joint_names)))
        with pytest.raises(ValueError, match="rename the hip joints of joint0, joint1"):
            train(tiny(), index=replace(index, joint_names=names))

    def test_the_check_stops_the_run_before_step_0(self, tiny, tmp_path):
        index = read_poses(tiny().data)
        (first, *others) = index.sequences
        bad = tmp_path / "cut.mp4"
        bad.write_bytes(first.pictures.read_bytes()[:300])
        index = replace(index, sequences=(replace(first, pictures=bad), *others))
        config = tiny(check="full")
        with pytest.raises(ValueError, match=r"cut\.mp4"):
            train(config, index=index)
        assert (config.out / "problems.csv").exists()
        assert not (config.out / "config.yaml").exists()

    def test_nothing_is_asked_of_other_splits(self, tiny, tmp_path):
        index = read_poses(tiny().data)
        bad = tmp_path / "cut.mp4"
        bad.write_bytes(index.sequences[0].pictures.read_bytes()[:300])
        extra = replace(index.sequences[0], pictures=bad, split="test", name="extra")
        index = replace(index, sequences=(*index.sequences, extra))
        assert training_of(tiny(check="full"), index).clips == 24

    def test_a_split_of_which_nothing_can_be_read(self, tiny, tmp_path, motions):
        data = shutil.copytree(motions, tmp_path / "data")
        for truth in (data / "val").rglob("*.npz"):
            truth.write_bytes(b"PK")
        config = tiny(data=data)
        with pytest.raises(ValueError, match="problems"):
            train(config)
        listed = (config.out / "problems.csv").read_text()
        assert listed.count("unusable poses") == 2

    def test_an_index_of_another_task(self, tiny):
        index = read_poses(tiny().data)
        with pytest.raises(ValueError, match="is a PoseIndex; classification needs a ClipIndex"):
            train(tiny(task="classification"), index=index)

    def test_the_head_of_the_same_joints_is_taken(self, run):
        model = create_model("svf_nano", task="pose", body=standing_skeleton())
        taken, left = start_from(model, run.model)
        assert left == [] and "head.fc.weight" in taken
        other = Skeleton(["a"], [-1], [[0.0, 0.0, 0.0]])
        model = create_model("svf_nano", task="pose", body=other)
        assert start_from(model, run.model)[1] == ["head.fc.weight", "head.fc.bias"]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"eval_clips": 3}, "eval_clips is 3, which task pose does not have"),
            ({"fold": 2}, "fold is 2, which task pose does not have"),
            ({"unlimited_decoding": True}, "unlimited_decoding is True, which task pose does"),
            (
                {"augmentation": {"flip": 0.3}},
                r"augmentation.flip is 0.3.*set pose.zoom and pose.s",
            ),
            (
                {"augmentation": {"temporal_jitter": 0.2}},
                "augmentation.temporal_jitter is 0.2, which task pose does not have",
            ),
            ({"segmentation": {"step": 2}}, "settings of segmentation are given; set task to seg"),
            ({"task": "classification", "pose": {"shift": 0.2}}, "settings of pose are given; set"),
            (
                {"task": "segmentation", "pose": {"input": "grey"}},
                "settings of pose are given; set",
            ),
            ({"size": 40}, "size must be a multiple of 16 pixels, at least 16, got 40"),
            ({"frame_rate_hz": 0.0}, "frame_rate_hz"),
            ({"pose": {"input": "depth"}}, "input is 'depth'; expected rgb or grey or events"),
            ({"pose": {"crop": "face"}}, "crop is 'face'; expected picture or person"),
            ({"pose": {"zom": [1, 2]}}, r"unknown setting pose.zom; did you mean pose.zoom\?"),
            ({"pose": {"zoom": [1.2, 0.8]}}, "zoom must be two numbers 0 < low <= high"),
            ({"pose": {"zoom": [0.0, 0.8]}}, "zoom must be two numbers 0 < low <= high"),
            ({"pose": {"zoom": [1.0]}}, "zoom must be two numbers 0 < low <= high"),
            ({"pose": {"gap": [2, 1]}}, r"gap must be two numbers 1 <= low <= high, got \(2, 1\)"),
            ({"pose": {"gap": [0, 1]}}, "gap must be two numbers 1 <= low <= high"),
            (
                {"pose": {"poses": "between"}},
                "poses lie between frames of events, and input is rgb",
            ),
            ({"pose": {"shift": 1.0}}, "shift is 1.0; give a number at least 0 and below 1"),
            ({"pose": {"polarity": "all"}}, "polarity must be one of both, .*got 'all'"),
            ({"pose": {"event_mode": "sum"}}, "mode must be one of .*got 'sum'"),
            ({"pose": {"bins": 0}}, "bins must be at least 1, got 0"),
            ({"pose": {"shape_weight": -1}}, "weight shape must be a number from 0 up, got -1"),
        ],
    )
    def test_bad_settings(self, tiny, changes, message):
        with pytest.raises(ValueError, match=message):
            TrainConfig.from_dict({**tiny().to_dict(), **changes})

    def test_a_readout_of_other_tasks(self, tiny):
        with pytest.raises(ValueError, match="readout 'gru' is for classification; pose reads"):
            train(tiny(model="gru_nano"))

    def test_settings_as_yaml(self, tiny, tmp_path):
        options = PoseOptions(input="events", zoom=(0.5, 2), body=tmp_path / "b", bins=3)
        config = tiny(options=options, frame_rate_hz=5.0)
        assert [type(v) for v in options.zoom] == [float, float]  # so that a rerun finds no change
        (tmp_path / "config.yaml").write_text(config.to_yaml())
        assert TrainConfig.from_yaml(tmp_path / "config.yaml") == config
        assert config.model_options["in_channels"] == 6

    def test_a_run_that_named_the_settings_of_all_tasks_is_taken_up(self, tiny):
        config = TrainConfig(out=Path("run"))
        earlier = config.to_dict() | {"pose": plain(PoseOptions()), "segmentation": {"step": 1}}
        assert config.differences(earlier) == []
        assert TrainConfig.from_dict(earlier) == config
        moved = tiny(options=PoseOptions(shift=0.2))
        assert moved.differences(tiny().to_dict())[0].startswith("pose: ")


class TestTask:
    """What the loop asks, without the loop."""

    @pytest.fixture
    def task(self, tiny) -> PoseTraining:
        return training_of(tiny(batch_size=4))

    def test_a_new_model_stands_as_the_training_bodies_do_on_average(self, task, motions):
        sequences = read_poses(motions, split="train").sequences
        rotations = np.concatenate([s.truth.rotations for s in sequences])
        model = task.create_model()
        output = model.head.named(model.head.fc.bias.detach())
        camera = {"focal_px": torch.ones(2), "centre_px": torch.zeros(2)}
        pose = pose_from_output(output, task.body, size=32, **camera)
        expected = mean_rotations(torch.from_numpy(rotations)).float()
        torch.testing.assert_close(pose.rotations, expected, atol=1e-4, rtol=1e-4)
        assert (pose.rotations - torch.eye(3)).abs().max() > 0.5

    def test_joints_that_are_found_count_where_they_are_labelled(self, task):
        (batch,) = task.batches([[(0, i) for i in range(4)]], torch.device("cpu"))
        head = task.create_model().head
        output = head.named(head.fc.bias.detach().expand(4, 3, -1))
        joints = batch_pose(output, batch, task.body).joints.clone()
        joints[:2, :, 5] += torch.tensor([0.0, 0.0, 0.17])  # 17 cm off in half of the windows
        joints[2:, :, 6] += torch.tensor([0.0, 0.13, 0.0])  # 13 cm still count
        right, labels = task.count(output, replace(batch, joints=joints))
        assert (int(right), int(labels)) == (4 * 3 * 21 - 2 * 3, 4 * 3 * 21)
        joints[:, 1, 5] = torch.nan
        joints[:, 2, 0] = torch.nan  # without a root nothing can be aligned
        right, labels = task.count(output, replace(batch, joints=joints))
        assert (int(right), int(labels)) == (4 * (21 + 20) - 2, 4 * (21 + 20))

    def test_the_best_epoch_has_the_least_error(self, task):
        def rank(mpjpe_mm: float, pa_mpjpe_mm: float, loss: float) -> tuple[float, ...]:
            row = {"val_mpjpe_mm": mpjpe_mm, "val_pa_mpjpe_mm": pa_mpjpe_mm, "val_loss": loss}
            return task.rank(row)

        nan = float("nan")
        assert rank(80, 60, 2) > rank(90, 50, 1)
        assert rank(80, 50, 2) > rank(80, 60, 1)
        assert rank(80, 50, 1) > rank(80, 50, 2)
        assert rank(90, 50, 2) > rank(nan, 10, 1)
        assert rank(nan, 50, 2) > rank(nan, 60, 1)


class TestEvaluation:
    def test_metrics_are_those_of_the_model_run_by_hand(self, run, validation):
        model, dataset = model_and_data(run, validation)
        found, known = {}, {}
        for i in range(len(dataset)):
            item = dataset[i]
            with torch.no_grad():
                output = part_of(model(item.video[None]), 0)
            pose = pose_from_output(
                output, model.body, size=32, focal_px=item.focal_px, centre_px=item.centre_px
            )
            found.setdefault(item.sequence, []).append(pose.joints[item.fresh])
            known.setdefault(item.sequence, []).append(item.joints[item.fresh])
        frames, errors = 0, {}
        for number, sequence in enumerate(validation.sequences):
            joints, truth = torch.cat(found[number]).numpy(), torch.cat(known[number]).numpy()
            np.testing.assert_array_equal(truth, sequence.truth.joints)
            error = (joints - joints[:, :1]) - (truth - truth[:, :1])
            errors[sequence.action] = 1000 * np.linalg.norm(error, axis=-1)
            frames += len(truth)
        result = evaluate_pose(model, dataset, model.body).result
        assert result.frames == frames == 16
        assert set(result.actions) == set(ACTIONS)
        for action, distances in errors.items():
            assert result.actions[action].mpjpe_mm == pytest.approx(distances.mean(), rel=1e-4)
        all_ = np.concatenate(list(errors.values()))
        assert result.overall.mpjpe_mm == pytest.approx(all_.mean(), rel=1e-4)
        for joint, name in enumerate(JOINTS):
            mean = all_[:, joint].mean()
            assert result.joints[name].mpjpe_mm == pytest.approx(mean, rel=1e-4, abs=1e-9)
        assert result.overall.pckh is not None  # the joint Head hangs on Neck

    @pytest.mark.parametrize("labels", ["all", "some"])
    def test_the_batch_size_changes_nothing(self, run, validation, labels):
        index = validation if labels == "all" else every_other_frame_unlabelled(validation)
        model, dataset = model_and_data(run, index)
        model.train()
        results = [evaluate_pose(model, dataset, model.body, batch_size=n) for n in (1, 4, 16)]
        assert model.training
        assert results[0].result.frames == (16 if labels == "all" else 12)
        for other in results[1:]:
            assert other.loss == pytest.approx(results[0].loss, rel=1e-4)
            for name, value in vars(results[0].result.overall).items():
                assert getattr(other.result.overall, name) == pytest.approx(value, rel=1e-3), name

    def test_a_model_that_gives_nan(self, run, validation):
        model, dataset = model_and_data(run, validation)
        torch.nn.init.constant_(model.head.fc.bias, torch.nan)
        with pytest.raises(ValueError, match="outputs of the model are NaN or infinite"):
            evaluate_pose(model, dataset, model.body)

    def test_a_body_behind_the_camera_has_no_right_point(self, run, validation):
        """Each of its bones points at the camera, and is far too long."""
        model, dataset = model_and_data(run, validation)
        model.head.start_at(torch.eye(3).expand(len(JOINTS), 3, 3))
        torch.nn.init.zeros_(model.head.fc.weight)
        assert evaluate_pose(model, dataset, model.body).result.overall.pck_2d > 0
        behind = Skeleton(
            JOINTS, model.body.parents, model.body.offsets - torch.tensor([0, 0, 1e3])
        )
        result = evaluate_pose(model, dataset, behind).result
        assert result.joints["Head"].pck_2d == 0
        assert np.isfinite(result.overall.mpjpe_mm)

    def test_several_frame_rates(self, run, validation):
        first, second = validation.sequences
        index = replace(validation, sequences=(first, replace(second, frame_rate_hz=20.0)))
        with pytest.raises(ValueError, match="has sequences of 10 to 20 frames per second"):
            evaluate_folder(run.model, index, device="cpu")

    def test_a_classification_model(self, validation, tmp_path):
        create_model("svf_nano", num_classes=3).save_pretrained(tmp_path / "model")
        with pytest.raises(ValueError, match="is made for classification"):
            evaluate_folder(tmp_path / "model", validation)

    def test_smpl_for_a_model_with_a_skeleton_of_its_own(self, run, validation, tmp_path):
        with pytest.raises(ValueError, match=r"has a skeleton of its own.*leave body out"):
            evaluate_folder(run.model, validation, body=tmp_path / "smpl.safetensors")

    def test_other_joints(self, run, validation):
        names = ("Hip", *JOINTS[1:])
        with pytest.raises(ValueError, match=r"joints of .* are Hip, .*those of .* Hips, .*same"):
            evaluate_folder(run.model, replace(validation, joint_names=names))
