"""The command line as a whole: what each verb prints where, exit statuses, pipes, interrupts."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import av
import matplotlib.image
import numpy as np
import pytest
import torch
from PIL import Image

from spikevideoformer import cli
from spikevideoformer.cli import VERBS, explain, main, share_cores
from spikevideoformer.cli.parser import parsers
from spikevideoformer.inference.base import annotated_names
from spikevideoformer.settings import merged
from spikevideoformer.synth.moving_shapes import write_scenes
from spikevideoformer.training.config import TrainConfig
from spikevideoformer.video import frames
from spikevideoformer.video.frames import check_decodes, write_video
from spikevideoformer.video.sources import open_source


class Svf:
    """Runs `svf` in this process."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]:
        """Status, stdout and stderr."""
        self._capfd.readouterr()  # what fixtures printed
        status = main([str(argument) for argument in arguments])
        out, err = self._capfd.readouterr()
        return status, out, err

    def told(self, *arguments: str | Path) -> tuple[str, str]:
        """Stdout and stderr of what goes well."""
        status, out, err = self(*arguments)
        assert status == 0, err
        return out, err

    def done(self, *arguments: str | Path) -> str:
        """The same with nothing on stderr."""
        out, err = self.told(*arguments)
        assert err == ""
        return out

    def refused(self, *arguments: str | Path) -> str:
        """The one line of what is refused."""
        status, out, err = self(*arguments)
        assert (status, out, err.count("\n")) == (2, "", 1)
        return err


@pytest.fixture
def svf(capfd: pytest.CaptureFixture[str]) -> Svf:
    return Svf(capfd)


@pytest.fixture(scope="session")
def clip_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two directions: 8 clips to train on, 4 to validate on."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for step, name in ((-1, "left"), (1, "right")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                base = rng.integers(0, 256, (8, 8, 3))
                write_video(
                    folder / f"{i}.mp4",
                    [
                        np.kron(np.roll(base, step * t, 1), np.ones((4, 4, 1))).astype(np.uint8)
                        for t in range(8)
                    ],
                    8.0,
                )
    return root


SMALL_RUN = "--epochs 1 --batch-size 4 --frames 2 --size 16 --workers 0 --device cpu".split()


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, clip_data: Path) -> Path:
    """A finished training run."""
    out = tmp_path_factory.mktemp("run")
    assert main(["train", "--data", str(clip_data), "--out", str(out), *SMALL_RUN]) == 0
    return out


# --- Help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["is killed by signal: Killed. ", "exited unexpectedly"])
def test_a_loader_process_that_was_killed(how: str) -> None:
    """Both wordings that torch has, by which of its threads sees it first."""
    line = explain(RuntimeError(f"DataLoader worker (pid(s) 27420) {how}"))
    assert line.startswith("a loader process was killed") and "--resume" in line


def test_help_lists_the_verbs_and_needs_no_torch() -> None:
    script = (
        "import sys; from spikevideoformer.cli import main; status = main(['--help']);"
        "assert not {'torch', 'lightning', 'numpy', 'matplotlib'} & set(sys.modules);"
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"    {verb} " in done.stdout for verb in VERBS)
    assert done.stderr == ""


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_has_its_example(verb: str, svf) -> None:
    out = svf.done(verb, "--help")
    assert VERBS[verb].example in out
    assert "SUPPRESS" not in out


def test_version(svf) -> None:
    out, _ = svf.told("--version")
    assert out.strip().count(".") == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_options_of_each_verb(shell: str, svf) -> None:
    script = svf.done("--completion", shell)
    for text in (*VERBS, "top-k", "augmentation.flip", "joint_hamming"):
        assert text in script
    assert svf(f"--completion={shell}") == (0, script, "")
    found = shutil.which(shell)
    if found is not None:
        subprocess.run([found, "-n"], input=script, text=True, check=True)


def test_completion_for_another_shell(svf) -> None:
    assert "bash" in svf.refused("--completion", "cmd")


def test_models_as_json(svf) -> None:
    out = svf.done("models", "--json")
    models = {model["name"]: model for model in json.loads(out)["models"]}
    assert models["svf_15m"]["parameters"] == 14_900_120
    assert models["svf_15m"]["widths"] == [64, 128, 256, 360]
    families = {name: model["family"] for name, model in models.items()}
    assert len(families) == 32
    assert {n: families[n] for n in ("svf_nano", "espike_171m", "ann_15m", "gru_124m")} == {
        "svf_nano": "spiking",
        "espike_171m": "espike",
        "ann_15m": "ann",
        "gru_124m": "gru",
    }


