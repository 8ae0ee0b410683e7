"""The ordinary network of the same shape by its counts, and the mean of several."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from spikevideoformer.energy.record import (
    WORK,
    Counts,
    OperationCount,
)
from spikevideoformer.nn.attention import SpikeAttention


def ann_of_same_shape(model: nn.Module, counts: Counts) -> list[OperationCount]:
    """What an ANN with the same layers would do: every MAC real, softmax attention.

    Each spiking attention over N tokens of h heads of width d becomes 2 h N N d MACs and a softmax
    of h N N elements. Norms, biases, activations, residuals and memory are left out.

    Args:
        model: the spiking network.
        counts: of it.
    """
    work: list[OperationCount] = []

    def add(like: OperationCount, **amounts: float) -> None:
        plain: dict[str, Any] = dict.fromkeys(WORK, 0) | amounts
        work.append(replace(like, **plain, operand="real", rate=None, front_rate=None))

    modules = dict(model.named_modules())
    attention = [o for o in counts.operations if o.kind == "attention"]
    replaced: set[str] = set()
    for o in counts.operations:
        if o.kind in ("conv", "linear"):
            inside = o.macs - o.padding_macs
            border = o.paper_macs - inside
            add(
                replace(o, pointwise_padded=False),
                macs=o.paper_macs,
                padding_macs=border,
                multiplications=inside,
                additions=inside,
            )
    for o in attention:
        module = modules.get(o.module)
        if not isinstance(module, SpikeAttention):
            add(o, macs=o.macs, multiplications=o.macs, additions=o.macs)
        elif o.module not in replaced:
            replaced.add(o.module)
            T, B, C, H, W = counts.outputs[o.module]
            sequences, N = {
                "space_time": (B, T * H * W),
                "space": (T * B, H * W),
                "time": (B * H * W, T),
            }[module.axes]
            macs = 2 * sequences * N * N * C
            add(o, macs=macs, multiplications=macs, additions=macs)
            pairs = sequences * module.heads * N * N
            softmax = {"exponentials": pairs, "divisions": pairs, "comparisons": pairs}
            add(replace(o, kind="softmax"), additions=2 * pairs, **softmax)
    return work


def mean(counts: Sequence[Counts]) -> Counts:
    """The mean of several runs of one network on input of one shape.

    Silent and saturated channels are those that are so in all runs.
    """
    n = len(counts)
    if n == 1:
        return counts[0]
    operations = []
    for same in zip(*(c.operations for c in counts), strict=True):
        assert len({(o.module, o.operation, o.kind) for o in same}) == 1
        amounts: dict[str, Any] = {
            name: math.fsum(getattr(o, name) for o in same) / n for name in WORK
        }
        rates: dict[str, Any] = {}
        for name in ("rate", "front_rate"):
            values = [v for o in same if (v := getattr(o, name)) is not None]
            if values:
                rates[name] = math.fsum(values) / n
        operations.append(replace(same[0], **amounts, **rates))
    neurons = [
        replace(
            same[0],
            rate_per_frame=tuple(
                math.fsum(rates) / n
                for rates in zip(*(x.rate_per_frame for x in same), strict=True)
            ),
            silent=tuple(sorted(set.intersection(*(set(x.silent) for x in same)))),
            saturated=tuple(sorted(set.intersection(*(set(x.saturated) for x in same)))),
        )
        for same in zip(*(c.neurons for c in counts), strict=True)
    ]
    return replace(counts[0], operations=tuple(operations), neurons=tuple(neurons))
