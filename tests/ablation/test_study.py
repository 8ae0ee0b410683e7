"""A question is answered from real runs, made once, one by one or side by side."""

import csv
import json
import math
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from spikevideoformer.ablation.questions import Question, Variant, question
from spikevideoformer.ablation.report import to_dict, write_report
from spikevideoformer.ablation.study import Study, interval, is_higher_better, run_study
from spikevideoformer.cli import main
from spikevideoformer.training import TrainConfig


def results(out: Path) -> list[dict[str, str]]:
    """Rows of the table of all runs, but for their CPU time."""
    with (out / "results.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "cpu_s"} for row in csv.DictReader(file)]


@pytest.mark.processes
def test_the_command(tmp_path: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ablate", "attention", "--data", str(clips), "--out", str(tmp_path / "a")]
    words += "--seeds 0 1 --frames 2 --size 16 --epochs 1 --workers 0".split()
    words += ["--passes", "1", "--check", "none"]
    assert main([*words, "--json"]) == 0
    said = capsys.readouterr()
    values = json.loads(said.out)
    assert values["against"] == "hamming"
    assert values["seeds"] == [0, 1]
    metrics = values["variants"]["dot"]["metrics"]["val_top1"]
    ours, theirs = (
        values["variants"][v]["metrics"]["val_top1"]["values"] for v in ("dot", "hamming")
    )
    assert metrics["difference"] == pytest.approx(
        sum(a - b for a, b in zip(ours, theirs, strict=True)) / 2
    )
    assert any("The paper: hamming before dot" in line for line in values["verdicts"])
    rows = results(tmp_path / "a")
    assert [(r["variant"], r["seed"]) for r in rows] == [
        ("hamming", "0"), ("hamming", "1"), ("dot", "0"), ("dot", "1"),
    ]  # fmt: skip
    assert (tmp_path / "a/results.png").stat().st_size > 1000
    assert "Hamming attention" in (tmp_path / "a/report.html").read_text()

    # Again, side by side: only what was stopped before its end goes on, with the same results.
    stamp = (tmp_path / "a/dot-0/last.json").stat().st_mtime_ns
    (tmp_path / "a/dot-1/last.json").unlink()
    assert main([*words, "--jobs", "2"]) == 0
    capsys.readouterr()
    assert results(tmp_path / "a") == rows
    assert (tmp_path / "a/dot-0/last.json").stat().st_mtime_ns == stamp
    assert (tmp_path / "a/dot-1/last.json").exists()

    assert main([*words, "--learning-rate", "0.001"]) == 2
    assert "is of other settings (learning_rate" in capsys.readouterr().err
    assert main([*words, "--teacher", str(tmp_path / "a/dot-0/model")]) == 2
    assert "is of other settings (teacher: None then" in capsys.readouterr().err


@pytest.mark.slow
def test_sigterm_reaches_runs_side_by_side(tmp_path: Path, clips: Path) -> None:
    words = ["ablate", "attention", "--data", str(clips), "--out", str(tmp_path / "a")]
    words += "--frames 2 --size 16 --epochs 500 --seeds 0 --workers 0 --check none".split()
    process = subprocess.Popen(
        [sys.executable, "-m", "spikevideoformer", *words, "--jobs", "2"],
        stderr=subprocess.PIPE,
        text=True,
    )
    runs = [tmp_path / "a" / run / "checkpoints" for run in ("hamming-0", "dot-0")]
    while process.poll() is None and not all([*run.glob("step-*.pt")] for run in runs):
        time.sleep(0.05)
    process.terminate()
    _, told = process.communicate(timeout=25)
    assert process.returncode == 143, told
    assert told.count("continue with --resume") == 2


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"init_from": "no/folder/here"}, "variant other: no/folder/here does not exist"),
        ({"model": "svf_nano", "attention": "softmax"}, "softmax' is of ordinary networks"),
    ],
)
def test_what_cannot_be_is_said_before_the_first_run(
    tmp_path: Path, settings: dict[str, str], says: str
) -> None:
    asked = Question("", {"usual": Variant("", {}), "other": Variant("", settings)})
    with pytest.raises(ValueError, match=says):
        run_study("q", asked, TrainConfig(out=tmp_path / "q", data=tmp_path), [0])
    assert not (tmp_path / "q").exists()


