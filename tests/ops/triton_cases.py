"""The Triton kernels against their references; run by test_triton.py in a process of its own.

Under ``TRITON_INTERPRET=1`` on the CPU, without it on a CUDA device. The reference always runs
on the CPU, whose batch norm is the fused multiply-add that defines the affine part.
"""

import itertools
import math
import os
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from spikevideoformer.ops import _kernels
from spikevideoformer.ops._triton import hamming, lif, pack
from spikevideoformer.ops.affine_lif import affine_lif_reference
from spikevideoformer.ops.hamming import dot_attention, hamming_attention
from spikevideoformer.ops.lif import NeuronConfig
from spikevideoformer.ops.pack import pack_spikes

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"

DYADIC = [
    NeuronConfig(
        v_reset=v_reset,
        decay_input=decay,
        detach_reset=detach,
        surrogate=surrogate,
        v_threshold=0.5,
    )
    for (v_reset, decay), (detach, surrogate) in zip(
        itertools.product([0.0, None, -0.25], [True, False]),
        [(True, "sigmoid"), (False, "arctan"), (True, "triangle")] * 2,
        strict=True,
    )
]
INTEGER = [
    NeuronConfig.integer(4),
    NeuronConfig.integer(2, decay_input=True, v_threshold=0.5, detach_reset=False),
    NeuronConfig.integer(4, rounding="half_up"),
    NeuronConfig.of_kind("ni_lif", levels=8, rounding="half_up"),
]
ODD = [
    NeuronConfig(tau=1.7, v_threshold=0.3, v_reset=-0.1),
    NeuronConfig(tau=1.7, v_threshold=0.3, v_reset=-0.1, decay_input=False),
    NeuronConfig(tau=math.inf, decay_input=False, v_reset=None, v_threshold=0.7),
    NeuronConfig.integer(4, tau=3.3, v_threshold=0.3),
]
NEURONS = DYADIC + INTEGER + ODD


