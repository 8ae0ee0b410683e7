"""Rows on whole networks on a GPU: a training step and inference in mixed precision.

They run on a CPU too, to see that they do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from spikevideoformer.bench.baselines import (
    BaselineMissingError,
    spikingjelly_version,
    stepwise_model,
)
from spikevideoformer.bench.inputs import lively_model, random_video
from spikevideoformer.bench.network_rows import (
    MIB,
    check_engine,
    check_same_function,
    check_same_gradients,
    double,
    forward_call,
    network_of,
    step_call,
)
from spikevideoformer.bench.options import DifferentError, Options
from spikevideoformer.bench.results import Measurement, at_least, at_most
from spikevideoformer.bench.timing import Call, Spread, peak_memory_cuda, ratios, time_in_turn
from spikevideoformer.deploy.engine import InferenceEngine
from spikevideoformer.deploy.graphs import GraphedModel
from spikevideoformer.deploy.int8 import int8_available
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer


def _half_call(model: SpikeVideoFormer, video: Tensor, precision: str) -> Call:
    """Inference where the video is, as we recommend it, in bf16 or int8: on a GPU a CUDA graph.

    Raises:
        DifferentError: a replay of the graph differs from the network.
    """
    if video.is_cuda:
        graphed = GraphedModel(model, video, precision)  # type: ignore[arg-type]
        wanted = graphed.eager(video)
        error = ((graphed(video) - wanted).norm() / wanted.norm()).item()
        if not error < 1e-2:  # the same kernels: expected to be 0
            raise DifferentError(f"a replay differs from the eager network by {error:.1e}")
        return lambda: graphed(video)
    if precision == "int8":
        return forward_call(InferenceEngine(model, precision="int8"), video)
    return forward_call(model, video, half=True)


def _against(side: str, device: str) -> str:
    """A baseline in words; that of SpikingJelly as it is wanted where it is missing."""
    if side == "stepwise":
        return "published structure, stepwise torch neurons"
    try:
        version = spikingjelly_version()
    except BaselineMissingError:
        version = "2"
    how = "Triton neurons, compiled" if device == "cuda" else "torch"
    return f"published structure on SpikingJelly {version}, {how}"


def _baselines(
    model: SpikeVideoFormer, device: str
) -> Iterator[tuple[str, nn.Module | BaselineMissingError]]:
    """What to compare with, and its name; or why it is not there."""
    for side in ("spikingjelly", "stepwise"):
        try:
            yield _against(side, device), network_of(side, model)
        except BaselineMissingError as error:
            yield _against(side, device), error


def _seconds(options: Options, calls: dict[str, Call]) -> dict[str, list[float]]:
    return time_in_turn(
        calls,
        rounds=options.rounds_of(3, 7),
        warm_up=3,
        least_s=0.02,
        device=options.device,
    )


def gpu_training_step(options: Options) -> Iterator[Measurement]:
    """Time and peak memory of a training step of two sizes of network."""
    for name in ("svf_15m", "svf_55m"):
        yield from training_step_of(options, name)


def training_step_of(options: Options, name: str) -> Iterator[Measurement]:
    """The same of one preset, spikes kept as bits.

    Raises:
        DifferentError: the published structure has other gradients.
    """
    if options.tiny:
        name = "svf_nano"
    frames, size = _clip(options, 16)
    base = Measurement(
        row="gpu_training_step",
        work=f"training step, {name}, T={frames}, {size}x{size}, batch 1, bfloat16",
        against="",
        target=at_least(2),
        why_not="",
    )
    memory = replace(base, ratio_of="of its peak memory", target=at_most(1 / 3))
    # in float64 on the CPU, where both are exact
    same = check_same_gradients(*double("svf_nano", stepwise_model))
    on_gpu = options.device == "cuda"

    def network() -> SpikeVideoFormer:
        fresh = lively_model(name, num_classes=10, frames=frames, size=size)
        return fresh.to(options.device).train()

    video = random_video(1, frames, 3, size, size).to(options.device)
    ours = step_call(network_of("packed", network()), video, half=True)
    own: dict[str, Any] = {"seconds": _seconds(options, {"ours": ours})["ours"]}
    if on_gpu:
        own["peak_mib"] = peak_memory_cuda(ours) / MIB
    for against, baseline in _baselines(network(), options.device):
        time, peak = replace(base, against=against), replace(memory, against=against)
        if isinstance(baseline, BaselineMissingError):
            yield replace(time, why_not=f"not measured: {baseline}", details=own)
            yield replace(peak, why_not=f"not measured: {baseline}", details=own)
            continue
        theirs = step_call(baseline, video, half=True)
        seconds = _seconds(options, {"ours": ours, "theirs": theirs})
        yield time.found(ratios(seconds["theirs"], seconds["ours"]), same, seconds=seconds)
        if not on_gpu:
            yield replace(peak, why_not="not measured: cpu_training_step measures it on a CPU")
            continue
        peaks = {"ours": peak_memory_cuda(ours), "theirs": peak_memory_cuda(theirs)}
        mib = {side: bytes_ / MIB for side, bytes_ in peaks.items()}
        yield peak.found(Spread.of([peaks["ours"] / peaks["theirs"]]), same, peak_mib=mib)


def gpu_inference(options: Options) -> Iterator[Measurement]:
    """One clip and 64 of them, in bfloat16 and int8."""
    yield from inference_of(options, 1, ("bf16", "int8"))
    for precision in ("bf16", "int8"):  # apart, since each graph keeps its memory
        yield from inference_of(options, 64, (precision,))


def inference_of(options: Options, clips: int, precisions: Sequence[str]) -> Iterator[Measurement]:
    """The same for a number of clips, precisions in turn with the baselines."""
    name, device = "svf_nano" if options.tiny else "svf_55m", options.device
    frames, size = _clip(options, 32)
    clips = min(clips, 2) if options.tiny else clips
    bases = {
        precision: Measurement(
            row="gpu_inference",
            work=f"inference, {name}, T={frames}, {size}x{size}, batch {clips}, "
            f"{precision.replace('bf16', 'bfloat16')}",
            against="published structure",
            target=at_least(3),
            why_not="",
        )
        for precision in precisions
    }
    model = lively_model(name, frames=frames, size=size).to(device)
    video = random_video(clips, frames, 3, size, size).to(device)
    ours: dict[str, Call] = {}
    same: dict[str, str] = {}
    for precision, base in bases.items():
        if precision == "int8" and (reason := int8_available(1, device)):
            yield replace(base, why_not=f"not measured: {reason}")
            continue
        try:
            same[precision] = check_same_function(*double("svf_nano", stepwise_model))
            if precision == "int8":
                same[precision] += f"; {check_engine('svf_nano', 'int8', 4, 64, device)[0]}"
            ours[precision] = _half_call(model, video, precision)
        except DifferentError as error:
            yield replace(base, why_not=str(error))
    if not ours:
        return
    own = _seconds(options, ours)
    for against, baseline in _baselines(model, device):
        if isinstance(baseline, BaselineMissingError):
            for precision in ours:
                yield replace(
                    bases[precision],
                    against=against,
                    why_not=f"not measured: {baseline}",
                    details={"seconds": own[precision]},
                )
            continue
        theirs = forward_call(baseline, video, half=True)
        seconds = _seconds(options, {**ours, "theirs": theirs})
        for precision in ours:
            told = f"{against}, bfloat16" if precision == "int8" else against
            ratio = ratios(seconds["theirs"], seconds[precision])
            base = replace(bases[precision], against=told)
            yield base.found(ratio, same[precision], seconds=seconds)


def gpu_clip_scaling(options: Options) -> list[Measurement]:
    """A whole clip of four times the frames."""
    name, size = ("svf_nano", 32) if options.tiny else ("svf_55m", options.size or 224)
    short, long = (2, 8) if options.tiny else (8, 32)
    model = lively_model(name, frames=long, size=size).to(options.device)
    calls = {
        str(t): _half_call(model, random_video(1, t, 3, size, size).to(options.device), "bf16")
        for t in (short, long)
    }
    seconds = _seconds(options, calls)
    return [
        Measurement(
            row="gpu_clip_scaling",
            work=f"whole clip, {name}, T={long}, {size}x{size}, bfloat16",
            against=f"itself at T={short}",
            ratio_of="times the time",
            target=at_most(4.0),
            ratio=ratios(seconds[str(long)], seconds[str(short)]),
            equivalence="the same network",
            details={"seconds": seconds},
        )
    ]


def _clip(options: Options, frames: int) -> tuple[int, int]:
    """Frames and side of the clips."""
    least = (2, 32) if options.tiny else (frames, 224)
    return options.frames or least[0], options.size or least[1]
