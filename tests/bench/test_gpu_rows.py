"""The rows for a GPU, on a CPU and tiny, and the script that runs them, a process each."""

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch

from spikevideoformer.bench import gpu_rows, network_rows
from spikevideoformer.bench.gpu_rows import inference_of, training_step_of
from spikevideoformer.bench.options import DifferentError, Options
from spikevideoformer.bench.results import Measurement

TINY = Options(tiny=True, quick=True, rounds=1)
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def compared(found: list[Measurement], against: str) -> list[Measurement]:
    return [m for m in found if against in m.against and m.ratio is not None]


def test_a_training_step_is_checked_and_measured() -> None:
    found = list(training_step_of(TINY, "svf_15m"))
    (time,) = compared(found, "stepwise torch neurons")
    assert time.equivalence is not None and time.equivalence.startswith("float64: gradients")
    assert [m.ratio_of for m in found] == ["times faster", "of its peak memory"] * 2


def test_inference_is_checked_and_measured() -> None:
    found = compared(list(inference_of(TINY, 1, ("bf16",))), "stepwise torch neurons")
    assert [m.work for m in found] == ["inference, svf_nano, T=2, 32x32, batch 1, bfloat16"]
    assert all(m.equivalence and m.equivalence.startswith("float64: none of") for m in found)


def test_no_ratio_where_networks_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(model: object) -> torch.nn.Module:
        other = network_rows.stepwise_model(model)  # type: ignore[arg-type]
        with torch.no_grad():
            other.backbone.stage2.blocks[0].sep_conv.pw1.weight[0] += 0.1  # type: ignore[union-attr, index]
        return other

    monkeypatch.setattr(gpu_rows, "stepwise_model", spoilt)
    (found,) = inference_of(TINY, 1, ("bf16",))
    assert found.why_not is not None and "spikes differ" in found.why_not
    with pytest.raises(DifferentError, match="gradients by"):
        list(training_step_of(TINY, "svf_15m"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = spec_from_file_location("benchmarks_gpu", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.processes
def test_script_runs_its_parts_and_writes_them_down(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--device", "cpu", "--quick", "--parts", "attention", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options])
    assert script.main() == 0
    about = json.loads((tmp_path / "gpu.json").read_text())
    assert about["machine"]["device"] == "cpu"
    assert [m["ratio_of"] for m in about["measurements"]] == [
        "times faster",
        "times the time per frame",
    ]
    assert all(m["ratio"]["median"] > 0 for m in about["measurements"])


def test_script_says_red_for_a_difference_alone(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differs(_options: Options) -> list[Measurement]:
        raise DifferentError("3 spikes differ: no ratio")

    monkeypatch.setitem(script.PARTS, "clip", script.Part(differs, 1))
    (found,) = script._measured("clip", TINY)
    assert script._is_red(found)
    assert script._is_red(script._verdict("kernel", ["sums differ"]))
    assert not script._is_red(script._verdict("kernel", []))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "cpu"], "add --quick"),
        (["--device", "cpu", "--quick", "--budget-s", "0"], "--budget-s is 0.0"),
        pytest.param(
            [],
            "torch sees no CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_script_refuses(
    script: ModuleType,
    options: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options])
    with pytest.raises(SystemExit):
        script.main()
    assert message in capsys.readouterr().err
