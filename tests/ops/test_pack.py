"""Packed spikes come back as they were, whatever packs them."""

import pytest
import torch

from spikevideoformer.ops import pack
from spikevideoformer.ops.pack import (
    pack_bits_reference,
    pack_spikes,
    unpack,
    unpack_bits_reference,
)

DTYPES = [torch.float32, torch.bfloat16, torch.uint8, torch.bool, torch.float64, torch.float16]
SHAPES = [(), (1,), (7,), (8,), (16,), (17,), (3, 5, 7), (0,), (2, 0, 3), (4, 5, 6, 7), (33_333,)]


def spikes(shape, levels=1, dtype=torch.float32):
    return torch.randint(0, levels + 1, shape).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits_round_trip(dtype):
    for shape in SHAPES:
        s = spikes(shape, dtype=dtype)
        packed = pack_spikes(s)
        assert packed.data.numel() == -(-s.numel() // 8)
        assert packed.data.dtype == torch.uint8
        back = unpack(packed)
        assert back.dtype == dtype
        assert torch.equal(back, s)
        flat = s.flatten()
        assert torch.equal(packed.data, pack_bits_reference(flat))
        assert torch.equal(unpack_bits_reference(packed.data, s.numel()).to(dtype), flat)


@pytest.mark.parametrize("levels", [2, 4, 255])
def test_bytes_round_trip(levels):
    for dtype in (torch.float32, torch.uint8):
        s = spikes((4, 3, 5, 7), levels, dtype)
        packed = pack_spikes(s, levels)
        assert packed.data.numel() == s.numel()
        back = unpack(packed)
        assert back.dtype == dtype
        assert torch.equal(back, s)
        s.zero_()  # what is kept is a copy
        assert packed.data.any()


@pytest.mark.parametrize("levels", [1, 4])
def test_layout_is_kept(levels):
    s = spikes((4, 6, 5, 3), levels)
    channels_last = s.contiguous(memory_format=torch.channels_last)
    for z in (s, channels_last, channels_last.unflatten(0, (2, 2)), s.permute(3, 1, 0, 2)):
        back = unpack(pack_spikes(z, levels))
        assert torch.equal(back, z)
        assert back.stride() == z.stride()
    for z in (s[::2], s[..., ::2], s[:1].expand(4, 6, 5, 3), s[:, 1:]):  # not dense
        assert torch.equal(unpack(pack_spikes(z, levels)), z)


def test_order_of_bits():
    s = torch.tensor([1.0, 0, 0, 1, 0, 0, 0, 0, 0, 1])
    assert pack_spikes(s).data.tolist() == [0b1001, 0b10]


def test_memory_is_written_everywhere(monkeypatch):
    """Packing into, and unpacking into, memory that holds something else."""
    real = torch.empty

    def poisoned(*size, **kwargs):
        out = real(*size, **kwargs)
        return out.fill_(float("nan") if out.is_floating_point() else 255)

    for count in (1, 15, 16, 17, 4095, 4113):
        s = spikes((count,))
        with monkeypatch.context() as context:
            context.setattr(torch, "empty", poisoned)
            back = unpack(pack_spikes(s))
        assert torch.equal(back, s)


def test_threads_do_not_change_the_bits():
    s = spikes((3, 70_001))
    expected = pack_spikes(s)
    try:
        torch.set_num_threads(2)
        packed = pack_spikes(s)
        assert torch.equal(packed.data, expected.data)
        assert torch.equal(unpack(packed), s)
    finally:
        torch.set_num_threads(1)


def test_reference_is_used_without_kernels(monkeypatch):
    monkeypatch.setattr(pack, "_fast", lambda device, dtype: None)
    test_bits_round_trip(torch.float32)


def test_wrong_levels_are_refused():
    for levels in (0, 256):
        with pytest.raises(ValueError, match=f"levels is {levels}"):
            pack_spikes(torch.zeros(3), levels)
