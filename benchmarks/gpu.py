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
import copy
import importlib.metadata
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevideoformer.bench.baselines import (
    BaselineMissingError,
    PublishedStructure,
    _Attention,
    spikingjelly_model,
    spikingjelly_version,
)
from spikevideoformer.bench.inputs import lively_model, random_video
from spikevideoformer.bench.network_rows import (
    check_engine,
    check_same_function,
    check_same_gradients,
)
from spikevideoformer.bench.options import DifferentError
from spikevideoformer.bench.results import (
    BenchResult,
    Measurement,
    Target,
    format_markdown,
    format_table,
)
from spikevideoformer.bench.timing import (
    Call,
    Spread,
    peak_memory_cuda,
    ratios,
    time_in_turn,
)
from spikevideoformer.deploy.engine import InferenceEngine
from spikevideoformer.deploy.graphs import GraphedModel
from spikevideoformer.deploy.int8 import int8_available, int8_conv_reference
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.neuron import Neuron
from spikevideoformer.ops.affine_lif import affine_lif_reference
from spikevideoformer.ops.hamming import hamming_attention, is_exact
from spikevideoformer.ops.lif import NeuronConfig, lif, lif_reference, neuron_args
from spikevideoformer.ops.pack import pack_spikes

RED = "RED: "


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and how large.

    Attributes:
        device: cuda or cpu.
        quick: tiny shapes and few rounds.
    """

    device: str
    quick: bool

    @property
    def can_time_kernels(self) -> bool:
        """Whether Triton kernels run as they are meant to."""
        return self.device == "cuda"

    def pick(self, full: Any, quick: Any) -> Any:
        """The one that applies."""
        return quick if self.quick else full


Part = Callable[[Setting], Iterator[Measurement]]


def _time(setting: Setting, calls: dict[str, Call], rounds: int, **options: Any) -> dict[str, Any]:
    return time_in_turn(
        calls, rounds=setting.pick(rounds, 2), device=setting.device, least_s=0.02, **options
    )


# --- Kernels: equivalence -------------------------------------------------------------------------

CONFIGS = {
    "hard reset": NeuronConfig(),
    "soft reset": NeuronConfig(v_reset=None, decay_input=False, detach_reset=False),
    "tau 1.7, arctan": NeuronConfig(tau=1.7, v_threshold=0.3, v_reset=-0.1, surrogate="arctan"),
    "integer": NeuronConfig.integer(4),
}


def equivalence(setting: Setting) -> Iterator[Measurement]:
    """Kernels against references computed on the CPU: spikes bit for bit, gradients closely."""
    from spikevideoformer.ops._triton import hamming, pack

    shapes = setting.pick(
        [(16, 2, 360, 14, 14), (35, 1, 64, 28, 28), (4, 2, 72, 7, 9)], [(5, 1, 24, 3, 3)]
    )
    # a kernel is compiled for each combination, seconds each: only one neuron sees them all
    layouts = [(True, torch.float32), (True, torch.bfloat16), (False, torch.float32)]
    for i, (name, config) in enumerate(CONFIGS.items()):
        wrong: list[str] = []
        for shape in shapes if i == 0 else shapes[-1:]:
            for channels_last, dtype in layouts if i == 0 else layouts[:1]:
                wrong += _compare_neuron(setting, config, shape, channels_last, dtype)
        yield _verdict(f"neuron kernel, {name}: spikes, membrane, gradients", wrong)

    s = (torch.rand(setting.pick(10**7 + 3, 1003)) < 0.2).float()
    data = pack.pack_bits(s.to(setting.device))
    wrong = [] if torch.equal(data.cpu(), pack_spikes(s).data) else ["bytes differ"]
    if not torch.equal(pack.unpack_bits(data, s.numel(), s.dtype).cpu(), s):
        wrong.append("unpacked spikes differ")
    yield _verdict("packing to bits and back", wrong)

    wrong = []
    frames_of = setting.pick((1, 16, 128), (1, 3))
    for frames in frames_of:
        for width in setting.pick((32, 45, 64, 80), (9,)):
            for levels in (1, 4):
                tokens = setting.pick(196, 12)
                if not is_exact(frames * tokens, width, levels, 0):
                    continue
                shape = (1, 2, frames, tokens, width)
                q, k, v = (torch.randint(0, levels + 1, shape) for _ in range(3))
                k[:, :, : max(1, frames // 2)] = levels  # long sums
                on_device = (z.to(setting.device, torch.bfloat16) for z in (q, k, v))
                got = hamming.spike_attention(
                    *on_device, a=2, o=levels, constant=0, scale=1.0, levels=levels
                )
                q, k, v = (z.double().flatten(2, 3) for z in (q, k, v))
                want = (2 * q - levels) @ ((2 * k - levels).mT @ v)
                if not torch.equal(got.cpu().double().flatten(2, 3), want):
                    wrong.append(f"T={frames}, width {width}, levels {levels}: sums differ")
    yield _verdict("attention on tensor cores: every integer", wrong)
    yield _verdict("int8 convolutions: every sum", _compare_convs(setting))


def _compare_convs(setting: Setting) -> list[str]:
    """The layers of the 55 M network, each kind at its widest, and one of odd sizes."""
    from spikevideoformer.ops._triton import int8_conv

    # channels in and out, kernel, stride, padding, groups, side of the image
    layers = setting.pick(
        [
            (128, 512, 3, 1, 1, 1, 56),
            (512, 128, 3, 1, 1, 1, 56),
            (256, 512, 3, 2, 1, 1, 28),
            (640, 2560, 1, 1, 0, 1, 14),
            (512, 512, 1, 1, 1, 1, 14),
            (512, 512, 7, 1, 3, 512, 28),
            (45, 70, 3, 2, 0, 1, 13),
        ],
        [(24, 40, 3, 2, 1, 1, 5), (9, 9, 7, 1, 3, 9, 5)],
    )
    wrong = []
    for channels, out, kernel, stride, padding, groups, side in layers:
        for levels in (1, 4, 255):
            spikes = torch.randint(levels + 1, (2, channels, side, side), dtype=torch.uint8)
            spikes[0] = levels
            weight = torch.randint(
                -127, 128, (out, channels // groups, kernel, kernel), dtype=torch.int8
            )
            step, bias = 0.01 * torch.rand(out) + 0.001, torch.randn(out)
            form = ([stride] * 2, [padding] * 2, groups)
            on_device = (z.to(setting.device) for z in (spikes, weight, step, bias))
            got = int8_conv.int8_conv(*on_device, *form, torch.float32, levels)
            sums = int8_conv_reference(
                spikes, weight, torch.ones(out), stride=stride, padding=padding, groups=groups
            )
            want = sums.float() * step[:, None, None] + bias[:, None, None]
            if not torch.equal(got.cpu(), want):
                wrong.append(f"{channels} to {out}, kernel {kernel}, spikes to {levels} differ")
    return wrong


def _compare_neuron(
    setting: Setting,
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
    leaves = [
        None if z is None else z.float().requires_grad_() for z in (x, scale, shift, residual)
    ]
    want = affine_lif_reference(
        leaves[0], config, scale=leaves[1], shift=leaves[2], residual=leaves[3]
    )
    on = [None if z is None else z.to(setting.device) for z in (x, scale, shift, residual)]
    neuron = neuron_args(config)
    spikes, v, y = kernel.forward(*on, None, torch.float32, *neuron)
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
        g.to(setting.device), gv.to(setting.device), None, on[0], y, on[1], on[2], None, None,
        residual is not None, True, *neuron,
    )  # fmt: skip
    got = [grad_x, grad_scale, grad_shift] + ([] if residual is None else [grad_y])
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
        why_not=f"{RED}{'; '.join(wrong[:3])}" if wrong else "equal",
    )


# --- Kernels: speed -------------------------------------------------------------------------------


def neuron_kernels(setting: Setting) -> Iterator[Measurement]:
    """Forward and backward against a copy of the bytes that they read and write."""
    shapes = setting.pick(
        # [T, B, C, H, W] of the 55 M network; each several times the L2 cache
        [(16, 8, 512, 56, 56), (16, 64, 640, 14, 14), (32, 4, 512, 56, 56)],
        [(4, 1, 24, 4, 4)],
    )
    kinds = [
        (torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.uint8),
        (torch.float32, torch.float32),
    ]
    for shape in shapes:
        for dtype, spike_dtype in kinds:
            yield from _neuron(setting, shape, dtype, spike_dtype)


def _neuron(
    setting: Setting, shape: tuple[int, ...], dtype: torch.dtype, spike_dtype: torch.dtype
) -> Iterator[Measurement]:
    from spikevideoformer.ops._triton import lif as kernel

    neuron = neuron_args(NeuronConfig())
    x = _channels_last(torch.randn(shape, device=setting.device).to(dtype))
    affine = (1 + 0.1 * torch.randn(2, shape[2], device=setting.device)).unbind()
    label = f"{str(dtype)[6:]} in, {str(spike_dtype)[6:]} spikes, {list(shape)}"

    def forward() -> object:
        return kernel.forward(x, *affine, None, None, spike_dtype, *neuron)

    moved = x.numel() * (x.element_size() + spike_dtype.itemsize)
    yield _against_copy(setting, f"BN + LIF forward, {label}", forward, moved)
    if spike_dtype == torch.uint8:
        return
    g = torch.randn_like(x)

    def backward() -> object:
        rest = (None, None, x, None, *affine, None, None, False, True)
        return kernel.backward(g, *rest, *neuron)

    moved = 3 * x.numel() * x.element_size()
    yield _against_copy(setting, f"BN + LIF backward with its sums, {label}", backward, moved)


def _against_copy(setting: Setting, work: str, call: Call, moved: int) -> Measurement:
    base = Measurement(
        row="neuron_kernels",
        work=work,
        against="copying as many bytes",
        ratio_of="times the time",
        target=Target(bound="at most", value=1.3),
        why_not="not measured: the interpreter has no speed",
    )
    if not setting.can_time_kernels:
        call()
        return base
    source = torch.randint(255, (moved // 2,), dtype=torch.uint8, device=setting.device)
    seconds = _time(setting, {"ours": call, "copy": source.clone}, rounds=11, warm_up=3)
    best = min(seconds["copy"])
    return replace(
        base,
        why_not=None,
        ratio=ratios(seconds["ours"], seconds["copy"]),
        equivalence="checked above",
        details={"seconds": seconds, "copy_tb_per_s": moved / best / 1e12},
    )


def attention(setting: Setting) -> Iterator[Measurement]:
    """Hamming attention against softmax attention, and its growth with T."""
    lengths = setting.pick((8, 16, 32, 64, 128), (2, 4))
    tokens, dtype = setting.pick(196, 9), torch.bfloat16
    for heads, width in setting.pick([(8, 32), (8, 64)], [(2, 8)]):
        scale = 1 / (2 * heads * width)

        def spikes(frames: int) -> list[Tensor]:
            shape = (1, heads, frames * tokens, width)  # noqa: B023
            return [(torch.rand(shape, device=setting.device) < 0.2).to(dtype) for _ in range(3)]

        clips = {t: spikes(t) for t in lengths}

        def ours(z: list[Tensor]) -> Tensor:
            return hamming_attention(*z, scale=scale)  # noqa: B023

        work = f"attention, T={lengths[-1]}, {tokens} tokens a frame, {heads} heads of {width}"
        base = Measurement(
            row="attention",
            work=work,
            against="softmax attention (SDPA), bfloat16",
            target=Target(bound="at least", value=10),
            why_not="",
        )
        few = [z[..., : 2 * tokens, :] for z in clips[lengths[0]]]
        exact = hamming_attention(*(z.double() for z in few), scale=scale, order="quadratic")
        worst = (ours(few).double() - exact).abs().max().item()
        if not worst <= 1e-6 * exact.abs().max().item():
            yield replace(base, why_not=f"{RED}differs from the quadratic order by {worst:.1e}")
            continue
        longest = clips[lengths[-1]]
        with torch.inference_mode():
            seconds = _time(
                setting,
                {
                    "ours": lambda: ours(longest),  # noqa: B023
                    "sdpa": lambda: F.scaled_dot_product_attention(*longest),  # noqa: B023
                },
                rounds=9,
            )
            over_t = _time(
                setting,
                {str(t): (lambda z=z: ours(z)) for t, z in clips.items()},  # type: ignore[misc]
                rounds=9,
            )
        same = f"equals the quadratic order in float64 within {worst:.1e}"
        yield replace(
            base,
            why_not=None,
            ratio=ratios(seconds["sdpa"], seconds["ours"]),
            equivalence=same,
            details={"seconds": seconds},
        )
        yield from _attention_in_place(setting, base, clips[lengths[-1]], exact, few)
        # short clips take as long as their kernels take to start: T = 32 fills the device
        short = setting.pick(32, lengths[0])
        yield replace(
            base,
            against=f"itself at T={short}",
            ratio_of="times the time per frame",
            target=Target(bound="at most", value=1.05),
            why_not=None,
            ratio=ratios(
                [s * short for s in over_t[str(lengths[-1])]],
                [s * lengths[-1] for s in over_t[str(short)]],
            ),
            equivalence=same,
            details={"seconds": over_t},
        )


def _attention_in_place(
    setting: Setting, base: Measurement, longest: list[Tensor], exact: Tensor, few: list[Tensor]
) -> Iterator[Measurement]:
    """The kernel alone, on frames as a channels-last network holds them."""
    from spikevideoformer.ops._triton import hamming

    base = replace(base, work=f"{base.work}, kernel alone, frames where they lie")
    if not setting.can_time_kernels:
        yield replace(base, why_not="not measured: the interpreter has no speed")
        return
    heads, width = longest[0].shape[1], longest[0].shape[3]

    def kernel(z: list[Tensor]) -> Tensor:  # [1, h, N, d], in memory [N, h, d]
        scale = 1 / (2 * heads * width)
        return hamming.spike_attention(*z, a=2, o=1, constant=0, scale=scale, levels=1)

    def in_place(z: Tensor) -> Tensor:
        return z.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3).unsqueeze(2)

    got = kernel([in_place(z) for z in few]).squeeze(2)
    worst = (got.double() - exact).abs().max().item()
    if not worst <= 1e-6 * exact.abs().max().item():
        yield replace(base, why_not=f"{RED}differs from the quadratic order by {worst:.1e}")
        return
    views = [in_place(z) for z in longest]
    calls: dict[str, Call] = {
        "ours": lambda: kernel(views),
        "sdpa": lambda: F.scaled_dot_product_attention(*longest),
    }
    with torch.inference_mode():
        seconds = _time(setting, calls, rounds=9, warm_up=3)
    yield replace(
        base,
        why_not=None,
        ratio=ratios(seconds["sdpa"], seconds["ours"]),
        equivalence=f"equals the quadratic order in float64 within {worst:.1e}",
        details={"seconds": seconds},
    )


# --- Whole networks -------------------------------------------------------------------------------


def _autocast(setting: Setting) -> torch.autocast:
    return torch.autocast(setting.device, torch.bfloat16)


def _step(setting: Setting, net: nn.Module, video: Tensor) -> Call:
    """Forward, backward and AdamW step in mixed precision."""
    labels = torch.arange(len(video), device=setting.device) % 10
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-5)

    def call() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with _autocast(setting):
            loss = F.cross_entropy(net(video).float(), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return call


class _Stepwise(Neuron):
    """A neuron in plain torch, one step after the other, its gradient left to autograd."""

    def forward(self, x: Tensor, norm: nn.BatchNorm2d | None = None) -> Tensor:
        return lif_reference(x, self.config)[0]


def _baselines(
    setting: Setting, model: SpikeVideoFormer
) -> Iterator[tuple[str, nn.Module | BaselineMissingError]]:
    """What to compare with, and its name; or why it is not there."""
    cuda = setting.device == "cuda"
    if cuda:
        os.environ.setdefault("SJ_LIF_CUDA_IMPLEMENTATION", "triton")
    try:
        version = spikingjelly_version()
        if cuda and version.startswith("0."):
            raise BaselineMissingError(f"SpikingJelly {version} is installed, 2 is needed")
        net: Any = spikingjelly_model(model, "auto" if cuda else "torch")
        how = "Triton neurons, compiled" if cuda else "torch"
        yield (
            f"published structure on SpikingJelly {version}, {how}",
            torch.compile(net) if cuda else net,
        )
    except BaselineMissingError as error:
        yield "published structure on SpikingJelly 2, Triton neurons, compiled", error
    if cuda:
        plain = PublishedStructure(model, _Stepwise, _Attention)
        plain.load_state_dict({k: v.contiguous() for k, v in model.state_dict().items()})
        yield "published structure, stepwise torch neurons", plain.train(model.training)


def _check_nano(check: Callable[[SpikeVideoFormer, nn.Module], str]) -> str:
    """Whether the published structure computes what ours does, in float64 on the CPU.

    Raises:
        DifferentError: it does not.
    """
    nano = lively_model("svf_nano", num_classes=10).double()
    plain = PublishedStructure(nano, _Stepwise, _Attention)
    plain.load_state_dict(nano.state_dict())
    return check(nano, plain.eval())


def _train(setting: Setting, preset: str) -> Iterator[Measurement]:
    preset = setting.pick(preset, "svf_nano")
    frames, size = setting.pick((16, 224), (2, 32))
    base = Measurement(
        row="training",
        work=f"training step, {preset}, T={frames}, {size}x{size}, batch 1, bfloat16",
        against="",
        target=Target(bound="at least", value=2),
        why_not="",
    )
    memory = replace(
        base, ratio_of="of its peak memory", target=Target(bound="at most", value=1 / 3)
    )
    model = lively_model(preset, num_classes=10).to(setting.device).train()
    model.backbone.spike_memory = "packed"
    template = copy.deepcopy(model)
    video = random_video(1, frames, 3, size, size).to(setting.device)
    ours = _step(setting, model, video)
    own: dict[str, Any] = {"seconds": _time(setting, {"ours": ours}, rounds=7, warm_up=3)["ours"]}
    if setting.device == "cuda":
        own["peak_mib"] = peak_memory_cuda(ours) / 2**20
    try:
        same = _check_nano(check_same_gradients)
    except DifferentError as error:
        yield replace(base, why_not=f"{RED}{error}")
        return
    for name, baseline in _baselines(setting, template):
        base, memory = replace(base, against=name), replace(memory, against=name)
        if isinstance(baseline, BaselineMissingError):
            yield replace(base, why_not=f"not measured: {baseline}", details=own)
            yield replace(memory, why_not=f"not measured: {baseline}", details=own)
            continue
        theirs = _step(setting, baseline, video)
        seconds = _time(setting, {"ours": ours, "theirs": theirs}, rounds=7, warm_up=3)
        yield replace(
            base,
            why_not=None,
            ratio=ratios(seconds["theirs"], seconds["ours"]),
            equivalence=same,
            details={"seconds": seconds},
        )
        if setting.device != "cuda":
            yield replace(memory, why_not="not measured: svf bench measures memory on a CPU")
            continue
        peaks = {"ours": peak_memory_cuda(ours), "theirs": peak_memory_cuda(theirs)}
        yield replace(
            memory,
            why_not=None,
            ratio=Spread.of([peaks["ours"] / peaks["theirs"]]),
            equivalence=same,
            details={"peak_mib": {k: v / 2**20 for k, v in peaks.items()}},
        )


def training_15m(setting: Setting) -> Iterator[Measurement]:
    """A training step of the 15 M network."""
    yield from _train(setting, "svf_15m")


def training_55m(setting: Setting) -> Iterator[Measurement]:
    """A training step of the 55 M network."""
    yield from _train(setting, "svf_55m")


def _ours(
    setting: Setting, model: SpikeVideoFormer, video: Tensor, precision: str = "bf16"
) -> Call:
    """Inference as we recommend it: a CUDA graph, in bfloat16 or int8."""
    if setting.device == "cuda":
        graphed = GraphedModel(model, video, precision)  # type: ignore[arg-type]
        wanted = graphed.eager(video)
        error = ((graphed(video) - wanted).norm() / wanted.norm()).item()
        if not error < 1e-2:  # the same kernels: expected to be 0
            raise DifferentError(f"a replay differs from the eager network by {error:.1e}")
        return lambda: graphed(video)
    if precision == "int8":
        engine = InferenceEngine(model, precision="int8")
        return lambda: engine(video)

    def call() -> Tensor:
        with torch.no_grad(), _autocast(setting):
            logits: Tensor = model(video)
        return logits

    return call


NAMES = {"bf16": "bfloat16", "int8": "int8"}


def _infer(setting: Setting, clips: int, precisions: Sequence[str]) -> Iterator[Measurement]:
    preset = setting.pick("svf_55m", "svf_nano")
    frames, size = setting.pick((32, 224), (2, 32))
    clips = setting.pick(clips, min(clips, 2))
    bases = {
        precision: Measurement(
            row="inference",
            work=f"inference, {preset}, T={frames}, {size}x{size}, batch {clips}, "
            f"{NAMES[precision]}",
            against="",
            target=Target(bound="at least", value=3),
            why_not="",
        )
        for precision in precisions
    }
    model = lively_model(preset).to(setting.device)
    video = random_video(clips, frames, 3, size, size).to(setting.device)
    ours: dict[str, Call] = {}
    same: dict[str, str] = {}
    for precision, base in bases.items():
        if precision == "int8" and (reason := int8_available(1, setting.device)):
            yield replace(base, why_not=f"not measured: {reason}")
            continue
        try:
            same[precision] = _check_nano(check_same_function)
            if precision == "int8":
                same[precision] += f"; {check_engine('svf_nano', 'int8', 4, 64, setting.device)[0]}"
            ours[precision] = _ours(setting, model, video, precision)
        except DifferentError as error:
            yield replace(base, why_not=f"{RED}{error}")
    if not ours:
        return
    own = _time(setting, ours, rounds=7)
    for name, baseline in _baselines(setting, model):
        if isinstance(baseline, BaselineMissingError):
            for precision in ours:
                yield replace(
                    bases[precision],
                    against=name,
                    why_not=f"not measured: {baseline}",
                    details={"seconds": own[precision]},
                )
            continue

        def theirs(net: nn.Module = baseline) -> Tensor:
            with torch.no_grad(), _autocast(setting):
                logits: Tensor = net(video)
            return logits

        seconds = _time(setting, {**ours, "theirs": theirs}, rounds=7, warm_up=3)
        for precision in ours:
            yield replace(
                bases[precision],
                against=f"{name}, bfloat16" if precision == "int8" else name,
                why_not=None,
                ratio=ratios(seconds["theirs"], seconds[precision]),
                equivalence=same[precision],
                details={"seconds": seconds},
            )


def inference_1(setting: Setting) -> Iterator[Measurement]:
    """One clip."""
    yield from _infer(setting, 1, ("bf16", "int8"))


def inference_64(setting: Setting) -> Iterator[Measurement]:
    """64 clips at once."""
    yield from _infer(setting, 64, ("bf16",))


def int8_64(setting: Setting) -> Iterator[Measurement]:
    """The same in int8; apart, since each graph keeps its memory."""
    yield from _infer(setting, 64, ("int8",))


def clip(setting: Setting) -> Iterator[Measurement]:
    """A clip of four times the frames."""
    preset = setting.pick("svf_55m", "svf_nano")
    size = setting.pick(224, 32)
    short, long = setting.pick((8, 32), (2, 8))
    model = lively_model(preset).to(setting.device)
    calls = {
        str(t): _ours(setting, model, random_video(1, t, 3, size, size).to(setting.device))
        for t in (short, long)
    }
    seconds = _time(setting, calls, rounds=11)
    yield Measurement(
        row="clip",
        work=f"whole clip, {preset}, T={long}, {size}x{size}, bfloat16",
        against=f"itself at T={short}",
        ratio_of="times the time",
        target=Target(bound="at most", value=4.0),
        ratio=ratios(seconds[str(long)], seconds[str(short)]),
        equivalence="the same network",
        details={"seconds": seconds},
    )


def stepwise(setting: Setting) -> Iterator[Measurement]:
    """The neuron alone against the reference, step by step and compiled."""
    config = NeuronConfig()
    x = torch.randn(setting.pick((16, 8, 512, 28, 28), (4, 1, 8, 4, 4)), device=setting.device)
    wanted = lif_reference(x, config)[0]
    flipped = int((lif(x, config)[0] != wanted).sum())
    for name, run in (
        ("the reference, step by step", lif_reference),
        ("the reference, torch.compile", torch.compile(lif_reference)),
    ):
        base = Measurement(
            row="stepwise",
            work=f"LIF forward, float32, {list(x.shape)}",
            against=name,
            why_not=f"{RED}{flipped} spikes differ",
        )
        if flipped:
            yield base
            continue
        if "compile" in name and setting.device == "cpu":
            yield replace(base, why_not="not measured: torch.compile needs a compiler on a CPU")
            continue
        with torch.no_grad():
            calls: dict[str, Call] = {
                "ours": lambda: lif(x, config),
                "theirs": lambda run=run: run(x, config),  # type: ignore[misc]
            }
            seconds = _time(setting, calls, rounds=9, warm_up=3)
        yield replace(
            base,
            why_not=None,
            ratio=ratios(seconds["theirs"], seconds["ours"]),
            equivalence="no spike differs",
            details={"seconds": seconds},
        )


# --- Parts, each in a process of its own ----------------------------------------------------------


@dataclass(frozen=True)
class PartSpec:
    """A part as the parent sees it.

    Attributes:
        run: what the child does.
        limit_s: after which the child is ended.
        needs_triton: whether it cannot run without.
    """

    run: Part
    limit_s: float
    needs_triton: bool = False


PARTS = {
    "equivalence": PartSpec(equivalence, 90, needs_triton=True),
    "neuron_kernels": PartSpec(neuron_kernels, 75, needs_triton=True),
    "attention": PartSpec(attention, 40),
    "inference_1": PartSpec(inference_1, 80),
    "training_15m": PartSpec(training_15m, 120),
    "clip": PartSpec(clip, 40),
    "inference_64": PartSpec(inference_64, 90),
    "training_55m": PartSpec(training_55m, 120),
    "stepwise": PartSpec(stepwise, 40),
    "int8_64": PartSpec(int8_64, 90),
}


def run_child(name: str, setting: Setting, result: Path) -> None:
    """Run one part and write down each measurement as it is made."""
    torch.manual_seed(0)
    if setting.device == "cuda":
        torch.backends.cudnn.benchmark = True
    found: list[dict[str, Any]] = []
    for measurement in PARTS[name].run(setting):
        found.append(measurement.to_dict())
        temporary = result.with_suffix(".new")
        temporary.write_text(json.dumps(found), "utf-8")
        temporary.replace(result)


def run_part(name: str, setting: Setting, seconds: float) -> tuple[list[Measurement], bool]:
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
    if setting.device == "cpu":
        environment["TRITON_INTERPRET"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, __file__, "--device", setting.device, "--part", name]
        command += ["--result", str(result)] + (["--quick"] if setting.quick else [])
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
    if setting.quick:  # targets are for the full sizes
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


def _machine(setting: Setting) -> dict[str, Any]:
    about: dict[str, Any] = {"torch": torch.__version__, "device": setting.device}
    if setting.device == "cuda":
        about["gpu"] = torch.cuda.get_device_name()
    if importlib.util.find_spec("triton") is not None:
        about["triton"] = importlib.metadata.version("triton")
    return about


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
    setting = Setting(device=args.device, quick=args.quick)
    if args.part:
        run_child(args.part, setting, args.result)
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
            found, ended_well = run_part(name, setting, left)
            well &= ended_well
        if name == "equivalence":
            verdicts = ("equal", "not measured: triton is not installed")
            unchecked = any(m.why_not not in verdicts for m in found)
        measurements += found
        print(f"[{time.monotonic() - begin:4.0f} s] {name}", file=sys.stderr, flush=True)
        if args.out is not None:
            _write(args.out, setting, measurements)
    print(format_table(measurements))
    return 0 if well and not any(_is_red(m) for m in measurements) else 1


def _is_red(measurement: Measurement) -> bool:
    return (measurement.why_not or "").startswith(RED)


def _write(folder: Path, setting: Setting, measurements: list[Measurement]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    result = BenchResult(
        machine=_machine(setting), quick=setting.quick, measurements=tuple(measurements)
    )
    (folder / "gpu.json").write_text(json.dumps(result.to_dict(), indent=1) + "\n", "utf-8")
    (folder / "gpu.txt").write_text(format_table(measurements) + "\n", "utf-8")
    (folder / "gpu.md").write_text(format_markdown(measurements) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
