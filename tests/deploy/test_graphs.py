"""CUDA graphs of the whole network; without a GPU only what is refused."""

from typing import Any

import pytest
import torch

from spikevideoformer.deploy.engine import InferenceEngine
from spikevideoformer.deploy.graphs import GraphedModel
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, create_model


def _model(**options: Any) -> SpikeVideoFormer:
    options = {"readout": "membrane", "residual_gain": 1.0} | options
    model = create_model("svf_nano", num_classes=5, neuron={"v_threshold": 0.1}, **options)
    torch.nn.init.normal_(model.head.fc.weight)
    return model.eval()


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests what happens without a GPU")
def test_needs_a_gpu() -> None:
    with pytest.raises(ValueError, match="CUDA graphs need a CUDA device"):
        GraphedModel(_model(), torch.zeros(1, 2, 3, 32, 32))


def test_unknown_precision() -> None:
    with pytest.raises(
        ValueError, match="precision 'fp8' is unknown; choose one of bf16, fp32, int8"
    ):
        GraphedModel(_model(), torch.zeros(1, 2, 3, 32, 32), "fp8")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_replays_are_the_eager_output(precision: str) -> None:
    model = _model().cuda()
    first, second = torch.randn(2, 2, 4, 3, 32, 32, device="cuda")
    graphed = GraphedModel(model, first, precision)
    for video in (first, second, torch.randn(1, 4, 3, 48, 32, device="cuda"), first):
        logits = graphed(video)
        assert logits.dtype == torch.float32
        assert torch.equal(logits, graphed.eager(video))
    if precision == "fp32":
        with torch.no_grad():
            assert torch.equal(graphed(first), model(first))
    if precision == "int8":
        assert torch.equal(graphed(first), InferenceEngine(model, precision="int8")(first))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_segmentation_without_its_padding(precision: str) -> None:
    model = _model(task="segmentation", readout="spike", pad_input=True).cuda()
    video = torch.randn(2, 3, 3, 40, 44, device="cuda")
    graphed = GraphedModel(model, video, precision)
    logits = graphed(video)
    assert logits.shape == (2, 3, 5, 40, 44)
    assert torch.equal(logits, graphed.eager(video))
    smaller = graphed(video[..., :36, :34])  # of the same size when padded
    assert smaller.shape == (2, 3, 5, 36, 34)
    if precision == "fp32":
        with torch.no_grad():
            assert torch.equal(logits, model(video))


@pytest.mark.gpu
def test_poses_by_name() -> None:
    model = create_model("svf_nano", task="pose", neuron={"v_threshold": 0.1}).eval().cuda()
    torch.nn.init.normal_(model.head.fc.weight)
    first, second = torch.randn(2, 2, 4, 3, 32, 32, device="cuda")
    graphed = GraphedModel(model, first)
    poses = graphed(first)
    graphed(second)  # writes elsewhere
    with torch.no_grad():
        expected = model(first)
    for name in expected._fields:
        assert torch.equal(getattr(poses, name), getattr(expected, name)), name


@pytest.mark.gpu
def test_what_is_refused() -> None:
    model, video = _model().cuda(), torch.randn(1, 2, 3, 32, 32, device="cuda")
    with pytest.raises(ValueError, match="the model is on cpu"):
        GraphedModel(_model(), video)
    with pytest.raises(ValueError, match="training mode"):
        GraphedModel(_model().cuda().train(), video)
    with pytest.raises(ValueError, match="the engine runs float32 models"):
        GraphedModel(_model().cuda().double(), video, "int8")
    graphed = GraphedModel(model, video)
    with pytest.raises(ValueError, match="the video is on cpu"):
        graphed(video.cpu())
    with pytest.raises(ValueError, match="NaN or infinite"):
        graphed(video * torch.nan)
    with pytest.raises(ValueError, match="expected a float video"):
        graphed(video[0])
