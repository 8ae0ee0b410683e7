"""Rows on whole networks: inference, training, and growth with the clip."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from spikevideoformer.bench.baselines import (
    BaselineMissingError,
    ann_model,
    compiled_spikingjelly_model,
    reset_spikingjelly,
    spikingjelly_model,
    spikingjelly_version,
    stepwise_model,
)
from spikevideoformer.bench.inputs import lively_model, random_video
from spikevideoformer.bench.options import DifferentError, Options
from spikevideoformer.bench.results import Measurement, Target, at_least, at_most
from spikevideoformer.bench.timing import Call, Spread, peak_memory, ratios, time_in_turn
from spikevideoformer.deploy.engine import InferenceEngine, Precision
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.neuron import FiringRates, Neuron, record_firing_rates
from spikevideoformer.nn.statistics import measure_statistics

MIB = 2**20


# --- Inference -------------------------------------------------------------------------------


def _baseline_name() -> str:
    return f"published structure on SpikingJelly {spikingjelly_version()}, torch"


@torch.no_grad()
def check_same_function(model: SpikeVideoFormer, baseline: nn.Module, frames: int = 4) -> str:
    """Check in float64 that both networks fire the same spikes and give the same logits.

    Raises:
        DifferentError: they do not.
    """
    video = random_video(1, frames, model.config.in_channels, 64, 64, seed=1).double()
    ours, theirs = (_spikes_of(net, video) for net in (model, baseline))
    worst = (ours.pop("logits") - theirs.pop("logits")).abs().max().item()
    if ours.keys() != theirs.keys():
        raise DifferentError("the two networks have different neurons")
    flipped = sum(int((ours[name] != theirs[name]).sum()) for name in ours)
    total = sum(spikes.numel() for spikes in ours.values())
    if flipped or worst > 1e-9:
        raise DifferentError(
            f"in float64 {flipped} of {total} spikes differ, logits by {worst:.1e}: no ratio"
        )
    return f"float64: none of {total} spikes differs, logits differ by {worst:.1e}"


def _spikes_of(net: nn.Module, video: Tensor) -> dict[str, Tensor]:
    """What every neuron fires (by name) and the logits."""
    found: dict[str, Tensor] = {}
    handles = []
    for name, module in net.named_modules():
        if isinstance(module, Neuron) or type(module).__module__.startswith("spikingjelly"):
            if "neuron" not in name.rpartition(".")[2]:
                continue  # a part of a SpikingJelly neuron, such as its surrogate

            def keep(_module: nn.Module, _args: object, out: Tensor, name: str = name) -> None:
                found[name] = out.detach().contiguous()

            handles.append(module.register_forward_hook(keep))
    found["logits"] = net(video)
    for handle in handles:
        handle.remove()
    return found


def double(
    name: str, baseline: Callable[[SpikeVideoFormer], nn.Module] = spikingjelly_model
) -> tuple[SpikeVideoFormer, nn.Module]:
    """A network and its baseline in the precision of the checks."""
    model = lively_model(name, num_classes=10).double()
    return model, baseline(model)


def network_of(side: str, model: SpikeVideoFormer) -> nn.Module:
    """What a side runs, where ``model`` is; of its parameters where it is spiking.

    Args:
        side: ours, packed (its spikes kept as bits), spikingjelly, stepwise or ann.
        model: ours; packed changes it.
    """
    device = next(model.parameters()).device
    if side == "ann":
        return ann_model(model.config, model.num_classes).to(device)
    if side == "spikingjelly":
        cuda = device.type == "cuda"
        return compiled_spikingjelly_model(model) if cuda else spikingjelly_model(model)
    if side == "stepwise":
        return stepwise_model(model)
    if side == "packed":
        model.backbone.spike_memory = "packed"
    return model


def _resetting(net: object) -> Callable[[], None]:
    """What the users of such a network call after each batch."""
    modules = net.modules() if isinstance(net, nn.Module) else ()
    if any(type(m).__module__.startswith("spikingjelly") for m in modules):
        return partial(reset_spikingjelly, net)  # type: ignore[arg-type]
    return lambda: None


def forward_call(net: Callable[[Tensor], Tensor], video: Tensor, *, half: bool = False) -> Call:
    """One forward pass; ``half`` in mixed precision."""
    reset = _resetting(net)
    autocast = torch.autocast(video.device.type, torch.bfloat16, enabled=half)

    # compiled networks, which are timed in half precision, do not like inference mode
    mode = torch.no_grad if half else torch.inference_mode

    def call() -> Tensor:
        with mode(), autocast:
            logits = net(video)
        reset()
        return logits

    return call


def _inference_call(side: str, name: str, frames: int, size: int, clips: int = 1) -> Call:
    """One forward pass on a CPU; ``side`` is a precision of the engine or of `_side`."""
    model = lively_model(name, frames=frames, size=size)
    video = random_video(clips, frames, model.config.in_channels, size, size)
    if side in get_args(Precision):
        return forward_call(InferenceEngine(model, precision=side), video)  # type: ignore[arg-type]
    net = network_of(side, model)
    if side == "ann":
        measure_statistics(net, [random_video(2, 4, model.config.in_channels, 64, 64)])
    return forward_call(net.eval(), video)


@torch.inference_mode()
def check_engine(
    name: str, precision: str, frames: int, size: int, device: str = "cpu"
) -> tuple[str, float]:
    """Spikes of the engine on a device against those of the model on a CPU; and the firing rate.

    Raises:
        DifferentError: they differ by more than the precision explains.
    """
    model = lively_model(name, frames=frames, size=size)
    video = random_video(1, frames, model.config.in_channels, size, size)
    expected, wanted = _rates(model, video)
    engine = InferenceEngine(model.to(device), precision=precision)  # type: ignore[arg-type]
    logits, rates = engine.run(video.to(device))
    logits, rates = logits.cpu(), FiringRates({n: r.cpu() for n, r in rates.per_frame.items()})
    if wanted.per_frame.keys() != rates.per_frame.keys():
        raise DifferentError("the engine reports other neurons than the model has")
    rate = sum(wanted.mean.values()) / len(wanted.mean)
    error = _relative(logits, expected)
    if precision == "exact":
        off = max((rates.per_frame[n] - r).abs().max().item() for n, r in wanted.per_frame.items())
        if off or error > 1e-5:
            raise DifferentError(
                f"the engine's firing rates differ from the model's by up to {off:.1e}, its "
                f"logits by {error:.1e}: no ratio"
            )
        return "float32: the engine fires as often as the model in every layer and frame", rate
    # An untrained network is chaotic: the last bit of a weight ends up in every logit. What can be
    # asked of rounded weights is to do no more than weights that differ by a hundred-thousandth.
    nudged = lively_model(name, frames=frames, size=size)
    torch.manual_seed(1)
    for weight in nudged.parameters():
        if weight.ndim == 4:
            weight.add_(1e-5 * weight.std() * torch.randn_like(weight))
    moved, others = _rates(nudged, video)
    off, allowed = (
        max(abs(r.mean[n] - rate_of) for n, rate_of in wanted.mean.items()) for r in (rates, others)
    )
    found = (
        f"{precision}: firing rates of layers within {off:.3f} of float32, logits {error:.0%} off "
        f"(float32 weights changed by 1e-5: {allowed:.3f} and {_relative(moved, expected):.0%})"
    )
    if off > 2 * allowed + 0.01:
        raise DifferentError(f"{found}: no ratio")
    return found, rate


def _rates(model: SpikeVideoFormer, video: Tensor) -> tuple[Tensor, FiringRates]:
    with record_firing_rates(model) as rates:
        logits = model(video)
    return logits, rates


def _relative(got: Tensor, expected: Tensor) -> float:
    return ((got - expected).norm() / expected.norm()).item()


def cpu_inference(options: Options, precision: str, target: float) -> list[Measurement]:
    """The engine in a precision of its own, against SpikingJelly; `target` times faster."""
    name, frames, size = "svf_15m", options.frames or 16, options.size or 224
    baseline = _baseline_name()
    options.say("checking that both networks fire the same spikes")
    same = _same_inference(name)
    engine, rate = check_engine(name, precision, frames, size)
    options.say("timing")
    calls = {
        "ours": _inference_call(precision, name, frames, size),
        "theirs": _inference_call("spikingjelly", name, frames, size),
    }
    seconds = time_in_turn(calls, rounds=options.rounds_of(4, 11))
    details: dict[str, Any] = {"seconds": seconds, "mean_firing_rate": rate}
    if not options.quick:
        details["shares_of_theirs"] = _shares(calls["theirs"])
    work = f"CPU inference, {precision}, 15 M, T={frames}, {size}x{size}, batch 1"
    time = Measurement(
        row=f"cpu_inference_{precision}",
        work=work,
        against=baseline,
        target=at_least(target),
        ratio=ratios(seconds["theirs"], seconds["ours"]),
        equivalence=f"{same}; {engine}",
        details=details,
    )
    calls.clear()
    options.say("measuring memory")
    peaks = {
        side: _inference_peak(kind, name, frames, size)
        for side, kind in (("ours", precision), ("theirs", "spikingjelly"))
    }
    return [time, _memory_row(time, peaks, None)]


@cache  # the same for both precisions
def _same_inference(name: str) -> str:
    return check_same_function(*double(name))


@cache
def _inference_peak(side: str, name: str, frames: int, size: int) -> int:
    return peak_memory(_inference_call, side, name, frames, size)


def _shares(call: Call) -> dict[str, float]:
    """Shares of the time of a call that go into convolutions, batch norms, and the rest."""
    with profile(activities=[ProfilerActivity.CPU]) as record:
        call()
    shares = {"convolutions": 0.0, "batch_norm": 0.0, "rest": 0.0}
    for event in record.key_averages():
        kind = "rest"
        if "convolution" in event.key:
            kind = "convolutions"
        elif "batch_norm" in event.key:
            kind = "batch_norm"
        shares[kind] += event.self_cpu_time_total
    total = sum(shares.values())
    return {kind: share / total for kind, share in shares.items()}


def _memory_row(time: Measurement, peaks: dict[str, int], target: Target | None) -> Measurement:
    """The row on memory that goes with one on time."""
    return replace(
        time,
        ratio_of="of its peak memory",
        target=target,
        ratio=Spread.of([peaks["ours"] / peaks["theirs"]]),
        details={"peak_mib": {side: peak / MIB for side, peak in peaks.items()}},
    )


def cpu_inference_ann(options: Options) -> list[Measurement]:
    """The engine against an ordinary network of the same shape, as PyTorch runs it."""
    name, frames, size = "svf_15m", options.frames or 16, options.size or 224
    sides = ("ann", "exact", "float", "int8")
    calls = {side: _inference_call(side, name, frames, size) for side in sides}
    options.say("timing")
    seconds = time_in_turn(calls, rounds=options.rounds_of(4, 11))
    return [
        Measurement(
            row="cpu_inference_ann",
            work=f"CPU inference, {side}, 15 M, T={frames}, {size}x{size}, batch 1",
            against="ANN of the same shape (ReLU, softmax attention)",
            ratio=ratios(seconds["ann"], seconds[side]),
            equivalence="another function: nothing to check",
            details={"seconds": {s: seconds[s] for s in ("ann", side)}},
        )
        for side in sides[1:]
    ]


# --- Training -------------------------------------------------------------------------------------


def step_call(net: nn.Module, video: Tensor, *, half: bool = False) -> Call:
    """Forward, backward and AdamW step; ``half`` in mixed precision."""
    reset = _resetting(net)
    labels = torch.arange(len(video), device=video.device) % 10
    # in one call on a CPU, as training has it, on both sides
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-5, fused=not video.is_cuda or None)
    autocast = torch.autocast(video.device.type, torch.bfloat16, enabled=half)

    def call() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = F.cross_entropy(net(video).float(), labels)
        loss.backward()
        optimizer.step()
        reset()
        return loss.detach()

    return call


def _training_call(side: str, name: str, frames: int, size: int, clips: int = 1) -> Call:
    """A training step on a CPU; ``side`` as in :func:`network_of`."""
    model = lively_model(name, num_classes=10, frames=frames, size=size)
    video = random_video(clips, frames, model.config.in_channels, size, size)
    return step_call(network_of(side, model).train(), video)


def check_same_gradients(model: SpikeVideoFormer, baseline: nn.Module, frames: int = 3) -> str:
    """Check in float64 that a training step sees the same loss and gradients on both sides.

    Raises:
        DifferentError: it does not.
    """
    video = random_video(2, frames, model.config.in_channels, 32, 32, seed=1).double()
    losses, gradients = [], []
    for net in (model, baseline):
        loss = F.cross_entropy(net.train()(video), torch.tensor([0, 1]))
        named = dict(net.named_parameters())
        gradients.append(
            dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
        )
        losses.append(loss.item())
    worst = max(
        ((gradients[0][n] - gradients[1][n]).norm() / (gradients[1][n].norm() + 1e-6)).item()
        for n in gradients[0]
    )
    if abs(losses[0] - losses[1]) > 1e-9 or worst > 1e-6:
        raise DifferentError(
            f"in float64 losses differ by {abs(losses[0] - losses[1]):.1e}, gradients by "
            f"{worst:.1e} of their norm: no ratio"
        )
    return f"float64: gradients of all parameters within {worst:.1e} of their norm"


def cpu_training_step(options: Options) -> list[Measurement]:
    """Time and peak memory of a training step, against SpikingJelly."""
    name, frames, size = "svf_tiny", options.frames or 8, options.size or 112
    baseline = _baseline_name()
    options.say("checking gradients")
    same = check_same_gradients(*double(name))
    options.say("timing")
    sides = ("ours", "packed", "spikingjelly")
    calls = {side: _training_call(side, name, frames, size) for side in sides}
    seconds = time_in_turn(calls, rounds=options.rounds_of(5, 15))
    calls.clear()
    options.say("measuring memory")
    peaks = {side: peak_memory(_training_call, side, name, frames, size) for side in sides}
    found = []
    for side in sides[:2]:
        memory = "spikes kept as bits" if side == "packed" else "default memory"
        time = Measurement(
            row="cpu_training_step",
            work=f"CPU training step, tiny, T={frames}, {size}x{size}, batch 1, {memory}",
            against=baseline,
            target=at_least(3),
            ratio=ratios(seconds["spikingjelly"], seconds[side]),
            equivalence=same,
            details={"seconds": {"ours": seconds[side], "theirs": seconds["spikingjelly"]}},
        )
        both = {"ours": peaks[side], "theirs": peaks["spikingjelly"]}
        found += [time, _memory_row(time, both, at_most(0.5))]
    return found


def cpu_training_ann(options: Options) -> list[Measurement]:
    """A training step against the ordinary network of the same shape."""
    name, frames, size = "svf_tiny", options.frames or 8, options.size or 112
    options.say("timing")
    calls = {side: _training_call(side, name, frames, size) for side in ("ours", "ann")}
    seconds = time_in_turn(calls, rounds=options.rounds_of(5, 15))
    calls.clear()
    time = Measurement(
        row="cpu_training_ann",
        work=f"CPU training step, tiny, T={frames}, {size}x{size}, batch 1",
        against="ANN of the same shape (ReLU, softmax attention)",
        ratio=ratios(seconds["ann"], seconds["ours"]),
        equivalence="another function: nothing to check",
        details={"seconds": seconds},
    )
    options.say("measuring memory")
    peaks = {
        side: peak_memory(_training_call, kind, name, frames, size)
        for side, kind in (("ours", "ours"), ("theirs", "ann"))
    }
    return [time, _memory_row(time, peaks, None)]


# --- Growth with the clip -------------------------------------------------------------------------


def clip_scaling(options: Options) -> list[Measurement]:
    """A whole clip of four times the frames, and in the full form time and memory against T."""
    size, name = options.size or 224, "svf_15m"
    calls = {t: _inference_call("exact", name, t, size) for t in (8, 32)}
    options.say("timing")
    seconds = time_in_turn(
        {str(t): call for t, call in calls.items()}, rounds=options.rounds_of(4, 11)
    )
    calls.clear()
    found = [
        Measurement(
            row="clip_scaling",
            work=f"whole clip, 15 M, T=32, {size}x{size}, exact",
            against="itself at T=8",
            ratio_of="times the time",
            target=at_most(4.0),
            ratio=ratios(seconds["32"], seconds["8"]),
            equivalence="the same network",
            details={"seconds": seconds},
        )
    ]
    if options.quick:
        return found
    lengths = (8, 16, 32, 64, 128)
    for side in ("exact", "int8", "spikingjelly"):
        found += _growth(options, side, [(t, 1) for t in lengths], "T", size)
    for side in ("exact", "int8"):
        found += _growth(options, side, [(8, b) for b in (1, 4, 16, 64)], "batch", size)
    return found


def _growth(
    options: Options, side: str, shapes: list[tuple[int, int]], axis: str, size: int
) -> list[Measurement]:
    """Time and peak memory per frame over T or batch, as ratios to the first shape."""
    per_frame: dict[str, float] = {}
    memory: dict[str, float] = {}
    for frames, clips in shapes:
        key = str(frames if axis == "T" else clips)
        options.say(f"{side}: T={frames}, batch {clips}")
        try:
            call = _inference_call(side, "svf_15m", frames, size, clips)
        except BaselineMissingError:
            return []
        total = min(time_in_turn({"it": call}, rounds=2)["it"])
        del call
        per_frame[key] = total / (frames * clips)
        memory[key] = peak_memory(_inference_call, side, "svf_15m", frames, size, clips) / MIB
    first, *_, last = per_frame
    base = Measurement(
        row="clip_scaling",
        work=f"15 M, {size}x{size}, {side}, {axis}={last}",
        against=f"itself at {axis}={first}",
        ratio_of="times the time per frame",
        ratio=Spread.of([per_frame[last] / per_frame[first]]),
        equivalence="the same network",
        details={"axis": axis, "side": side, "seconds_per_frame": per_frame, "peak_mib": memory},
    )
    return [
        base,
        replace(
            base,
            ratio_of="times the peak memory",
            ratio=Spread.of([memory[last] / memory[first]]),
            details={},
        ),
    ]
