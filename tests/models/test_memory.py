"""Ways to keep less for the backward pass: none changes a bit of the gradients."""

import pytest
import torch
from torch import nn

import spikevideoformer as svf
from spikevideoformer.nn.attention import SpikeAttention
from spikevideoformer.nn.conv import SpikeConv2d


def _model(lively, **overrides):
    torch.manual_seed(0)
    return lively(svf.create_model("svf_nano", num_classes=5, **overrides))


def _step(model, autocast=None):
    video = torch.randn(2, 3, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    video = video.to(model.head.fc.weight.dtype)
    torch.manual_seed(2)
    with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
        loss = nn.functional.cross_entropy(model(video), torch.tensor([1, 3]))
    loss.backward()
    return {
        "loss": loss.detach(),
        **{name: p.grad for name, p in model.named_parameters()},
        **dict(model.named_buffers()),
    }


@pytest.mark.parametrize(
    ("design", "attention", "neuron", "autocast"),  # each pair of values is there
    [
        ("joint", "hamming", "lif", None),
        ("joint", "dot", "integer_lif", torch.bfloat16),
        ("hierarchical", "hamming", "integer_lif", torch.bfloat16),
        ("hierarchical", "dot", "lif", None),
        ("spatial_only", "hamming", "lif", torch.bfloat16),
        ("spatial_only", "dot", "integer_lif", None),
    ],
)
def test_packed_spikes_change_no_bit(design, attention, neuron, autocast, lively):
    outcomes = []
    for memory, checkpointing in (("plain", False), ("packed", False), ("packed", True)):
        model = _model(lively, design=design, attention=attention, neuron=neuron, drop_path=0.3)
        model.backbone.spike_memory = memory
        model.backbone.gradient_checkpointing = checkpointing
        assert model.backbone.spike_memory == memory
        outcomes.append(_step(model, autocast))
    plain, *others = outcomes
    for other in others:
        assert [name for name in plain if not torch.equal(plain[name], other[name])] == []


def _kept_bytes(model):
    """Storage that the graph of one forward pass holds, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept = {}

    def keep(z):
        storage = z.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return z

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda z: z):
        out = model(torch.randn(1, 4, 3, 64, 64))
    assert out.requires_grad
    return sum(kept.values())


def test_packed_spikes_take_less(lively):
    kept = {}
    for memory in ("plain", "packed"):
        model = _model(lively)
        model.backbone.spike_memory = memory
        kept[memory] = _kept_bytes(model)
    assert kept["packed"] < 0.75 * kept["plain"]


def test_every_convolution_of_spikes_and_every_attention_can_pack(lively):
    model = _model(lively)
    model.backbone.spike_memory = "packed"
    packed = {n for n, m in model.named_modules() if getattr(m, "packed", False)}
    real = ("pw2", "stage1a.downsample.conv")  # SepConv's, RepConv's, and pixels
    expected = {
        name
        for name, m in model.named_modules()
        if isinstance(m, SpikeAttention) or (isinstance(m, nn.Conv2d) and not name.endswith(real))
    }
    inside_repconv = {n for n in expected if n.endswith((".q_conv.dw", ".k_conv.dw", ".v_conv.dw"))}
    expected -= inside_repconv | {n for n in expected if n.endswith(".proj.dw")}
    assert packed == expected
    assert any(isinstance(m, SpikeConv2d) for m in model.modules())


def test_an_ordinary_network_has_no_spikes_to_pack():
    backbone = svf.create_model("ann_nano").backbone
    with pytest.raises(ValueError, match="neurons of kind relu fire none; choose plain"):
        backbone.spike_memory = "packed"
    backbone.spike_memory = "plain"
    assert backbone.spike_memory == "plain"


def test_unknown_memory():
    backbone = svf.create_model("svf_nano").backbone
    with pytest.raises(ValueError, match="choose plain or packed"):
        backbone.spike_memory = "zip"
