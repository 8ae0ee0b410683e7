"""The rows of the table by name."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

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
    cpu_inference_ann,
    cpu_inference_exact,
    cpu_inference_float,
    cpu_inference_int8,
    cpu_training_ann,
    cpu_training_step,
)
from spikevideoformer.bench.options import Options
from spikevideoformer.bench.results import Measurement, Target


@dataclass(frozen=True, kw_only=True)
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


def _at_least(value: float) -> Target:
    return Target(bound="at least", value=value)


def _at_most(value: float) -> Target:
    return Target(bound="at most", value=value)


_PUBLISHED = "published structure on SpikingJelly"
_ANN = "ANN of the same shape"

ROWS: dict[str, RowSpec] = {
    "cpu_inference_exact": RowSpec(
        run=cpu_inference_exact,
        device="cpu",
        about="CPU inference, 15 M, exact",
        against=_PUBLISHED,
        target=_at_least(3),
    ),
    "cpu_inference_float": RowSpec(
        run=cpu_inference_float,
        device="cpu",
        about="CPU inference, 15 M, exact sums of 24-bit weights",
        against=_PUBLISHED,
        target=_at_least(2.5),
    ),
    "cpu_inference_int8": RowSpec(
        run=cpu_inference_int8,
        device="cpu",
        about="CPU inference, 15 M, int8 weights",
        against=_PUBLISHED,
        target=_at_least(6),
    ),
    "cpu_inference_ann": RowSpec(
        run=cpu_inference_ann,
        device="cpu",
        about="CPU inference, 15 M",
        against=_ANN,
    ),
    "cpu_training_step": RowSpec(
        run=cpu_training_step,
        device="cpu",
        about="CPU training step, tiny",
        against=_PUBLISHED,
        target=_at_least(3),
    ),
    "cpu_training_ann": RowSpec(
        run=cpu_training_ann,
        device="cpu",
        about="CPU training step, tiny",
        against=_ANN,
    ),
    "neuron_forward": RowSpec(
        run=neuron_forward,
        device="either",
        about="BN + LIF forward",
        against="copying its input and output bytes",
        target=_at_most(1.3),
    ),
    "neuron_backward": RowSpec(
        run=neuron_backward,
        device="either",
        about="BN + LIF backward",
        against="copying three times its input bytes",
        target=_at_most(1.3),
    ),
    "neuron_stepwise": RowSpec(
        run=neuron_stepwise,
        device="either",
        about="LIF forward",
        against="stepwise neurons",
    ),
    "attention": RowSpec(
        run=attention,
        device="either",
        about="attention, T=128, 14x14 tokens",
        against="softmax attention (SDPA)",
        target=_at_least(10),
    ),
    "attention_bytes": RowSpec(
        run=attention_bytes,
        device="cpu",
        about="attention from bytes and bits, T=16, 14x14 tokens",
        against="itself from float32 spikes",
    ),
    "clip_scaling": RowSpec(
        run=clip_scaling,
        device="cpu",
        about="whole clip, T = 8 to 32",
        against="itself",
        target=_at_most(4.0),
    ),
    "gpu_training_step": RowSpec(
        run=gpu_training_step,
        device="cuda",
        about="GPU training step, 15 M and 55 M",
        against=_PUBLISHED + " 2, compiled",
        target=_at_least(2),
    ),
    "gpu_inference": RowSpec(
        run=gpu_inference,
        device="cuda",
        about="GPU inference, 55 M, T=32, batch 1 and 64",
        against=_PUBLISHED + " 2, compiled",
        target=_at_least(3),
    ),
    "gpu_clip_scaling": RowSpec(
        run=gpu_clip_scaling,
        device="cuda",
        about="whole clip on a GPU, T = 8 to 32",
        against="itself",
        target=_at_most(4.0),
    ),
}