@pytest.mark.parametrize(
    ("given", "count"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_threads_that_wait_give_their_core_away(
    given: dict[str, str], count: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", given)
    share_cores()
    assert os.environ.get("GOMP_SPINCOUNT") == count


def test_models_are_listed_by_family(svf) -> None:
    out = svf.done("models", "--num-classes", "5")
    groups = [group.splitlines() for group in out.split("\n\n")[1:]]
    assert [group[0].split(",")[0].split(":")[0] for group in groups] == [
        "spiking",
        "E-SpikeFormer",
        "ordinary",
        "ordinary",
    ]
    names = [[line.split()[0] for line in group[1:]] for group in groups]
    sizes = ("pico", "nano", "micro", "mini", "tiny", "15m", "31m", "55m", "124m")
    espike = names.pop(1)
    assert names == [[f"{family}_{s}" for s in sizes] for family in ("svf", "ann", "gru")]
    assert espike == [f"espike_{size}" for size in ("5m", "10m", "19m", "83m", "171m")]


# --- svf train and svf eval ----------------------------------------------------------------------


def test_train_writes_a_run_folder(run_folder: Path) -> None:
    assert {p.name for p in (run_folder / "model").iterdir()} == {
        "config.json",
        "model.safetensors",
    }
    for name in ("config.yaml", "metrics.csv", "learning_curves.png", "confusion.png"):
        assert (run_folder / name).is_file()


def test_train_without_out_goes_by_the_name_of_the_data(
    svf, clip_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And prints the results, and nothing else, on stdout."""
    monkeypatch.chdir(tmp_path)
    run = Path("runs") / clip_data.name
    out, err = svf.told("train", "--data", clip_data, "--json", *SMALL_RUN)
    result = json.loads(out)
    assert result["evaluation"]["clips"] == 4
    assert result["model"] == str(run / "model")
    for said in ("effective batch size 4", "epoch 1/1", f"writing into {run}; --out chooses "):
        assert said in err
    err = svf.refused("train", "--data", clip_data, *SMALL_RUN)
    assert f"{run} already holds a training run" in err


def test_the_home_folder_in_options_and_files(
    svf, clip_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No shell replaces the ~ of --out=~/x."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    (home / "data").parent.mkdir()
    (home / "data").symlink_to(clip_data)
    Path("run.yaml").write_text("data: ~/data\nout: ~/run\n")
    assert svf("train", "--config", "run.yaml", *SMALL_RUN)[0] == 0
    assert svf("eval", "--model=~/run/model", "--data=~/data", "--out=~/eval")[0] == 0
    assert svf("predict", "--model=~/run/model", "--out=~/predicted", "~/data/val/*/0.mp4")[0] == 0
    status, _, err = svf("train", "--data=~/no", "--out=~/new")
    assert status == 2 and str(home / "no") in err
    for path in ("run/model", "eval/evaluation.json", "predicted/0.svf.mp4"):
        assert (home / path).exists()
    assert not Path("~").exists()


def test_names_after_two_dashes_stay_as_they_are(
    svf, model_folder: Path, video_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("--my_clip.mp4", "--debug"):
        shutil.copy(video_folder / "one.mp4", tmp_path / name)
        out, _ = svf.told("predict", "--model", model_folder, "--top_k", 1, "--", name)
        assert out.startswith(f"{name}: ")


def test_options_override_the_file(svf, clip_data: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("epochs: 7\nsize: 32\naugmentation: {flip: 0.0, contrast: 0.1}\n")
    out = tmp_path / "run"
    common = ["--config", file, "--data", clip_data, "--out", out, *SMALL_RUN]
    svf.told("train", *common, "--augmentation.flip", "0.25", "--learning_rate", "1e-3", "--cache")
    written = (out / "config.yaml").read_text()
    for line in ("epochs: 1", "size: 16", "flip: 0.25", "contrast: 0.1", "learning_rate: 0.001"):
        assert f"{line}\n" in written
    assert "cache: memory\n" in written


@pytest.mark.parametrize(
    ("given", "cache"), [("off", "off"), ("auto", "auto"), ("true", "memory"), (None, "memory")]
)
def test_options_for_the_cache(given: str | None, cache: str) -> None:
    words = ["train", "--out", "run", "--cache", *([given] if given else [])]
    parser, _ = parsers(words, cli.VERBS)
    settings = parser.parse_args(words).settings
    assert TrainConfig.from_dict(merged({"out": "run"}, settings)).cache == cache


def test_an_unknown_cache(svf, tmp_path: Path) -> None:
    err = svf.refused("train", "--out", tmp_path, "--cache", "disk")
    assert "cache is 'disk'; expected auto or memory or off, or true or false" in err


@pytest.mark.parametrize("name", ["ann_nano", "gru_nano"])
def test_an_ordinary_network_goes_the_whole_way(
    name: str, svf, clip_data: Path, tmp_path: Path
) -> None:
    """Train, evaluate, predict: the commands of a spiking network, and no firing rate anywhere."""
    common = ["--data", clip_data, "--out", tmp_path / "run", *SMALL_RUN]
    out, err = svf.told("train", "--model", name, *common)
    assert "top-1" in out
    assert "silent" not in err
    model, video = tmp_path / "run" / "model", clip_data / "val" / "left" / "0.mp4"
    config = json.loads((model / "config.json").read_text())["model"]
    assert config["neuron"]["kind"] == "relu"
    assert config["readout"] == ("gru" if name == "gru_nano" else "membrane")
    out = svf.done("eval", "--model", model, "--data", clip_data, "--workers", "0")
    assert "top-1" in out
    out = svf.done("predict", "--model", model, video, "--out", tmp_path / "annotated")
    assert "1.00 s, engine model)" in out
    assert check_decodes(tmp_path / "annotated" / "0.svf.mp4").decoded_frames == 8
    out = svf.done("predict", "--model", model, video, "--json")
    assert json.loads(out)["firing_rate"] is None
    assert "kind relu" in svf.refused("predict", "--model", model, video, "--engine", "int8")


# --- The same commands for every task -------------------------------------------------------------

TASKS = ("classification", "segmentation", "pose")
NEEDS = {
    "classification": ("clip_data", "run_folder"),
    "segmentation": ("scenes", "mask_run"),
    "pose": ("rendered", "pose_run"),
}
BATCH = {"classification": 4, "pose": 24}  # of the run, so that no bit differs
SAID = {
    "classification": ("top-1", "left", "right"),
    "segmentation": ("mIoU", "pixel accuracy", "ground"),
    "pose": ("MPJPE ", " of 36 frames\n", "acceleration error", "joints found: in space", "Hand_L"),
}
PICTURES = {
    "classification": {"confusion.png"},
    "segmentation": {"iou.png", "contact_sheet.png"},
    "pose": {"errors.png"},
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Moving shapes: two clips to train on and one to validate, each of 16 frames."""
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, train=2, val=1)
    return root


@pytest.fixture(scope="module")
def mask_run(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    """A finished run of four steps."""
    out = tmp_path_factory.mktemp("mask-run")
    small = "--task segmentation --frames 2 --size 32 --epochs 1 --batch-size 4 --workers 0"
    small += " --segmentation.class-weights inverse_log --augmentation.flip 0 --device cpu"
    assert main(["train", "--data", str(scenes), "--out", str(out), *small.split()]) == 0
    return out


@pytest.fixture
def finished(request: pytest.FixtureRequest) -> Callable[[str], list[Path]]:
    """``finished(task)``: a data set and a run on it."""
    return lambda task: [request.getfixturevalue(name) for name in NEEDS[task]]


@pytest.fixture
def models(model_folder: Path, mask_model_folder: Path, pose_folders: dict) -> dict[str, Path]:
    """An untrained network of each task."""
    return dict(zip(TASKS, (model_folder, mask_model_folder, pose_folders["rgb"]), strict=True))


@pytest.mark.parametrize("task", TASKS)
def test_eval_says_what_the_run_said(task: str, svf, finished, tmp_path: Path) -> None:
    data, run = finished(task)
    evaluate = ("eval", "--model", run / "model", "--data", data, "--workers", "0", "--task", task)
    evaluate += () if task == "segmentation" else ("--batch-size", str(BATCH[task]))
    out, _ = svf.told(*evaluate)
    assert all(words in out for words in SAID[task])
    out, _ = svf.told(*evaluate, "--json", "--out", tmp_path / "seen", "--skip-bad")
    measured = json.loads(out)
    assert measured == json.loads((run / "evaluation.json").read_text())
    assert measured == json.loads((tmp_path / "seen" / "evaluation.json").read_text())
    assert {p.name for p in (tmp_path / "seen").iterdir()} == {"evaluation.json", *PICTURES[task]}


def test_eval_of_another_split(svf, finished) -> None:
    data, run = finished("classification")
    out = svf.done(
        *("eval", "--model", run / "model", "--data", data, "--workers", "0"),
        *("--split", "train", "--json"),
    )
    assert json.loads(out)["clips"] == 8
    assert set(json.loads(out)["class_accuracy"]) == {"left", "right"}


def test_eval_by_several_looks(svf, finished) -> None:
    data, run = finished("segmentation")
    looks = ("--scales", "0.5,1", "--flip", "--sliding-window", "--workers", "0", "--json")
    out, _ = svf.told("eval", "--model", run / "model", "--data", data, *looks)
    assert json.loads(out)["pixels"] == 16 * 64 * 64


@pytest.mark.parametrize("task", TASKS)
def test_eval_by_the_engine_that_predicts(task: str, svf, finished) -> None:
    data, run = finished(task)
    evaluate = ("eval", "--model", run / "model", "--data", data, "--workers", "0", "--json")
    losses = {}
    for engine in ("model", "float", "int8"):
        out, _ = svf.told(*evaluate, "--engine", engine)
        losses[engine] = json.loads(out)["loss"]
    assert losses["float"] == pytest.approx(losses["model"], rel=1e-3)
    assert losses["int8"] != losses["float"]
    assert losses["int8"] == pytest.approx(losses["model"], rel=0.2)


@pytest.mark.parametrize("task", TASKS)
def test_resume_of_a_finished_run(task: str, svf, finished) -> None:
    """It goes on with the settings of the run, says its outcome, and changes no weight."""
    _, run = finished(task)
    before = (run / "model" / "model.safetensors").read_bytes()
    out, err = svf.told("train", "--resume", "--out", run)
    assert "resuming" in err
    assert SAID[task][0] in out
    assert out.endswith(f"model of epoch 1: {run / 'model'}\n")
    assert (run / "model" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("task", "says", "files"),
    [
        ("classification", r".*1\.00 s, firing rate 0\.", ["annotated"]),
        (
            "segmentation",
            r".* \(10 frames in 1\.00 s, firing rate 0\.",
            ["annotated", "json", "plot"],
        ),
        (
            "pose",
            r"21 joints, Hips on average at .* m right of, below and before the camera "
            r"\(\d+ frames in 1\.00 s, firing rate 0\.",
            ["annotated", "side_view", "motion", "json"],
        ),
    ],
)
def test_predict_for_people(
    task: str, says: str, files: list[str], svf, models, video_folder: Path, tmp_path: Path
) -> None:
    bad, video = tmp_path / "bad.mp4", video_folder / "one.mp4"
    bad.write_text("no video")
    status, out, err = svf("predict", "--model", models[task], bad, video, "--out", tmp_path / "o")
    # the box may find nobody on noise
    (told,) = (line for line in err.splitlines() if "nobody was found" not in line)
    assert status == 1
    assert told.startswith(f"svf: {bad}: ")
    first, *written = out.splitlines()
    assert re.match(re.escape(f"{video}: ") + says, first)
    assert [line.split(": ")[0].strip() for line in written] == files


# Options that only some task has.
PREDICT_OPTIONS = {
    "classification": ("--top-k=3", "--window-s=1", "--batch-size=2", "--html"),
    "segmentation": ("--masks", "--sliding-window", "--flip", "--scales=0.5,1"),
    "pose": ("--box=1,2,30", "--field-of-view-deg=60", "--focal-px=9", "--body=b.safetensors"),
}
EVAL_OPTIONS = {
    "classification": ("--clips=2", "--fold=1", "--no-decode-limits"),
    "segmentation": ("--sliding-window", "--flip", "--scales=0.5,1"),
    "pose": ("--body=b.safetensors",),
}


@pytest.mark.parametrize("task", TASKS)
def test_options_of_other_tasks_are_refused(
    task: str, svf, models, video_folder: Path, tmp_path: Path
) -> None:
    predict = ("predict", "--model", models[task], video_folder / "one.mp4", "--out", tmp_path)
    evaluate = ("eval", "--model", models[task], "--data", tmp_path)
    for command, options in ((predict, PREDICT_OPTIONS), (evaluate, EVAL_OPTIONS)):
        for other in set(TASKS) - {task}:
            for option in options[other]:
                err = svf.refused(*command, option)
                name = option.partition("=")[0]
                assert f"is a model for {task}, which has no {name}; leave it out" in err
            assert f"is a model for {task}; leave out --task" in svf.refused(
                *command, "--task", other
            )
    if task != "classification":
        err = svf.refused(
            "energy", "--model", models[task], "--no-merge", "--html", "--out", tmp_path
        )
        assert "there is no page about a clip of" in err
        err = svf.refused("theory", "--model", models[task], "a.mp4", "--out", tmp_path)
        assert f"is made for {task}; give a model for classification" in err


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("segmentation", "--masks", "--masks writes PNG files into a folder; give one with --out"),
        ("segmentation", "--scales 1,big", "'1,big' is no list of numbers like 0.75,1"),
        ("segmentation", "--scales 0", "give one or several numbers above 0"),
        ("pose", "--box 1,2", "'1,2' is no box like 120,40,300"),
        ("pose", "--box 1,2,three", "'1,2,three' is no box like 120,40,300"),
        ("pose", "--box=1,2,-3", "'1,2,-3' is no box like 120,40,300"),
        ("pose", "--box 0,0,1", "box is (0, 0, 1); give left, top and side in pixels, side at"),
        (
            *("pose", "--field-of-view-deg 60 --focal-px 500"),
            "field_of_view_deg and focal_px say the same; give one of them",
        ),
        ("pose", "--field-of-view-deg 180", "field_of_view_deg is 180.0; it must be above 0 and"),
        ("pose", "--focal-px 0", "--focal-px is 0.0; give a number above 0"),
        ("pose", "--body no.safetensors", "no file no.safetensors. SMPL is licensed to each user"),
    ],
)
def test_predict_mistakes(
    task: str, options: str, message: str, svf, models, video_folder: Path
) -> None:
    video = video_folder / "one.mp4"
    assert message in svf.refused("predict", "--model", models[task], video, *options.split())


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("segmentation", "--scales 1,x", "'1,x' is no list of numbers"),
        ("pose", "--batch-size 0", "--batch-size is 0; give at least 1"),
        ("pose", "--split test", "has no split 'test' (it has: train, val)"),
        ("pose", "--engine int8 --precision bf16-mixed", "runs in precision 32-true, not in bf16"),
        ("pose", "--layout coco", "unknown layout 'coco'; choose one of mmhpsd"),
    ],
)
def test_eval_mistakes(task: str, options: str, message: str, svf, finished) -> None:
    data, run = finished(task)
    err = svf.refused("eval", "--model", run / "model", "--data", data, *options.split())
    assert message in err


