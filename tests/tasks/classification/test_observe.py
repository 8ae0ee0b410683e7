"""What is seen inside a network: firing rates, places, evidence of frames."""

from pathlib import Path

import pytest
import torch

from spikevideoformer.bench.inputs import lively_model, random_video
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, create_model
from spikevideoformer.nn.neuron import Neuron, record_firing_rates
from spikevideoformer.tasks.classification.observe import observe

VIDEO = random_video(1, 3, 3, 32, 32)


def test_rates_are_those_of_the_recorder_and_spikes_their_sum() -> None:
    model = lively_model("svf_nano", num_classes=5)
    seen = observe(model, VIDEO)
    with torch.no_grad(), record_firing_rates(model) as rates:
        model(VIDEO)
    assert list(seen.rates) == list(rates.per_frame)
    for name, rate in rates.per_frame.items():
        torch.testing.assert_close(seen.rates[name], rate[:, 0], rtol=0, atol=1e-12)
    sizes = {}
    for name, module in model.named_modules():
        if isinstance(module, Neuron):
            module.register_forward_hook(
                lambda _m, _a, out, name=name: sizes.__setitem__(name, out[0].numel())
            )
    with torch.no_grad():
        model(VIDEO)
    expected = sum(seen.rates[name] * size for name, size in sizes.items())
    torch.testing.assert_close(seen.spikes, expected)
    assert seen.spikes.min() > 0


def test_maps_have_the_resolution_of_their_stage_and_its_rate() -> None:
    seen = observe(lively_model("svf_nano", num_classes=5), VIDEO)
    sides = {stage: maps.shape[1:] for stage, maps in seen.maps.items()}
    assert sides == {
        "stage1a": (16, 16),
        "stage1b": (8, 8),
        "stage2": (4, 4),
        "stage3": (2, 2),
        "stage4": (2, 2),
    }
    # the layers of the first stage, all of one resolution and each with all its channels
    first = [rate for name, rate in seen.rates.items() if name.startswith("backbone.stage1a.")]
    expected = torch.stack(first).mean(0)
    torch.testing.assert_close(seen.maps["stage1a"].flatten(1).mean(1), expected)


def test_evidence_of_frames_averages_to_the_answer(model_folder: Path) -> None:
    model = SpikeVideoFormer.from_pretrained(model_folder)
    seen = observe(model, VIDEO)
    assert seen.evidence is not None
    with torch.no_grad():
        torch.testing.assert_close(seen.evidence.mean(0).float(), model(VIDEO)[0])


def test_networks_without_spikes_are_observed() -> None:
    ann = observe(create_model("ann_nano", num_classes=5).eval(), VIDEO)
    assert (ann.rates, ann.maps, ann.spikes.sum().item()) == ({}, {}, 0)
    assert ann.evidence is not None
    assert observe(create_model("gru_nano", num_classes=5).eval(), VIDEO).evidence is None


def test_one_clip_only() -> None:
    with pytest.raises(ValueError, match="expected one clip"):
        observe(lively_model("svf_nano"), VIDEO.repeat(2, 1, 1, 1, 1))
