"""int8 on the Triton kernel, from one convolution to the engine; run by ops/test_triton.py.

Under ``TRITON_INTERPRET=1`` tensors on the CPU take the kernels of CUDA tensors.
"""

import copy
import os
import pickle
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

import spikevideoformer as svf
from spikevideoformer.deploy.engine import InferenceEngine
from spikevideoformer.deploy.int8 import Int8Digits, int8_available
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.ops import _kernels
from spikevideoformer.ops._triton import int8_conv, lif
from spikevideoformer.ops.exact_conv import as_integers

from ..lively import random_norms

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"


@pytest.fixture(autouse=True)
def forced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The interpreter takes its time for each program, so there it gets few large ones."""
    if INTERPRETED:
        monkeypatch.setitem(_kernels.HOME, "cpu", "_triton")
        monkeypatch.setattr(lif, "_PROGRAMS", 1)
        monkeypatch.setattr(int8_conv, "_PROGRAMS", 1)
        monkeypatch.setattr(int8_conv, "_ROWS", 1024)
    int8_available.cache_clear()
    yield
    int8_available.cache_clear()


@pytest.mark.parametrize("levels", [1, 4, 255])
def test_available(levels: int) -> None:
    assert int8_available(levels, DEVICE) is None


@pytest.mark.parametrize(("bits", "levels"), [(8, 4), (8, 255), (16, 4)])
def test_a_convolution_is_its_reference(bits: int, levels: int) -> None:
    weights = as_integers(torch.randn(10, 6, 3, 3), bits, levels=levels)
    conv = Int8Digits(weights, (2, 2), (1, 1), DEVICE)
    spikes = torch.randint(levels + 1, (2, 6, 5, 7), dtype=torch.uint8)
    wanted = F.conv2d(spikes.double(), weights.integers.double(), None, 2, 1).float()
    for twin in (conv, copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        out = twin(spikes.to(DEVICE))
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(out.cpu(), wanted)


def _lively_model(**overrides: object) -> SpikeVideoFormer:
    torch.manual_seed(0)
    model = svf.create_model("svf_nano", depths=(1,) * 5, num_classes=10, **overrides)
    return random_norms(model).eval()


@pytest.mark.parametrize(("precision", "neuron"), [("exact", "lif"), ("int8", "integer_lif")])
def test_the_engine_fires_as_on_a_cpu(
    precision: str, neuron: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit in the interpreter; but for a few spikes on a GPU, whose sums round otherwise."""
    model, video = _lively_model(neuron=neuron), torch.randn(1, 2, 3, 32, 32)
    with monkeypatch.context() as on_cpu:
        on_cpu.setitem(_kernels.HOME, "cpu", "_numba")
        int8_available.cache_clear()
        if precision == "int8" and int8_available() is not None:
            pytest.skip(str(int8_available()))
        wanted, expected = InferenceEngine(model, precision=precision).run(video)
    int8_available.cache_clear()
    out, rates = InferenceEngine(model.to(DEVICE), precision=precision).run(video.to(DEVICE))
    assert rates.per_frame.keys() == expected.per_frame.keys()
    off = [(rates.per_frame[k].cpu() - v).abs().max() for k, v in expected.per_frame.items()]
    # currents in bfloat16, which the interpreter truncates
    limit = 0.0 if INTERPRETED and precision == "exact" else 0.05 * model.config.neuron.levels
    assert max(off) <= limit
    assert torch.corrcoef(torch.stack([out.cpu().flatten(), wanted.flatten()]))[0, 1] > 0.9
