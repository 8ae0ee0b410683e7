"""Convolution of packed spikes: bitwise the plain one, forward and backward."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from spikevideoformer.ops._keep import pack_op, unpack_op
from spikevideoformer.ops.spike_conv import spike_conv2d, spike_conv2d_reference

# (C_in, C_out, kernel, stride, padding, groups)
GEOMETRIES = {
    "pointwise": (8, 16, 1, 1, 0, 1),
    "dense": (5, 7, 3, 1, 1, 1),
    "downsample": (8, 6, 3, 2, 1, 1),
    "depthwise": (8, 8, 7, 1, 3, 8),
}
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def _inputs(geometry, levels, dtype, layout, bias):
    c_in, c_out, kernel, _, _, groups = geometry
    x = torch.randint(0, levels + 1, (6, c_in, 9, 7)).to(dtype)
    weight = torch.randn(c_out, c_in // groups, kernel, kernel, dtype=dtype)
    x, weight = (z.contiguous(memory_format=layout).requires_grad_() for z in (x, weight))
    return x, weight, torch.randn(c_out, dtype=dtype, requires_grad=True) if bias else None


def _results(op, x, weight, bias, geometry, autocast=None, **options):
    _, _, _, stride, padding, groups = geometry
    wanted = [z for z in (x, weight, bias) if z is not None and z.requires_grad]
    with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
        out = op(x, weight, bias, (stride, stride), (padding, padding), groups, **options)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(out)
    return out, *torch.autograd.grad(out, wanted, upstream)


def _assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.stride() == b.stride()
        assert torch.equal(a, b)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_same_bits(geometry, layout, dtype):
    for levels, bias in itertools.product((1, 4), (False, True)):
        inputs = _inputs(geometry, levels, dtype, layout, bias)
        _assert_same(
            _results(spike_conv2d, *inputs, geometry, levels=levels),
            _results(spike_conv2d_reference, *inputs, geometry),
        )


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_bits_under_autocast(geometry, autocast, dtype):
    inputs = _inputs(geometry, 1, dtype, torch.channels_last, bias=True)
    _assert_same(
        _results(spike_conv2d, *inputs, geometry, autocast),
        _results(spike_conv2d_reference, *inputs, geometry, autocast),
    )


@pytest.mark.parametrize("frozen", ["x", "weight", "bias"])
def test_frozen_inputs(frozen):
    """Gradients of the others only; fixed weights need no input, and none is kept."""
    geometry = GEOMETRIES["dense"]
    inputs = dict(
        zip(
            ("x", "weight", "bias"),
            _inputs(geometry, 1, torch.float32, LAYOUTS[1], True),
            strict=True,
        )
    )
    inputs[frozen].requires_grad_(False)
    _assert_same(
        _results(spike_conv2d, *inputs.values(), geometry),
        _results(spike_conv2d_reference, *inputs.values(), geometry),
    )


@pytest.mark.parametrize(("levels", "share"), [(1, 1 / 32), (4, 1 / 4)])
def test_what_is_kept_for_backward(levels, share):
    x, weight, _ = _inputs(GEOMETRIES["dense"], levels, torch.float32, LAYOUTS[1], False)
    x = torch.cat([x] * 8)
    kept = []
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda z: kept.append(z.numel() * z.element_size()) or z, lambda z: z
    )
    with hooks:
        spike_conv2d(x, weight, levels=levels)
    weights = weight.numel() * 4
    assert sum(kept) - weights == x.numel() * 4 * share


def test_nothing_is_packed_without_gradients():
    """Then any input will do."""
    x, weight = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 1, 1)
    assert torch.equal(spike_conv2d(x, weight), F.conv2d(x, weight))
    with torch.no_grad():
        assert torch.equal(spike_conv2d(x, weight.requires_grad_()), F.conv2d(x, weight))


def test_forward_mode_is_refused_where_spikes_are_packed():
    x, weight = (torch.rand(2, 3, 5, 5) < 0.5).float(), torch.randn(4, 3, 1, 1)
    tangent = torch.randn_like(weight)
    trained = weight.clone().requires_grad_()
    with forward_ad.dual_level():
        with pytest.raises(NotImplementedError, match="use spike_conv2d_reference"):
            spike_conv2d(x, forward_ad.make_dual(trained, tangent))
        out = spike_conv2d(x, forward_ad.make_dual(weight, tangent))  # nothing to pack
        torch.testing.assert_close(forward_ad.unpack_dual(out).tangent, F.conv2d(x, tangent))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # in dynamo
def test_compiles_to_one_graph():
    geometry = GEOMETRIES["depthwise"]
    inputs = _inputs(geometry, 1, torch.float32, torch.channels_last, bias=True)
    compiled, reference = (
        torch.compile(op, fullgraph=True, backend="aot_eager")
        for op in (spike_conv2d, spike_conv2d_reference)
    )
    found = _results(compiled, *inputs, geometry)
    _assert_same(found, _results(reference, *inputs, geometry))
    plain = _results(spike_conv2d_reference, *inputs, geometry)
    assert torch.equal(found[0], plain[0])  # gradients are torch's here, and ours there
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("levels", [1, 4])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_packing_ops(levels, layout):
    """As ``torch.compile`` calls them; 7 * 5 * 3 spikes do not fill the last byte."""
    s = torch.randint(0, levels + 1, (1, 7, 5, 3)).float().contiguous(memory_format=layout)
    torch.library.opcheck(pack_op, (s, levels))
    data = pack_op(s, levels)
    arguments = (data, 1 if levels == 1 else 8, list(s.shape), list(s.stride()), s.dtype)
    torch.library.opcheck(unpack_op, arguments)
    back = unpack_op(*arguments)
    assert torch.equal(back, s)
    assert back.stride() == s.stride()
