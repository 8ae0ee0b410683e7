"""Hamming and dot-product attention: exact in both orders, every precision, and from bytes."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from spikevideoformer.ops._numba import hamming as numba_hamming
from spikevideoformer.ops.hamming import (
    dot_attention,
    dot_attention_reference,
    hamming_attention,
    hamming_attention_reference,
    hamming_similarity_reference,
)
from spikevideoformer.ops.lif import NeuronConfig, lif, unroll_integer_spikes
from spikevideoformer.ops.pack import pack_spikes

HEAD_WIDTHS = [1, 2, 3, 8, 10, 32, 45, 48, 60, 64, 120]  # 360 / 8 = 45 is odd


@st.composite
def attention_cases(draw, max_levels=4):
    """q, k, v in 0..D of shapes [..., N, d], [..., M, d], [..., M, d], and D."""
    levels = draw(st.integers(1, max_levels))
    batch = draw(st.lists(st.integers(1, 3), max_size=2))
    n, m = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    d = draw(st.sampled_from(HEAD_WIDTHS))
    rate = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def spikes(tokens):
        shape = (levels, *batch, tokens, d)
        return (torch.rand(shape, generator=generator) < rate).float().sum(0)

    return spikes(n), spikes(m), spikes(m), levels


@settings(max_examples=300)
@given(case=attention_cases(), constant_term=st.booleans())
def test_both_orders_are_equal_and_exact(case, constant_term):
    q, k, v, levels = case
    scale = 1 / (2 * q.shape[-1])
    linear, quadratic = (
        hamming_attention(
            q, k, v, scale=scale, order=order, constant_term=constant_term, levels=levels
        )
        for order in ("linear", "quadratic")
    )
    assert torch.equal(linear, quadratic)
    # and both are the integers that int64 arithmetic gives, rounded once
    qi, ki, vi = (z.long() for z in (q, k, v))
    integers = (2 * qi - levels) @ ((2 * ki - levels).transpose(-2, -1) @ vi)
    if constant_term:
        integers = integers + levels**2 * q.shape[-1] * vi.sum(-2, keepdim=True)
    assert torch.equal(linear, integers.float() * (scale / levels**2))


@settings(max_examples=100)
@given(case=attention_cases(), scale=st.sampled_from([0.125, 1.0]))
def test_dot_product_orders_are_equal(case, scale):
    q, k, v, levels = case
    linear = dot_attention(q, k, v, scale=scale, levels=levels)
    quadratic = dot_attention(q, k, v, scale=scale, order="quadratic", levels=levels)
    assert torch.equal(linear, quadratic)
    expected = q.long() @ (k.long().transpose(-2, -1) @ v.long())
    assert torch.equal(linear, expected.float() * (scale / levels**2))


@settings(max_examples=100)
@given(case=attention_cases(max_levels=1))
def test_counting_bits(case):
    """With scale 1/(2d) and the constant term: values weighted by the share of equal bits."""
    q, k, v, _ = (z.double() if isinstance(z, torch.Tensor) else z for z in case)
    similarity = hamming_similarity_reference(q, k)
    assert similarity.min() >= 0
    assert similarity.max() <= 1
    attention = hamming_attention(q, k, v, scale=1 / (2 * q.shape[-1]), constant_term=True)
    torch.testing.assert_close(attention, similarity @ v, rtol=1e-12, atol=1e-12)


def test_similarity_by_hand():
    q = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    k = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    assert hamming_similarity_reference(q, k).tolist() == [[1.0, 0.75, 0.0]]


@settings(max_examples=100)
@given(case=attention_cases())
def test_levels_mean_over_all_pairs_of_sub_steps(case):
    """Integer spikes attend as the mean similarity of their unrolled binary spikes."""
    q, k, v, levels = (z.double() if isinstance(z, torch.Tensor) else z for z in case)
    pairs = [
        hamming_similarity_reference(q_bits, k_bits) @ v
        for q_bits in unroll_integer_spikes(q, levels)
        for k_bits in unroll_integer_spikes(k, levels)
    ]
    attention = hamming_attention(
        q, k, v, scale=1 / (2 * q.shape[-1]), constant_term=True, levels=levels
    )
    torch.testing.assert_close(attention, torch.stack(pairs).mean(0), rtol=1e-12, atol=1e-12)


def test_gradients_numerically():
    inputs = [torch.rand(2, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    for op in (
        lambda q, k, v: hamming_attention(q, k, v, scale=0.1, constant_term=True, levels=2),
        lambda q, k, v: hamming_attention(q, k, v, scale=0.1, order="quadratic"),
        lambda q, k, v: dot_attention(q, k, v),
    ):
        assert torch.autograd.gradcheck(op, inputs)


def _gradients(op, q, k, v, **options):
    inputs = [z.detach().requires_grad_() for z in (q, k, v)]
    out = op(*inputs, **options)
    generator = torch.Generator().manual_seed(0)
    upstream = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    return out.detach(), torch.autograd.grad(out, inputs, upstream)


@settings(max_examples=100)
@given(
    case=attention_cases(),
    constant_term=st.sampled_from([None, False, True]),  # None: the dot product
    order=st.sampled_from(["linear", "quadratic"]),
    packed=st.booleans(),
)
def test_equals_the_reference_with_its_gradients(case, constant_term, order, packed):
    q, k, v, levels = case
    options = {"scale": 0.3, "order": order, "levels": levels}
    fast, slow = dot_attention, dot_attention_reference
    if constant_term is not None:
        fast, slow = hamming_attention, hamming_attention_reference
        options["constant_term"] = constant_term
    expected, gradients = _gradients(slow, *(z.double() for z in (q, k, v)), **options)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        out, found = _gradients(fast, *(z.to(dtype) for z in (q, k, v)), **options, packed=packed)
        torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=0)
        for a, b in zip(found, gradients, strict=True):
            assert a.dtype == dtype
            size = b.norm().item() + 1  # of sums of terms that may cancel
            assert (a.double() - b).norm().item() <= 10 * tolerance * size


@pytest.mark.parametrize("levels", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layout", ["dense", "heads_inside"])
def test_packed_changes_no_bit(levels, dtype, layout):
    """In the layout that tokens of one channels-last clip have, too."""
    q, k, v = (torch.randint(0, levels + 1, (2, 30, 3, 5)).to(dtype).transpose(1, 2) for _ in "qkv")
    if layout == "dense":
        q, k, v = (z.contiguous() for z in (q, k, v))
    options = {"scale": 0.1, "levels": levels, "constant_term": True}
    plain, packed = (
        _gradients(hamming_attention, q, k, v, **options, packed=on) for on in (False, True)
    )
    assert torch.equal(plain[0], packed[0])
    assert all(torch.equal(a, b) for a, b in zip(plain[1], packed[1], strict=True))


@pytest.mark.parametrize(("levels", "share"), [(1, 1 / 32), (3, 1 / 4)])
def test_what_is_kept_for_backward(levels, share):
    """Bits of binary spikes, bytes of integer ones, and no matrix besides."""
    q, k, v = (torch.randint(0, levels + 1, (1, 2, 512, 64)).float() for _ in "qkv")
    kept = []
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda z: kept.append(z.numel() * z.element_size()) or z, lambda z: z
    )
    with hooks:
        hamming_attention(q.requires_grad_(), k, v, scale=0.1, levels=levels, packed=True)
    assert sum(kept) == 3 * q.numel() * 4 * share


# --- Bytes and bits on a CPU ---------------------------------------------------------------------


def _both_kinds(q, k, v, constant_term, **options):
    """Hamming attention with or without the constant term, or the dot product for None."""
    if constant_term is None:
        return dot_attention(q, k, v, scale=0.3, **options)
    return hamming_attention(q, k, v, scale=0.3, constant_term=constant_term, **options)


def _reference(q, k, v, constant_term, levels):
    """The integers of the reference in float64, rounded once before the scale and once by it."""
    z = [z.double() for z in (q, k, v)]
    exact = {"scale": float(levels**2), "levels": levels}  # the division by D^2 undone
    if constant_term is None:
        integers = dot_attention_reference(*z, **exact)
    else:
        integers = hamming_attention_reference(*z, **exact, constant_term=constant_term)
    return integers.float() * (0.3 / levels**2)


@pytest.fixture
def kernel_calls(monkeypatch):
    """Calls of the kernel for byte spikes, counted."""
    calls = []
    real = numba_hamming.spike_attention

    def counted(*args, **kwargs):
        calls.append(kwargs)
        return real(*args, **kwargs)

    monkeypatch.setattr(numba_hamming, "spike_attention", counted)
    return calls


KINDS = st.sampled_from([None, False, True])


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=attention_cases(), constant_term=KINDS, bits=st.booleans())
def test_bytes_and_bits_equal_the_reference(kernel_calls, case, constant_term, bits):
    *z, levels = case
    kernel_calls.clear()
    q, k, v = (pack_spikes(s, levels) if bits else s.byte() for s in z)
    out = _both_kinds(q, k, v, constant_term, levels=levels)
    assert len(kernel_calls) == 1
    assert out.dtype == torch.float32
    assert torch.equal(out, _reference(*z, constant_term, levels))


@pytest.mark.parametrize("levels", [1, 4])
@pytest.mark.parametrize("width", [3, 16, 45, 64, 65, 120, 130])
def test_bytes_in_any_layout(kernel_calls, width, levels):
    """Tokens of a channels-last clip, of a contiguous one, transposed, expanded and of slices."""
    x = torch.randint(0, levels + 1, (3, 2, 3, 5 * width, 7)).byte()  # [q k v, B, h, ..]
    tokens = x[..., :width, :].mT  # the last axis is not dense
    heads = x.unflatten(3, (5, width))[:, :, 0].permute(0, 1, 2, 4, 3)  # [.., 5, N, d], strided
    rows = x.flatten(2)[:, :, 3 : 3 + 4 * width].unflatten(2, (1, 4, width))  # off any alignment
    same = rows[:, :1].expand(-1, 5, -1, -1, -1)
    for q, k, v in (tokens, heads, rows, same, tokens.contiguous()):
        out = _both_kinds(q, k, v, True, levels=levels)
        assert torch.equal(out, _reference(q, k, v, True, levels))
    q, k, v = tokens
    out = hamming_attention(q[..., :1, :], k, v, scale=0.3, levels=levels)  # one query of many keys
    assert torch.equal(out, _reference(q[..., :1, :], k, v, False, levels))
    out = dot_attention(q, k, v[..., : (width + 1) // 2], scale=0.3, levels=levels)  # narrow values
    assert torch.equal(out, _reference(q, k, v[..., : (width + 1) // 2], None, levels))
    assert len(kernel_calls) == 7


def test_bytes_come_out_laid_out_as_they_came():
    # tokens of two frames of a channels-last clip
    q, k, v = torch.randint(0, 2, (3, 2, 50, 4, 20)).byte().transpose(2, 3)
    assert hamming_attention(q, k, v, scale=0.1).stride() == q.stride()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("width", [5, 45, 120])
def test_bytes_are_written_everywhere_on_any_threads(monkeypatch, threads, width):
    """Poisoned memory shows nowhere; enough work that threads are used."""
    rows = (torch.rand(3, 2, 700, 3, 4 * width) < 0.3).byte()
    q, k, v = rows[..., width : 2 * width].transpose(2, 3)
    expected = _reference(q, k, v, True, 1)
    real = torch.empty, torch.empty_like

    def poisoned(*args, **kwargs):
        out = real[isinstance(args[0], torch.Tensor)](*args, **kwargs)
        return out.fill_(math.nan if out.is_floating_point() else 2**30 + 12_345)

    before = torch.get_num_threads()
    with monkeypatch.context() as context:
        context.setattr(torch, "empty", poisoned)
        context.setattr(torch, "empty_like", poisoned)
        torch.set_num_threads(threads)
        try:
            out = _both_kinds(q, k, v, True)
        finally:
            torch.set_num_threads(before)
    assert torch.equal(out, expected)


def test_bytes_beyond_int32_and_other_orders_are_left_to_matmuls(kernel_calls):
    q, k, v = (torch.full((1, 70_000, 16), 200, dtype=torch.uint8) for _ in "qkv")
    out = dot_attention(q[:, :2], k, v, scale=1.0, levels=200)
    exact = 16 * 70_000 * 200**3
    assert exact > 2**31
    assert torch.equal(out, torch.full((1, 2, 16), float(exact)) * (1 / 200**2))
    q, k, v = torch.randint(0, 2, (3, 9, 20)).byte()
    assert torch.equal(
        dot_attention(q, k, v, order="quadratic"), dot_attention(q.float(), k.float(), v.float())
    )
    assert hamming_attention(q, k, v.float().requires_grad_(), scale=1.0).requires_grad
    assert not kernel_calls


def test_bytes_are_exact_between_float32_and_int32(kernel_calls):
    """Sums above 2^24, where float32 skips integers, rounded once."""
    q, k, v = torch.randint(14, 17, (3, 24_000, 45)).div(5, rounding_mode="floor").byte()
    q = q[:20]
    for constant_term in (None, True):
        out = _both_kinds(q, k, v, constant_term, levels=3)
        assert out.abs().max() / 0.3 * 9 > 2**24
        assert torch.equal(out, _reference(q, k, v, constant_term, 3))
    assert len(kernel_calls) == 2


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # in dynamo
def test_bytes_under_torch_compile():
    q, k, v = torch.randint(0, 2, (3, 2, 9, 20)).byte()
    packed = pack_spikes(v)

    def run(q, k, v):
        return hamming_attention(q, k, v, scale=0.1, constant_term=True)

    expected = run(q, k, v)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(q, k, v), expected)
    assert torch.equal(compiled(q, k, packed), expected)


def test_bytes_of_shapes_that_do_not_fit_are_refused(kernel_calls):
    """The kernel would read beyond them."""
    q, k, v = torch.ones(3, 2, 9, 20, dtype=torch.uint8)
    for wrong in ((q[..., :5], k, v), (q, k[:, :4], v), (q, k, v[:, :4]), (q, k[:1], v[:1, :3])):
        with pytest.raises(RuntimeError):
            hamming_attention(*wrong, scale=0.1)
    assert not kernel_calls


def test_no_tokens_and_no_heads():
    for shape in ((2, 0, 20), (0, 3, 20)):
        q = torch.zeros(shape, dtype=torch.uint8)
        assert hamming_attention(q, q, q, scale=0.1).shape == shape
    q, none = torch.ones(2, 3, 20, dtype=torch.uint8), torch.zeros(2, 0, 20, dtype=torch.uint8)
    assert torch.equal(hamming_attention(q, none, none, scale=0.1), torch.zeros(2, 3, 20))


# --- Precision: T = 32 frames of 14 x 14 tokens, where half precision would overflow ------------

TOKENS = 32 * 14 * 14


def _qkv(d=45, tokens=TOKENS, rate=0.9):
    """Two heads of d; at a high rate the sums pass float16's 65,504."""
    return tuple((torch.rand(1, 2, tokens, d) < rate).float() for _ in range(3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("order", ["linear", "quadratic"])
@pytest.mark.parametrize("constant_term", [False, True])
def test_autocast_changes_nothing(dtype, order, constant_term):
    tokens = TOKENS if order == "linear" else 800
    q, k, v = _qkv(tokens=tokens)
    options = {"scale": 1 / 720, "order": order, "constant_term": constant_term}
    expected = hamming_attention(q, k, v, **options)
    dot = dot_attention(q, k, v, order=order)
    if order == "linear":
        assert (expected * 720).abs().max() > 65_504  # would be inf in float16
    with torch.autocast("cpu", dtype=dtype):
        for z in ((q, k, v), tuple(z.to(dtype) for z in (q, k, v))):
            out = hamming_attention(*z, **options)
            assert out.dtype == torch.float32
            assert torch.equal(out, expected)
            assert torch.equal(dot_attention(*z, order=order), dot)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("training", [False, True])
def test_autocast_fires_the_same_spikes(dtype, training):
    """Attention, BN, neuron: the tail of SpikeAttention at T = 32 and 14 x 14 tokens."""
    q, k, v = _qkv(rate=0.6)
    bn = nn.BatchNorm2d(90)
    nn.init.normal_(bn.weight, 1.0, 0.2)
    bn.running_var.fill_(400.0)
    bn.train(training)

    def spikes(q, k, v):
        y = hamming_attention(q, k, v, scale=1 / 180)  # [1, 2, T*H*W, 45]
        y = y.reshape(2, 32, 196, 45).permute(1, 0, 3, 2).reshape(32, 90, 14, 14)
        return lif(bn(y).unsqueeze(1), NeuronConfig())[0]

    expected = spikes(q, k, v)
    assert 0.01 < expected.mean() < 0.9
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(spikes(*(z.to(dtype) for z in (q, k, v))), expected)


@pytest.mark.parametrize("constant_term", [False, True])
def test_sums_beyond_float32_stay_exact(constant_term):
    """Three levels and nearly all neurons firing: sums above 2^24, where float32 skips integers."""
    q, k, v = (torch.randint(14, 17, (1, n, 45)) // 5 for n in (20, 24_000, 24_000))
    q_, k_, v_ = (z.float() for z in (q, k, v))
    exact = (2 * q - 3) @ ((2 * k - 3).transpose(-2, -1) @ v)
    if constant_term:
        exact = exact + 9 * 45 * v.sum(-2, keepdim=True)
    options = {"scale": 9.0, "levels": 3}
    out = hamming_attention(q_, k_, v_, constant_term=constant_term, **options)
    assert torch.equal(out, exact.float())
    exact = q @ (k.transpose(-2, -1) @ v)
    assert exact.min() > 2**24
    assert torch.equal(dot_attention(q_, k_, v_, **options), exact.float())


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_lowered_matmul_precision_changes_nothing(precision):
    q, k, v = _qkv(tokens=500)
    expected = hamming_attention(q, k, v, scale=1 / 720, constant_term=True)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        out = hamming_attention(q, k, v, scale=1 / 720, constant_term=True)
    finally:
        torch.set_float32_matmul_precision(before)
    assert out.dtype == torch.float32
    assert torch.equal(out, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_cuda_gives_the_same_numbers(precision):
    q, k, v = _qkv()
    expected = hamming_attention(q, k, v, scale=1 / 720)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            out = hamming_attention(q.cuda(), k.cuda(), v.cuda(), scale=1 / 720)
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(out.cpu(), expected)


def test_half_precision_input_comes_out_in_float32_and_float64_stays():
    q, k, v = _qkv(tokens=10)
    for dtype, out in (
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        z = [x.to(dtype) for x in (q, k, v)]
        assert hamming_attention(*z, scale=0.1).dtype == out
        assert dot_attention(*z).dtype == out


def test_unknown_order():
    q, k, v = _qkv(tokens=3)
    for op in (
        lambda: hamming_attention(q, k, v, scale=1.0, order="diagonal"),
        lambda: dot_attention(q, k, v, order="diagonal"),
        lambda: dot_attention_reference(q, k, v, order="diagonal"),
    ):
        with pytest.raises(ValueError, match="choose linear or quadratic"):
            op()


def test_forward_mode_only_through_the_reference():
    q, k, v = torch.randint(0, 2, (3, 5, 4)).double()
    tangent = torch.randn_like(v)
    for op in (hamming_attention, dot_attention):
        with pytest.raises(NotImplementedError, match="use hamming_attention_reference or"):
            torch.func.jvp(lambda z: op(q, k, z, scale=0.1), (v,), (tangent,))  # noqa: B023
    expected = hamming_attention_reference(q, k, tangent, scale=0.1)
    for op, options in (
        (hamming_attention_reference, {}),
        (hamming_attention, {"backend": "reference"}),
    ):
        _, along = torch.func.jvp(lambda z: op(q, k, z, scale=0.1, **options), (v,), (tangent,))  # noqa: B023
        torch.testing.assert_close(along, expected)
