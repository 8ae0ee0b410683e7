"""Everything that is claimed for a GPU, in one command, unattended, within its time budget.

    python benchmarks/gpu.py --out gpu-results              # a CUDA machine, under 8 minutes
    python benchmarks/gpu.py --device cpu --quick           # the same code, tiny, without a GPU

First the Triton kernels are compared with their references on the device itself; then come the
rows, most wanted first. Each part runs in a process of its own, which is ended when its time is
over, so that one that hangs, fails or runs out of memory costs only itself. A row that was not
measured says why. The exit status is 1 where an equivalence check is red (no speed is printed for
what it covers) or a part failed.

Without a GPU the kernels run in Triton's interpreter, which checks them and says nothing of speed.
"""

import argparse
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spikevideoformer.bench.gpu_rows import gpu_clip_scaling, inference_of, training_step_of
from spikevideoformer.bench.kernel_rows import (
    attention,
    neuron_backward,
    neuron_forward,
    neuron_stepwise,
)
from spikevideoformer.bench.options import DifferentError, Options
from spikevideoformer.bench.results import (
    BenchResult,
    Measurement,
    Target,
    format_markdown,
    format_table,
)
from spikevideoformer.bench.run import describe_machine
from spikevideoformer.bench.timing import Spread
from spikevideoformer.ops.affine_lif import affine_lif_reference
from spikevideoformer.ops.hamming import is_exact
from spikevideoformer.ops.lif import NeuronConfig
from spikevideoformer.ops.pack import pack_spikes

EQUAL = "equal"

Row = Callable[[Options], Iterable[Measurement]]


# --- Kernels: equivalence -------------------------------------------------------------------------

CONFIGS = {
    "hard reset": NeuronConfig(),
    "soft reset": NeuronConfig(v_reset=None, decay_input=False, detach_reset=False),
    "tau 1.7, arctan": NeuronConfig(tau=1.7, v_threshold=0.3, v_reset=-0.1, surrogate="arctan"),
    "integer": NeuronConfig.integer(4),
}


