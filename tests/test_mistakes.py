"""Typical mistakes of users: each gives one line that says what to do, status 2, no traceback."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from spikevideoformer.cli import VERBS, main
from spikevideoformer.video.frames import write_video


class Workplace:
    """A folder with what the mistakes are made on; `{name}` in a command is a path in it."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capfd = folder, capfd

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def text(self, name: str, content: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def words(self, command: str) -> list[str]:
        return [
            word.replace("{", f"{self.folder}/").replace("}", "") if "{" in word else word
            for word in command.split()
        ]

    def mistake(self, command: str, remedy: str, status: int = 2) -> None:
        """Run a command that cannot work, and prints one line."""
        assert main(self.words(command)) == status
        out, err = self.capfd.readouterr()
        assert out == ""
        assert err.count("\n") == 1, err
        assert err.startswith("svf: ")
        assert "Traceback" not in err and "unexpected" not in err
        assert remedy in err, err

    def model_with(self, **changes: object) -> None:
        """Change entries of the model's config.json."""
        path = self.folder / "model" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def untouched(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path, video_folder: Path
) -> Path:
    """What each test has a copy of."""
    folder = tmp_path_factory.mktemp("untouched")
    shutil.copytree(model_folder, folder / "model")
    shutil.copytree(video_folder, folder / "videos")
    rng = np.random.default_rng(0)
    for split, name, i in itertools.product(("train", "val"), ("left", "right"), range(2)):
        (folder / "data" / split / name).mkdir(parents=True, exist_ok=True)
        frames = rng.integers(0, 256, (4, 16, 16, 3), np.uint8)
        write_video(folder / "data" / split / name / f"{i}.mp4", frames, 4.0)
    return folder


@pytest.fixture
def work(tmp_path: Path, untouched: Path, capfd: pytest.CaptureFixture[str]) -> Workplace:
    return Workplace(shutil.copytree(untouched, tmp_path / "work"), capfd)


TRAIN = "train --data {data} --out {run} --workers 0 --device cpu --frames 2 --size 16"
PREDICT = "predict --model {model} {videos}"
EVAL = "eval --model {model} --data {data} --workers 0"
CONVERT = "convert {checkpoint.pth} --attention joint_hamming --out {out}"

# A name, the command, and a word of the remedy.
COMMANDS = {
    "no verb": ("", "svf --help"),
    "misspelt verb": ("predcit {videos}", "did you mean predict?"),
    "verb of another program": ("serve", "choose one of demo, train"),
    "misspelt option": (f"{PREDICT} --topk 3", "did you mean --top-k?"),
    "misspelt setting": (f"{TRAIN} --epoch 3", "did you mean --epochs?"),
    "option of another verb": ("models --epochs 3", "svf models --help"),
    "option without its value": (f"{PREDICT} --top-k", "svf predict --help"),
    "text for a number": (f"{PREDICT} --top-k many", "svf predict --help"),
    "one argument too many": ("models svf_nano", "svf models --help"),
    "no input": ("predict --model {model}", "INPUT"),
    "network that the box lacks": ("predict --model svf/feet {videos}", "svf models --weights"),
    "model folder that is not there": ("predict --model {nowhere} {videos}", "model folder"),
    "file as model folder": ("predict --model {model}/config.json {videos}", "give the folder"),
    "weights as model folder": ("predict --model {model}/model.safetensors {videos}", "folder"),
    "run folder as model folder": ("predict --model {data} {videos}", "config.json"),
    "input that is not there": ("predict --model {model} {videos}/tow.mkv", "check the spelling"),
    "glob without a match": ("predict --model {model} {videos}/*.webm", "check the pattern"),
    "folder without a video": ("predict --model {model} {model}", "folder of videos"),
    "no label": (f"{PREDICT} --top-k 0", "at least 1"),
    "empty batch": (f"{PREDICT} --batch-size 0", "at least 1"),
    "window of no length": (f"{PREDICT} --window-s 0", "above 0"),
    "unknown precision": (f"{PREDICT} --precision fp16", "choose from"),
    "unknown device": (f"{PREDICT} --device gpu", "choose from"),
    "file as output folder": (f"{PREDICT} --out {{videos}}/one.mp4", "give --out a folder"),
    "no data": ("train --out {run}", "--data"),
    "data folder that is not there": (f"{TRAIN} --data {{nowhere}}", "give the folder"),
    "file as data folder": (f"{TRAIN} --data {{videos}}/one.mp4", "give the folder"),
    "camera": ("predict --model {model} 0", "record a video first"),
    "device of a camera": ("predict --model {model} /dev/video0", "record a video first"),
    "address": ("predict --model {model} rtsp://host/stream", "download or record it"),
    "address for theory": ("theory --model {model} https://host/a.mp4", "download or record it"),
    "address for energy": ("energy --model {model} https://host/a.mp4", "download or record it"),
    "demo that was not made": ("predict --model demo/run/model {videos}", "`svf demo"),
    "model of energy that is not there": ("energy --model {nowhere}/m {videos}", "model folder"),
    "prices that are not there": ("energy --model svf_nano --cost {no.yaml}", "give --cost"),
    "unknown row": ("bench --rows speed", "choose from"),
    "no thread": ("bench --threads 0", "at least 1"),
    "motions that are not there": ("render --out {out} --mocap {nowhere}", "give --mocap"),
    "size that is not rendered": ("render --out {out} --size 20", "multiple of 16"),
    "file as rendered data": ("render --out {videos}/one.mp4", "give --out a folder"),
    "class names that are not there": (f"{CONVERT} --classes {{no.txt}}", "published .pth"),
    "weights to start from that are not there": (f"{TRAIN} --init-from {{no}}", "model folder"),
    "teacher that is not there": (f"{TRAIN} --teacher {{no}}", "model folder"),
    "weights of torch as teacher": (f"{TRAIN} --teacher {{model}}/model.safetensors", "to ONNX"),
    "file as evaluation folder": (f"{EVAL} --out {{videos}}/one.mp4", "give --out a folder"),
    "data of evaluation that are not there": ("eval --model {model} --data {no}", "give the"),
    "file as run folder": (f"{TRAIN} --out {{videos}}/one.mp4", "give --out a folder"),
    "unknown layout": (f"{TRAIN} --layout imagenet", "choose one of"),
    "unknown preset": (f"{TRAIN} --model svf_16m", "svf_15m"),
    "unknown task": (f"{TRAIN} --task detection", "choose one of classification"),
    "unknown design": (f"{TRAIN} --design temporal", "spatial_only"),
    "unknown attention": (f"{TRAIN} --attention cosine", "hamming"),
    "attention of another network": (f"{TRAIN} --attention softmax", "preset ann_"),
    "bits of an ordinary network": (
        f"{TRAIN} --model ann_nano --spike-memory packed",
        "choose plain",
    ),
    "unknown neuron": (f"{TRAIN} --neuron izhikevich", "lif"),
    "unknown training precision": (f"{TRAIN} --precision 64", "bf16-mixed"),
    "negative epochs": (f"{TRAIN} --epochs -1", "at least 1"),
    "fraction of an epoch": (f"{TRAIN} --epochs 1.5", "whole number"),
    "no frames": (f"{TRAIN} --frames 0", "at least 1"),
    "size that is no multiple of 16": (f"{TRAIN} --size 50", "48"),
    "learning rate of zero": (f"{TRAIN} --learning-rate 0", "above 0"),
    "smoothing beyond one": (f"{TRAIN} --label-smoothing 1.5", "below 1"),
    "drop_path beyond one": (f"{TRAIN} --drop-path 2", "below 1"),
    "flip beyond one": (f"{TRAIN} --augmentation.flip 2", "flip"),
    "batch larger than the data": (f"{TRAIN} --batch-size 64 --passes 1", "lower batch_size"),
    "split that is not there": (f"{TRAIN} --val-split test", "train, val"),
    "configuration that is not there": (f"{TRAIN} --config {{nowhere}}", "check the path"),
    "resume without a folder": ("train --resume", "--out"),
    "resume without a run": ("train --resume --out {nowhere}", "without --resume"),
    "evaluation without data": ("eval --model {model}", "--data"),
    "evaluation of a missing split": (f"{EVAL} --split test", "train, val"),
    "evaluation on other classes": (EVAL, "no class 'left'"),
    "no clips to average": (f"{EVAL} --clips 0", "at least 1"),
    "checkpoint that is not there": (CONVERT, "published .pth"),
    "conversion of a model folder": ("convert {model} --attention joint_dot --out {out}", ".pth"),
    "unknown attention to convert": (
        "convert {checkpoint.pth} --attention softmax --out {out}",
        "joint_hamming",
    ),
    "size that no network takes": (f"{CONVERT} --size 100", "multiple of 16"),
    "file as demo folder": ("demo --out {videos}/one.mp4", "give --out a folder"),
    "model without a video": ("theory --model {model}", "at least one"),
    "video without a model": ("theory {videos}/one.mp4", "--model FOLDER"),
    "negative seed": ("theory --seed -1", "from 0"),
    "file as folder of theory": ("theory --out {videos}/one.mp4", "give --out a folder"),
    "no classes to count": ("models --num-classes 0", "at least 1"),
}


# What takes a look at the data, or at the weights, to be found.
LOOKS_INTO_FILES = {
    "batch larger than the data",
    "split that is not there",
    "evaluation on other classes",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody has run `make demo`."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", COMMANDS)
def test_mistake(name: str, work: Workplace) -> None:
    work.mistake(*COMMANDS[name])


def test_usage_errors_do_not_wait_for_torch(work: Workplace) -> None:
    """All of them, and the help of each verb, in one process that never imports torch."""
    commands = {n: work.words(c) for n, (c, _) in COMMANDS.items() if n not in LOOKS_INTO_FILES}
    commands |= {f"help of {verb}": [verb, "--help"] for verb in VERBS}
    code = """
import json, sys
from spikevideoformer.cli import VERBS, main
for name, words in json.load(sys.stdin).items():
    main(words)
    assert not {"torch", "lightning", "matplotlib"} & sys.modules.keys(), name
"""
    subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(commands),
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )


