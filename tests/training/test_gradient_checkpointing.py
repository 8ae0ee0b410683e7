import pytest
import torch

from spikevideoformer.models.spikevideoformer import create_model
from spikevideoformer.nn.neuron import record_firing_rates


@pytest.mark.parametrize("design", ["joint", "hierarchical", "factorized", "neuron_only"])
@pytest.mark.parametrize("neuron", ["lif", "integer_lif"])
def test_same_gradients_and_statistics(design, neuron):
    video = torch.randn(2, 3, 3, 16, 16)
    outcomes = []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = create_model(
            "svf_nano",
            num_classes=3,
            design=design,
            neuron=neuron,
            drop_path=0.3,
            residual_gain=0.5,
        )
        model.backbone.gradient_checkpointing = recompute
        for _ in range(2):  # the second pass starts from statistics that the first one left
            with record_firing_rates(model):
                model(video).square().sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        outcomes.append(gradients | dict(model.named_buffers()))
    plain, recomputed = outcomes
    assert [name for name in plain if not torch.equal(plain[name], recomputed[name])] == []
