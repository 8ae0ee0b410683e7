"""Bilinear upsampling: torch's own but for rounding, and the kernel bit for bit."""

import pytest
import torch
import torch.nn.functional as F

from spikevideoformer.ops.upsample import upsample, upsample_reference

SHAPES = [(2, 11, 5, 7), (1, 40, 1, 3), (3, 16, 4, 1), (1, 33, 9, 6), (0, 3, 2, 2)]


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_upsample(shape: tuple[int, ...], factor: int) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = upsample_reference(x, factor)
    if len(x):
        real = F.interpolate(x.double(), scale_factor=factor, mode="bilinear")
        torch.testing.assert_close(expected.double(), real, rtol=1e-5, atol=1e-5)
    assert torch.equal(upsample(x, factor), expected)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(upsample(last, factor), expected)


def test_threads_change_nothing() -> None:
    x = torch.randn(2, 20, 33, 31, generator=torch.Generator().manual_seed(1))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = upsample(x, 4)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(two, upsample_reference(x, 4))
