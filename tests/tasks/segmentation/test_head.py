"""Networks with a segmentation head: shapes, learning, time, and spikes into every convolution."""

import pytest
import torch
from torch import nn

import spikevideoformer as svf
from spikevideoformer.models.config import preset
from spikevideoformer.nn.conv import SpikeConv2d
from spikevideoformer.tasks.segmentation.head import SegmentationHead

from ...models.gradients import has_no_gradient_by_mathematics

CLASSES = 5


def _model(name="svf_nano", seed=0, **overrides):
    torch.manual_seed(seed)
    options = {"task": "segmentation", "num_classes": CLASSES, "pad_input": True}
    return svf.create_model(name, **(options | overrides))


def _video(*shape, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape or (2, 3, 3, 32, 48), dtype=dtype, generator=generator)


# --- Sizes ----------------------------------------------------------------------------------------


def test_the_15m_network_with_19_classes_has_about_the_published_parameters():
    with torch.device("meta"):
        model = svf.create_model("svf_15m", task="segmentation", num_classes=19)
    assert model.num_parameters() / 1e6 == pytest.approx(17.8, rel=0.01)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if preset(name).widths[-1] > 360 else name
        for name in svf.list_models()
    ],
)
def test_every_preset_gives_logits_of_each_pixel_of_each_frame(name, lively):
    model = lively(_model(name)).eval()
    with torch.no_grad():
        logits = model(_video(1, 2, 3, 32, 48, dtype=torch.float32))
    assert logits.shape == (1, 2, CLASSES, 32, 48)
    assert logits.isfinite().all()
    assert logits.std() > 0


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 16, 16), (2, 17, 33), (3, 40, 50)])
def test_any_frames_and_sizes(frames, height, width, lively):
    model = lively(_model()).double().eval()
    video = _video(1, frames, 3, height, width)
    padded = torch.zeros(1, frames, 3, -(-height // 16) * 16, -(-width // 16) * 16).double()
    padded[..., :height, :width] = video
    with torch.no_grad():
        logits = model(video)
        assert logits.shape == (1, frames, CLASSES, height, width)
        assert torch.equal(logits, model(padded)[..., :height, :width])


def test_finishing_leaves_classification_alone():
    model = svf.create_model("svf_nano", num_classes=CLASSES)
    logits = torch.zeros(2, CLASSES)
    assert model.finished(logits, _video(2, 1, 3, 3, 3)) is logits


# --- Learning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["svf_nano", "svf_tiny"])
@pytest.mark.parametrize("neuron", ["lif", "integer_lif"])
def test_every_parameter_receives_a_gradient(name, neuron, lively):
    model = lively(_model(name, neuron=neuron)).double()
    logits = model(_video(2, 2, 3, 25, 40))
    labels = torch.randint(CLASSES, (2, 2, 25, 40))
    nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1)).backward()
    for parameter_name, parameter in model.named_parameters():
        gradient = parameter.grad
        assert gradient is not None, parameter_name
        assert gradient.isfinite().all(), parameter_name
        if not has_no_gradient_by_mathematics(parameter_name):
            assert gradient.norm() > 1e-12, parameter_name


def test_the_ordinary_twin_learns_too(lively):
    model = lively(_model("ann_nano")).double()
    logits = model(_video(2, 2, 3, 25, 40))
    assert logits.shape == (2, 2, CLASSES, 25, 40)
    logits.square().sum().backward()
    assert model.config == preset("svf_nano").ann_twin().with_overrides({"pad_input": True})
    for name, parameter in model.head.named_parameters():
        assert parameter.grad is not None and parameter.grad.norm() > 0, name


# --- Calls, clips and frames ----------------------------------------------------------------------


def test_calls_and_clips_are_independent(lively):
    model = lively(_model()).double().eval()
    video = _video()
    with torch.no_grad():
        logits = model(video)
        model(video + 1)
        assert torch.equal(model(video), logits)  # no membrane is left over
        for alone, together in zip(video, logits, strict=True):
            torch.testing.assert_close(model(alone[None])[0], together, rtol=1e-9, atol=1e-9)


