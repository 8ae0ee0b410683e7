"""A fresh network fires."""

import pytest
import torch

from spikevideoformer import create_model, list_models, record_firing_rates
from spikevideoformer.data.transforms import eval_transform
from spikevideoformer.models.initialise import made_pictures
from spikevideoformer.video.frames import read_clip
from spikevideoformer.video.spec import ClipSpec


@pytest.fixture(scope="module")
def natural(shared_data):
    """Two clips ``[2, 4, 3, 64, 64]``."""
    spec = ClipSpec(frames=4, size=64, frame_rate_hz=12.5)
    files = ("decord__flipping_a_pancake.mkv", "sam2__05_default_juggle.mp4")
    clips = (
        read_clip(shared_data / "clips" / file, spec, start_s=2.0, resize_short=64)
        for file in files
    )
    return torch.stack([eval_transform(clip.frames, spec) for clip in clips])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in ("svf_nano", "svf_tiny", "svf_15m")),
        *(("svf_nano", {"design": d}) for d in ("hierarchical", "factorized", "spatial_only")),
        ("svf_nano", {"neuron": "integer_lif"}),
        ("svf_nano", {"task": "segmentation", "num_classes": 5}),
        ("svf_nano", {"task": "pose"}),
        *(pytest.param(name, {}, marks=pytest.mark.slow) for name in list_models()[3:]),
    ],
)
def test_every_layer_of_a_fresh_network_fires_on_natural_pictures(name, options, natural):
    model = create_model(name, **options).eval()
    with record_firing_rates(model) as rates, torch.no_grad():
        model(natural)
    levels = model.config.neuron.levels
    shares = {layer: rate / levels for layer, rate in rates.mean.items()}
    # a neuron that is reset at each frame fires only for a current of 2 standard deviations
    low = 0.03 if options.get("design") == "spatial_only" else 0.05
    assert low < sum(shares.values()) / len(shares) < 0.4
    assert {k: v for k, v in shares.items() if not 0.5 * low < v < 0.5} == {}


def test_random_weights_are_those_of_before():
    """The statistics draw from a generator of their own."""
    torch.manual_seed(3)
    create_model("svf_nano", num_classes=2)
    after = torch.rand(1)
    torch.manual_seed(3)
    with torch.device("meta"):
        create_model("svf_nano", num_classes=2)
    assert made_pictures(4).shape == (4, 4, 4, 64, 64)
    torch.manual_seed(3)
    create_model("svf_nano", num_classes=2)
    assert torch.rand(1) == after


def test_a_classifier_reads_membranes_unless_told_otherwise():
    assert create_model("svf_nano").config.readout == "membrane"
    assert create_model("svf_nano", readout="spike").config.readout == "spike"
    assert create_model("gru_nano").config.readout == "gru"
    assert create_model("svf_nano", task="segmentation").config.readout == "spike"


def test_the_default_type_and_device_do_not_matter():
    pictures = made_pictures(3)
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert torch.equal(made_pictures(3), pictures)
        assert create_model("svf_nano").head.fc.weight.dtype == torch.bfloat16
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        assert torch.equal(made_pictures(3), pictures)
