"""The rows of the table by name."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from spikevideoformer.bench.gpu_rows import gpu_clip_scaling, gpu_inference, gpu_training_step
from spikevideoformer.bench.kernel_rows import (
    attention,
    attention_bytes,
    neuron_backward,
    neuron_forward,
    neuron_stepwise,
)
from spikevideoformer.bench.network_rows import (
    clip_scaling,
    cpu_inference,
    cpu_inference_ann,
    cpu_training_ann,
    cpu_training_step,
)
from spikevideoformer.bench.options import Options
from spikevideoformer.bench.results import Measurement, Target, at_least, at_most


@dataclass(frozen=True)
class RowSpec:
    """A row as it is chosen and announced.

    Attributes:
        run: the function.
        device: cpu, cuda, or either.
        about: one line, for help, and for the table where the row cannot run.
        against: what it compares with.
        target: what is aimed at, in words.
    """

    run: Callable[[Options], Iterable[Measurement]]
    device: str
    about: str
    against: str
    target: Target | None = None


_PUBLISHED = "published structure on SpikingJelly"
_ANN = "ANN of the same shape"

ROWS: dict[str, RowSpec] = {
    "cpu_inference_exact": RowSpec(
        partial(cpu_inference, precision="exact", target=3),
        "cpu",
        "CPU inference, 15 M, exact",
        _PUBLISHED,
        at_least(3),
    ),
    "cpu_inference_float": RowSpec(
        partial(cpu_inference, precision="float", target=2.5),
        "cpu",
        "CPU inference, 15 M, exact sums of 24-bit weights",
        _PUBLISHED,
        at_least(2.5),
    ),
    "cpu_inference_int8": RowSpec(
        partial(cpu_inference, precision="int8", target=6),
        "cpu",
        "CPU inference, 15 M, int8 weights",
        _PUBLISHED,
        at_least(6),
    ),
    "cpu_inference_ann": RowSpec(cpu_inference_ann, "cpu", "CPU inference, 15 M", _ANN),
    "cpu_training_step": RowSpec(
        cpu_training_step, "cpu", "CPU training step, tiny", _PUBLISHED, at_least(3)
    ),
    "cpu_training_ann": RowSpec(cpu_training_ann, "cpu", "CPU training step, tiny", _ANN),
    "neuron_forward": RowSpec(
        neuron_forward,
        "either",
        "BN + LIF forward",
        "copying its input and output bytes",
        at_most(1.3),
    ),
    "neuron_backward": RowSpec(
        neuron_backward,
        "either",
        "BN + LIF backward",
        "copying three times its input bytes",
        at_most(1.3),
    ),
    "neuron_stepwise": RowSpec(neuron_stepwise, "either", "LIF forward", "stepwise neurons"),
    "attention": RowSpec(
        attention,
        "either",
        "attention, T=128, 14x14 tokens",
        "softmax attention (SDPA)",
        at_least(10),
    ),
    "attention_bytes": RowSpec(
        attention_bytes,
        "cpu",
        "attention from bytes and bits, T=16, 14x14 tokens",
        "itself from float32 spikes",
    ),
    "clip_scaling": RowSpec(clip_scaling, "cpu", "whole clip, T = 8 to 32", "itself", at_most(4.0)),
    "gpu_training_step": RowSpec(
        gpu_training_step,
        "cuda",
        "GPU training step, 15 M and 55 M",
        _PUBLISHED + " 2, compiled",
        at_least(2),
    ),
    "gpu_inference": RowSpec(
        gpu_inference,
        "cuda",
        "GPU inference, 55 M, T=32, batch 1 and 64",
        _PUBLISHED + " 2, compiled",
        at_least(3),
    ),
    "gpu_clip_scaling": RowSpec(
        gpu_clip_scaling, "cuda", "whole clip on a GPU, T = 8 to 32", "itself", at_most(4.0)
    ),
}
