"""Rows from end to end, on sizes that say nothing about speed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spikevideoformer.bench import kernel_rows
from spikevideoformer.bench.baselines import BaselineMissingError
from spikevideoformer.bench.options import DifferentError, Options
from spikevideoformer.bench.results import Measurement
from spikevideoformer.bench.rows import ROWS, RowSpec
from spikevideoformer.bench.run import run
from spikevideoformer.bench.timing import Spread
from spikevideoformer.ops.affine_lif import AffineLIF
from spikevideoformer.ops.lif import NeuronConfig


def test_attention_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(["attention"], quick=True, out=tmp_path, device="cpu", frames=16, rounds=1)
    assert [m.ratio_of for m in result.measurements] == ["times faster", "times the time per frame"]
    assert all(m.ratio is not None and m.ratio.median > 0 for m in result.measurements)
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["machine"]["torch"] == torch.__version__
    progress = capsys.readouterr()
    assert "[1/1] attention" in progress.err
    assert not progress.out


@pytest.mark.parametrize(
    ("row", "measured"),
    [
        ("neuron_forward", 2 * len(kernel_rows.NEURON_DTYPES["cpu"])),
        ("neuron_backward", 2 * 2),
        ("attention", 2),
        ("gpu_clip_scaling", 1),
    ],
)
def test_rows_are_checked_and_measured(row: str, measured: int) -> None:
    found = list(ROWS[row].run(Options(tiny=True, quick=True, rounds=1)))
    assert len(found) == measured
    assert all(m.ratio is not None and m.equivalence for m in found), [m.why_not for m in found]


def test_attention_from_bytes_is_checked_and_measured() -> None:
    result = run(["attention_bytes"], device="cpu", frames=2, rounds=1, quiet=True)
    forms = [2 if levels == 1 else 1 for _, levels in kernel_rows.BYTE_ATTENTION]
    assert len(result.measurements) == sum(forms)
    assert all(m.ratio is not None and m.equivalence for m in result.measurements)


@pytest.mark.parametrize("row", ["neuron_forward", "neuron_backward"])
def test_no_ratio_for_a_kernel_that_differs(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernel_rows.affine_lif_reference

    def other(x: torch.Tensor, config: NeuronConfig, **options: torch.Tensor) -> AffineLIF:
        return right(x, replace(config, v_threshold=0.5), **options)

    monkeypatch.setattr(kernel_rows, "affine_lif_reference", other)
    found = list(ROWS[row].run(Options(tiny=True, quick=True, rounds=1)))
    assert all(m.ratio is None and "no ratio" in (m.why_not or "") for m in found)


def test_the_neuron_against_stepwise_ones() -> None:
    theirs, reference = kernel_rows.neuron_stepwise(Options(tiny=True, quick=True, rounds=1))
    assert reference.ratio is not None
    assert theirs.ratio is not None or "SpikingJelly" in (theirs.why_not or "")


def test_gpu_rows_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = run(["gpu_training_step", "gpu_inference"], quiet=True)
    assert [m.why_not for m in result.measurements] == ["not measured: no CUDA device"] * 2
    assert all(m.target is not None for m in result.measurements)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BaselineMissingError("it is absent"), "not measured: it is absent"),
        (DifferentError("3 spikes differ: no ratio"), "3 spikes differ: no ratio"),
    ],
)
def test_no_ratio_without_a_green_check(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail(_options: Options) -> list[Measurement]:
        raise error

    spec = ROWS["attention"]
    monkeypatch.setitem(ROWS, "attention", RowSpec(**{**vars(spec), "run": fail}))
    (found,) = run(["attention"], device="cpu", quiet=True).measurements
    assert found.ratio is None
    assert found.why_not == reason


def test_options_reach_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Options] = []

    def note(options: Options) -> list[Measurement]:
        seen.append(options)
        return [Measurement(row="x", work="x", against="x", ratio=Spread.of([1.0]))]

    spec = ROWS["clip_scaling"]
    monkeypatch.setitem(ROWS, "clip_scaling", RowSpec(**{**vars(spec), "run": note}))
    run(["clip_scaling"], quick=True, quiet=True, frames=4, size=32, rounds=2)
    (options,) = seen
    assert (options.quick, options.frames, options.size, options.rounds) == (True, 4, 32, 2)
    assert Options(quick=True).rounds_of(2, 9) == 2
    assert Options().rounds_of(2, 9) == 9


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="row 'cpu' is unknown"):
        run(["cpu"])
    with pytest.raises(ValueError, match="device 'tpu' is unknown"):
        run(device="tpu")


def test_cuda_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no CUDA device"):
        run(device="cuda")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("spikingjelly")
@pytest.mark.parametrize("row", ["cpu_inference_exact", "cpu_training_step", "cpu_training_ann"])
def test_network_rows_from_end_to_end(row: str) -> None:
    found = run([row], quick=True, frames=2, size=32, rounds=1, quiet=True).measurements
    assert all(m.ratio is not None for m in found), [m.why_not for m in found]
