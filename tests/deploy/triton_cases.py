"""int8 on the Triton kernel, from one convolution to the engine; run by ops/test_triton.py.

Under ``TRITON_INTERPRET=1`` tensors on the CPU take the kernels of CUDA tensors.
"""

import copy
import os
import pickle
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import spikevideoformer as svf
from spikevideoformer.deploy.engine import InferenceEngine
from spikevideoformer.deploy.int8 import Int8SpikeConv2d, int8_available, int8_conv_reference
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.ops import _kernels
from spikevideoformer.ops._triton import int8_conv, lif

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
        monkeypatch.setattr(int8_conv, "_DEPTHWISE_ROWS", 1024)
    int8_available.cache_clear()
    yield
    int8_available.cache_clear()


def _conv(**options: object) -> Int8SpikeConv2d:
    weight = torch.randn(10, 6, 3, 3, device=DEVICE)
    bias = torch.randn(10, device=DEVICE)
    return Int8SpikeConv2d(weight, bias, padding=1, **options)


def _spikes(channels: int = 6, levels: int = 4) -> Tensor:
    return torch.randint(levels + 1, (2, channels, 5, 7), dtype=torch.uint8, device=DEVICE)


@pytest.mark.parametrize("levels", [1, 4, 255])
def test_available(levels: int) -> None:
    assert int8_available(levels, DEVICE) is None


@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("levels", [4, 255])
def test_a_convolution_is_its_reference(groups: int, levels: int) -> None:
    real = nn.Conv2d(6, 6 if groups > 1 else 10, 3, 2, 1, groups=groups, device=DEVICE)
    conv = Int8SpikeConv2d.from_conv(real, levels=levels)
    spikes = _spikes(levels=levels)
    wanted = int8_conv_reference(
        spikes.cpu(), conv.weight.cpu(), conv.step.cpu(), stride=2, padding=1, groups=groups
    )
    wanted = wanted.float() + conv.bias.cpu()[:, None, None]
    out = conv(spikes)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out.cpu(), wanted, rtol=1e-6, atol=1e-6)


def test_weights_are_those_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    conv, spikes = _conv(), _spikes()
    monkeypatch.setitem(_kernels.HOME, "cpu", "_numba")
    int8_available.cache_clear()
    if int8_available() is not None:
        pytest.skip(str(int8_available()))
    twin = copy.deepcopy(conv).cpu()
    assert torch.equal(twin(spikes.cpu()), conv(spikes).cpu())


def test_copies_pickles_and_loaded_weights() -> None:
    conv, other, spikes = _conv(), _conv(), _spikes()
    wanted = conv(spikes)
    for twin in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert torch.equal(twin(spikes), wanted)
    assert not torch.equal(other(spikes), wanted)
    other.load_state_dict(conv.state_dict())
    assert torch.equal(other(spikes), wanted)
    assert nn.Sequential(conv).to(torch.bfloat16)[0].step.dtype == torch.float32
    assert torch.equal(conv(spikes), wanted)


def test_other_groups_are_refused() -> None:
    weight = torch.randn(6, 2, 3, 3, device=DEVICE)
    with pytest.raises(ValueError, match=r"groups is 3 for 6 channels in and 6 out"):
        Int8SpikeConv2d(weight, groups=3)


def _lively_model(**overrides: object) -> SpikeVideoFormer:
    torch.manual_seed(0)
    model = svf.create_model("svf_nano", depths=(1,) * 5, num_classes=10, **overrides).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.2, 0.3)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.1, 0.6)
    return model


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