# Which of five frames a change of one shows in: through attention in all of them, through membranes
# in it and later ones.
SEEN = {
    "joint": {0: [0, 1, 2, 3, 4], 4: [0, 1, 2, 3, 4]},
    "hierarchical": {0: [0, 1, 2, 3, 4], 4: [0, 1, 2, 3, 4]},
    "factorized": {0: [0, 1, 2, 3, 4], 4: [0, 1, 2, 3, 4]},
    "neuron_only": {0: [0, 1, 2, 3, 4], 2: [2, 3, 4], 4: [4]},
    "spatial_only": {0: [0], 2: [2], 4: [4]},
}


@pytest.mark.parametrize("design", SEEN)
def test_which_frames_see_which(design, lively):
    model = lively(_model(design=design)).double().eval()
    video = _video(1, 5, 3, 32, 32)
    with torch.no_grad():
        before = model(video)
        for frame, seen in SEEN[design].items():
            other = video.clone()
            other[:, frame] = _video(1, 3, 32, 32, seed=9)
            changed = (model(other) != before).flatten(2).any(2)[0]
            assert changed.nonzero().flatten().tolist() == seen, frame


# --- Spikes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("neuron", ["lif", "integer_lif"])
@pytest.mark.parametrize("name", ["svf_nano", "svf_tiny"])
def test_every_convolution_of_the_head_receives_spikes(name, neuron, lively):
    model = lively(_model(name, neuron=neuron)).eval()
    levels = {"lif": 1, "integer_lif": 4}[neuron]
    convs = {n: m for n, m in model.head.named_modules() if isinstance(m, nn.Conv2d)}
    assert len(convs) == 9
    assert all(isinstance(conv, SpikeConv2d) for conv in convs.values())
    seen = {}
    for n, conv in convs.items():
        conv.register_forward_pre_hook(lambda _m, args, n=n: seen.update({n: args[0]}))
    with torch.no_grad():
        model(_video(1, 3, 3, 40, 48, dtype=torch.float32))
    assert seen.keys() == convs.keys()
    for n, spikes in seen.items():
        assert torch.equal(spikes, spikes.round().clamp(0, levels)), n
        assert spikes.any(), n
    if levels > 1:
        assert max(spikes.max() for spikes in seen.values()) > 1


# --- Saving and mistakes --------------------------------------------------------------------------


def test_save_and_load(tmp_path, lively):
    model = lively(_model()).eval()
    model.palette = tuple((i, 2 * i, 255 - i) for i in range(CLASSES))
    names = [f"class {i}" for i in range(CLASSES)]
    clip = {"frames": 3, "short_side": 40, "crop": [32, 48]}
    model.save_pretrained(tmp_path, classes=names, clip=clip)
    again = svf.SpikeVideoFormer.from_pretrained(tmp_path)
    assert (again.task, again.num_classes, again.clip) == ("segmentation", CLASSES, clip)
    assert (again.classes, again.palette) == (tuple(names), model.palette)
    video = _video(1, 3, 3, 30, 44, dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(again(video), model(video))


def test_a_palette_of_another_length_is_refused(tmp_path):
    model = _model()
    model.palette = ((0, 0, 0),)
    with pytest.raises(ValueError, match="got 1 colours for 5 classes"):
        model.save_pretrained(tmp_path)


@pytest.mark.parametrize(("name", "readout"), [("svf_nano", "membrane"), ("gru_nano", "gru")])
def test_other_readouts_are_refused(name, readout):
    with pytest.raises(ValueError, match=f"readout '{readout}' is for other heads"):
        _model(name, readout=readout)


@pytest.mark.parametrize("num_classes", [0, -1, 2.5])
def test_wrong_class_counts_are_refused(num_classes):
    with pytest.raises(ValueError, match="expected an integer of at least 1"):
        SegmentationHead(preset("svf_nano"), num_classes)
