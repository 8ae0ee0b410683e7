"""The published feature pyramid and SegFormer's MLP: sizes, time, learning, deployment."""

import pytest
import torch
from torch import nn

import spikevideoformer as svf
from spikevideoformer.models.config import MaskHeadConfig
from spikevideoformer.nn.conv import SpikeConv2d

from ...models.gradients import has_no_gradient_by_mathematics

HEADS = {
    "mlp": {"kind": "mlp", "width": 24},
    "fpn": {"kind": "fpn", "width": 12, "head_width": 16},
    "fpn_norm": {"kind": "fpn", "width": 12, "head_width": 16, "neck_norm": True},
    "fpn_mean": {"kind": "fpn", "width": 12, "head_width": 16, "mean_over_time": True},
}


def _model(head, name="svf_nano", **overrides):
    torch.manual_seed(0)
    options = {"task": "segmentation", "num_classes": 5, "mask_head": HEADS[head]}
    return svf.create_model(name, **(options | overrides))


def _video(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape or (2, 3, 3, 32, 48), dtype=dtype, generator=generator)


def test_networks_of_the_published_size():
    with torch.device("meta"):
        mlp = svf.create_model("svf_15m", "segmentation", 19, mask_head="mlp")
        fpn = svf.create_model("svf_15m", "segmentation", 150, mask_head="fpn", attention="dot")
    assert mlp.num_parameters() == 17_754_779
    assert fpn.num_parameters() / 1e6 == pytest.approx(16.46, rel=0.001)


@pytest.mark.parametrize("neuron", ["lif", "ni_lif"])
@pytest.mark.parametrize("head", HEADS)
def test_every_parameter_learns_and_every_convolution_reads_spikes(head, neuron, lively):
    model = lively(_model(head, neuron=neuron)).double()
    levels = model.config.neuron.levels
    read = []
    for module in model.head.modules():
        if isinstance(module, SpikeConv2d):
            module.register_forward_pre_hook(
                lambda _m, args: read.append(torch.equal(args[0], args[0].round().clamp(0, levels)))
            )
    logits = model(_video())
    assert logits.shape == (2, 1 if head == "fpn_mean" else 3, 5, 32, 48)
    assert len(read) > 5
    assert all(read)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    learning = [p.grad.norm() > 1e-12 for p in model.head.parameters()]
    assert sum(learning) > 0.7 * len(learning)  # biases before batch norms do not
    assert not has_no_gradient_by_mathematics("head.fc.weight")


@pytest.mark.parametrize("any_size", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_sizes_that_are_no_multiple_of_16(head, any_size, lively):
    """Taken as they are, maps rounded up, or padded."""
    model = lively(_model(head, any_size=any_size, pad_input=not any_size)).double().eval()
    video = _video(1, 2, 3, 44, 60)
    seen = []
    model.head.register_forward_pre_hook(lambda _m, args: seen.extend(args[0]))
    with torch.no_grad():
        logits = model(video)
        assert logits.shape[2:] == (5, 44, 60)
        if head == "mlp":
            expected = (11, 6, 3, 3) if any_size else (12, 6, 3, 3)
        else:
            expected = (22, 11, 6, 3) if any_size else (24, 12, 6, 3)
        assert tuple(u.shape[3] for u in seen) == expected
        if not any_size:
            padded = torch.zeros(1, 2, 3, 48, 64).double()
            padded[..., :44, :60] = video
            assert torch.equal(logits, model(padded)[..., :44, :60])


def test_one_map_of_a_clip_is_that_of_the_mean_membranes(lively):
    model = lively(_model("fpn_mean", still_frames=3)).double().eval()
    picture = _video(1, 1, 3, 32, 32)
    features = []
    model.head.register_forward_pre_hook(lambda _m, args: features.append(args[0]))
    with torch.no_grad():
        of_picture = model(picture)
        assert torch.equal(model(picture.expand(-1, 3, -1, -1, -1)), of_picture)
        assert {u.shape[0] for u in features[0]} == {3}
        mean = tuple(u.mean(0, keepdim=True) for u in features[0])
        assert torch.equal(model.head.finished(model.head(mean), picture), of_picture)
        model(_video(1, 3, 3, 32, 32))
    assert not torch.equal(features[0][0], features[-1][0])


@pytest.mark.parametrize(
    ("head", "name", "overrides"),
    [
        ("fpn_norm", "svf_nano", {}),
        ("fpn_mean", "svf_nano", {}),
        ("mlp", "espike_5m", {"widths": (8, 16, 32, 40), "heads": 4}),
        (
            "fpn",
            "espike_83m",
            {"widths": (8, 16, 32), "depths": (1, 1, 1, 2), "heads": 4},
        ),
    ],
)
def test_folding_engines_and_energy(head, name, overrides, lively):
    model = lively(_model(head, name, any_size=True, **overrides)).eval()
    video = _video(2, 2, 3, 28, 44, dtype=torch.float32)
    with torch.no_grad():
        double = model.double()(video.double())
        folded = svf.fold_for_inference(model)(video.double())
        torch.testing.assert_close(folded, double, rtol=0, atol=1e-9)
        logits = model.float()(video)
    assert torch.equal(svf.InferenceEngine(model)(video), logits)
    engine = svf.InferenceEngine(model, precision="int8")
    assert torch.equal(engine(video)[:1], engine(video[:1]))
    report = svf.energy_report(model, video[:1, :1])
    real = [o for o in report.forms["merged"].operations if o.operand == "real" and o.macs]
    assert not any(o.module.startswith("head") for o in real)


def test_heads_of_one_kind_only():
    assert MaskHeadConfig.of_kind("mlp").width == 768
    with pytest.raises(ValueError, match="width is 0; give a number at least 1"):
        MaskHeadConfig(width=0)
    with pytest.raises(ValueError, match="neck_norm is 1; expected true or false"):
        MaskHeadConfig(neck_norm=1)
    with pytest.raises(ValueError, match="leave readout out"):
        _model("mlp", readout="membrane")
    assert isinstance(_model("fpn").head.scales[3], nn.ModuleList)
