"""Rules of the operations element by element, of sums, and of data movement.

A rule records a call in the counter and returns what its result is (:class:`Tag`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from spikevideoformer.energy import provenance as origin
from spikevideoformer.energy.layer_rules import front_of, is_zero, times
from spikevideoformer.energy.provenance import Tag
from spikevideoformer.energy.record import Call, Kind, Rule

if TYPE_CHECKING:
    from spikevideoformer.energy.count import Counter


# --- Element by element ---------------------------------------------------------------------------


def element(run: Counter, call: Call, read: Sequence[Any], made: Tag, **work: Any) -> Tag:
    """Record it; what runs in a neuron module is the neuron's."""
    kind: Kind = work.pop("kind", "elementwise")
    if run.in_neuron:
        kind = "neuron"
    source = origin.join(*(run.tag(z) for z in read)).source
    run.add(call, kind, read, source, made=made, **work)
    return made


def sum_of_two(run: Counter, call: Call) -> Tag:
    """An addition each; nothing where one side is the number 0."""
    a, b = call["self"], call["other"]
    if call.name == "rsub":
        a, b = b, a
    alpha = call.get("alpha", 1)
    if call.name in ("sub", "rsub"):
        alpha = -alpha
    tags, n = (run.tag(a), run.tag(b)), call.out.numel()
    work: dict[str, Any] = {"additions": 0 if is_zero(a) or is_zero(b) else n}
    times(work, alpha, n)
    if all(tag.source != "constant" for tag in tags) and a.shape == b.shape:
        work["kind"] = "residual"
    made = origin.real(*tags)
    ranges = [value_range(run, z) for z in (a, b)]
    if ranges[0] and ranges[1] and alpha == round(alpha):
        low, high = sorted(alpha * end for end in ranges[1])
        if tags[0].source == "constant":
            made = origin.shifted(origin.scaled(tags[1], alpha, alpha, None), *ranges[0], None)
        else:
            made = origin.shifted(tags[0], low, high, tags[1].front)
        made = keep_front(run, made, a, b)
    elif all(tag.is_integer or z for tag, z in zip(tags, ranges, strict=True)):
        made = Tag("integers", front=origin.later(*(tag.front for tag in tags)))
    return element(run, call, [a, b], made, **work)


def product_of_two(run: Counter, call: Call) -> Tag:
    """A product each: a shift or nothing by some constants, a selection by 0 and 1."""
    a, b = call["self"], call["other"]
    tags, n = (run.tag(a), run.tag(b)), call.out.numel()
    work: dict[str, Any] = {}
    if tags[0].source == "constant" or tags[1].source == "constant":
        constant = a if tags[0].source == "constant" else b
        times(work, constant, n)
    elif not any(tag.is_unit and max(-tag.low, tag.high) <= 1 for tag in tags):
        work["multiplications"] = n  # with a spike or a sign: a selection
    made, ranges = origin.real(*tags), [value_range(run, z) for z in (a, b)]
    if ranges[0] and ranges[1]:
        if tags[0].source == "constant":
            made = origin.scaled(tags[1], *ranges[0], None)
        else:
            made = origin.scaled(tags[0], *ranges[1], tags[1].front)
        made = keep_front(run, made, a, b)
    elif all(tag.is_integer or z for tag, z in zip(tags, ranges, strict=True)):
        made = Tag("integers", front=origin.later(*(tag.front for tag in tags)))
    return element(run, call, [a, b], made, **work)


def value_range(run: Counter, x: Any) -> tuple[float, float] | None:
    """Smallest and largest value of spikes, signs and integer constants."""
    tag = run.tag(x)
    if tag.source == "constant":
        return origin.integer_range(x)
    return (tag.low, tag.high) if tag.is_unit else None


def keep_front(run: Counter, made: Tag, *read: Any) -> Tag:
    """What is made of spikes and constants, as 2Q - 1 is, remembers the rate of the spikes."""
    computed = [x for x in read if run.tag(x).source != "constant"]
    if not made.is_unit or made.front is not None or len(computed) != 1:
        return made
    values = origin.magnitude(computed[0], run.tag(computed[0]), run.place)
    return Tag(made.source, made.low, made.high, front_of(run, values, run.tag(computed[0])))


def quotient(run: Counter, call: Call) -> Tag:
    """By a constant it is the product with its reciprocal."""
    a, b = call["self"], call["other"]
    work: dict[str, Any] = {}
    n = call.out.numel()
    if run.tag(b).source != "constant":
        work["divisions"] = n
    elif isinstance(b, Tensor):
        times(work, torch.where(b == 0, 0, 1 / b), n)
    else:
        times(work, 1 / b, n)
    return element(run, call, [a, b], origin.real(run.tag(a), run.tag(b)), **work)