def test_energy_is_counted(tmp_path: Path, clips: Path) -> None:
    video = next(clips.rglob("*.mp4"))
    base = TrainConfig(
        data=clips, out=tmp_path, frames=2, size=16, epochs=1, batch_size=4, workers=0
    )
    study = run_study("twin", question("twin"), base, [0], videos=[str(video)])
    spiking, ordinary = (to_dict(study)["variants"][v] for v in ("spiking", "ordinary"))  # type: ignore[index]
    assert 0 < spiking["executed_mj"][0] < ordinary["executed_mj"][0]
    assert 0 < spiking["rate"][0] < 1
    assert ordinary["rate"] == [None]
    write_report(study, tmp_path)
    assert "executed_mj" in (tmp_path / "table.md").read_text()


def test_equal_time_gives_a_slow_variant_fewer_epochs(tmp_path: Path, clips: Path) -> None:
    base = TrainConfig(
        data=clips, out=tmp_path, frames=2, size=16, epochs=4, batch_size=4, workers=0,
        warmup_epochs=2, device="cpu",
    )  # fmt: skip
    asked = Question("", {n: Variant("", {"design": n}) for n in ("joint", "factorized")})
    run_study("q", asked, replace(base, epochs=1, warmup_epochs=0), [0], equal="time")
    assert (tmp_path / "timing/factorized/last.json").exists()

    for name, seconds in (("joint", 1.0), ("factorized", 2.5)):
        path = tmp_path / "timing" / name / "last.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"cpu_s": seconds}))
    for run in ("joint-0", "factorized-0"):
        shutil.rmtree(tmp_path / run)
    told: list[str] = []
    found = run_study("q", asked, base, [0], equal="time", tell=told.append)
    assert told[0] == "epochs: joint 4, factorized 2"
    assert found.entries["factorized"][0]["config"]["warmup_epochs"] == 1
    write_report(found, tmp_path)
    assert "| epochs |" in (tmp_path / "table.md").read_text()

    with pytest.raises(ValueError, match=r"timing.compiling is of other settings \(size"):
        run_study("q", asked, replace(base, size=32), [0], equal="time")
    with pytest.raises(ValueError, match="set workers to 0"):
        run_study("q", asked, replace(base, workers=2), [0], equal="time")


def study(ours: list[float], theirs: list[float]) -> Study:
    asked = Question(
        "?", {"a": Variant("a", {}), "b": Variant("b", {})}, better="a", worse="b", paper="1 to 2"
    )
    entries = {
        name: [
            {"history": [{"epoch": 1, "val_loss": 0.0, "val_pa_mpjpe_mm": v}], "cpu_s": 1.0}
            for v in values
        ]
        for name, values in (("a", ours), ("b", theirs))
    }
    return Study("q", asked, tuple(range(len(ours))), entries)


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        ([40.0, 41.0, 42.0], [46.0, 47.0, 48.5], ": confirmed"),
        ([46.0, 47.0, 48.5], [40.0, 41.0, 42.0], ": not confirmed"),
        ([40.0, 50.0, 60.0], [50.0, 50.0, 51.0], ": undecidable"),
        ([40.0], [50.0], "one seed, which decides nothing"),
    ],
)
def test_verdicts(ours: list[float], theirs: list[float], says: str) -> None:
    head, line = study(ours, theirs).verdicts()
    assert head == "The paper: a before b, 1 to 2."
    assert says in line


def test_intervals_and_directions() -> None:
    mean, half = interval([1.0, 2.0, 3.0])  # scipy.stats.t.interval(0.95, 2, 2, 1 / sqrt(3))
    assert (mean, half) == (2.0, pytest.approx(2.484, abs=1e-3))
    assert math.isnan(interval([1.0])[1])
    assert is_higher_better("val_top1")
    assert not is_higher_better("val_pa_mpjpe_mm")
    assert not is_higher_better("train_loss")
