"""Run rows of the benchmark and write down what they found."""

import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from spikevideoformer.bench.baselines import BaselineMissingError
from spikevideoformer.bench.options import DifferentError, Options, check_rows
from spikevideoformer.bench.plots import plot_growth, plot_ratios
from spikevideoformer.bench.results import BenchResult, Measurement, format_markdown, format_table
from spikevideoformer.bench.rows import ROWS, RowSpec
from spikevideoformer.bench.timing import NoPeakError
from spikevideoformer.machine import processor

__all__ = ["ROWS", "format_table", "run"]


def run(
    rows: Sequence[str] | None = None,
    *,
    quick: bool = False,
    out: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    quiet: bool = False,
    frames: int | None = None,
    size: int | None = None,
    rounds: int | None = None,
) -> BenchResult:
    """Measure, with progress on standard error.

    Args:
        rows: names out of ``ROWS``; all where None.
        quick: the short form, within 5 minutes on two cores.
        out: folder for bench.json, bench.txt, bench.md and pictures; nothing is written where None.
        device: cpu leaves the GPU out, cuda needs one, auto takes what is there.
        threads: of torch; as they are where None.
        quiet: no progress.
        frames: length of the clips where the table's is not wanted.
        size: their height and width.
        rounds: of every measurement.

    Raises:
        ValueError: an unknown row or device, or cuda without a GPU.
    """
    check_rows(rows)
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device {device!r} is unknown; choose auto, cpu or cuda")
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ValueError("device is cuda, but torch sees no CUDA device; use cpu or auto")
    if threads is not None:
        torch.set_num_threads(threads)
    use_cuda = has_cuda and device != "cpu"

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    if not quiet and os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1):
        say(f"warning: load is {os.getloadavg()[0]:.1f}; other processes disturb the measurement")
    measurements: list[Measurement] = []
    names = list(rows) if rows is not None else list(ROWS)
    machine = describe_machine()
    for i, name in enumerate(names, 1):
        spec = ROWS[name]
        for where in _devices(spec, use_cuda, device):
            start = time.perf_counter()
            say(f"[{i}/{len(names)}] {name}")
            options = Options(
                quick=quick,
                device=where,
                frames=frames,
                size=size,
                rounds=rounds,
                say=lambda line: say(f"    {line}"),
            )
            found = _run_row(name, spec, options, has_cuda)
            measurements += found
            for line in format_table(found).splitlines()[2:]:
                say(f"    {line}")
            say(f"    ({time.perf_counter() - start:.0f} s)")
        result = BenchResult(machine=machine, quick=quick, measurements=tuple(measurements))
        if out is not None:
            write(result, out)  # after each row, so that a run cut short leaves what it found
    return result


def _devices(spec: RowSpec, use_cuda: bool, device: str) -> list[str]:
    if spec.device == "cuda":
        return ["cuda"]
    if spec.device == "cpu" or not use_cuda:
        return ["cpu"]
    return ["cuda"] if device == "cuda" else ["cpu", "cuda"]


def _run_row(name: str, spec: RowSpec, options: Options, has_cuda: bool) -> list[Measurement]:
    try:
        if options.device == "cuda" and not has_cuda:
            raise BaselineMissingError("no CUDA device")
        return list(spec.run(options))
    except (BaselineMissingError, NoPeakError) as error:
        reason = f"not measured: {error}"
    except DifferentError as error:
        reason = str(error)
    return [
        Measurement(
            row=name, work=spec.about, against=spec.against, target=spec.target, why_not=reason
        )
    ]


def describe_machine() -> dict[str, Any]:
    """What the numbers hold for."""
    about: dict[str, Any] = {
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0],
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    for package in ("spikevideoformer", "spikingjelly", "numba", "triton"):
        try:
            about[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            about[package] = None
    if torch.cuda.is_available():
        about["gpu"] = torch.cuda.get_device_name()
    return about


def write(result: BenchResult, out: Path) -> list[Path]:
    """Write bench.json, bench.txt, bench.md and the pictures there is something for.

    Args:
        result: a run.
        out: folder, made where it is missing.

    Returns:
        The files written.
    """
    out.mkdir(parents=True, exist_ok=True)
    texts = {
        "bench.json": json.dumps(result.to_dict(), indent=2),
        "bench.txt": format_table(result.measurements),
        "bench.md": format_markdown(result.measurements),
    }
    for name, text in texts.items():
        (out / name).write_text(text + "\n", "utf-8")
    written = [out / name for name in texts]
    if plot_ratios(result.measurements, out / "ratios.png"):
        written.append(out / "ratios.png")
    for axis in ("T", "batch"):
        if plot_growth(result.measurements, axis, out / f"growth_{axis}.png"):
            written.append(out / f"growth_{axis}.png")
    return written
