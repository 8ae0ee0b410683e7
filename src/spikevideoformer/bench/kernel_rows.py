"""Rows on kernels alone: the neuron and attention."""

import os
import shutil
from collections.abc import Callable
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
from spikevideoformer.bench.results import Measurement, Target
from spikevideoformer.bench.timing import ratios, time_in_turn
from spikevideoformer.nn.attention import from_tokens, to_tokens
from spikevideoformer.ops.affine_lif import affine_lif, affine_lif_reference
from spikevideoformer.ops.hamming import hamming_attention
from spikevideoformer.ops.lif import NeuronConfig, lif_reference
from spikevideoformer.ops.pack import pack_spikes

# [T, B, C, H, W]: inside the 15 M network at T = 16, 224x224, from a piece of stage 1 to stage 4
NEURON_SHAPES = (
    (4, 1, 128, 112, 112),
    (16, 1, 128, 56, 56),
    (16, 1, 512, 28, 28),
    (16, 1, 360, 14, 14),
)
NEURON_DTYPES = (
    (torch.float32, torch.float32),
    (torch.float32, torch.uint8),
    (torch.bfloat16, torch.bfloat16),
)


def neuron_forward(options: Options) -> list[Measurement]:
    """The neuron kernel against a copy of as many bytes as it reads and writes."""
    config, device = NeuronConfig(), options.device
    shapes = NEURON_SHAPES[1:3] if options.quick else NEURON_SHAPES
    found = []
    for shape in shapes:
        for dtype, spike_dtype in NEURON_DTYPES:
            x = (0.5 + torch.randn(shape)).to(device, dtype)
            x = (
                x.flatten(0, 1)
                .contiguous(memory_format=torch.channels_last)
                .unflatten(0, shape[:2])
            )
            scale, shift = (torch.randn(2, shape[2]) * 0.1 + 1).to(device).unbind()
            # half precision is integrated in float32
            wanted = affine_lif_reference(x.float(), config, scale=scale, shift=shift)

            def ours(x: Tensor = x, a: Tensor = scale, b: Tensor = shift) -> object:
                return affine_lif(x, config, scale=a, shift=b, spike_dtype=spike_dtype)  # noqa: B023

            got = affine_lif(x, config, scale=scale, shift=shift, spike_dtype=spike_dtype)
            flipped = int((got.spikes.float() != wanted.spikes).sum())
            label = f"{_short(dtype)} in, {_short(spike_dtype)} spikes, {list(shape)}"
            base = Measurement(
                row="neuron_forward",
                work=f"BN + LIF forward ({device}), {label}",
                against="copying its input and output bytes",
                ratio_of="times the time",
                target=Target(bound="at most", value=1.3),
                why_not=f"{flipped} spikes differ from the reference: no ratio",
            )
            if flipped:
                found.append(base)
                continue
            # a copy reads and writes the same number of bytes: half of all that the kernel moves
            moved = x.numel() * (x.element_size() + got.spikes.element_size())
            source = torch.zeros(moved // 2, dtype=torch.uint8, device=device)
            seconds = time_in_turn(
                {"ours": ours, "copy": source.clone},
                rounds=options.rounds_of(9, 25),
                least_s=0.02,
                device=device,
            )
            found.append(
                replace(
                    base,
                    why_not=None,
                    ratio=ratios(seconds["ours"], seconds["copy"]),
                    equivalence="no spike differs from the reference",
                    details={"seconds": seconds, "bytes": moved},
                )
            )
    return found


def neuron_stepwise(options: Options) -> list[Measurement]:
    """The neuron kernel against SpikingJelly's neuron and a compiled stepwise one."""
    config, device = NeuronConfig(), options.device
    shape = NEURON_SHAPES[1]
    x = (0.5 + torch.randn(shape)).to(device)
    wanted, _ = lif_reference(x, config)

    def ours() -> Tensor:
        return affine_lif(x, config).spikes

    found = []
    builders = {"SpikingJelly's neuron": _their_neuron, "the reference, torch.compile": _compiled}
    if options.quick:  # compiling takes a minute or more
        builders.popitem()
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
            found.append(replace(base, why_not=f"not measured: {error}"))
            continue
        with torch.no_grad():
            flipped = int((call() != wanted).sum() + (ours() != wanted).sum())
            if flipped:
                found.append(replace(base, why_not=f"{flipped} spikes differ: no ratio"))
                continue
            seconds = time_in_turn(
                {"ours": ours, "theirs": call},
                rounds=options.rounds_of(5, 15),
                least_s=0.02,
                device=device,
            )
        found.append(
            replace(
                base,
                why_not=None,
                ratio=ratios(seconds["theirs"], seconds["ours"]),
                equivalence="no spike differs",
                details={"seconds": seconds},
            )
        )
    return found


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


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


ATTENTION_FRAMES = (8, 16, 32, 64, 128)


def attention(options: Options) -> list[Measurement]:
    """Hamming attention of bytes against softmax attention at T = 128, and its growth with T."""
    heads, width, tokens = 8, 32, 14 * 14
    device, longest = options.device, options.frames or ATTENTION_FRAMES[-1]
    generator = torch.Generator().manual_seed(0)

    def spikes(frames: int) -> list[Tensor]:
        shape = (1, heads, frames * tokens, width)
        fired = [torch.rand(shape, generator=generator) < 0.2 for _ in "qkv"]
        return [z.to(device, torch.uint8) for z in fired]  # as neurons of the engines fire

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return hamming_attention(q, k, v, scale=1 / (2 * heads * width))

    few = spikes(2)
    exact = hamming_attention(
        *(z.double() for z in few), scale=1 / (2 * heads * width), order="quadratic"
    )
    worst = (ours(*few).double() - exact).abs().max().item()
    work = f"attention ({device}) from bytes, T={longest}, 14x14 tokens, 8 heads of 32"
    base = Measurement(
        row="attention",
        work=work,
        against="softmax attention (SDPA)",
        target=Target(bound="at least", value=10),
        why_not=f"differs from the quadratic order in float64 by {worst:.1e}: no ratio",
    )
    if worst > 1e-6 * exact.abs().max().item():
        return [base]
    same = f"equals the quadratic order in float64 within {worst:.1e}"
    clips = {t: spikes(t) for t in (*(t for t in ATTENTION_FRAMES if t < longest), longest)}
    q, k, v = clips[max(clips)]
    floats = q.float(), k.float(), v.float()
    options.say("timing softmax attention")
    with torch.inference_mode():
        seconds = time_in_turn(
            {
                "ours": lambda: ours(q, k, v),
                "sdpa": lambda: F.scaled_dot_product_attention(*floats),
            },
            rounds=options.rounds_of(2, 5),
            device=device,
        )
        options.say("timing ours over T")
        over_t = time_in_turn(
            {str(t): (lambda c=c: ours(*c)) for t, c in clips.items()},  # type: ignore[misc]
            rounds=options.rounds_of(9, 25),
            warm_up=2,
            least_s=0.05,
            device=device,
        )
    short = min(clips)
    growth = ratios(
        [s * short for s in over_t[str(longest)]], [s * longest for s in over_t[str(short)]]
    )
    per_frame = {t: [s / int(t) for s in values] for t, values in over_t.items()}
    return [
        replace(
            base,
            why_not=None,
            ratio=ratios(seconds["sdpa"], seconds["ours"]),
            equivalence=same,
            details={"seconds": seconds},
        ),
        replace(
            base,
            against=f"itself at T={short}",
            ratio_of="times the time per frame",
            target=Target(bound="at most", value=1.05),
            why_not=None,
            ratio=growth,
            equivalence=same,
            details={"seconds_per_frame": per_frame},
        ),
    ]


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
                base = replace(
                    base,
                    why_not=None,
                    ratio=ratios(seconds["float32"], seconds[name]),
                    equivalence="no number differs",
                    details={"seconds": seconds},
                )
            found.append(base)
    return found
