"""Rows on kernels alone: the neuron and attention."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spikevideoformer.bench.baselines import (
    BaselineMissingError,
    reset_spikingjelly,
    spikingjelly_neuron,
)
from spikevideoformer.bench.options import Options
from spikevideoformer.bench.results import Measurement, at_least, at_most
from spikevideoformer.bench.timing import Call, ratios, time_in_turn
from spikevideoformer.nn.attention import from_tokens, to_tokens
from spikevideoformer.ops.affine_lif import affine_lif, affine_lif_reference
from spikevideoformer.ops.hamming import hamming_attention
from spikevideoformer.ops.lif import NeuronConfig, lif_reference
from spikevideoformer.ops.pack import pack_spikes

# [T, B, C, H, W]: on a CPU inside the 15 M network at T = 16, 224x224, from a piece of stage 1 to
# stage 4; on a GPU inside the 55 M one, each several times the second-level cache
NEURON_SHAPES = {
    "cpu": (
        (4, 1, 128, 112, 112),
        (16, 1, 128, 56, 56),
        (16, 1, 512, 28, 28),
        (16, 1, 360, 14, 14),
    ),
    "cuda": ((16, 8, 512, 56, 56), (16, 64, 640, 14, 14), (32, 4, 512, 56, 56)),
    "tiny": ((3, 1, 8, 4, 4), (3, 2, 5, 3, 7)),
}
NEURON_DTYPES = {
    "cpu": (
        (torch.float32, torch.float32),
        (torch.float32, torch.uint8),
        (torch.bfloat16, torch.bfloat16),
    ),
    "cuda": (
        (torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.uint8),
        (torch.float32, torch.float32),
    ),
}


def _neuron_shapes(options: Options) -> tuple[tuple[int, ...], ...]:
    shapes = NEURON_SHAPES["tiny" if options.tiny else options.device]
    return shapes[1:3] if options.quick and not options.tiny else shapes


def _neuron_input(
    shape: tuple[int, ...], device: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Channels-last input, and scale and shift of its channels."""
    x = (0.5 + torch.randn(shape)).to(device, dtype).flatten(0, 1)
    x = x.contiguous(memory_format=torch.channels_last).unflatten(0, shape[:2])
    scale, shift = (torch.randn(2, shape[2]) * 0.1 + 1).to(device).unbind()
    return x, scale, shift


