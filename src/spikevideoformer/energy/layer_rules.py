"""Rules of the operations that take operands together: layers, attention, norms, neurons.

A rule records a call in the counter and returns what its result is (:class:`Tag`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikevideoformer.energy import provenance as origin
from spikevideoformer.energy.provenance import Front, Tag
from spikevideoformer.energy.record import Call, Kind, Rule
from spikevideoformer.ops._kernels import SCALARS, neuron_of
from spikevideoformer.ops.neuron_config import NeuronConfig

if TYPE_CHECKING:
    from spikevideoformer.energy.count import Counter


# --- Convolutions and matrix products -------------------------------------------------------------


def convolution(run: Counter, call: Call) -> Tag:
    """Of 1, 2 or 3 axes, transposed ones too; every spike is followed to its outputs."""
    x, weight, bias = call["input"], call["weight"], call["bias"]
    if run.tag(weight).source != "constant":
        raise ValueError(f"{run.place}: a convolution with computed weights is not known")
    reach = [
        taps_of(*geometry, transposed=call["transposed"])
        for geometry in zip(
            x.shape[2:],
            call.out.shape[2:],
            weight.shape[2:],
            call["stride"],
            call["padding"],
            call["dilation"],
            strict=True,
        )
    ]
    groups = call["groups"]
    outputs = weight.shape[1] if call["transposed"] else weight.shape[0] // groups
    space = (x if call["transposed"] else call.out).shape[2:]
    macs = x.shape[0] * weight.numel() * math.prod(space)  # kernel, channels, outputs
    inside = x.shape[0] * x.shape[1] * outputs * math.prod(int(r.sum()) for r in reach)

    def accumulations(values: Tensor) -> float:
        sums = values.sum((0, 1)).cpu()  # at each place, of all images and channels
        for axis, taps in enumerate(reach):
            sums = sums * taps.reshape(-1, *[1] * (sums.ndim - axis - 1))
        return float(sums.sum()) * outputs

    pointwise = math.prod(weight.shape[2:]) == 1
    return layer(
        run,
        call,
        "conv",
        x,
        weight,
        bias,
        macs,
        macs - inside,
        accumulations,
        pointwise_padded=pointwise and any(call["padding"]),
    )


def layer(
    run: Counter,
    call: Call,
    kind: Kind,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    macs: float,
    padding_macs: float,
    accumulations: Callable[[Tensor], float],
    **details: Any,
) -> Tag:
    """A layer with constant weights; ``accumulations`` of absolute values of its input."""
    tag = run.tag(x)
    place = run.owner(weight)
    work: dict[str, Any] = {"macs": macs, "padding_macs": padding_macs}
    rate, front = None, tag.front
    if tag.is_unit:
        values = origin.magnitude(x, tag, place)
        work["acs"] = work["additions"] = accumulations(values)
        front = front_of(run, values, tag)
        rate = front.rate
    else:
        work["multiplications"] = work["additions"] = macs - padding_macs
    made = Tag("real", front=front)
    run.add(
        call,
        kind,
        [x, weight],
        tag.source,
        place=place,
        made=made,
        rate=rate,
        front_rate=None if front is None else front.rate,
        fired_by=None if front is None else front.neuron,
        **work,
        **details,
    )
    if bias is not None and not is_zero(bias):
        add_bias(run, call, bias, place)
    return made


def add_bias(run: Counter, call: Call, bias: Tensor, place: str) -> None:
    """An addition for each output, where the sums are made: they are not read again."""
    run.add(call, "bias", [bias], "real", place=place, additions=call.out.numel())


def front_of(run: Counter, values: Tensor, tag: Tag) -> Front:
    """The spikes that a layer reads, as what stands in front of its results."""
    run.layers_of_spikes += 1
    rate = float(values.mean()) if values.numel() else 0.0
    return Front(run.layers_of_spikes, rate, tag.neuron)


def matmul(run: Counter, call: Call) -> Tag:
    """mm, bmm, addmm, baddbmm, linear: by constant weights, or of two computed tensors."""
    left, right, offset = OPERANDS[call.name]
    a, b = call[left], call[right].mT if call.name == "linear" else call[right]
    bias = call.get(offset) if call.get("beta", 1) else None
    for scale in ("alpha", "beta"):
        if call.get(scale, 1) not in (0, 1):
            raise ValueError(f"{run.place}: {call.name} with {scale} is not known")
    constant = [run.tag(z).source == "constant" for z in (a, b)]
    if not any(constant):
        return product(run, call, a, b, bias)
    x, weight = (b, a) if constant[0] and not constant[1] else (a, b)
    macs = call.out.numel() * a.shape[-1]
    fan_out = macs / max(x.numel(), 1)
    return layer(
        run, call, "linear", x, weight, bias, macs, 0, lambda values: float(values.sum()) * fan_out
    )


def product(run: Counter, call: Call, a: Tensor, b: Tensor, offset: Any) -> Tag:
    """The product of two computed tensors, ``[..., m, k]`` and ``[..., k, n]``: attention.

    Hamming attention is counted as the paper has it, Q' [K'^T V] or [Q' K'^T] V with
    Q' = 2Q - 1 and K' = 2K - 1, since under the counter its modules have the backend
    ``reference``. The same integers come out of what runs otherwise, Q (2A) - 1 (1^T A), which
    saves the pass over Q and K.

    With spikes or signs on both sides a multiply-accumulate adds (or subtracts) |a b|. So in
    K'^T V each value spike adds or subtracts a bit +1 or -1 to d sums: N d d rate(V) additions
    a head, and Q' K'^T takes all N N d. In K^T V of the dot product only pairs of spikes count.
    With spikes or signs on one side, k of them adds the other side's value k times:
    N d d rate(Q) for Q A, all N d d for Q' A. With none, each is a multiplication and an
    addition.
    """
    tags = [run.tag(a), run.tag(b)]
    macs = call.out.numel() * a.shape[-1]
    units = [
        origin.magnitude(z, tag, run.place) if tag.is_unit else None
        for z, tag in zip((a, b), tags, strict=True)
    ]
    front: Front | None = None
    work: dict[str, Any] = {"macs": macs}
    operand = tags[1] if tags[1].source == "spikes" else tags[0]
    if units[0] is not None and units[1] is not None:
        work["acs"] = float((units[0].sum(-2) * units[1].sum(-1)).sum())
    elif units[0] is not None:
        work["acs"] = float(units[0].sum()) * b.shape[-1]
    elif units[1] is not None:
        work["acs"] = float(units[1].sum()) * a.shape[-2]
        operand = tags[1]
    if "acs" in work:
        work["additions"] = work["acs"]
        read = units[1] if operand is tags[1] else units[0]
        assert read is not None
        # of signs, the rate of the spikes that they stand for
        front = operand.front or front_of(run, read, operand)
    else:
        work["additions"] = work["multiplications"] = macs
    if all(tag.is_integer for tag in tags):
        made = Tag("integers", front=origin.later(*(tag.front for tag in tags)))
    else:
        made = origin.real(*tags)
    if front is not None:
        made = Tag(made.source, front=front._replace(order=run.layers_of_spikes))
    run.add(
        call,
        "attention",
        [a, b],
        operand.source,
        made=made,
        rate=None if front is None else front.rate,
        fired_by=None if front is None else front.neuron,
        **work,
    )
    if offset is not None and not is_zero(offset):
        add_bias(run, call, offset, run.place)
    return made


def fused_attention(run: Counter, call: Call) -> Tag:
    """Softmax attention in one operation: two products, a scale and a softmax."""
    q, k, v = call["query"], call["key"], call["value"]
    made = origin.real(*(run.tag(z) for z in (q, k, v)))
    pairs = q[..., 0].numel() * k.shape[-2]
    macs = pairs * (q.shape[-1] + v.shape[-1])
    run.add(
        call,
        "attention",
        [q, k, v],
        "real",
        made=made,
        macs=macs,
        multiplications=macs,
        additions=macs,
    )
    run.add(call, "elementwise", [], "real", multiplications=pairs)  # the scale
    run.add(call, "softmax", [], "real", **softmax_of(pairs))
    mask = call.get("attn_mask", call.get("attn_bias"))
    if mask is not None:
        run.add(call, "bias", [mask], "real", additions=pairs)
    return made


def softmax(run: Counter, call: Call) -> Tag:
    """Of whatever length: work for each element."""
    x = call["self"]
    made = origin.real(run.tag(x))
    run.add(call, "softmax", [x], "real", made=made, **softmax_of(x.numel()))
    return made


# --- Norms ----------------------------------------------------------------------------------------


def batch_norm(run: Counter, call: Call) -> Tag:
    """In evaluation: an affine function of each channel."""
    if call.get("training", False):
        raise ValueError(f"{run.place}: a batch norm in training mode; call .eval() first")
    x = call["input"]
    made = origin.real(run.tag(x))
    norm(run, call, x, made, (call["weight"], call["bias"], call["running_mean"]))
    return made


def norm(run: Counter, call: Call, x: Tensor, made: Tag, weights: Sequence[Any]) -> None:
    """A batch norm in evaluation: scale and shift of each channel."""
    run.add(
        call,
        "norm",
        [x],
        run.tag(x).source,
        place=run.owner(*weights),
        made=made,
        multiplications=x.numel(),
        additions=x.numel(),
        weights_read=2 * x.shape[1],
    )


def statistics_norm(run: Counter, call: Call) -> Tag:
    """Layer and group norm: mean, variance, and for each element their use and an affine."""
    x, n = call["input"], call["input"].numel()
    made = origin.real(run.tag(x))
    run.add(
        call,
        "norm",
        [x, call["weight"], call["bias"]],
        "real",
        place=run.owner(call["weight"]),
        made=made,
        multiplications=(2 + (call["weight"] is not None)) * n,
        additions=(3 + (call["bias"] is not None)) * n,
    )
    return made


# --- Neurons --------------------------------------------------------------------------------------


def affine_lif(run: Counter, call: Call) -> tuple[Tag, ...]:
    """[Affine] [+ residual] + neuron: spikes, last membrane, residual stream."""
    return neuron(run, call, call["residual"], run.place)


def batch_norm_lif(run: Counter, call: Call) -> tuple[Tag, ...]:
    """Batch norm + neuron: spikes, last membrane."""
    weights = (call["mean"], call["weight"], call["bias"])
    return neuron(run, call, None, run.owner(*weights))[:2]


def neuron(run: Counter, call: Call, residual: Tensor | None, norm: str) -> tuple[Tag, Tag, Tag]:
    """What the fused operations have in common; ``norm`` is where their scale comes from."""
    run.neuron_operations += 1
    x, scale = call["x"], call["scale"]
    neuron = neuron_of(*(call[name] for name in SCALARS))
    n, source = x.numel(), run.tag(x).source
    made, stream = origin.spikes(neuron.levels), origin.real(run.tag(x), run.tag(residual))
    if scale is not None:
        affine: dict[str, Any] = {
            "multiplications": n,
            "additions": n,
            "weights_read": 2 * scale.numel(),
            "bits_out": n * stream.bits,  # as for a norm that is not fused
        }
        run.add(call, "norm", [x], source, place=norm, **affine)
    if residual is not None:
        run.add(call, "residual", [residual], "real", additions=n, bits_out=n * stream.bits)
    work: dict[str, Any] = {name: count * n for name, count in neuron_step(neuron).items()}
    work |= {"neuron_updates": n, "membrane_bits": 64 * n if neuron.remembers else 0}
    run.add(call, "neuron", [x], source, made=made, **work)
    return made, stream, stream


def neuron_step(neuron: NeuronConfig) -> dict[str, int]:
    """Operations of one neuron in one frame, with everything that its update takes.

    Equation (as in ``ops/lif.py``):
        charge  H = V + (X - V) / tau           2 additions and a multiplication, a shift where tau
                                                is a power of two; 1 more addition for v_reset
                H = beta V + X                  1 addition and a multiplication or shift
        fire    H >= theta                      1 comparison; D for the D levels of Integer-LIF
        reset   V = v_reset or H                a selection: nothing
                V = H - theta S                 1 addition (and for D > 1 the product theta S)

    A neuron without memory, as of normalised Integer-LIF, has only the comparisons.
    """
    if not neuron.remembers:
        return {"comparisons": neuron.levels}
    work = {"additions": 0, "multiplications": 0, "shifts": 0, "comparisons": neuron.levels}
    rest = neuron.v_reset or 0.0
    if neuron.decay_input:
        work["additions"] += 2 + (rest != 0)
        times(work, 1 / neuron.tau, 1)
    else:
        work["additions"] += 1 + 2 * (rest != 0)
        times(work, 1 - 1 / neuron.tau, 1)
    if neuron.v_reset is None:
        work["additions"] += 1
        if neuron.levels > 1:
            times(work, neuron.v_threshold, 1)
    return work


def times(work: dict[str, Any], value: Any, n: float) -> None:
    """Add ``n`` multiplications by a constant, or shifts where they are."""
    kind = origin.factor(value)
    if kind != "none":
        name = "shifts" if kind == "shift" else "multiplications"
        work[name] = work.get(name, 0) + n


def softmax_of(n: int) -> dict[str, Any]:
    """Exponential, division, maximum; subtraction and sum: of each element."""
    return {"exponentials": n, "divisions": n, "comparisons": n, "additions": 2 * n}


def taps_of(
    size_in: int,
    size_out: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    *,
    transposed: bool,
) -> Tensor:
    """How many outputs (along one axis) each input reaches, ``[size_in]`` in float64."""
    if transposed:
        i = torch.arange(size_in).reshape(-1, 1)
        place = i * stride - padding + torch.arange(kernel) * dilation  # [in, kernel]
        return ((place >= 0) & (place < size_out)).sum(1).double()
    o = torch.arange(size_out).reshape(-1, 1)
    place = (o * stride - padding + torch.arange(kernel) * dilation).flatten()  # [out * kernel]
    place = place[(place >= 0) & (place < size_in)]
    return torch.bincount(place, minlength=size_in).double()


def is_zero(x: Any) -> bool:
    """Whether nothing is added: the number 0 (a tensor of zeros was computed)."""
    return not isinstance(x, Tensor) and x == 0


# --- Which rule for what --------------------------------------------------------------------------

OPERANDS = {
    "linear": ("input", "weight", "bias"),
    "mm": ("self", "mat2", ""),
    "bmm": ("self", "mat2", ""),
    "addmm": ("mat1", "mat2", "self"),
    "baddbmm": ("batch1", "batch2", "self"),
}

RULES: dict[str, Rule] = {
    "convolution": convolution,
    **dict.fromkeys(OPERANDS, matmul),
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
        ),
        fused_attention,
    ),
    **dict.fromkeys(("_softmax", "_safe_softmax", "_log_softmax"), softmax),
    **dict.fromkeys(
        (
            "native_batch_norm",
            "cudnn_batch_norm",
            "_native_batch_norm_legit_no_training",
            "_batch_norm_no_update",
        ),
        batch_norm,
    ),
    **dict.fromkeys(("native_layer_norm", "native_group_norm"), statistics_norm),
    "affine_lif": affine_lif,
    "batch_norm_lif": batch_norm_lif,
}
