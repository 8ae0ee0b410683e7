"""Convolutions with gradients of our own against torch's, in value, layout and what they refuse."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from spikevideoformer.ops import conv_gradient
from spikevideoformer.ops.conv_gradient import conv2d

# C_in, C_out, kernel, stride, padding, groups, and the form that is chosen
GEOMETRIES = {
    "pointwise": (5, 7, 1, 1, 0, 1, "pointwise"),
    "3x3 depthwise": (20, 20, 3, 1, 1, 20, "depthwise"),
    "3x3 depthwise without padding": (20, 20, 3, 1, 0, 20, "depthwise"),
    "5x5 depthwise, padding 1": (16, 16, 5, 1, 1, 16, "depthwise"),
    "7x7 depthwise": (32, 32, 7, 1, 3, 32, "depthwise"),
    "7x7 depthwise of few channels": (3, 3, 7, 1, 3, 3, "depthwise"),
    "few channels": (20, 6, 3, 1, 1, 1, "few channels"),
    "many channels": (6, 20, 3, 1, 1, 1, None),
    "stride 2": (8, 8, 3, 2, 1, 8, None),
    "groups": (8, 8, 3, 1, 1, 2, None),
    "9x9 depthwise": (4, 4, 9, 1, 4, 4, None),
}
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def reference(x, weight, bias, stride, padding, groups):
    return F.conv2d(x, weight, bias, stride, padding, groups=groups)


def inputs(geometry, layout, dtype=torch.float32, bias=True, seed=0):
    c_in, c_out, kernel, _, _, groups, _ = geometry
    draw = torch.Generator().manual_seed(seed)
    x, weight, b = (
        torch.randn(shape, generator=draw, dtype=dtype)
        for shape in ((5, c_in, 9, 11), (c_out, c_in // groups, kernel, kernel), (c_out,))
    )
    x = x.contiguous(memory_format=layout)
    return [z.requires_grad_() for z in ((x, weight, b) if bias else (x, weight))]


def results(op, tensors, geometry, layout):
    stride, padding, groups = geometry[3:6]
    out = op(*tensors, *([None] * (3 - len(tensors))), (stride,) * 2, (padding,) * 2, groups)
    draw = torch.Generator().manual_seed(1)
    above = torch.randn(out.shape, generator=draw, dtype=torch.float32).to(out)
    return out, torch.autograd.grad(out, tensors, above.contiguous(memory_format=layout))


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_as_torch(geometry):
    """Forward bit for bit; gradients as near to float64 as float32 sums are."""
    for layout, above, bias in itertools.product(LAYOUTS, LAYOUTS, (False, True)):
        tensors = inputs(geometry, layout, bias=bias)
        out, found = results(conv2d, tensors, geometry, above)
        expected, _ = results(reference, tensors, geometry, above)
        assert torch.equal(out, expected)
        exact = inputs(geometry, layout, torch.float64, bias)
        for z, other in zip(exact, tensors, strict=True):
            z.data.copy_(other)
        _, wanted = results(reference, exact, geometry, above)
        for a, b in zip(found, wanted, strict=True):
            assert a.shape == b.shape
            assert float((a - b).abs().max() / b.abs().max()) < 2e-6


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_which_form_and_when(geometry, monkeypatch):
    """Ours for what it is for; torch's own in other precisions, traced or without gradients."""
    chosen = []
    ours = conv_gradient._Conv2d.apply
    monkeypatch.setattr(
        conv_gradient._Conv2d, "apply", lambda *a: chosen.append(a) or ours(*a), raising=False
    )
    tensors = inputs(geometry, torch.channels_last)
    results(conv2d, tensors, geometry, torch.channels_last)
    assert len(chosen) == (geometry[6] is not None)
    form = conv_gradient._form(*tensors[:2], *((n,) * 2 for n in geometry[3:5]), geometry[5])
    assert form == geometry[6]
    chosen.clear()
    stride, padding, groups = geometry[3:6]
    rest = (None, (stride,) * 2, (padding,) * 2, groups)
    with torch.no_grad():
        conv2d(*tensors[:2], *rest)
    conv2d(tensors[0], tensors[1].detach(), *rest)
    conv2d(*(z.double() for z in tensors[:2]), *rest)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        conv2d(*tensors[:2], *rest)
    assert not chosen