def equivalence(options: Options) -> Iterator[Measurement]:
    """Kernels against references computed on the CPU: spikes bit for bit, gradients closely."""
    from spikevideoformer.ops._triton import hamming, pack

    shapes = [(16, 2, 360, 14, 14), (35, 1, 64, 28, 28), (4, 2, 72, 7, 9)]
    if options.tiny:
        shapes = [(5, 1, 24, 3, 3)]
    # a kernel is compiled for each combination, seconds each: only one neuron sees them all
    layouts = [(True, torch.float32), (True, torch.bfloat16), (False, torch.float32)]
    for i, (name, config) in enumerate(CONFIGS.items()):
        wrong: list[str] = []
        for shape in shapes if i == 0 else shapes[-1:]:
            for channels_last, dtype in layouts if i == 0 else layouts[:1]:
                wrong += _compare_neuron(options, config, shape, channels_last, dtype)
        yield _verdict(f"neuron kernel, {name}: spikes, membrane, gradients", wrong)

    s = (torch.rand(1003 if options.tiny else 10**7 + 3) < 0.2).float()
    data = pack.pack_bits(s.to(options.device))
    wrong = [] if torch.equal(data.cpu(), pack_spikes(s).data) else ["bytes differ"]
    if not torch.equal(pack.unpack_bits(data, s.numel(), s.dtype).cpu(), s):
        wrong.append("unpacked spikes differ")
    yield _verdict("packing to bits and back", wrong)

    wrong = []
    for frames in (1, 3) if options.tiny else (1, 16, 128):
        for width in (9,) if options.tiny else (32, 45, 64, 80):
            for levels in (1, 4):
                tokens = 12 if options.tiny else 196
                if not is_exact(frames * tokens, width, levels, 0):
                    continue
                shape = (1, 2, frames, tokens, width)
                q, k, v = (torch.randint(0, levels + 1, shape) for _ in range(3))
                k[:, :, : max(1, frames // 2)] = levels  # long sums
                on_device = (z.to(options.device, torch.bfloat16) for z in (q, k, v))
                got = hamming.spike_attention(
                    *on_device, a=2, o=levels, constant=0, scale=1.0, levels=levels
                )
                q, k, v = (z.double().flatten(2, 3) for z in (q, k, v))
                want = (2 * q - levels) @ ((2 * k - levels).mT @ v)
                if not torch.equal(got.cpu().double().flatten(2, 3), want):
                    wrong.append(f"T={frames}, width {width}, levels {levels}: sums differ")
    yield _verdict("attention on tensor cores: every integer", wrong)
    yield _verdict("int8 convolutions: every sum", _compare_convs(options))


def _compare_convs(options: Options) -> list[str]:
    """The layers of the 55 M network, each kind at its widest, and one of odd sizes."""
    from spikevideoformer.ops._triton import int8_conv

    # channels in and out, kernel, stride, padding, side of the image
    layers = [
        (128, 512, 3, 1, 1, 56),
        (512, 128, 3, 1, 1, 56),
        (256, 512, 3, 2, 1, 28),
        (640, 2560, 1, 1, 0, 14),
        (512, 512, 1, 1, 1, 14),
        (45, 70, 3, 2, 0, 13),
    ]
    if options.tiny:
        layers = [(24, 40, 3, 2, 1, 5)]
    wrong = []
    for channels, out, kernel, stride, padding, side in layers:
        for levels in (1, 4, 255):
            spikes = torch.randint(levels + 1, (2, channels, side, side), dtype=torch.uint8)
            spikes[0] = levels
            weight = torch.randint(-127, 128, (out, channels, kernel, kernel), dtype=torch.int8)
            on_device = (z.to(options.device) for z in (spikes, weight))
            got = int8_conv.int8_conv(*on_device, [stride] * 2, [padding] * 2, levels)
            want = F.conv2d(spikes.double(), weight.double(), None, stride, padding).float()
            if not torch.equal(got.cpu(), want):
                wrong.append(f"{channels} to {out}, kernel {kernel}, spikes to {levels} differ")
    return wrong


def _compare_neuron(
    options: Options,
    config: NeuronConfig,
    shape: tuple[int, ...],
    channels_last: bool,
    dtype: torch.dtype,
) -> list[str]:
    from spikevideoformer.ops._triton import lif as kernel

    x = (torch.randn(shape) + 0.3).to(dtype)
    residual = torch.randn(shape) if dtype == torch.float32 else None
    scale, shift = 1 + 0.3 * torch.randn(shape[2]), 0.2 * torch.randn(shape[2])
    if channels_last:
        x = _channels_last(x)
        residual = None if residual is None else _channels_last(residual)
    leaves: list[Any] = [
        None if z is None else z.float().requires_grad_() for z in (x, scale, shift, residual)
    ]
    want: Any = affine_lif_reference(
        leaves[0], config, scale=leaves[1], shift=leaves[2], residual=leaves[3]
    )
    on: list[Any] = [
        None if z is None else z.to(options.device) for z in (x, scale, shift, residual)
    ]
    spikes, v, y = kernel.forward(on[0], on[1], on[2], on[3], None, torch.float32, config)
    where = f"{list(shape)}, {'channels last' if channels_last else 'contiguous'}, {dtype}"
    wrong = []
    flipped = int((spikes.cpu() != want.spikes).sum())
    if flipped:
        wrong.append(f"{where}: {flipped} of {spikes.numel()} spikes differ")
    if not torch.equal(v.cpu(), want.v):
        wrong.append(f"{where}: last membranes differ")
    if y is not None and not torch.equal(y.cpu(), want.y):
        wrong.append(f"{where}: residual streams differ")
    g, gv = torch.randn_like(x), torch.randn_like(want.v)
    used = [z for z in leaves if z is not None]
    wanted = torch.autograd.grad([want.spikes, want.v], used, [g.float(), gv])
    grad_y, grad_x, _, grad_shift, grad_scale = kernel.backward(
        g.to(options.device), gv.to(options.device), None, on[0], y, on[1], on[2], None, None,
        residual is not None, True, config,
    )  # fmt: skip
    got: list[Any] = [grad_x, grad_scale, grad_shift] + ([] if residual is None else [grad_y])
    for name, a, b in zip(("x", "scale", "shift", "residual"), got, wanted, strict=False):
        error = ((a.cpu().double() - b).norm() / b.norm()).item()
        accepted = 1e-2 if dtype == torch.bfloat16 and name == "x" else 1e-5
        if not error < accepted:  # NaN too
            wrong.append(f"{where}: gradient of {name} off by {error:.1e}")
    return wrong


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


def _verdict(work: str, wrong: Sequence[str]) -> Measurement:
    return Measurement(
        row="equivalence",
        work=work,
        against="its reference on the CPU",
        ratio_of="",
        why_not=f"RED: {'; '.join(wrong[:3])}" if wrong else EQUAL,
    )


# --- Parts, each in a process of its own ----------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A part as the parent sees it.

    Attributes:
        run: what the child does.
        limit_s: after which the child is ended.
        needs_triton: whether it cannot run without.
    """

    run: Row
    limit_s: float
    needs_triton: bool = False


def _chain(*rows: Row) -> Row:
    return lambda options: chain.from_iterable(row(options) for row in rows)


# most wanted first
PARTS = {
    "equivalence": Part(equivalence, 90, needs_triton=True),
    "neuron_kernels": Part(_chain(neuron_forward, neuron_backward), 75, needs_triton=True),
    "attention": Part(attention, 40),
    "inference_1": Part(partial(inference_of, clips=1, precisions=("bf16", "int8")), 80),
    "training_15m": Part(partial(training_step_of, name="svf_15m"), 120),
    "clip": Part(gpu_clip_scaling, 40),
    "inference_64": Part(partial(inference_of, clips=64, precisions=("bf16",)), 90),
    "training_55m": Part(partial(training_step_of, name="svf_55m"), 120),
    "stepwise": Part(neuron_stepwise, 40),
    # apart from bf16, since each graph keeps its memory
    "int8_64": Part(partial(inference_of, clips=64, precisions=("int8",)), 90),
}


def run_child(name: str, options: Options, result: Path) -> None:
    """Run one part and write down each measurement as it is made."""
    torch.manual_seed(0)
    if options.device == "cuda":
        torch.backends.cudnn.benchmark = True
    found: list[dict[str, Any]] = []
    for measurement in _measured(name, options):
        found.append(measurement.to_dict())
        temporary = result.with_suffix(".new")
        temporary.write_text(json.dumps(found), "utf-8")
        temporary.replace(result)


def _measured(name: str, options: Options) -> Iterator[Measurement]:
    """Measurements as they are made; a difference that a check finds is the last."""
    try:
        yield from PARTS[name].run(options)
    except DifferentError as error:
        yield Measurement(row=name, work=f"part {name}", against="-", why_not=str(error))


def run_part(name: str, options: Options, seconds: float) -> tuple[list[Measurement], bool]:
    """Start the child; its measurements, and whether it ended well."""

    def missing(why: str) -> Measurement:
        return Measurement(row=name, work=f"part {name}", against="-", why_not=why)

    spec = PARTS[name]
    if spec.needs_triton and importlib.util.find_spec("triton") is None:
        return [missing("not measured: triton is not installed")], True
    if seconds < min(20, spec.limit_s):
        return [missing("not measured: the time budget is spent")], True
    limit = min(spec.limit_s, seconds)
    environment = dict(os.environ)
    if options.device == "cpu":
        environment["TRITON_INTERPRET"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, __file__, "--device", options.device, "--part", name]
        command += ["--result", str(result)] + (["--quick"] if options.tiny else [])
        why = ""
        # a group of its own, so that what compiles kernels for it ends with it
        child = subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            _, errors = child.communicate(timeout=limit)
            if child.returncode:
                last = (errors.strip() or "no message").splitlines()[-1]
                why = f"FAILED with status {child.returncode}: {last}"
                print(errors[-3000:], file=sys.stderr)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            why = f"not measured: stopped after {limit:.0f} s"
        found = json.loads(result.read_text("utf-8")) if result.exists() else []
    measurements = [_from_dict(values) for values in found]
    if options.tiny:  # targets are for the full sizes
        measurements = [replace(m, target=None) for m in measurements]
    if why:
        measurements.append(missing(why))
    return measurements, not why.startswith("FAILED")


def _from_dict(values: dict[str, Any]) -> Measurement:
    values = {k: v for k, v in values.items() if k != "met"}
    for key, kind in (("ratio", Spread), ("target", Target)):
        if values[key] is not None:
            values[key] = kind(**values[key])
    return Measurement(**values)


def main() -> int:
    """Run all parts within the budget; 1 where something is red or failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, few rounds")
    parser.add_argument("--budget-s", type=float, default=460, help="seconds for everything")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, help="folder for gpu.json, gpu.txt and gpu.md")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device; --device cpu --quick checks the code without one")
    if args.device == "cpu" and not args.quick:
        parser.error("--device cpu checks the code only; add --quick")
    if not (math.isfinite(args.budget_s) and args.budget_s > 0):
        parser.error(f"--budget-s is {args.budget_s}; expected seconds, above 0")
    options = Options(
        device=args.device, tiny=args.quick, quick=args.quick, rounds=2 if args.quick else None
    )
    if args.part:
        run_child(args.part, options, args.result)
        return 0
    begin = time.monotonic()
    measurements: list[Measurement] = []
    well, unchecked = True, False
    for name in args.parts:
        left = args.budget_s - (time.monotonic() - begin)
        if unchecked:
            why = "not measured: the equivalence of the kernels is red, or its check did not end"
            found = [Measurement(row=name, work=f"part {name}", against="-", why_not=why)]
        else:
            found, ended_well = run_part(name, options, left)
            well &= ended_well
        if name == "equivalence":
            verdicts = (EQUAL, "not measured: triton is not installed")
            unchecked = any(m.why_not not in verdicts for m in found)
        measurements += found
        print(f"[{time.monotonic() - begin:4.0f} s] {name}", file=sys.stderr, flush=True)
        if args.out is not None:
            _write(args.out, options, measurements)
    print(format_table(measurements))
    return 0 if well and not any(_is_red(m) for m in measurements) else 1


def _is_red(measurement: Measurement) -> bool:
    """Whether a check found a difference: what is left once all else has been told apart."""
    why_not = measurement.why_not
    return why_not is not None and why_not != EQUAL and not why_not.startswith("not measured")


def _write(folder: Path, options: Options, measurements: list[Measurement]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    machine = {**describe_machine(), "device": options.device}
    result = BenchResult(machine=machine, quick=options.tiny, measurements=tuple(measurements))
    (folder / "gpu.json").write_text(json.dumps(result.to_dict(), indent=1) + "\n", "utf-8")
    (folder / "gpu.txt").write_text(format_table(measurements) + "\n", "utf-8")
    (folder / "gpu.md").write_text(format_markdown(measurements) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
