"""The counter as a whole: other counters agree, nothing is missed, nothing is left behind."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import spikevideoformer as svf
from spikevideoformer.bench.inputs import random_video
from spikevideoformer.energy.count import count_operations
from spikevideoformer.nn.attention import SpikeAttention
from spikevideoformer.nn.neuron import Neuron
from spikevideoformer.ops.lif import NeuronConfig
from spikevideoformer.synth.motions import standing_skeleton

# --- Parts of ordinary networks -------------------------------------------------------------------


def test_recurrent_network(counted) -> None:
    module, x = nn.GRU(4, 5), torch.randn(6, 2, 4)
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        module(x)
    counts = counted(module, x)
    assert counts.total.macs == flops.get_total_flops() / 2 == 6 * 2 * 3 * (4 * 5 + 5 * 5)
    assert counts.total.exponentials == 6 * 2 * 5 * 3  # two sigmoids and a tanh


def test_a_norm_moves_as_much_memory_fused_as_alone(counted) -> None:
    """So that a spiking network and its twin, whose norms are never fused, can be compared."""

    class Fused(nn.Module):
        def __init__(self, fused: bool) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.neuron, self.fused = Neuron(NeuronConfig()), fused

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x).unsqueeze(1)  # [T, 1, C, H, W]
            if self.fused:
                return self.neuron(y, norm=self.bn)
            return self.neuron(self.bn(y.flatten(0, 1)).unflatten(0, y.shape[:2]))

    x = torch.randn(3, 3, 6, 6)
    fused, alone = (counted(Fused(way), x).total for way in (True, False))
    assert fused == alone


def test_relu_network_is_all_multiplications(counted) -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 2),
    )
    counts = counted(module, torch.randn(1, 3, 6, 6))
    layers = 16 * 9 * 3 * 4 + 4 * 4 * 6 + 6 * 2
    pooled = 6  # a mean of four is a shift
    assert counts.total.macs == layers
    assert counts.total.multiplications == layers + 16 * 4
    assert counts.total.shifts == pooled
    assert all(o.paper_rate is None for o in counts.operations)


# --- What must not pass ---------------------------------------------------------------------------


class Does(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def test_an_unknown_operation_is_an_error(counted) -> None:
    with pytest.raises(ValueError, match="aten::cumsum, an operation that is not known"):
        counted(Does(lambda x: x.cumsum(0)), torch.randn(3))


def test_a_lost_origin_is_an_error(counted) -> None:
    hidden = torch.randn(3)
    with pytest.raises(RuntimeError, match="its origin is lost"):
        counted(Does(lambda x: x * hidden), torch.randn(3))


def test_spikes_that_are_none_are_an_error(counted, fires) -> None:
    class Cheats(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neuron, self.fc = fires(), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            s = self.neuron(x)
            s.numpy()[...] = 0.5  # behind torch's back
            return self.fc(s)

    with pytest.raises(RuntimeError, match=r"counts as spikes in 0\.\.1 holds other"):
        counted(Cheats(), torch.full((2, 4, 4), 4.0))


def test_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"training mode; call \.eval"):
        count_operations(nn.Linear(2, 2), torch.randn(1, 2))
    module = nn.Sequential(nn.BatchNorm2d(2)).eval()
    module[0].train()
    with pytest.raises(ValueError, match="batch norm in training mode"):
        count_operations(module, torch.randn(2, 2, 3, 3))


def test_an_error_leaves_nothing_behind() -> None:
    module = Does(lambda x: x.cumsum(0)).eval()
    module.attention = svf.create_model("svf_nano").backbone.stage3.blocks[0].attention
    parts = [m for m in module.modules() if isinstance(m, SpikeAttention)]
    with pytest.raises(ValueError, match="not known"):
        count_operations(module, torch.randn(3))
    assert [m.backend for m in parts] == ["auto"]
    assert torch._C._len_torch_dispatch_stack() == 0
    assert not torch.nn.modules.module._global_forward_hooks


# --- Whole networks -------------------------------------------------------------------------------


def _network(model):
    return lambda video: model.head(model.backbone(video.transpose(0, 1)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("svf_nano", {}),
        ("svf_nano", {"design": "factorized", "attention": "dot"}),
        ("svf_nano", {"design": "hierarchical", "neuron": "integer_lif"}),
        ("svf_nano", {"design": "spatial_only", "constant_term": True, "readout": "membrane"}),
        ("svf_nano", {"task": "segmentation", "neuron": "integer_lif"}),
        ("svf_nano", {"task": "pose", "body": standing_skeleton()}),
        pytest.param("svf_15m", {}, marks=pytest.mark.slow),
        pytest.param("svf_55m", {}, marks=pytest.mark.slow),
    ],
)
def test_macs_of_presets_are_those_of_torch(name, options) -> None:
    model = svf.create_model(name, num_classes=5, **options).eval()
    video = random_video(1, 2, 3, 32, 32)
    counts = count_operations(model, video, run=_network(model))
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        model(video)
    assert counts.total.macs == flops.get_total_flops() / 2
    for form in (svf.fold_for_inference(model), svf.fold_for_inference(model, sepconv="dense")):
        with FlopCounterMode(display=False) as flops, torch.no_grad():
            form(video)
        counts = count_operations(form, video, run=_network(form))
        assert counts.total.macs == flops.get_total_flops() / 2


def test_merged_network_multiplies_only_where_it_says(nano, by_module, spikes_of) -> None:
    """Pixels, SepConv's pointwise and the mean over space: the rest is additions and shifts."""
    model, video = nano
    factorised = by_module(svf.fold_for_inference(model), video)
    multiply = {m for m, found in factorised.items() if any(o.multiplications for o in found)}
    first = "backbone.stage1a.downsample.conv"
    assert multiply == {first} | {m for m in factorised if m.endswith("sep_conv.pw2")}
    dense = by_module(svf.fold_for_inference(model, sepconv="dense"), video)
    assert {m for m, found in dense.items() if any(o.multiplications for o in found)} == {first}
    # as it is, every batch norm multiplies too
    own = by_module(model, video)
    assert sum(o.multiplications for o in own["backbone.stage4.blocks.0.mlp.bn1"]) > 0