def comparison(run: Counter, call: Call) -> Tag:
    """What is found is a spike: 0 or 1."""
    read = [z for z in (call["self"], call.get("other")) if z is not None]
    return element(run, call, read, origin.spikes(1), comparisons=call.out.numel())


def selection(run: Counter, call: Call) -> Tag:
    """One of two values: no arithmetic."""
    branches = [call["self"], call["other"]]
    tags = [run.tag(z) for z in branches]
    made = origin.join(*tags)
    if made.source == "constant":  # one constant or the other, as the condition says
        made = origin.real(run.tag(call["condition"]))
    return element(run, call, [call["condition"], *branches], made)


def limits(run: Counter, call: Call) -> Tag:
    """Rounding and clamping, which together make integers of a membrane."""
    x = call["self"]
    tag, n = run.tag(x), call.out.numel()
    if call.name == "round":
        made = tag if tag.is_integer else Tag("integers", front=tag.front)
        return element(run, call, [x], made, additions=n)
    ends = [call.get(end) for end in ("min", "max")]
    made = tag
    if tag.is_integer and None not in ends and not isinstance(ends[0], Tensor):
        made = origin.unit(float(ends[0]), float(ends[1]), tag.front)
    return element(run, call, [x], made, comparisons=n * sum(end is not None for end in ends))


def extreme(run: Counter, call: Call) -> Tag:
    """Maxima and minima over axes or windows, and of two tensors."""
    read = [z for z in (call["self"], call.get("other")) if isinstance(z, Tensor)]
    made = origin.join(*(run.tag(z) for z in read))
    n = call.out.numel()
    if "kernel_size" in call.arguments:
        n *= math.prod(call["kernel_size"]) - 1
    elif len(read) == 1:
        n = read[0].numel() - n
    return element(run, call, read, made, kind="pooling", comparisons=n)


def activation(run: Counter, call: Call) -> Tag:
    """What :data:`ACTIVATIONS` says of each element."""
    n = call.out.numel()
    work: dict[str, Any] = {name: count * n for name, count in ACTIVATIONS[call.name].items()}
    made = origin.real(run.tag(call["self"]))
    return element(run, call, [call["self"]], made, kind="activation", **work)


def same(run: Counter, call: Call) -> Tag:
    """Sign and absolute value: no arithmetic."""
    tag = run.tag(call["self"])
    return element(run, call, [call["self"]], origin.real(tag))


def reduction(run: Counter, call: Call) -> Tag:
    """Sums and means: of spikes an addition for each, else for each element beyond the first.

    A mean multiplies each result.
    """
    x, n = call["self"], call.out.numel()
    tag = run.tag(x)
    count = x.numel() / max(n, 1)
    work: dict[str, Any] = {"additions": x.numel() - n}
    if tag.is_unit:
        work["additions"] = float(origin.magnitude(x, tag, run.place).sum())
    made = Tag("integers", front=tag.front) if tag.is_integer else origin.real(tag)
    kind: Kind = "elementwise"
    if call.name != "sum":
        times(work, 1 / count, n)
        made, kind = origin.real(tag), "pooling"
    return element(run, call, [x], made, kind=kind, **work)


