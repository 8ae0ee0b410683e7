"""The Triton convolution of bytes against its reference; run by test_triton.py.

Under ``TRITON_INTERPRET=1`` on the CPU, without it on a CUDA device.
"""

import os
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from spikevideoformer.deploy.int8 import int8_conv_reference
from spikevideoformer.ops._triton import int8_conv

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"


@pytest.fixture(autouse=True)
def _poisoned_memory() -> Iterator[None]:
    """Uninitialised memory holds NaN, so that what a kernel leaves out is seen."""
    torch.use_deterministic_algorithms(INTERPRETED)
    yield
    torch.use_deterministic_algorithms(False)


# channels in and out, kernel, stride, padding, groups
CONVS = {
    "1x1": (24, 40, (1, 1), (1, 1), (0, 0), 1),
    "1x1_padded": (33, 5, (1, 1), (1, 1), (1, 1), 1),
    "3x3": (33, 47, (3, 3), (1, 1), (1, 1), 1),
    "3x3_stride2": (16, 130, (3, 3), (2, 2), (1, 1), 1),
    "uneven": (5, 7, (2, 3), (1, 2), (0, 2), 1),
    "deep": (200, 8, (3, 3), (1, 1), (1, 1), 1),
    "one_channel": (1, 3, (3, 3), (1, 1), (1, 1), 1),
    "depthwise_7x7": (48, 48, (7, 7), (1, 1), (3, 3), 48),
    "depthwise_uneven": (70, 70, (3, 2), (2, 1), (0, 1), 70),
    "depthwise_odd": (5, 5, (7, 7), (1, 1), (3, 3), 5),
}


def _guarded(z: Tensor) -> Tensor:
    """The same with garbage right before and behind it in memory."""
    flat = torch.full((z.numel() + 512,), 93, dtype=z.dtype)
    flat[256:-256] = z.flatten()
    return flat.to(DEVICE)[256:-256].view(z.shape)


def _conv_case(
    name: str, levels: int, n: int, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[object, ...]]:
    channels, out, kernel, stride, padding, groups = CONVS[name]
    spikes = torch.randint(levels + 1, (n, height, width, channels), dtype=torch.uint8)
    spikes[0] = levels  # the largest sums there are
    weight = torch.randint(-127, 128, (out, *kernel, channels // groups), dtype=torch.int8)
    weight[-1] = 127
    spikes, weight = (_guarded(z).permute(0, 3, 1, 2) for z in (spikes, weight))
    step, bias = 0.01 * torch.rand(out) + 0.001, torch.randn(out)
    return spikes, weight, step.to(DEVICE), bias.to(DEVICE), (stride, padding, groups)


def _conv_wanted(
    spikes: Tensor, weight: Tensor, step: Tensor, bias: Tensor | None, *form: object
) -> Tensor:
    """Exact sums of the reference, then one rounding for each operation."""
    stride, padding, groups = form
    sums = int8_conv_reference(
        spikes.cpu(), weight.cpu(), torch.ones(len(step)),
        stride=stride, padding=padding, groups=groups,
    )  # fmt: skip
    out = sums.float() * step.cpu()[:, None, None]
    return out if bias is None else out + bias.cpu()[:, None, None]


@pytest.mark.parametrize("levels", [1, 127, 255])
@pytest.mark.parametrize("name", CONVS)
def test_int8_conv_is_exact(name: str, levels: int) -> None:
    *tensors, form = _conv_case(name, levels, 2, 9, 10)
    out = int8_conv.int8_conv(*tensors, *form, torch.float32, levels)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(out.cpu(), _conv_wanted(*tensors, *form))


@pytest.mark.parametrize("name", ["3x3", "depthwise_7x7"])
@pytest.mark.parametrize(("n", "height", "width"), [(1, 7, 7), (3, 1, 40), (0, 8, 8)])
def test_int8_conv_sizes(name: str, n: int, height: int, width: int) -> None:
    *tensors, form = _conv_case(name, 1, max(1, n), height, width)
    tensors[0] = tensors[0][:n]
    out = int8_conv.int8_conv(*tensors[:3], None, *form, torch.float32, 1)
    assert torch.equal(out.cpu(), _conv_wanted(*tensors[:3], None, *form))


@pytest.mark.parametrize("name", ["3x3", "depthwise_7x7"])
@pytest.mark.parametrize("layout", ["contiguous", "sliced", "expanded"])
def test_int8_conv_layouts(name: str, layout: str) -> None:
    spikes, weight, step, bias, form = _conv_case(name, 4, 2, 5, 6)
    if layout == "contiguous":
        spikes = spikes.contiguous()
    elif layout == "sliced":
        spikes = torch.stack([spikes, 77 - spikes], -1)[..., 0]
    else:
        spikes = spikes[:1].expand(2, -1, -1, -1)
    weight = int8_conv.arranged(weight)
    out = int8_conv.int8_conv(spikes, weight, step, bias, *form, torch.float32, 4)
    assert torch.equal(out.cpu(), _conv_wanted(spikes, weight, step, bias, *form))


@pytest.mark.parametrize("rows", [16, 64, 128])
def test_int8_conv_tiles(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of another size than the image, and the larger ones of a full device."""
    monkeypatch.setattr(int8_conv, "_ROWS", rows)
    monkeypatch.setattr(int8_conv, "_PROGRAMS", 1)
    monkeypatch.setattr(int8_conv, "_DEPTHWISE_ROWS", rows)
    for name in ("3x3_stride2", "depthwise_uneven"):
        *tensors, form = _conv_case(name, 4, 3, 9, 11)
        out = int8_conv.int8_conv(*tensors, *form, torch.float32, 4)
        assert torch.equal(out.cpu(), _conv_wanted(*tensors, *form))


@pytest.mark.parametrize("name", ["1x1", "depthwise_7x7"])
def test_int8_conv_in_bfloat16(name: str) -> None:
    *tensors, form = _conv_case(name, 1, 2, 5, 6)
    out = int8_conv.int8_conv(*tensors, *form, torch.bfloat16, 1)
    wanted = _conv_wanted(*tensors, *form)
    if INTERPRETED:  # it truncates
        torch.testing.assert_close(out.cpu().float(), wanted, rtol=2**-7, atol=0)
    else:
        assert torch.equal(out.cpu(), wanted.bfloat16())


def test_int8_conv_is_a_well_made_custom_op() -> None:
    for name in ("1x1", "depthwise_odd"):
        *tensors, form = _conv_case(name, 4, 1, 4, 5)
        torch.library.opcheck(int8_conv.int8_conv, (*tensors, *form, torch.float32, 4))


def test_int8_conv_refuses_other_groups() -> None:
    *tensors, (stride, padding, _) = _conv_case("1x1", 1, 1, 2, 2)
    with pytest.raises(ValueError, match="groups is 2 for 24 channels in and 40 out"):
        int8_conv.int8_conv(*tensors, stride, padding, 2, torch.float32, 1)
