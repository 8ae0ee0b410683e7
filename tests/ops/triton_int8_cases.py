"""The Triton convolution of bytes against its reference; run by test_triton.py.

Under ``TRITON_INTERPRET=1`` on the CPU, without it on a CUDA device.
"""

import os
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spikevideoformer.ops._triton import int8_conv

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"


@pytest.fixture(autouse=True)
def _poisoned_memory() -> Iterator[None]:
    """Uninitialised memory holds NaN, so that what a kernel leaves out is seen."""
    torch.use_deterministic_algorithms(INTERPRETED)
    yield
    torch.use_deterministic_algorithms(False)


# channels in and out, kernel, stride, padding
CONVS = {
    "1x1": (24, 40, (1, 1), (1, 1), (0, 0)),
    "1x1_padded": (33, 5, (1, 1), (1, 1), (1, 1)),
    "3x3": (33, 47, (3, 3), (1, 1), (1, 1)),
    "3x3_stride2": (16, 130, (3, 3), (2, 2), (1, 1)),
    "uneven": (5, 7, (2, 3), (1, 2), (0, 2)),
    "deep": (200, 8, (3, 3), (1, 1), (1, 1)),
    "one_channel": (1, 3, (3, 3), (1, 1), (1, 1)),
}


def _guarded(z: Tensor) -> Tensor:
    """The same with garbage right before and behind it in memory."""
    flat = torch.full((z.numel() + 512,), 93, dtype=z.dtype)
    flat[256:-256] = z.flatten()
    return flat.to(DEVICE)[256:-256].view(z.shape)


def _conv_case(
    name: str, levels: int, n: int, height: int, width: int
) -> tuple[Tensor, Tensor, tuple[int, int], tuple[int, int]]:
    channels, out, kernel, stride, padding = CONVS[name]
    spikes = torch.randint(levels + 1, (n, height, width, channels), dtype=torch.uint8)
    spikes[0] = levels  # the largest sums there are
    weight = torch.randint(-127, 128, (out, *kernel, channels), dtype=torch.int8)
    weight[-1] = 127
    spikes, weight = (_guarded(z).permute(0, 3, 1, 2) for z in (spikes, weight))
    return spikes, weight, stride, padding


def _wanted(spikes: Tensor, weight: Tensor, *form: object) -> Tensor:
    return F.conv2d(spikes.cpu().double(), weight.cpu().double(), None, *form).float()


@pytest.mark.parametrize("levels", [1, 127, 255])
@pytest.mark.parametrize("name", CONVS)
def test_int8_conv_is_exact(name: str, levels: int) -> None:
    case = _conv_case(name, levels, 2, 9, 10)
    out = int8_conv.int8_conv(*case, levels)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(out.cpu(), _wanted(*case))


@pytest.mark.parametrize(("n", "height", "width"), [(1, 7, 7), (3, 1, 40), (0, 8, 8)])
def test_int8_conv_sizes(n: int, height: int, width: int) -> None:
    spikes, *rest = _conv_case("3x3", 1, max(1, n), height, width)
    case = spikes[:n], *rest
    assert torch.equal(int8_conv.int8_conv(*case, 1).cpu(), _wanted(*case))


@pytest.mark.parametrize("layout", ["contiguous", "sliced", "expanded"])
def test_int8_conv_layouts(layout: str) -> None:
    spikes, weight, *form = _conv_case("3x3", 4, 2, 5, 6)
    if layout == "contiguous":
        spikes = spikes.contiguous()
    elif layout == "sliced":
        spikes = torch.stack([spikes, 77 - spikes], -1)[..., 0]
    else:
        spikes = spikes[:1].expand(2, -1, -1, -1)
    case = spikes, int8_conv.arranged(weight), *form
    assert torch.equal(int8_conv.int8_conv(*case, 4).cpu(), _wanted(*case))


@pytest.mark.parametrize("rows", [16, 64, 128])
def test_int8_conv_tiles(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of another size than the image, and the larger ones of a full device."""
    monkeypatch.setattr(int8_conv, "_ROWS", rows)
    monkeypatch.setattr(int8_conv, "_PROGRAMS", 1)
    case = _conv_case("3x3_stride2", 4, 3, 9, 11)
    assert torch.equal(int8_conv.int8_conv(*case, 4).cpu(), _wanted(*case))


def test_int8_conv_is_a_well_made_custom_op() -> None:
    torch.library.opcheck(int8_conv.int8_conv, (*_conv_case("1x1", 4, 1, 4, 5), 4))