# --- svf predict ---------------------------------------------------------------------------------


def test_predict_one_file_prints_one_object(svf, model_folder: Path, video_folder: Path) -> None:
    video = video_folder / "one.mp4"
    out = svf.done("predict", "--model", model_folder, video, "--json", "--top-k", "2")
    result = json.loads(out)
    assert result["path"] == str(video)
    assert len(result["labels"]) == 2
    assert len(result["timestamps_s"]) == len(result["firing_rate_per_frame"]) == 4
    assert len(result["windows"]) == 1


def test_predict_a_folder_prints_a_line_each(svf, model_folder: Path, video_folder: Path) -> None:
    out = svf.done("predict", "--model", model_folder, video_folder, "--json")
    paths = [json.loads(line)["path"] for line in out.splitlines()]
    assert paths == [str(video_folder / name) for name in ("one.mp4", "three.avi", "two.mkv")]


def test_predict_windows(svf, model_folder: Path, video_folder: Path) -> None:
    video = video_folder / "three.avi"
    out = svf.done("predict", "--model", model_folder, video, "--window-s", "1")
    times = [line.split(":")[0].strip() for line in out.splitlines()[1:]]
    assert times == ["0.00-1.00 s", "1.00-2.00 s", "2.00-3.00 s"]


def test_predict_goes_on_after_bad_files(
    svf, model_folder: Path, video_folder: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad\nname.mp4"
    bad.write_text("no video")
    inputs = [bad, video_folder / "one.mp4", tmp_path / "absent.mp4", f"{tmp_path}/*.mkv"]
    status, out, err = svf("predict", "--model", model_folder, "--json", *inputs)
    assert status == 1
    assert len(out.splitlines()) == 1
    assert len(err.splitlines()) == 3
    for name in ("bad\\nname.mp4", "absent.mp4", "*.mkv"):
        assert sum(name in line for line in err.splitlines()) == 1


def test_predict_writes_annotated_videos(
    svf, model_folder: Path, video_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "folder"
    stdout, _ = svf.told("predict", "--model", model_folder, video_folder, "--out", out)
    names = ["one.svf.mp4", "three.svf.mp4", "two.svf.mp4"]
    assert sorted(p.name for p in out.iterdir()) == names
    assert all(str(out / name) in stdout for name in names)
    assert check_decodes(out / "three.svf.mp4").decoded_frames == 30


def test_predict_takes_the_rate_of_image_folders(svf, model_folder: Path, tmp_path: Path) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    for i in range(10):
        matplotlib.image.imsave(pictures / f"{i}.png", np.full((32, 32, 3), 20 * i, np.uint8))
    common = ["predict", "--model", model_folder, pictures, "--json"]
    stdout = svf.done(*common)
    assert json.loads(stdout)["duration_s"] == pytest.approx(10 / 25)
    stdout = svf.done(*common, "--sequence-rate-hz", "5", "--out", out)
    result = json.loads(stdout)
    assert result["duration_s"] == pytest.approx(2.0)
    assert result["timestamps_s"] == pytest.approx([0.2, 0.6, 1.2, 1.6])
    annotated = check_decodes(result["annotated"])
    assert (annotated.decoded_frames, annotated.frame_rate_hz) == (10, 5.0)
    status, stdout, err = svf(*common, "--sequence-rate-hz", "0")
    assert (status, stdout) == (2, "")
    assert err == "svf: --sequence-rate-hz is 0.0; give a number above 0\n"


def test_predict_without_any_video(svf, model_folder: Path, tmp_path: Path) -> None:
    err = svf.refused("predict", "--model", model_folder, tmp_path, tmp_path / "no.mp4")
    assert err.startswith(f"svf: {tmp_path}: no video in this folder; ")


def test_predict_segments(svf, mask_model_folder: Path, video_folder: Path, tmp_path: Path) -> None:
    model, video, out = mask_model_folder, video_folder / "two.mkv", tmp_path / "new" / "out"
    common = ["predict", "--model", model, "--task", "segmentation", video]
    stdout = svf.done(*common, "--json")
    plain = json.loads(stdout)
    assert len(plain["timestamps_s"]) == 20
    assert sum(plain["mean_area"].values()) == pytest.approx(1.0, abs=1e-5)
    stdout = svf.done(*common, "--json", "--out", out, "--masks")
    names = ["two.svf.areas.png", "two.svf.json", "two.svf.masks", "two.svf.mp4"]
    assert sorted(p.name for p in out.iterdir()) == names
    keys = ("plot", "json", "masks", "annotated")
    written = {key: str(out / name) for key, name in zip(keys, names, strict=True)}
    assert json.loads(stdout) == plain | written
    assert json.loads((out / "two.svf.json").read_text()) == plain
    assert check_decodes(out / "two.svf.mp4").decoded_frames == 20
    assert len(list((out / "two.svf.masks").iterdir())) == 20


def test_predict_looks_several_times(svf, mask_model_folder: Path, video_folder: Path) -> None:
    areas = set()
    looks = ["--sliding-window", "--flip", "--scales=0.5,1"]
    for options in ([], *([look] for look in looks), looks):
        stdout, _ = svf.told(
            *("predict", "--model", mask_model_folder, video_folder / "one.mp4", "--json"), *options
        )
        areas.add(str(json.loads(stdout)["area"]))
    assert len(areas) == 5


def test_every_clip_of_the_robustness_set(svf, model_folder: Path, shared_data: Path) -> None:
    """Right labels and times for the good files, one line for each bad one, status 1."""
    folder = shared_data / "clips"
    with (folder / "clips.csv").open() as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    bad = {name for name, row in rows.items() if row["pyav_result"] not in ("", "vfr")}
    status, out, err = svf("predict", "--model", model_folder, folder, "--json", "--top-k", "3")
    assert status == 1
    results = {Path(r["path"]).name: r for r in map(json.loads, out.splitlines())}
    assert results.keys() == rows.keys() - bad
    for name, result in results.items():
        assert len(result["labels"]) == 3
        times = result["timestamps_s"]
        assert times == sorted(times)
        assert len(times) == 4
        frames, duration_s = int(rows[name]["decoded_frames"]), result["duration_s"]
        # the centre of each quarter, on the grid of the frames
        wanted = [(i + 0.5) / 4 * duration_s for i in range(4)]
        slack = 1.5 * duration_s / frames
        assert times == pytest.approx(wanted, abs=slack)
        assert times[-1] < duration_s
    lines = err.splitlines()
    assert len(lines) == len(bad)
    for name in bad:
        assert sum(f"{name}: " in line for line in lines) == 1


def test_annotated_names_never_collide(tmp_path: Path) -> None:
    videos = ["x/a.mp4", "y/a.mp4", "x/A.avi", str(tmp_path / "a-2.svf.mp4"), "z/a-2.svf.mp4"]
    targets = annotated_names(videos, tmp_path)
    written = [os.path.realpath(target).casefold() for target in targets.values()]
    assert len(set(written)) == len(videos)
    assert not set(written) & {os.path.realpath(video).casefold() for video in videos}
    assert targets["x/a.mp4"].name == "a.svf.mp4"
    side = str(tmp_path / "b.svf.side.mp4")
    assert annotated_names(["x/b.mp4", side], tmp_path)["x/b.mp4"].name == "b-2.svf.mp4"


# --- svf convert ---------------------------------------------------------------------------------


def test_convert_a_published_checkpoint(svf, golden: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    checkpoint = golden / "tiny_3d_hamming.pth"
    out = tmp_path / "model"
    common = ["convert", checkpoint, "--attention", "joint_hamming", "--out", out, "--json"]
    stdout = svf.done(*common, "--frames", "4", "--size", "64")
    about = json.loads(stdout)
    assert about["attention"] == "hamming"
    config = json.loads((out / "config.json").read_text())
    assert config["clip"]["frames"] == 4
    names.write_text("".join(f"class {i}\n" for i in range(about["classes"])))
    assert svf(*common, "--classes", names)[0] == 0
    assert json.loads((out / "config.json").read_text())["classes"][0] == "class 0"


# --- svf theory ----------------------------------------------------------------------------------


def test_theory_of_a_model(
    svf, model_folder: Path, video_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spikevideoformer.theory import run
    from spikevideoformer.theory.projections import measure_errors, measure_order

    monkeypatch.setattr(run, "measure_errors", lambda seed: measure_errors((8, 64), pairs=20))
    monkeypatch.setattr(run, "measure_order", lambda seed: measure_order((8,), queries=2, keys=9))
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    out = tmp_path / "theory"
    # as in the example of --help, options before the videos
    common = ["theory", "--out", out, "--model", model_folder]
    status, stdout, err = svf(*common, "--seed", "3", video_folder / "one.mp4", bad)
    assert status == 1
    assert "q.k" in stdout
    assert "space_time" in stdout
    assert sum("bad.mp4" in line for line in err.splitlines()) == 1
    assert {path.name for path in out.iterdir()} >= {"theory.json", "tail.png", "qk.png"}
    stdout, _ = svf.told(*common, video_folder, "--json", "--seed", "3")
    result = json.loads(stdout)
    assert len(result["network"]["videos"]) == 3
    assert json.loads((out / "theory.json").read_text()) == result
    assert result["seed"] == 3


# --- Recordings of events -------------------------------------------------------------------------


def save_events(path: Path, seed: int, **told: object) -> None:
    """500 events of a sensor of 16x16 pixels in half a second."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.sort(rng.integers(0, 500_000, 500))
    x, y = rng.integers(0, 16, (2, 500))
    np.savez(path, t=t, x=x, y=y, p=rng.integers(0, 2, 500), **told)


def test_recordings_from_data_to_drawn_video(svf, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("spikevideoformer.events.recording._SAID", set())  # once a process
    for name, clip in ((n, i) for n in ("wave", "bow") for i in range(5)):
        save_events(tmp_path / "data" / name / f"{clip}.npz", seed=clip)
    data = ("--data", tmp_path / "data")
    seen = "--input events --events.rate-hz 10 --events.height 16 --events.width 16".split()
    out, err = svf.told("train", *data, "--out", tmp_path / "run", *seen, *SMALL_RUN)
    assert err.count("times are taken for microseconds (--events.time-unit)") == 1
    assert "the sensor for" not in err  # it was told
    model = ("--model", tmp_path / "run" / "model")
    one = tmp_path / "data" / "wave" / "0.npz"
    told = ("--events.time-unit", "us")
    out, err = svf.told("predict", *model, one, "--out", tmp_path / "drawn", *told)
    assert f"{one}: " in out and "(2 frames in 0.50 s, firing rate" in out
    info = check_decodes(tmp_path / "drawn" / "0.svf.mp4")
    assert (info.frame_rate_hz, info.decoded_frames) == (10.0, 5)
    assert svf("eval", *model, *data, "--split", "train", "--workers", "0")[0] == 0
    err = svf.refused("predict", *model, one, "--events.columns", "xyt")
    assert err.endswith("events.columns must be t, x, y and p in some order, got 'xyt'\n")


def test_masks_of_recordings(svf, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for split in ("train", "val"):
        for i in range(3):
            frame = root / split / "street" / "images" / f"{i}.npz"
            save_events(frame, seed=10 * len(split) + i, height=16, width=16)
            mask = np.arange(256, dtype=np.uint8).reshape(16, 16) % 2
            labels = frame.parents[1] / "labels"
            labels.mkdir(exist_ok=True)
            Image.fromarray(mask).save(labels / f"{i}.png")
    (root / "classes.csv").write_text("id,name\n0,road\n1,car\n")
    run = ("--task", "segmentation", "--data", root, "--out", tmp_path / "run", *SMALL_RUN)
    run = (*run, "--batch-size", "2")
    status, _, err = svf("train", *run)
    assert status == 2 and "a recording of events, and this network sees pictures" in err
    svf.told("train", *run, "--input", "events")
    model = ("--model", tmp_path / "run" / "model")
    save_events(tmp_path / "long.npz", seed=9, height=16, width=16)
    svf.told("predict", *model, tmp_path / "long.npz", "--out", tmp_path / "drawn")
    assert check_decodes(tmp_path / "drawn" / "long.svf.mp4").decoded_frames == 13  # of 0.04 s
    assert svf("eval", *model, "--data", root, "--workers", "0")[0] == 0


def test_no_video_is_written_onto_an_input_even_for_a_while(tmp_path: Path) -> None:
    left_over = str(tmp_path / "a.svf.part.mp4")  # of a run that was interrupted
    targets = annotated_names([str(tmp_path / "a.mp4"), left_over], tmp_path)
    assert targets[str(tmp_path / "a.mp4")] == tmp_path / "a-2.svf.mp4"


# --- svf render, and svf predict of pose ---------------------------------------------------------


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered motions: 24 clips to train on and 6 to validate, 6 frames of 32 x 32 at 10 Hz."""
    out = tmp_path_factory.mktemp("rendered")
    small = "--motions 5 --size 32 --frames 6 --frame-rate-hz 10 --clips-per-motion 1 --json"
    with redirect_stdout(io.StringIO()) as told:
        assert main(["render", "--out", str(out), *small.split()]) == 0
    assert json.loads(told.getvalue()) == {"out": str(out), "motions": 30, "clips": 30}
    return out


@pytest.fixture(scope="module")
def pose_run(tmp_path_factory: pytest.TempPathFactory, rendered: Path) -> Path:
    """A finished run of two steps."""
    out = tmp_path_factory.mktemp("pose-run")
    small = "--task pose --frames 3 --size 32 --epochs 1 --batch-size 24 --workers 0 --device cpu"
    small += " --learning-rate 0.004 --warmup-epochs 0.5"
    assert main(["train", "--data", str(rendered), "--out", str(out), *small.split()]) == 0
    return out


def test_render_lists_what_it_wrote(svf, rendered: Path, tmp_path: Path) -> None:
    with (rendered / "splits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows].count("val") == 6
    assert len(rows) == 30
    assert all(check_decodes(rendered / row["path"]).decoded_frames == 6 for row in rows[::5])
    status, out, err = svf("render", "--out", tmp_path / "few", "--motions", "4")
    assert (status, out) == (2, "")
    assert err == "svf: --motions is 4; give at least 5, one for validation\n"


def test_render_of_puppets(svf, tmp_path: Path) -> None:
    out = svf.done("render", "--out", tmp_path / "few", "--puppets", "6")
    assert out == f"12 clips of puppets: {tmp_path / 'few'}\n"
    for split in ("train", "val"):
        assert len([f for f in (tmp_path / "few" / split).iterdir() if any(f.iterdir())]) == 6
    for option, value in (("--size", "128"), ("--motions", "3"), ("--mocap", "x")):
        err = svf.refused("render", "--out", tmp_path, "--puppets", "6", option, value)
        assert f"leave out {option}" in err
    assert "--puppets is 5" in svf("render", "--out", tmp_path, "--puppets", "5")[2]


def test_render_keeps_the_table_of_motion_capture(svf, tmp_path: Path) -> None:
    table = tmp_path / "splits.csv"
    table.write_text("path,content,style,split\na.bvh,walk,calm,train\n")
    (tmp_path / "a.bvh").write_text("HIERARCHY\n")
    for out in (tmp_path, tmp_path / "." / "x" / ".."):
        err = svf.refused("render", "--mocap", tmp_path, "--out", out)
        assert "lists other things than rendered clips" in err
    assert table.read_text().startswith("path,content,style,split\n")


def test_predict_tracks_poses(svf, pose_run: Path, rendered: Path, tmp_path: Path) -> None:
    from spikevideoformer.body.bvh import read_bvh
    from spikevideoformer.video.frames import iter_frames

    video, out = rendered / "val" / "squat" / "squat_004_00.mp4", tmp_path / "new" / "out"
    predict = ("predict", "--model", pose_run / "model", "--task", "pose", video, "--json")
    stdout = svf.done(*predict)
    plain = json.loads(stdout)
    assert plain["timestamps_s"] == pytest.approx([i / 10 for i in range(6)])
    assert np.shape(plain["joints_mm"]) == (6, 21, 3)
    stdout = svf.done(*predict, "--out", out)
    stem = "squat_004_00.svf"
    written = {
        "annotated": out / f"{stem}.mp4",
        "side_view": out / f"{stem}.side.mp4",
        "motion": out / f"{stem}.bvh",
        "json": out / f"{stem}.json",
    }
    assert sorted(out.iterdir()) == sorted(written.values())
    about = json.loads(stdout)
    assert {key: about.pop(key) for key in written} == {k: str(p) for k, p in written.items()}
    assert "joints_mm" not in about  # they are in the file
    assert json.loads(written["json"].read_text()) == plain
    assert about == {key: plain[key] for key in about}
    for key in ("annotated", "side_view"):
        frames = list(iter_frames(written[key]))
        assert len(frames) == 6
        assert frames[0].image.std() > 5
    motion = read_bvh(written["motion"])
    assert motion.frame_rate_hz == pytest.approx(10)
    joints = motion.skeleton.joints(motion.rotations, motion.translation).numpy() * [1, -1, -1]
    # The file goes down the tree, and has one body for all frames.
    order = [plain["joint_names"].index(name) for name in motion.skeleton.joint_names]
    assert sorted(order) == list(range(21))
    expected = np.array(plain["joints_mm"])[:, order] / 1000
    np.testing.assert_allclose(joints[:, 0], expected[:, 0], atol=1e-3)
    np.testing.assert_allclose(joints, expected, atol=0.05)


def test_predict_is_told_of_the_camera_and_the_person(svf, pose_run: Path, rendered: Path) -> None:
    video = rendered / "val" / "squat" / "squat_004_00.mp4"
    found = {}
    for option in ("", "--box=-4,2,28", "--field-of-view-deg=90", "--focal-px=16"):
        out, _ = svf.told(
            *("predict", "--model", pose_run / "model", video, "--json", *option.split())
        )
        found[option] = json.loads(out)
    usual, box, wide, focal = found.values()
    assert box["joints_mm"] != usual["joints_mm"]
    assert (
        box["focal_px"] == usual["focal_px"] == pytest.approx(16 / np.tan(np.radians(27.5)), 1e-3)
    )
    assert wide["focal_px"] == focal["focal_px"] == 16.0
    assert wide["joints_mm"] == focal["joints_mm"] != usual["joints_mm"]
    assert wide["rotation_vectors_rad"] == usual["rotation_vectors_rad"]


# --- Processes -----------------------------------------------------------------------------------


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "spikevideoformer", *map(str, arguments)]


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1000 pictures."""
    rng = np.random.default_rng(0)
    pictures = (np.kron(rng.integers(0, 256, (6, 8, 3)), np.ones((8, 8, 1))) for _ in range(1000))
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    write_video(path, (p.astype(np.uint8) for p in pictures), 10.0)
    return path


@pytest.mark.processes
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_prediction_leaves_a_video_that_plays(
    mask_model_folder: Path, long_video: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    """Ctrl-C ends the file properly; kill -9 leaves it as it was last written."""
    out = tmp_path / "out"
    process = subprocess.Popen(
        command("predict", "--model", mask_model_folder, long_video, "--out", out),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    part = out / "long.svf.part.mp4"
    deadline = time.monotonic() + 90
    while not (part.is_file() and part.stat().st_size > 40_000) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(sent)
    stdout, err = process.communicate(timeout=60)
    assert stdout == ""
    if sent is signal.SIGINT:
        assert process.returncode == 130
        assert err == f"{part} holds what was done before the interruption\nsvf: interrupted\n"
    assert [path.name for path in out.iterdir()] == [part.name]
    with av.open(part) as container:
        pictures_left = sum(1 for _ in container.decode(video=0))
    assert 10 <= pictures_left < 1000


def test_unexpected_errors_are_one_line_and_debug_shows_where(
    svf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> int:
        raise KeyError("weights\nlost")

    monkeypatch.setitem(cli.VERBS, "models", replace(cli.VERBS["models"], run=broken))
    err = svf.refused("models")
    assert "unexpected KeyError" in err and "--debug" in err
    status, _, err = svf("models", "--debug")
    assert status == 2 and "Traceback" in err


def test_examples_name_existing_options() -> None:
    for name, verb in VERBS.items():
        words = shlex.split(verb.example)
        assert words[:2] == ["svf", name]
        _, verb_parsers = parsers(words[1:], cli.VERBS)
        _, unknown = verb_parsers[name].parse_known_args(words[2:])
        assert unknown == []


# --- Energy --------------------------------------------------------------------------------------


def test_energy_of_a_model_on_videos(
    svf, model_folder: Path, video_folder: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    status, out, err = svf(
        *("energy", "--model", model_folder, video_folder / "one.mp4", bad),
        *("--out", tmp_path / "out", "--csv", tmp_path / "ops.csv", "--json"),
    )
    assert status == 1
    assert str(bad) in err
    about = json.loads(out)
    assert about["clip"] == [4, 3, 32, 32]
    assert about["clips"] == 1
    assert "of this trained model, on 1 clip of the videos given" in about["rates_from"]
    energy = {t["convention"]: t["energy_mj"] for t in about["totals"]}
    assert 0 < energy["paper"] < energy["executed"] < energy["ANN"]
    # the twin that is run does what the ANN of the same layers is reckoned to do, and norms
    assert energy["ANN"] < energy["twin"] < 1.05 * energy["ANN"]
    assert json.loads((tmp_path / "out" / "energy.json").read_text()) == about
    assert "convention" in (tmp_path / "out" / "energy.txt").read_text()
    with (tmp_path / "ops.csv").open() as file:
        assert {row["form"] for row in csv.DictReader(file)} >= {"executed", "merged"}


@pytest.fixture(scope="session")
def segmentation_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained nano network that segments crops of 32 x 48, two frames a clip."""
    from spikevideoformer.bench.inputs import lively_model

    folder = tmp_path_factory.mktemp("segmentation")
    model = lively_model("svf_nano", task="segmentation", num_classes=3, frames=2, size=32)
    clip = {"frames": 2, "short_side": 40, "crop": [32, 48], "step": 2}
    model.save_pretrained(folder, clip=clip)
    return folder


@pytest.fixture(scope="session")
def pose_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained nano networks that find a body in pictures and in events, two frames a clip."""
    from spikevideoformer.bench.inputs import random_video
    from spikevideoformer.models.spikevideoformer import create_model
    from spikevideoformer.nn.statistics import measure_statistics
    from spikevideoformer.synth.motions import standing_skeleton
    from spikevideoformer.tasks.pose.spec import PoseSpec

    folders = {}
    for kind in ("rgb", "events"):
        clip = PoseSpec(frames=2, size=32, frame_rate_hz=5.0, input=kind, crop="person")
        torch.manual_seed(0)
        model = create_model(
            *("svf_nano", "pose"),
            body=standing_skeleton(),
            in_channels=clip.in_channels,
            residual_gain=1.0,
        )
        measure_statistics(model, [random_video(2, 2, clip.in_channels, 32, 32)])
        model.eval()
        folders[kind] = tmp_path_factory.mktemp(kind)
        model.save_pretrained(folders[kind], clip=clip.to_dict())
    return folders


@pytest.mark.parametrize(
    ("kind", "options", "clip", "says"),
    [
        ("masks", [], [2, 3, 32, 48], "MADE clip"),
        ("masks", ["VIDEO", "--size", "80"], [2, 3, 80, 80], "on 2 clips of the videos given"),
        ("rgb", ["--size", "16", "--frames", "1"], [1, 3, 16, 16], "MADE clip"),
        ("events", ["VIDEO"], [2, 2, 32, 32], "on 2 clips of the videos given"),
    ],
)
def test_energy_of_frames(
    kind: str,
    options: list[str],
    clip: list[int],
    says: str,
    svf,
    segmentation_folder: Path,
    pose_folders: dict[str, Path],
    video_folder: Path,
) -> None:
    model = segmentation_folder if kind == "masks" else pose_folders[kind]
    options = [str(video_folder / "one.mp4") if o == "VIDEO" else o for o in options]
    out, err = svf.told("energy", "--model", model, *options, "--clips", "2", "--json")
    about = json.loads(out)
    assert about["clip"] == clip
    assert says in about["rates_from"]
    assert ("here it sees whole pictures" in err) == (kind != "masks")
    energy = {t["convention"]: t["energy_mj"] for t in about["totals"]}
    assert 0 < energy["paper"] < energy["executed"] < energy["ANN"] < energy["twin"]


def test_growth_is_of_the_size_of_the_clips(
    svf, segmentation_folder: Path, pose_folders: dict[str, Path]
) -> None:
    for model, size, tokens in (
        (segmentation_folder, [], "2x3 tokens a frame"),
        (pose_folders["rgb"], ["--size", "48"], "3x3 tokens a frame"),
    ):
        out, _ = svf.told("energy", "--model", model, *size, "--growth")
        assert tokens in out


def test_energy_of_a_preset_says_that_it_is_untrained(svf, tmp_path: Path) -> None:
    cost = tmp_path / "cost.yaml"
    cost.write_text("add_float32_pj: 2.0\n")
    options = ["--frames", "2", "--size", "32", "--no-merge", "--cost", cost]
    status, out, err = svf("energy", "--model", "svf_nano", *options)
    assert (status, err) == (0, "counting operations 1/1: executed\n")
    assert "UNTRAINED weights" in out
    assert "MADE clip" in out
    assert "E_AC 2 pJ" in out
    assert "merged" not in out


def test_growth_of_ordinary_networks_is_refused(svf) -> None:
    assert "ordinary network" in svf.refused("energy", "--model", "gru_nano", "--growth")


def test_energy_of_huge_clips_is_refused(svf) -> None:
    err = svf.refused("energy", "--model", "svf_nano", "--frames", "10000")
    assert "lower --frames or --size" in err
    err = svf.refused("energy", "--model", "svf_nano", "--frames", "100000000")
    assert "100000000 frames of 224 pixels are more than" in err


def test_energy_page_and_the_number_of_clips(
    svf, model_folder: Path, video_folder: Path, tmp_path: Path
) -> None:
    out, err = svf.told(
        *("energy", "--model", model_folder, video_folder, "--clips", "2", "--no-merge"),
        *("--out", tmp_path, "--html", "--json"),
    )
    assert json.loads(out)["clips"] == 2
    assert "counting 2 of 3 videos" in err
    assert "<h2>Energy</h2>" in (tmp_path / "energy.html").read_text()


@pytest.mark.parametrize("name", ["ann_nano", "gru_nano"])
def test_energy_of_ordinary_networks(svf, name: str) -> None:
    out, _ = svf.told("energy", "--model", name, "--frames", "2", "--size", "32", "--json")
    about = json.loads(out)
    assert about["neurons"] == []
    executed, *fewer = about["totals"]  # no firing rates, so no formula of papers
    assert executed["convention"] == "executed"
    assert [t["convention"] for t in fewer] == ["executed, int8", "executed, int4"]
    assert about["crossovers"] == []
    assert executed["work"]["multiplications"] > 0.5 * executed["work"]["macs"]
    assert executed["work"]["exponentials"] > 0  # of its softmax, or of the gates of its GRU


@pytest.mark.parametrize("folder", ["model_folder", "mask_model_folder"])
@pytest.mark.parametrize("drawn", [False, True])
def test_predict_decodes_each_video_once(
    svf, folder: str, drawn: bool, video_folder: Path, tmp_path: Path, request, monkeypatch
) -> None:
    opened: list[str] = []

    def counted(path, *args, **options):
        opened.append(str(path))
        return open_source(path, *args, **options)

    monkeypatch.setattr(frames, "open_source", counted)
    videos, options = [video_folder], []
    if drawn:
        videos, options = [video_folder / "one.mp4"], ["--out", tmp_path]
        options += ["--html", "--json"] if folder == "model_folder" else []
    status, out, err = svf("predict", "--model", request.getfixturevalue(folder), *videos, *options)
    assert (status, err.count("svf:")) == (0, 0)
    assert sorted(opened) == sorted(map(str, videos if drawn else video_folder.iterdir()))
    if "--html" in options:
        page = tmp_path / "one.svf.html"
        assert json.loads(out)["page"] == str(page)
        assert "<h2>Predictions over time</h2>" in page.read_text()


def test_a_page_needs_a_folder(svf, model_folder: Path, video_folder: Path) -> None:
    err = svf.refused("predict", "--model", model_folder, video_folder / "one.mp4", "--html")
    assert "--out" in err


def test_growth_of_attention(svf, tmp_path: Path) -> None:
    out, _ = svf.told(
        *("energy", "--model", "svf_nano", "--size", "16", "--growth", "--json"),
        *("--out", tmp_path),
    )
    points = json.loads(out)["growth"]
    assert [p["frames"] for p in points] == [8, 16, 32, 64, 128]
    assert points[4]["softmax_macs"] == 256 * points[0]["softmax_macs"]
    assert matplotlib.image.imread(tmp_path / "growth.png").size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "svf_nanoo"], "svf_nanoo does not exist"),
        (["--model", "svf_nano", "--size", "33"], "--size is 33; give a multiple of 16"),
        (["--model", "svf_nano", "--frames", "0"], "--frames is 0; give at least 1"),
        (["--model", "svf_nano", "--clips", "0"], "--clips is 0; give at least 1"),
        (["--model", "svf_nano", "--html"], "give one with --out"),
        (["--model", "svf_nano", "--csv", "no/where.csv"], "in a folder that exists"),
        (["--model", "svf_nano", "--csv", "."], "--csv . cannot be written"),
        (["--model", "svf_nano", "--growth", "a.mp4"], "leave out VIDEO"),
        (["--model", "svf_nano", "--growth"], "leave out --frames"),
        (
            ["--model", "svf_nano", "--cost", "no.yaml"],
            "no.yaml does not exist; give --cost",
        ),
        (["--model", "svf_nano", "no.mp4"], "no such file"),
    ],
)
def test_energy_mistakes_are_one_line(svf, options: list[str], message: str) -> None:
    assert message in svf.refused("energy", "--frames", "2", "--size", "32", *options)