def _against_copy(
    options: Options, base: Measurement, same: str, ours: Call, moved: int
) -> Measurement:
    """Time a call that moves so many bytes; a copy reads one half of them and writes the other."""
    source = torch.randint(255, (moved // 2,), dtype=torch.uint8, device=options.device)
    seconds = time_in_turn(
        {"ours": ours, "copy": source.clone},
        rounds=options.rounds_of(9, 25),
        warm_up=3,
        least_s=0.02,
        device=options.device,
    )
    ratio = ratios(seconds["ours"], seconds["copy"])
    return base.found(ratio, same, seconds=seconds, bytes=moved)


def neuron_forward(options: Options) -> Iterator[Measurement]:
    """The neuron kernel against a copy of as many bytes as it reads and writes."""
    config, device = NeuronConfig(), options.device
    for shape in _neuron_shapes(options):
        for dtype, spike_dtype in NEURON_DTYPES[device]:
            x, scale, shift = _neuron_input(shape, device, dtype)

            def ours(
                x: Tensor = x, a: Tensor = scale, b: Tensor = shift, to: torch.dtype = spike_dtype
            ) -> Tensor:
                return affine_lif(x, config, scale=a, shift=b, spike_dtype=to).spikes

            label = f"{dtype} in, {spike_dtype} spikes, {list(shape)}".replace("torch.", "")
            base = Measurement(
                row="neuron_forward",
                work=f"BN + LIF forward ({device}), {label}",
                against="copying its input and output bytes",
                ratio_of="times the time",
                target=at_most(1.3),
                why_not="",
            )
            # Clips do not see each other: the first stands for all. The reference is a CPU's, whose
            # batch norm is the fused multiply-add that kernels compute; half precision is
            # integrated in float32.
            wanted = affine_lif_reference(
                x[:, :1].cpu().float(), config, scale=scale.cpu(), shift=shift.cpu()
            )
            flipped = int((ours()[:, :1].cpu().float() != wanted.spikes).sum())
            if flipped:
                why = f"{flipped} spikes differ from the reference: no ratio"
                yield replace(base, why_not=why)
                continue
            moved = x.numel() * (x.element_size() + spike_dtype.itemsize)
            yield _against_copy(options, base, "no spike differs from the reference", ours, moved)


def neuron_backward(options: Options) -> Iterator[Measurement]:
    """Gradients of input, scale and shift against a copy of what they are made of."""
    config, device = NeuronConfig(), options.device
    for shape in _neuron_shapes(options):
        for dtype in (torch.bfloat16, torch.float32):
            leaves = [z.requires_grad_() for z in _neuron_input(shape, device, dtype)]
            g = torch.randn_like(leaves[0])

            def fire(z: list[Tensor], neuron: Callable[..., Any] = affine_lif) -> Tensor:
                spikes: Tensor = neuron(z[0], config, scale=z[1], shift=z[2]).spikes
                return spikes

            base = Measurement(
                row="neuron_backward",
                work=f"BN + LIF backward with its sums ({device}), {str(dtype)[6:]}, {list(shape)}",
                against="copying three times the bytes of its input",
                ratio_of="times the time",
                target=at_most(1.3),
                why_not="",
            )
            first = [leaves[0][:, :1].detach().requires_grad_(), *leaves[1:]]
            on_cpu = [z.detach().cpu().float().requires_grad_() for z in first]
            got = torch.autograd.grad(fire(first), first, g[:, :1])
            wanted = torch.autograd.grad(
                fire(on_cpu, affine_lif_reference), on_cpu, g[:, :1].cpu().float()
            )
            off = [
                ((a.cpu().double() - b).norm() / b.norm()).item()
                for a, b in zip(got, wanted, strict=True)
            ]
            allowed = [1e-2 if dtype == torch.bfloat16 else 1e-5, 1e-5, 1e-5]
            if not all(a < b for a, b in zip(off, allowed, strict=True)):  # NaN too
                named = ", ".join(f"{error:.1e}" for error in off)
                why = f"gradients of input, scale and shift off by {named}: no ratio"
                yield replace(base, why_not=why)
                continue
            spikes = fire(leaves)

            def ours(
                spikes: Tensor = spikes, leaves: list[Tensor] = leaves, g: Tensor = g
            ) -> object:
                return torch.autograd.grad(spikes, leaves, g, retain_graph=True)

            moved = 3 * leaves[0].numel() * leaves[0].element_size()
            same = f"gradients within {max(off):.1e} of the reference"
            yield _against_copy(options, base, same, ours, moved)


def neuron_stepwise(options: Options) -> Iterator[Measurement]:
    """The neuron kernel against SpikingJelly's neuron and the reference, compiled and not."""
    config, device = NeuronConfig(), options.device
    shape = {"cpu": NEURON_SHAPES["cpu"][1], "cuda": (16, 8, 512, 28, 28)}[device]
    if options.tiny:
        shape = NEURON_SHAPES["tiny"][1]
    x = (0.5 + torch.randn(shape)).to(device)
    wanted, _ = lif_reference(x, config)

    def ours() -> Tensor:
        return affine_lif(x, config).spikes

    builders: dict[str, Callable[[NeuronConfig, Tensor], Callable[[], Tensor]]] = {
        "SpikingJelly's neuron": _their_neuron,
        "the reference, step by step": lambda config, x: lambda: lif_reference(x, config)[0],
    }
    if not options.quick:  # compiling takes a minute or more
        builders["the reference, torch.compile"] = _compiled
    for name, build in builders.items():
        base = Measurement(
            row="neuron_stepwise",
            work=f"LIF forward ({device}), float32, {list(shape)}",
            against=name,
            why_not="not measured",
        )
        try:
            call = build(config, x)
        except BaselineMissingError as error:
            yield replace(base, why_not=f"not measured: {error}")
            continue
        with torch.no_grad():
            flipped = int((call() != wanted).sum() + (ours() != wanted).sum())
            if flipped:
                yield replace(base, why_not=f"{flipped} spikes differ: no ratio")
                continue
            seconds = time_in_turn(
                {"ours": ours, "theirs": call},
                rounds=options.rounds_of(5, 15),
                warm_up=3,
                least_s=0.02,
                device=device,
            )
        ratio = ratios(seconds["theirs"], seconds["ours"])
        yield base.found(ratio, "no spike differs", seconds=seconds)


def _their_neuron(config: NeuronConfig, x: Tensor) -> Callable[[], Tensor]:
    node = spikingjelly_neuron(config).to(x.device)

    def call() -> Tensor:
        reset_spikingjelly(node)
        spikes: Tensor = node(x)
        return spikes

    return call


def _compiled(config: NeuronConfig, x: Tensor) -> Callable[[], Tensor]:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if x.device.type == "cpu" and compiler is None:
        raise BaselineMissingError("torch.compile needs a C++ compiler on a CPU; there is none")
    run = torch.compile(lambda z: lif_reference(z, config)[0])
    return lambda: run(x)


ATTENTION_FRAMES = (8, 16, 32, 64, 128)


def attention(options: Options) -> Iterator[Measurement]:
    """Hamming attention against softmax attention at T = 128, and its growth with T."""
    if options.tiny:
        yield from _attention(options, (2, 4), heads=2, width=8, side=3)
        return
    longest = options.frames or ATTENTION_FRAMES[-1]
    lengths = (*(t for t in ATTENTION_FRAMES if t < longest), longest)
    for width in (32,) if options.device == "cpu" else (32, 64):
        yield from _attention(options, lengths, heads=8, width=width, side=14)


def _attention(
    options: Options, lengths: tuple[int, ...], *, heads: int, width: int, side: int
) -> Iterator[Measurement]:
    """From bytes on a CPU, as neurons of the engines fire; in bfloat16 on a GPU."""
    device, longest, scale = options.device, lengths[-1], 1 / (2 * heads * width)
    dtype, named = (torch.uint8, "bytes") if device == "cpu" else (torch.bfloat16, "bfloat16")
    generator = torch.Generator().manual_seed(0)

    def spikes(frames: int) -> list[Tensor]:
        shape = (1, heads, frames * side**2, width)
        fired = [torch.rand(shape, generator=generator) < 0.2 for _ in "qkv"]
        return [z.to(device, dtype) for z in fired]

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return hamming_attention(q, k, v, scale=scale)

    few = spikes(2)
    exact = hamming_attention(*(z.double() for z in few), scale=scale, order="quadratic")
    base = Measurement(
        row="attention",
        work=f"attention ({device}) from {named}, T={longest}, {side}x{side} tokens, "
        f"{heads} heads of {width}",
        against="softmax attention (SDPA)",
        target=at_least(10),
        why_not="",
    )
    same, why_not = _compared(ours(*few), exact)
    if why_not:
        yield replace(base, why_not=why_not)
        return
    clips = {t: spikes(t) for t in lengths}
    # the engines' bytes stand for float32, which softmax attention takes on a CPU
    q, k, v = (z.float() if device == "cpu" else z for z in clips[longest])
    calls: dict[str, Call] = {
        "ours": lambda: ours(*clips[longest]),
        "sdpa": lambda: F.scaled_dot_product_attention(q, k, v),
    }
    options.say("timing softmax attention")
    with torch.inference_mode():
        rounds = options.rounds_of(2, 5 if device == "cpu" else 9)
        seconds = time_in_turn(calls, rounds=rounds, device=device)
        options.say("timing ours over T")
        over_t = time_in_turn(
            {str(t): (lambda c=c: ours(*c)) for t, c in clips.items()},  # type: ignore[misc]
            rounds=options.rounds_of(9, 25),
            warm_up=2,
            least_s=0.05,
            device=device,
        )
    yield base.found(ratios(seconds["sdpa"], seconds["ours"]), same, seconds=seconds)
    if device == "cuda":
        yield _attention_in_place(options, base, scale, few, exact, clips[longest])
    # on a GPU short clips take as long as their kernels take to start: T = 32 fills the device
    short = 32 if device == "cuda" and 32 in clips else min(clips)
    growth = replace(
        base,
        against=f"itself at T={short}",
        ratio_of="times the time per frame",
        target=at_most(1.05),
    )
    per_frame = {t: [s / int(t) for s in v] for t, v in over_t.items()}
    ratio = ratios(
        [s * short for s in over_t[str(longest)]], [s * longest for s in over_t[str(short)]]
    )
    yield growth.found(ratio, same, seconds_per_frame=per_frame)


def _compared(got: Tensor, exact: Tensor) -> tuple[str, str]:
    """What to say where attention is right, and where it is not."""
    worst = (got.double() - exact).abs().max().item()
    if not worst <= 1e-6 * exact.abs().max().item():  # NaN too
        return "", f"differs from the quadratic order in float64 by {worst:.1e}: no ratio"
    return f"equals the quadratic order in float64 within {worst:.1e}", ""


def _attention_in_place(
    options: Options,
    base: Measurement,
    scale: float,
    few: list[Tensor],
    exact: Tensor,
    longest: list[Tensor],
) -> Measurement:
    """The kernel alone, on frames as a channels-last network holds them."""
    from spikevideoformer.ops._triton import hamming  # needs Triton

    def in_place(z: Tensor) -> Tensor:  # [1, h, 1, N, d], in memory [N, h, d]
        return z.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3).unsqueeze(2)

    def kernel(z: list[Tensor]) -> Tensor:
        return hamming.spike_attention(*z, a=2, o=1, constant=0, scale=scale, levels=1)

    base = replace(base, work=f"{base.work}, kernel alone, frames where they lie")
    same, why_not = _compared(kernel([in_place(z) for z in few]).squeeze(2), exact)
    if why_not:
        return replace(base, why_not=why_not)
    views, (q, k, v) = [in_place(z) for z in longest], longest
    calls: dict[str, Call] = {
        "ours": lambda: kernel(views),
        "sdpa": lambda: F.scaled_dot_product_attention(q, k, v),
    }
    with torch.inference_mode():
        rounds = options.rounds_of(2, 9)
        seconds = time_in_turn(calls, rounds=rounds, warm_up=3, least_s=0.02, device=options.device)
    return base.found(ratios(seconds["sdpa"], seconds["ours"]), same, seconds=seconds)


# head width and largest spike: stages 3 and 4 of the 15 M network, and Integer-LIF
BYTE_ATTENTION = ((32, 1), (45, 1), (32, 4), (45, 4))


def attention_bytes(options: Options) -> list[Measurement]:
    """Hamming attention that adds up byte spikes, and bits, against float32 matmuls."""
    heads, frames, side = 8, options.frames or 16, 14
    cases = BYTE_ATTENTION[:2] if options.quick else BYTE_ATTENTION
    generator = torch.Generator().manual_seed(0)
    found = []
    for width, levels in cases:
        shape = (frames, 1, heads * width, side, side)

        def spikes(shape: tuple[int, ...] = shape, levels: int = levels) -> Tensor:
            """As neurons leave them: channels-last, one in five fires."""
            fired = torch.rand((levels, *shape), generator=generator) < 0.2 / levels
            images = fired.sum(0, dtype=torch.uint8).flatten(0, 1)
            return images.contiguous(memory_format=torch.channels_last).unflatten(0, shape[:2])

        as_bytes = [to_tokens(spikes(), heads, "space_time") for _ in "qkv"]
        inputs: dict[str, list[Any]] = {
            "float32": [z.float() for z in as_bytes],
            "bytes": as_bytes,
        }
        if levels == 1:
            inputs["bits"] = [pack_spikes(z) for z in as_bytes]

        def attend(z: list[Any], shape: tuple[int, ...] = shape, levels: int = levels) -> Tensor:
            y = hamming_attention(*z, scale=1 / (2 * shape[2]), levels=levels)
            return from_tokens(y, torch.Size(shape), "space_time")

        out = {name: attend(z) for name, z in inputs.items()}
        differ = [name for name, y in out.items() if not torch.equal(y, out["float32"])]
        seconds = {}
        if not differ:
            seconds = time_in_turn(
                {name: (lambda z=z: attend(z)) for name, z in inputs.items()},  # type: ignore[misc]
                rounds=options.rounds_of(15, 25),
                least_s=0.02,
            )
        for name in list(inputs)[1:]:
            base = Measurement(
                row="attention_bytes",
                work=f"attention (cpu) from {name}, T={frames}, {side}x{side} tokens, {heads} "
                f"heads of {width}, spikes 0..{levels}, a fifth fires",
                against="itself from float32 spikes, by matmuls",
                why_not=f"{' and '.join(differ)}: not the same numbers, no ratio",
            )
            if seconds:
                ratio = ratios(seconds["float32"], seconds[name])
                base = base.found(ratio, "no number differs", seconds=seconds)
            found.append(base)
    return found