@pytest.mark.parametrize("frozen", [0, 2])
@pytest.mark.parametrize("name", ["pointwise", "7x7 depthwise", "few channels"])
def test_frozen_inputs(name, frozen):
    geometry = GEOMETRIES[name]
    tensors = inputs(geometry, torch.channels_last)
    tensors[frozen].requires_grad_(False)
    stride, padding, groups = geometry[3:6]
    out = conv2d(*tensors, (stride,) * 2, (padding,) * 2, groups)
    trained = [z for z in tensors if z.requires_grad]
    assert [z.shape for z in torch.autograd.grad(out.sum(), trained)] == [z.shape for z in trained]


def test_the_same_bits_with_two_threads():
    geometry = GEOMETRIES["7x7 depthwise"]
    x, weight = inputs(geometry, torch.channels_last, bias=False)
    x = torch.cat([x.detach()] * 8)  # enough for a second thread
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            out = conv2d(x, weight, None, (1, 1), (3, 3), 32)
            found.append(torch.autograd.grad(out.square().sum(), weight)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_sums_over_many_pixels_are_those_of_float64():
    """Images are added up in float64: nearer than torch, which has one float32 sum."""
    draw = torch.Generator().manual_seed(0)
    x, grad = torch.randn(2, 64, 16, 32, 32, generator=draw) + 1
    weight = torch.randn(16, 1, 7, 7, generator=draw)
    geometry = ((1, 1), (3, 3), 16, (False, True, False))
    found = conv_gradient.convolution_backward(grad, x, weight, None, *geometry)[1]
    double = (z.double() for z in (grad, x, weight))
    exact = conv_gradient.convolution_backward(*double, None, *geometry)[1]
    assert float((found - exact).abs().max() / exact.abs().max()) < 1e-6


def test_no_images():
    weight = torch.randn(4, 3, 1, 1, requires_grad=True)
    out = conv2d(torch.zeros(0, 3, 5, 5), weight)
    assert out.shape == (0, 4, 5, 5)
    assert torch.autograd.grad(out.sum(), weight)[0].count_nonzero() == 0


def test_forward_mode_passes():
    x, tangent = torch.randn(2, 1, 3, 5, 5)
    weight = torch.randn(4, 3, 1, 1, requires_grad=True)
    with forward_ad.dual_level():
        out = conv2d(forward_ad.make_dual(x, tangent), weight)
        torch.testing.assert_close(forward_ad.unpack_dual(out).tangent, F.conv2d(tangent, weight))


@pytest.mark.parametrize("name", ["pointwise", "7x7 depthwise"])
def test_the_default_dtype_does_not_matter(name):
    """Kernels write float32 into buffers of their own."""
    geometry = GEOMETRIES[name]
    tensors = inputs(geometry, torch.channels_last, bias=False)
    _, expected = results(conv2d, tensors, geometry, torch.channels_last)
    try:
        torch.set_default_dtype(torch.float64)
        _, found = results(conv2d, tensors, geometry, torch.channels_last)
    finally:
        torch.set_default_dtype(torch.float32)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_other_devices_and_function_transforms_are_left_to_torch():
    x, weight = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 1, 1)
    on_meta = conv2d(x.to("meta"), weight.to("meta").requires_grad_())
    assert on_meta.shape == (2, 4, 5, 5)
    found = torch.func.grad(lambda w: conv2d(x, w).square().sum())(weight)
    weight.requires_grad_()
    expected = torch.autograd.grad(conv2d(x, weight).square().sum(), weight)[0]
    torch.testing.assert_close(found, expected)
