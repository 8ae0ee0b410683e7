"""Distillation: the loss by hand, what a teacher is shown, runs that learn from it, refusals."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, create_model
from spikevideoformer.tasks.classification.dataset import ClipDataset
from spikevideoformer.tasks.classification.index import read_index
from spikevideoformer.training import config as settings
from spikevideoformer.training import start_from, train
from spikevideoformer.training.config import check_paths
from spikevideoformer.training.distillation import Teacher, distillation_loss
from spikevideoformer.video.clip import collate_clips
from spikevideoformer.video.frames import write_video
from spikevideoformer.video.spec import ClipSpec

from .tiny import assert_resumes_to_the_same_bits, tiny_config

pytestmark = pytest.mark.usefixtures("undrawn")

CPU = torch.device("cpu")
SPEC = ClipSpec(frames=2, size=16)
CLASSES = ("left", "right")


def test_the_loss_by_hand() -> None:
    z, taught = torch.randn(2, 5, 3, dtype=torch.float64).unbind()
    by_hand = {"hard": 0.0, "soft": 0.0}
    for own, other in zip(z, taught, strict=True):
        by_hand["hard"] -= float(own.softmax(0)[other.argmax()].log()) / 5
        p, q = (other / 2).softmax(0), (own / 2).softmax(0)
        by_hand["soft"] += 4 * float((p * (p / q).log()).sum()) / 5
    for kind, expected in by_hand.items():
        found = float(distillation_loss(z, taught, kind=kind, temperature=2.0))
        assert found == pytest.approx(expected, rel=1e-12)


def saved(folder: Path, classes: tuple[str, ...] | None = CLASSES, **changes: object) -> Path:
    """A folder with an untrained teacher, whose answers differ from clip to clip."""
    model = create_model("ann_nano", num_classes=len(classes or "abc"))
    nn.init.normal_(model.head.fc.weight, std=3.0)
    clip = {**SPEC.to_dict(), **changes}
    model.save_pretrained(folder, classes=classes, clip=clip)
    return folder


def test_a_teacher_sees_clips_as_it_was_trained_and_answers_in_the_order_of_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    path = saved(tmp_path, ("right", "left"), mean=mean, std=std, size=32, frames=4)
    with caplog.at_level(logging.WARNING, "spikevideoformer"):
        teacher = Teacher(path, CLASSES, SPEC, CPU)
    assert "knows clips of 4 frames" in caplog.text
    pictures = torch.rand(3, 2, 3, 16, 16)

    def shown(size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
        large = nn.functional.interpolate(
            pictures.flatten(0, 1), size=(size, size), mode="bilinear"
        )
        columns = (torch.tensor(values)[:, None, None] for values in (mean, std))
        m, s = columns
        return ((large - m) / s).unflatten(0, (3, 2))

    with torch.no_grad():
        expected = SpikeVideoFormer.from_pretrained(path)(shown(32, mean, std))
    found = teacher(shown(16, SPEC.mean, SPEC.std))
    assert not found.requires_grad
    assert torch.allclose(found, expected.flip(1), rtol=1e-4, atol=1e-4)
    assert bool((found[0] - found[1]).abs().max() > 0.01)


def test_a_teacher_of_the_same_clips_gives_its_own_bits(model_folder: Path) -> None:
    model = SpikeVideoFormer.from_pretrained(model_folder)
    spec = ClipSpec.from_dict(model.clip)
    video = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        expected = model(video)
    assert torch.equal(Teacher(model_folder, model.classes, spec, CPU)(video), expected)


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory):
    """Dark and light clips with labels that say nothing, who knows better, and what it says."""
    folder, draw = tmp_path_factory.mktemp("school"), np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 156)):
        for i in range(8):
            path = folder / "clips/train" / name / f"{i}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, draw.integers(low, low + 100, (4, 16, 16, 3), np.uint8), 4.0)
    index = read_index(folder / "clips")

    def config(name: str, **changes: object):
        usual = {"val_split": "none", "drop_path": 0.0, "epochs": 4, "batch_size": 8}
        return tiny_config(folder / "clips", folder / name, **{**usual, **changes})

    teacher = train(config("teacher", model="ann_nano")).model
    video = collate_clips(list(ClipDataset(index, SPEC))).video
    taught = Teacher(teacher, index.classes, SPEC, CPU)(video)
    samples = (replace(sample, label=i % 2) for i, sample in enumerate(index.samples))
    return config, replace(index, samples=tuple(samples)), teacher, video, taught


def agreement(answers: torch.Tensor, taught: torch.Tensor) -> float:
    return float((answers.argmax(1) == taught.argmax(1)).float().mean())


def test_a_network_comes_to_say_what_its_teacher_says(school) -> None:
    config, index, teacher, video, taught = school
    alone = train(config("alone"), index=index).model
    told = train(config("told", teacher=teacher), index=index).model
    networks = [SpikeVideoFormer.from_pretrained(path) for path in (alone, told)]
    with torch.no_grad():
        by_itself, by_teacher = (agreement(network(video), taught) for network in networks)
    assert by_teacher > by_itself + 0.2
    assert not networks[1].config.distilled


def test_a_second_head_learns_from_the_teacher_and_stays_with_the_model(school) -> None:
    config, index, teacher, video, taught = school
    run = config("heads", teacher=teacher, distillation="soft", distillation_head=True, epochs=8)
    model = SpikeVideoFormer.from_pretrained(train(run, index=index).model)
    said: dict[str, torch.Tensor] = {}
    for name in ("fc", "fc_kd"):
        layer = getattr(model.head, name)
        layer.register_forward_hook(lambda _m, _i, out, name=name: said.update({name: out.mean(0)}))
    with torch.no_grad():
        answer = model(video)
    assert torch.allclose(answer, (said["fc"] + said["fc_kd"]) / 2, atol=1e-6)
    assert agreement(said["fc_kd"], taught) > agreement(said["fc"], taught) + 0.2
    assert model.train()(video).shape == (16, 2)  # apart in a run only


def test_each_head_has_a_gradient_of_its_own() -> None:
    model = create_model("svf_nano", num_classes=3, distilled=True).train()
    model.head.apart = True
    features = (torch.randn(2, 4, model.config.widths[-1], 1, 1),)
    own, pupil = model.head(features)
    assert torch.allclose(model.head.eval()(features), (own + pupil) / 2, atol=1e-6)
    distillation_loss(pupil, torch.randn(4, 3), kind="hard", temperature=1.0).backward()
    assert model.head.fc.weight.grad is None or not model.head.fc.weight.grad.any()
    assert bool(model.head.fc_kd.weight.grad.any())


def test_resuming_gives_the_same_bits_wherever_the_teacher_lies(tiny, tmp_path) -> None:
    teacher = saved(tmp_path / "teacher", size=32, std=(0.2, 0.2, 0.2))
    options = {"distillation_head": True, "ema": 0.9, "accumulate": 2, "batch_size": 2}
    config = tiny(teacher=teacher, **options)
    train(config)
    newest = max((tmp_path / "run/checkpoints").glob("step-*.pt"))
    before = torch.load(newest, weights_only=True)
    newest.unlink()
    moved = shutil.copytree(teacher, tmp_path / "moved")
    train(replace(config, teacher=moved), resume=True)
    after = torch.load(newest, weights_only=True)
    for part in ("model", "average"):
        assert all(torch.equal(after[part][name], value) for name, value in before[part].items())
    assert after["history"][-1]["train_loss"] == before["history"][-1]["train_loss"]

    for other in (saved(tmp_path / "other"), None):
        changed = replace(config, teacher=other, distillation_head=other is not None)
        with pytest.raises(ValueError, match=r"other settings.*the teacher"):
            train(changed, resume=True)


def test_no_weight_of_the_teacher_is_no_teacher(tiny, tmp_path) -> None:
    teacher = saved(tmp_path / "teacher")
    models = [
        train(tiny(out=tmp_path / name, epochs=1, **changes)).model
        for name, changes in (
            ("none", {}),
            ("weightless", {"teacher": teacher, "distillation_weight": 0.0}),
        )
    ]
    none, weightless = (SpikeVideoFormer.from_pretrained(model).state_dict() for model in models)
    assert all(torch.equal(weightless[name], value) for name, value in none.items())


def test_the_second_head_of_other_classes_is_no_start(tmp_path) -> None:
    source, model = (create_model("svf_nano", num_classes=2, distilled=True) for _ in range(2))
    source.save_pretrained(tmp_path, classes=("up", "down"))
    model.classes = CLASSES
    _, left = start_from(model, tmp_path)
    assert {name for name in left if name.startswith("head.")} == {
        f"head.{layer}.{leaf}" for layer in ("fc", "fc_kd") for leaf in ("weight", "bias")
    }


# --- Refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"distillation_weight": 1.5}, "distillation_weight is 1.5; give a number at least 0 and"),
        ({"distillation_temperature": 0.0}, "distillation_temperature"),
        ({"distillation": "warm"}, "expected hard or soft"),
        ({"distillation_head": True}, "set teacher, or leave it out"),
        ({"teacher": Path("t"), "task": "segmentation"}, "task segmentation does not have"),
        ({"teacher": Path("t"), "task": "pose"}, "task pose does not have"),
    ],
)
def test_settings_that_say_nothing_are_refused(tiny, changes, words) -> None:
    with pytest.raises(ValueError, match=words):
        tiny(**changes)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("teacher.pt", "may hold code, so export it to ONNX"),
        ("teacher.pt2", "may hold code"),
        ("no.onnx", "is no file; give --teacher a model folder or an ONNX file"),
        ("no", "model folder"),
    ],
)
def test_files_that_are_no_teacher(tiny, tmp_path, name, words) -> None:
    for file in ("teacher.pt", "teacher.pt2"):
        (tmp_path / file).write_bytes(b"PK")
    with pytest.raises(ValueError, match=words):
        check_paths(tiny(teacher=tmp_path / name), resume=False)


def test_distillation_of_nobody(tiny) -> None:
    with pytest.raises(ValueError, match="distillation has nothing to learn; set teacher"):
        tiny(distillation="soft")


def test_what_to_install(tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(settings, "find_spec", lambda _: None)
    (tmp_path / "teacher.onnx").touch()
    with pytest.raises(ValueError, match=r"pip install 'spikevideoformer\[onnx\]'"):
        train(tiny(teacher=tmp_path / "teacher.onnx"))


def test_teachers_of_something_else(tiny, tmp_path, mask_model_folder) -> None:
    def told(path: Path) -> str:
        with pytest.raises(ValueError, match="teacher") as caught:
            train(tiny(teacher=path))
        assert not list((tmp_path / "run").glob("checkpoints/*"))
        return str(caught.value)

    assert "is for segmentation; give one for classification" in told(mask_model_folder)
    three = told(saved(tmp_path / "a", ("up", "left", "right")))
    assert "only one of them has up" in three
    assert "expected logits [2, 2]" in told(saved(tmp_path / "b", None))
    events = saved(tmp_path / "c", **ClipSpec(frames=2, size=16, input="events").to_dict())
    assert "sees events, and input is rgb" in told(events)


# --- ONNX ----------------------------------------------------------------------------------------


class Pictures(nn.Module):
    """A classifier of pictures, or, with ``frames``, of clips."""

    def __init__(self, outputs: int = 2, frames: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3 * max(1, frames), 4, 3)
        self.fc = nn.Linear(4, outputs)
        self.frames = frames

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1, 2) if self.frames else x
        return self.fc(self.conv(x).relu().mean((2, 3)))


def exported(network: nn.Module, example: torch.Tensor, path: Path, *, any_batch: bool) -> Path:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"needs {package}, which is not installed")
    axes = ({0: torch.export.Dim.DYNAMIC},) if any_batch else None
    torch.onnx.export(network, (example,), str(path), dynamic_shapes=axes, verbose=False)
    return path


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("any_batch", [True, False])
@pytest.mark.parametrize("frames", [0, 2])
def test_a_teacher_of_onnx_is_the_network_that_was_exported(tmp_path, frames, any_batch) -> None:
    network = Pictures(frames=frames).eval()
    shape = (2 if any_batch else 1, 2, 3, 24, 24)
    example = torch.randn(shape if frames else shape[:1] + shape[2:])
    path = exported(network, example, tmp_path / "teacher.onnx", any_batch=any_batch)
    video = torch.randn(3, 2, 3, 24, 24)
    with torch.no_grad():
        expected = network(video) if frames else network(video.flatten(0, 1))
    expected = expected if frames else expected.unflatten(0, (3, 2)).mean(1)
    teacher = Teacher(path, CLASSES, ClipSpec(frames=2, size=24), CPU)
    assert torch.allclose(teacher(video), expected, atol=1e-5)
    assert torch.equal(teacher(video), teacher(video))
    small = Teacher(path, CLASSES, SPEC, CPU)(video[..., :16, :16])  # brought to its size
    assert small.shape == (3, 2)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_twin_as_a_teacher_of_onnx_and_what_is_refused(tiny, tmp_path) -> None:
    folder = saved(tmp_path / "twin")
    twin = SpikeVideoFormer.from_pretrained(folder)
    path = exported(twin, torch.randn(1, 2, 3, 16, 16), tmp_path / "twin.onnx", any_batch=False)
    video = torch.randn(3, 2, 3, 16, 16)
    teachers = [Teacher(p, CLASSES, SPEC, CPU) for p in (path, folder)]
    assert torch.allclose(teachers[0](video), teachers[1](video), rtol=1e-3, atol=1e-3)

    config = tiny(teacher=path, epochs=1, checkpoint_every_steps=2)
    train(config)
    assert_resumes_to_the_same_bits(config)

    with pytest.raises(ValueError, match=r"float32 clips \[B, 4, 3, H, W\]"):
        Teacher(path, CLASSES, replace(SPEC, frames=4), CPU)
    with pytest.raises(ValueError, match=r"expected logits \[2, 3\]"):
        Teacher(path, (*CLASSES, "up"), SPEC, CPU)
    after_softmax = nn.Sequential(Pictures(), nn.Softmax(1)).eval()
    likely = exported(after_softmax, torch.randn(2, 3, 16, 16), tmp_path / "p.onnx", any_batch=True)
    with pytest.raises(ValueError, match="gives probabilities, not logits"):
        Teacher(likely, CLASSES, SPEC, CPU)
    other = exported(
        nn.Linear(4, 2).eval(), torch.randn(2, 4), tmp_path / "other.onnx", any_batch=False
    )
    with pytest.raises(ValueError, match="a teacher takes"):
        Teacher(other, CLASSES, SPEC, CPU)
    weights = tmp_path / "twin.onnx.data"
    kept = teachers[0].fingerprint
    content = bytearray(weights.read_bytes())
    content[0] ^= 1
    weights.write_bytes(content)
    assert Teacher(path, CLASSES, SPEC, CPU).fingerprint != kept
    path.write_bytes(b"no model")
    with pytest.raises(ValueError, match="is no ONNX file that runs") as caught:
        Teacher(path, CLASSES, SPEC, CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_answers_that_are_no_numbers_stop_the_run(tmp_path) -> None:
    network = Pictures().eval()
    path = exported(network, torch.randn(1, 3, 16, 16), tmp_path / "t.onnx", any_batch=False)
    teacher = Teacher(path, CLASSES, SPEC, CPU)
    with pytest.raises(ValueError, match="NaN or infinite"):
        teacher(torch.full((1, 2, 3, 16, 16), float("inf")))


@pytest.mark.parametrize("kind", ["no input", "one row for all", "whole numbers"])
def test_graphs_that_are_no_teachers_are_refused_in_one_line(tmp_path, kind) -> None:
    onnx = pytest.importorskip("onnx", reason="needs onnx, which is not installed")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime, which is not installed")
    make, number, whole = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    pictures = make.make_tensor_value_info("x", number, ["B", 3, 16, 16])
    if kind == "no input":
        value = make.make_tensor("v", number, [1, 2], [0.0, 1.0])
        nodes, inputs, out = [make.make_node("Constant", [], ["y"], value=value)], [], number
    elif kind == "one row for all":
        nodes, inputs, out = [make.make_node("ReduceMean", ["x"], ["y"])], [pictures], number
    else:
        shape = [make.make_node("Shape", ["x"], ["y"])]
        nodes, inputs, out = shape, [pictures], whole
    said = make.make_tensor_value_info("y", out, None)
    opset = [make.make_opsetid("", 17)]
    model = make.make_model(
        make.make_graph(nodes, "g", inputs, [said]), opset_imports=opset, ir_version=8
    )
    path = tmp_path / "t.onnx"
    (tmp_path / "t.onnx_files").mkdir()  # as some exporters leave them
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=str(path)) as caught:
        Teacher(path, CLASSES, SPEC, CPU)
    assert "\n" not in str(caught.value)