def test_a_merged_segmentation_head_multiplies_nothing(segmenting, by_module) -> None:
    """All its convolutions add spikes, and its upsampling shifts."""
    model, video = segmenting
    merged = by_module(svf.fold_for_inference(model), video)
    head = [o for name, found in merged.items() if name.startswith("head") for o in found]
    assert sum(o.multiplications for o in head) == 0
    assert sum(o.shifts for o in head if o.kind == "pooling") > 0
    assert all(o.operand == "spikes" for o in head if o.kind == "conv")
    own = by_module(model, video)  # as it is, its batch norms multiply
    multiply = {name for name, found in own.items() if any(o.multiplications for o in found)}
    names = {name for name in multiply if name.startswith("head")}
    laterals = {f"head.lateral{i}.bn" for i in (1, 2, 3, 4)}
    smooths = {f"head.{name}.bn" for name in ("smooth16", "smooth8", "narrow8", "smooth4")}
    assert names == laterals | smooths


@pytest.mark.parametrize("readout", ["spike", "membrane"])
@pytest.mark.parametrize("size", [64, 128])  # one or four elements of the map in a cell
def test_pose_head_by_hand(posing, by_module, size, readout) -> None:
    model, video = posing(readout, size)
    seen: list[Tensor] = []
    handle = model.head.neuron.register_forward_hook(lambda *a: seen.append(a[2]))
    found = by_module(model, video)
    handle.remove()
    frames, C, numbers = 2, model.config.widths[-1], 6 * 21 + 21 + 3
    cells, macs = frames * C * 16, frames * C * 16 * numbers
    ones = seen[0].double().sum().item()  # where it fires; unused for membranes
    fc, bias = found["head.fc"]
    assert (fc.macs, bias.additions) == (macs, frames * numbers)
    if readout == "spike" and size == 64:
        assert 0.05 * cells < ones < 0.95 * cells
        assert (fc.operand, fc.additions, fc.multiplications) == ("spikes", ones * numbers, 0)
    else:  # a mean of four spikes is none
        assert (fc.operand, fc.additions, fc.multiplications) == ("real", macs, macs)
    (mean,) = (o for o in found["head"] if "adaptive" in o.operation)
    sums = {64: 0, 128: ones if readout == "spike" else 3 * cells}[size]
    assert (mean.additions, mean.shifts) == (sums, {64: 0, 128: cells}[size])
    assert mean.multiplications == 0


def test_inference_mode_counts_the_same(nano) -> None:
    model, video = nano
    counts = count_operations(model, video, run=_network(model))
    with torch.inference_mode():
        again = count_operations(model, video, run=_network(model))
    assert again.total == counts.total


def test_counting_changes_no_output(nano, by_module, spikes_of) -> None:
    model, video = nano
    seen: list[Tensor] = []
    count_operations(model, video, run=lambda v: seen.append(_network(model)(v)))
    with torch.no_grad():
        assert torch.equal(seen[0], model(video))