def adaptive_mean(run: Counter, call: Call) -> Tag:
    """The mean of each cell of a grid; cells overlap where their number does not divide the input.

    Of spikes an addition for each cell that they lie in, else for each element of a cell beyond
    the first; each result is multiplied. Where every cell is one element, they are what is read.
    """
    x, axes = call["self"], len(call["output_size"])
    sizes = reach = torch.ones((), dtype=torch.float64)  # of each cell; cells of each element
    for n, cells in zip(x.shape[-axes:], call.out.shape[-axes:], strict=True):
        i, place = torch.arange(cells)[:, None], torch.arange(n)
        inside = (place >= i * n // cells) & (place < -(-(i + 1) * n // cells))  # [cells, n]
        sizes, reach = sizes[..., None] * inside.sum(1), reach[..., None] * inside.sum(0)
    if sizes.max() == 1:
        return movement(run, call)
    tag, planes = run.tag(x), call.out.numel() / sizes.numel()
    work: dict[str, Any] = {"additions": planes * float((sizes - 1).sum())}
    if tag.is_unit:
        values = origin.magnitude(x, tag, run.place).flatten(0, -axes - 1).sum(0)
        work["additions"] = float((values.cpu() * reach).sum())
    for size, count in zip(*sizes.unique(return_counts=True), strict=True):
        times(work, 1 / float(size), planes * int(count))
    return element(run, call, [x], origin.real(tag), kind="pooling", **work)


def average_window(run: Counter, call: Call) -> Tag:
    """The mean of each window."""
    x, n = call["self"], call.out.numel()
    size = math.prod(call["kernel_size"])
    work: dict[str, Any] = {"additions": (size - 1) * n}
    times(work, 1 / size, n)
    return element(run, call, [x], origin.real(run.tag(x)), kind="pooling", **work)


def interpolation(run: Counter, call: Call) -> Tag:
    """Bilinear: of four neighbours, three differences weighted in turn, a + w (b - a).

    Each output is counted, those at the edge too. The weights depend on no input. Enlarged by a
    whole factor f, an output lies (k + 1/2) / f - 1/2 from its neighbours, k = 0..f - 1, and the
    nearer one gets the rest: a weight of 1/4 for f = 2 is a shift; 1/8 and 3/8 for f = 4 are a
    shift, and, as 1/2 - 1/8, two shifts and an addition. Other weights are multiplications.
    """
    x, n = call["self"], call.out.numel()
    work: dict[str, Any] = {"additions": 6 * n}
    # of the two pairs along the last axis, and of their results along the other
    for axis, differences in ((-1, 2 * n), (-2, n)):
        factor, rest = divmod(call.out.shape[axis], x.shape[axis])
        if rest or call["align_corners"]:
            times(work, math.pi, differences)  # weights of any kind
            continue
        for k in range(factor):
            place = (k + 0.5) / factor - 0.5
            weight, share = abs(place), differences / factor
            if origin.factor(weight) == "multiply" and origin.factor(0.5 - weight) == "shift":
                work["additions"] += share
                times(work, 0.5, share)
                weight = 0.5 - weight
            times(work, weight, share)
    return element(run, call, [x], origin.real(run.tag(x)), kind="pooling", **work)


# --- Data movement --------------------------------------------------------------------------------


def movement(run: Counter, call: Call) -> Tag:
    """Copies, casts, padding: memory traffic only."""
    read = [x for x in tree_leaves(call.arguments) if isinstance(x, Tensor)]
    if call.name == "copy":
        read = [call["src"]]
    made = origin.join(*(run.tag(x) for x in read))
    value = call.get("value") or 0
    if call.name == "constant_pad_nd" and made.is_unit and not made.low <= value <= made.high:
        made = origin.real(made)
    run.add(call, "memory", read, made.source, made=made)
    return made


def scalar(run: Counter, call: Call) -> Tag:
    """A value that Python looks at: nothing is computed."""
    return run.tag(call["self"])


# --- Which rule for what --------------------------------------------------------------------------

# Operations of each element.
ACTIVATIONS: dict[str, dict[str, int]] = {
    "relu": {"comparisons": 1},
    "leaky_relu": {"comparisons": 1, "multiplications": 1},
    "sigmoid": {"exponentials": 1, "additions": 1, "divisions": 1},
    "tanh": {"exponentials": 1, "additions": 2, "divisions": 1},
    "silu": {"exponentials": 1, "additions": 1, "divisions": 1, "multiplications": 1},
    "gelu": {"exponentials": 1, "additions": 1, "multiplications": 3},  # x/2 (1 + erf(x/sqrt 2))
    "exp": {"exponentials": 1},
    "log": {"exponentials": 1},
    "sqrt": {"exponentials": 1},
    "rsqrt": {"exponentials": 1, "divisions": 1},
    "reciprocal": {"divisions": 1},
}

RULES: dict[str, Rule] = {
    **dict.fromkeys(("add", "sub", "rsub"), sum_of_two),
    "mul": product_of_two,
    "div": quotient,
    **dict.fromkeys("ge gt le lt eq ne".split(), comparison),
    **dict.fromkeys("logical_and logical_or logical_not".split(), comparison),
    **dict.fromkeys("bitwise_and bitwise_or bitwise_not".split(), comparison),
    "where": selection,
    **dict.fromkeys("round clamp clamp_min clamp_max".split(), limits),
    **dict.fromkeys("amax amin max min maximum minimum".split(), extreme),
    **dict.fromkeys(("max_pool2d_with_indices", "max_pool3d_with_indices"), extreme),
    **dict.fromkeys(ACTIVATIONS, activation),
    **dict.fromkeys(("neg", "abs"), same),
    **dict.fromkeys(("sum", "mean"), reduction),
    **dict.fromkeys(("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"), adaptive_mean),
    **dict.fromkeys(("avg_pool2d", "avg_pool3d"), average_window),
    "upsample_bilinear2d": interpolation,
    **dict.fromkeys("clone _to_copy copy cat stack constant_pad_nd".split(), movement),
    **dict.fromkeys("roll flip repeat index_select index gather".split(), movement),
    **dict.fromkeys("_unsafe_view upsample_nearest2d".split(), movement),
    **dict.fromkeys(("_local_scalar_dense", "is_nonzero"), scalar),
}
