"""The firing rate by operations: by hand, and of whole networks."""

import pytest
import torch

from spikevideoformer.energy.rates import operations_by_neurons
from spikevideoformer.energy.report import energy_report
from spikevideoformer.models.spikevideoformer import create_model
from spikevideoformer.nn.neuron import record_firing_rates


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"design": "spatial_only", "neuron": "integer_lif"},
        {"design": "hierarchical", "attention": "dot"},
        {"neuron": "ni_lif"},
    ],
)
def test_rates_of_neurons_weighted_by_their_operations_are_the_papers_additions(
    options, lively
) -> None:
    model = lively(create_model("svf_nano", num_classes=3, **options)).eval()
    video = torch.randn(1, 2, 3, 32, 32)
    work = operations_by_neurons(model, video)
    with record_firing_rates(model) as rates, torch.no_grad():
        model(video)
    report = energy_report(model, video)
    mean = sum(rates.mean[name] * macs for name, macs in work.items()) / sum(work.values())
    assert report.rate == pytest.approx(mean, rel=1e-6)
    # all neurons but those of k, whose signs choose between adding and subtracting
    assert {n.module for n in report.neurons} - set(work) == {
        n.module for n in report.neurons if n.module.endswith("k_neuron")
    }
    paper = report.by_convention("paper").work
    pixels = next(o for o in report.layers if o.paper_rate is None)
    assert report.rate == pytest.approx(paper.acs / (paper.macs - pixels.paper_macs), rel=1e-6)


def test_a_convolution_counts_for_the_neurons_before_it(lively) -> None:
    model = lively(create_model("svf_nano", num_classes=3)).eval()
    work = operations_by_neurons(model, torch.randn(2, 3, 3, 32, 32))
    # 3 frames of 16x16 places, 8 channels widened four times, 3x3 kernels
    assert work["backbone.stage1a.blocks.0.channel_conv.neuron1"] == 3 * 256 * 9 * 8 * 32
    # pointwise 32 -> 64, depthwise and padded 1x1 as two layers that real values stand between
    assert work["backbone.stage1a.blocks.0.sep_conv.neuron2"] == 3 * 256 * (16 * 49 + 16 * 8)


def test_an_ordinary_network_has_none() -> None:
    model = create_model("ann_nano", num_classes=3).eval()
    video = torch.randn(1, 2, 3, 32, 32)
    assert energy_report(model, video).rate is None
    assert operations_by_neurons(model, video) == {}