@pytest.fixture(autouse=True)
def _large_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes its time for each program, whatever its size."""
    if INTERPRETED:
        monkeypatch.setattr(lif, "_PROGRAMS", 1)


@pytest.fixture(autouse=True)
def _poisoned_memory() -> Iterator[None]:
    """Uninitialised memory holds NaN, so that what a kernel leaves out is seen."""
    torch.use_deterministic_algorithms(INTERPRETED)  # on a GPU it forbids what references use
    yield
    torch.use_deterministic_algorithms(False)


def _tensor(*shape: int, layout: str = "contiguous", dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(shape) * 1.5 + 0.3
    if layout == "channels_last":
        x = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    elif layout == "every second frame":
        x = torch.stack([x, x + math.nan], 1).flatten(0, 1)[::2]
    elif layout == "sliced":  # not dense: the kernel takes a copy
        x = torch.cat([x, x + math.nan], 4)[..., : shape[4]]
    return x.to(dtype).to(DEVICE)


def _compare(
    x: Tensor,
    config: NeuronConfig,
    affine: bool,
    residual: Tensor | None,
    v_init: Tensor | None,
    spike_dtype: torch.dtype = torch.float32,
) -> None:
    channels = x.shape[2] if x.ndim > 2 else 1
    scale = torch.randn(channels) if affine else None
    shift = torch.randn(channels) if affine else None

    def leaf(z: Tensor | None) -> Tensor | None:
        return None if z is None else z.detach().cpu().float().clone().requires_grad_()

    inputs = [leaf(z) for z in (x, scale, shift, residual, v_init)]
    want = affine_lif_reference(
        inputs[0],
        config,
        scale=inputs[1],
        shift=inputs[2],
        residual=inputs[3],
        v_init=inputs[4],
    )
    scale, shift = (None if z is None else z.to(DEVICE) for z in (scale, shift))
    spikes, v, y = lif.forward(x, scale, shift, residual, v_init, spike_dtype, config)
    assert spikes.dtype == spike_dtype
    assert torch.equal(spikes.cpu().float(), want.spikes)
    assert torch.equal(v.cpu(), want.v)
    if residual is None:
        assert y is None
    else:
        assert torch.equal(y.cpu(), want.y)
    if x[0].is_contiguous():
        assert spikes.is_contiguous()

    grads = [torch.randn_like(x.float()), torch.randn_like(v)]
    grads.append(None if residual is None else torch.randn_like(x.float()))
    outs = [want.spikes, want.v] + ([want.y] if residual is not None else [])
    wanted = torch.autograd.grad(
        outs, [z for z in inputs if z is not None], [g.cpu() for g in grads if g is not None]
    )
    wanted = dict(
        zip(
            [n for n, z in zip("x scale shift r v".split(), inputs, strict=True) if z is not None],
            wanted,
            strict=True,
        )
    )
    centre = torch.randn(channels, device=DEVICE) if affine else None
    grad_y, grad_x, grad_v, grad_shift, grad_scale = lif.backward(
        *grads, x, y, scale, shift, centre, v_init, True, True, config
    )

    def close(got: Tensor, want: Tensor) -> None:
        torch.testing.assert_close(got.cpu().to(want.dtype), want, rtol=2e-5, atol=2e-5)

    close(grad_x, wanted["x"])
    if residual is not None:
        close(grad_y, wanted["r"])
    if v_init is not None:
        close(grad_v, wanted["v"])
    if affine:
        close(grad_shift, wanted["shift"])
        close(grad_scale + grad_shift * centre, wanted["scale"])


@pytest.mark.parametrize("config", NEURONS, ids=range(len(NEURONS)))
def test_every_neuron(config: NeuronConfig) -> None:
    x = _tensor(5, 1, 8, 3, 3, layout="channels_last")
    _compare(x, config, affine=True, residual=None, v_init=_tensor(1, 8, 3, 3))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "every second frame", "sliced"])
@pytest.mark.parametrize(("affine", "residual"), [(True, False), (True, True), (False, True)])
def test_layouts(layout: str, residual: bool, affine: bool) -> None:
    x = _tensor(4, 2, 24, 3, 5, layout=layout)
    added = _tensor(4, 2, 24, 3, 5, layout=layout) if residual else None
    _compare(x, NeuronConfig(), affine, added, None)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_small_tiles(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lif, "_PROGRAMS", 1024)
    _compare(_tensor(2, 1, 24, 3, 4, layout=layout), NeuronConfig(), True, None, None)


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 17, 35])
def test_numbers_of_frames(frames: int) -> None:
    x = _tensor(frames, 1, 16, 2, 3, layout="channels_last")
    residual = _tensor(frames, 1, 16, 2, 3)
    _compare(x, NeuronConfig(), True, residual if frames % 2 else None, _tensor(1, 16, 2, 3))


@pytest.mark.parametrize("shape", [(3, 7), (3, 2, 5), (2, 1, 1, 9, 11), (2, 3, 40, 1, 1), (4,)])
def test_shapes(shape: tuple[int, ...]) -> None:
    _compare(_tensor(*shape), NeuronConfig(), len(shape) > 2, None, None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spike_dtype", [torch.uint8, torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype, spike_dtype: torch.dtype) -> None:
    """Integrated in float32: spikes of the reference on the same values, gradients rounded."""
    x = _tensor(6, 1, 16, 4, 4, layout="channels_last", dtype=dtype)
    config = NeuronConfig()
    scale, shift = torch.randn(16), torch.randn(16)
    want = affine_lif_reference(x.cpu().float(), config, scale=scale, shift=shift)
    args = (scale.to(DEVICE), shift.to(DEVICE))
    spikes, v, _ = lif.forward(x, *args, None, None, spike_dtype, config)
    assert torch.equal(spikes.cpu().float(), want.spikes)
    assert torch.equal(v.cpu(), want.v)
    g = torch.randn_like(x)
    half = lif.backward(g, None, None, x, None, *args, None, None, False, True, config)
    full = lif.backward(
        g.float(), None, None, x.float(), None, *args, None, None, False, True, config
    )
    assert half[1].dtype == dtype
    torch.testing.assert_close(half[1], full[1].to(dtype))  # the interpreter truncates to bfloat16
    assert torch.equal(half[4], full[4])


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "every second frame"])
@pytest.mark.parametrize("frames", [3, 8])
def test_combine(layout: str, frames: int) -> None:
    x = _tensor(frames, 2, 12, 3, 5, layout=layout)
    grad_y = _tensor(frames, 2, 12, 3, 5, layout=layout)
    terms = torch.randn(3, 12, device=DEVICE)
    slope, gain, offset = terms.reshape(3, 12, 1, 1)
    want = slope * x + gain * grad_y + offset
    torch.testing.assert_close(lif.combine(x, grad_y, *terms), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.bool])
@pytest.mark.parametrize("count", [0, 1, 8, 4099])
def test_packed_bits(dtype: torch.dtype, count: int) -> None:
    s = (torch.rand(count) < 0.3).to(dtype).to(DEVICE)
    data = pack.pack_bits(s)
    assert torch.equal(data.cpu(), pack_spikes(s.cpu()).data)
    assert torch.equal(pack.unpack_bits(data, count, dtype), s)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize(
    ("frames", "levels", "a", "constant"),
    [(1, 1, 2, 0), (3, 1, 2, 9), (2, 4, 2, 16 * 9), (2, 1, 1, 0), (40, 8, 2, 0)],
)
def test_exact_attention(
    dtype: torch.dtype, frames: int, levels: int, a: int, constant: int
) -> None:
    """Integers as int64 has them, read from channels-last frames without a copy."""
    shape = (frames, 2, 3, 3, 2 * 9)  # T B H W C, two heads
    q, k, v = (torch.randint(0, levels + 1, shape).to(dtype).to(DEVICE) for _ in range(3))
    k[...] = levels  # the largest sums there are
    views = [z.unflatten(4, (2, 9)).flatten(2, 3).permute(1, 3, 0, 2, 4) for z in (q, k, v)]
    o = levels if a == 2 else 0
    got = hamming.spike_attention(*views, a=a, o=o, constant=constant, scale=0.3, levels=levels)
    q_, k_, v_ = (z.cpu().long().flatten(2, 3) for z in views)
    want = (a * q_ - o) @ ((a * k_ - o).mT @ v_) + constant * v_.sum(-2, keepdim=True)
    assert torch.equal(got.cpu().flatten(2, 3), want.float() * 0.3)
    assert got.stride() == views[0].stride()


def test_attention_refuses_what_is_not_exact() -> None:
    q = torch.zeros(1, 1, 1, 2**15, 2, device=DEVICE)
    with pytest.raises(ValueError, match="use a float64 matmul"):
        hamming.spike_attention(q, q, q, a=2, o=16, constant=0, scale=1.0, levels=16)


def test_attention_is_a_well_made_custom_op() -> None:
    q, k, v = (torch.randint(0, 2, (1, 2, 1, 16, 8), device=DEVICE).float() for _ in range(3))
    form = {"a": 2, "o": 1, "constant": 0, "scale": 0.5, "levels": 1}
    torch.library.opcheck(hamming.spike_attention, (q, k, v), form)


# --- Attention as the op calls it -----------------------------------------------------------------


class _Ops(TorchDispatchMode):
    """Counts the calls of the attention kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.kernel += "spike_attention" in str(func)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU tensors take the kernels of CUDA tensors."""
    if INTERPRETED:
        monkeypatch.setitem(_kernels.HOME, "cpu", "_triton")


def _attend(z: list[Tensor], kind: str, levels: int, **options: object) -> tuple[Tensor, int]:
    """A quarter of the integers, exact in every precision; and how often the kernel ran."""
    options |= {"scale": 0.25 * levels**2, "levels": levels}
    with _Ops() as ops:
        if kind == "dot":
            out = dot_attention(*z, **options)
        else:
            out = hamming_attention(*z, constant_term=kind == "constant", **options)
    return out, ops.kernel


def _by_matmul(z: list[Tensor], kind: str, levels: int) -> Tensor:
    return _attend([x.cpu().double() for x in z], kind, levels)[0].float()


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("shape", [(7, 5), (2, 7, 5), (2, 3, 70, 9), (2, 1, 2, 7, 33)])
@pytest.mark.parametrize("kind", ["hamming", "constant", "dot"])
@pytest.mark.parametrize(
    ("dtype", "levels"), [(torch.float32, 1), (torch.uint8, 3), (torch.bfloat16, 1)]
)
def test_attention_takes_the_kernel(
    shape: tuple[int, ...], kind: str, dtype: torch.dtype, levels: int
) -> None:
    q, k, v = (torch.randint(0, levels + 1, shape).to(dtype).to(DEVICE) for _ in range(3))
    k, v = (torch.cat([z, z], -2) for z in (k, v))  # another number of tokens than q
    out, calls = _attend([q, k, v], kind, levels)
    assert calls == 1
    assert (out.dtype, out.shape) == (torch.float32, q.shape)
    assert torch.equal(out.cpu(), _by_matmul([q, k, v], kind, levels))


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("packed", [False, True])
def test_attention_by_the_kernel_has_its_gradients(packed: bool) -> None:
    """From spikes as a channels-last clip holds them: heads inside, nothing is copied."""
    leaves = [torch.randint(0, 2, (1, 30, 3, 5)).float().to(DEVICE) for _ in range(3)]
    z = [x.transpose(1, 2).requires_grad_() for x in leaves]
    out, calls = _attend(z, "hamming", 1, packed=packed)
    assert calls == 1
    assert out.stride()[1:] == z[0].stride()[1:]
    wanted = [x.detach().cpu().double().requires_grad_() for x in z]
    reference, _ = _attend(wanted, "hamming", 1)
    g = torch.randn(out.shape)
    grads = torch.autograd.grad(out, z, g.to(DEVICE))
    for a, b in zip(grads, torch.autograd.grad(reference, wanted, g.double()), strict=True):
        torch.testing.assert_close(a.cpu().double(), b, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("forced")
def test_attention_without_the_kernel() -> None:
    """What it would not compute exactly, or not at all, goes through matmuls."""
    plain = [torch.randint(0, 2, (2, 6, 4)).float().to(DEVICE) for _ in range(3)]
    assert _attend(plain, "hamming", 1, order="quadratic")[1] == 0
    assert _attend([z.double() for z in plain], "hamming", 1)[1] == 0
    assert _attend([plain[0], plain[1][:, :0], plain[2][:, :0]], "hamming", 1)[1] == 0
    wide = [torch.ones(1, 2, 129, device=DEVICE)] * 3
    large = [16 * torch.ones(1, 2**13, 4, device=DEVICE)] * 3  # sums above 2^24
    for z, levels in ((wide, 1), (large, 16)):
        out, calls = _attend(z, "hamming", levels)
        assert calls == 0
        assert torch.equal(out.cpu(), _by_matmul(z, "hamming", levels))


# dynamo makes an instance of an autograd function, of which torch itself warns
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.usefixtures("forced")
def test_a_compiled_attention_takes_the_kernel() -> None:
    z = [torch.randint(0, 2, (2, 6, 4)).float().to(DEVICE) for _ in range(3)]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return hamming_attention(q, k, v, scale=0.25)

    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        graphs.append(str(graph.graph))
        return graph

    out = torch.compile(attend, backend=backend, fullgraph=True)(*z)
    assert torch.equal(out.cpu(), _by_matmul(z, "hamming", 1))
    assert "spike_attention" in graphs[0]

    leaves = [x.clone().requires_grad_() for x in z]
    compiled = torch.compile(attend, backend="aot_eager", fullgraph=True)
    grads = (torch.autograd.grad(run(*leaves).sum(), leaves) for run in (attend, compiled))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.skipif(INTERPRETED, reason="65,536 programs take minutes in the interpreter")
def test_attention_over_time_of_many_pixels() -> None:
    """More pairs of clip and head than the second axis of a grid may have."""
    z = [torch.randint(0, 2, (9000, 8, 4, 8)).byte().to(DEVICE) for _ in range(3)]
    out, calls = _attend(z, "hamming", 1)
    assert calls == 1
    assert torch.equal(out.cpu(), _by_matmul(z, "hamming", 1))