# --- Mistakes in files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b"epochs: [1\n", "not valid YAML"),
        (b"epoch: 1\n", "did you mean epochs?"),
        (b"augmentation: {flipp: 0.5}\n", "did you mean augmentation.flip?"),
        (b"- epochs\n- 3\n", "epochs: 20"),
        (b"epochs: many\n", "whole number"),
        (bytes(range(256)), "not valid YAML"),
    ],
)
def test_configuration_files(content: bytes, remedy: str, work: Workplace) -> None:
    (work / "file.yaml").write_bytes(content)
    work.mistake("train --data {data} --out {run} --config {file.yaml}", remedy)


def cut_a_tensor(work: Workplace) -> None:
    weights = work / "model" / "model.safetensors"
    state = load_file(weights)
    state["head.fc.weight"] = state["head.fc.weight"][:, :-1].contiguous()
    save_file(state, weights)


def cut_the_weights(work: Workplace) -> None:
    weights = work / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


Spoil = Callable[[Workplace], object]


@pytest.mark.parametrize(
    ("spoil", "remedy"),
    [
        (lambda w: (w / "model/config.json").unlink(), "config.json is missing"),
        (lambda w: (w / "model/model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda w: w.text("model/config.json", "{"), "not valid JSON"),
        (lambda w: w.model_with(format_version=99), "format version 1"),
        (lambda w: w.model_with(colour="blue"), "'colour'"),
        (lambda w: w.model_with(model={"witdhs": [16, 32, 64, 80]}), "did you mean 'widths'?"),
        (lambda w: w.model_with(classes=["a", "b"]), "expected 6 names"),
        (lambda w: w.model_with(clip=None), "how clips are made"),
        (lambda w: w.model_with(num_classes=7, classes=[*"abcdefg"]), "head.fc"),
        (cut_a_tensor, "head.fc.weight has shape"),
        (cut_the_weights, "copy or train it again"),
        (lambda w: w.text("model/model.safetensors", "not weights"), "copy or train it again"),
    ],
)
def test_model_folders(spoil: Spoil, remedy: str, work: Workplace) -> None:
    spoil(work)
    work.mistake(PREDICT, remedy)


def test_checkpoints(work: Workplace) -> None:
    work.text("checkpoint.pth", "weights")
    work.mistake(CONVERT, "checkpoint.pth")
    torch.save({"model": {"fc.weight": torch.zeros(2, 2)}}, work / "checkpoint.pth")
    work.mistake(CONVERT, "not a published SpikeVideoFormer checkpoint")


def test_wrong_attention_for_a_checkpoint(golden: Path, work: Workplace) -> None:
    shutil.copy(golden / "tiny_3d_dot.pth", work / "checkpoint.pth")
    work.mistake(CONVERT, "try joint_dot")


@pytest.mark.parametrize(
    ("lines", "remedy"), [("a\nb\n", "2 class names"), ("\xff\xfe", "one class name on each line")]
)
def test_class_names_that_do_not_fit(
    lines: str, remedy: str, golden: Path, work: Workplace
) -> None:
    shutil.copy(golden / "tiny_3d_hamming.pth", work / "checkpoint.pth")
    (work / "names.txt").write_bytes(lines.encode("latin-1"))
    work.mistake(f"{CONVERT} --classes {{names.txt}}", remedy)


# --- Mistakes in data ----------------------------------------------------------------------------


def no_clip(w: Workplace) -> None:
    shutil.rmtree(w / "data")
    (w / "data").mkdir()


def damaged_clip(w: Workplace) -> None:
    w.text("data/train/left/0.mp4", "damaged")


def the_same_clip_in_both_splits(w: Workplace) -> None:
    shutil.copy(w / "data/train/left/0.mp4", w / "data/val/left/0.mp4")


def videos_without_classes(w: Workplace) -> None:
    shutil.rmtree(w / "data")
    shutil.copytree(w / "videos", w / "data")


def list_names_a_missing_file(w: Workplace) -> None:
    shutil.rmtree(w / "data" / "train")
    w.text("data/splits.csv", "path,label,split\nval/left/0.mp4,left,train\ngone.mp4,right,val\n")


def one_class(w: Workplace) -> None:
    for split in ("train", "val"):
        shutil.rmtree(w / "data" / split / "right")


def one_clip_a_class(w: Workplace) -> None:
    for name in ("left", "right"):
        (w / "data" / name).mkdir()
        shutil.move(w / "data/train" / name / "0.mp4", w / "data" / name / "0.mp4")
    for split in ("train", "val"):
        shutil.rmtree(w / "data" / split)


def class_called_train(w: Workplace) -> None:
    shutil.move(w / "data/train/left", w / "data/car")
    shutil.move(w / "data/train/right/0.mp4", w / "data/train/0.mp4")
    shutil.rmtree(w / "data/train/right")
    shutil.rmtree(w / "data/val")


@pytest.mark.parametrize(
    ("spoil", "remedy"),
    [
        (no_clip, "class folders"),
        (one_class, "one class only (left), so there is nothing to tell apart; add a folder"),
        (
            one_clip_a_class,
            "' would have no training clip left; add clips of it, or train with --val-split none",
        ),
        (
            class_called_train,
            "train was taken for the split train, but it holds clips itself, and car/ beside it",
        ),
        (videos_without_classes, "class folders"),
        (damaged_clip, "--skip-bad"),
        (the_same_clip_in_both_splits, "--skip-bad"),
        (list_names_a_missing_file, "splits.csv:3"),
    ],
)
def test_data_folders(spoil: Spoil, remedy: str, work: Workplace) -> None:
    spoil(work)
    work.mistake(f"{TRAIN} --batch-size 1", remedy)


def test_a_split_that_no_line_has(work: Workplace) -> None:
    lines = "val/left/0.mp4,left,dev\nval/right/0.mp4,right,blind\n"
    work.text("data/splits.csv", f"path,label,split\n{lines}")
    remedy = "no split 'train' (it has: blind, dev); ask for one of these"
    assert main(work.words(TRAIN)) == 2
    out, err = work.capfd.readouterr()
    assert out == ""
    assert remedy in err.splitlines()[-1]
    work.mistake(f"{EVAL} --split train", remedy)


def test_run_folder_in_use_and_changed_settings(work: Workplace) -> None:
    run = f"{TRAIN} --batch-size 2 --epochs 1 --warmup-epochs 0"
    assert main(work.words(run)) == 0
    work.capfd.readouterr()
    work.mistake(run, "--resume")
    # logs precede the line here: the run was begun before the difference showed
    words = f"train --resume --out {work / 'run'} --learning-rate 0.1".split()
    assert main(words) == 2
    out, err = work.capfd.readouterr()
    assert out == ""
    assert sum(line.startswith("svf: ") for line in err.splitlines()) == 1
    assert "learning_rate: 0.003 then, 0.1 now" in err


# --- Some inputs fail ----------------------------------------------------------------------------


def test_only_an_unreadable_video(work: Workplace) -> None:
    work.text("bad.mp4", "text")
    work.mistake("predict --model {model} {bad.mp4}", "bad.mp4", status=1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write anything")
def test_permissions(work: Workplace) -> None:
    (work / "videos" / "one.mp4").chmod(0)
    work.mistake("predict --model {model} {videos}/one.mp4", "ermission", status=1)
    (work / "locked").mkdir(mode=0o500)
    work.mistake(f"{PREDICT} --out {{locked}}/out", "permissions")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("command", [f"{PREDICT} --device cuda", f"{TRAIN} --device cuda"])
def test_cuda_where_there_is_none(command: str, work: Workplace) -> None:
    work.mistake(command, "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_half_precision_without_cuda(work: Workplace) -> None:
    work.mistake(f"{PREDICT} --precision 16-mixed --device cpu", "bf16-mixed")


# --- As a process --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["predcit"],
        ["predict", "--model", "owner/no-such-model", "a.mp4"],
        ["train", "--data", "nowhere", "--out", "run"],
        ["train", "--out", "run", "--augmentation.crop-scale", "[8e-1, 1]"],  # text to YAML
    ],
)
def test_the_command_itself(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    done = subprocess.run(
        [sys.executable, "-m", "spikevideoformer", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("svf: ")
    assert "unexpected" not in done.stderr
