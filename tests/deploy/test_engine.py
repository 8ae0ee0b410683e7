"""The engine fires what the model fires, however the clip is cut into pieces."""

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikevideoformer as svf
from spikevideoformer.deploy import engine as engine_module
from spikevideoformer.deploy.engine import InferenceEngine
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.block_config import E_SPIKEFORMER, E_SPIKEFORMER_LARGE, BlockConfig
from spikevideoformer.synth.motions import standing_skeleton

from ..lively import random_norms

WHOLE, SMALL_PIECES = 8 * 2**20, 2**17


def lively_model(name: str = "svf_nano", **overrides: Any) -> SpikeVideoFormer:
    """Batch norms as after training, so that neurons fire at every depth."""
    torch.manual_seed(0)
    options = {"task": "classification", "num_classes": 10} | overrides
    return random_norms(svf.create_model(name, **options)).eval()


def clip(clips: int = 2, frames: int = 5, size: int = 48) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(clips, frames, 3, size, size, generator=generator)


ESPIKE = {
    "block": E_SPIKEFORMER,
    "neuron": {"kind": "ni_lif", "levels": 3},
    "attention": "dot",
    "design": "spatial_only",
}
LARGE = {
    **ESPIKE,
    "block": replace(E_SPIKEFORMER_LARGE, token_conv="pair"),
    "neuron": {"kind": "ni_lif", "rounding": "half_up"},
    "widths": (16, 32, 48),
    "depths": (1, 1, 1, 3),
}
VARIANTS = {
    "espike": ESPIKE,
    "espike_hamming": {**ESPIKE, "attention": "hamming", "design": "joint"},
    "espike_hierarchical": {**ESPIKE, "design": "hierarchical"},
    "espike_large": {**LARGE, "readout": "both", "distilled": True},
    "espike_segmentation": {**ESPIKE, "task": "segmentation", "pad_input": True},
    "espike_large_segmentation": {**LARGE, "task": "segmentation", "pad_input": True},
    "joint": {},
    "membrane": {"readout": "membrane", "constant_term": True},
    "hierarchical": {"design": "hierarchical"},
    "factorized": {"design": "factorized"},
    "neuron_only": {"design": "neuron_only"},
    "spatial_only": {"design": "spatial_only"},
    "dot": {"attention": "dot"},
    "threshold": {"block": BlockConfig(attention_norm=False, threshold_scale="head")},
    "integer": {"neuron": "integer_lif"},
    "soft_reset": {"neuron": {"v_reset": None, "decay_input": False}},
    "padded": {"pad_input": True},
    "segmentation": {"task": "segmentation", "pad_input": True},
    "segmentation_spatial_only": {"task": "segmentation", "design": "spatial_only"},
    "segmentation_integer": {"task": "segmentation", "neuron": "integer_lif"},
    "pose": {"task": "pose", "body": standing_skeleton(), "readout": "membrane"},
    "pose_spike": {"task": "pose", "body": standing_skeleton(), "readout": "spike"},
    "pose_heatmap": {"task": "pose", "body": standing_skeleton(), "pose_head": "heatmap"},
    "pose_between": {
        "task": "pose",
        "body": standing_skeleton(),
        "pose_head": "regressor",
        "poses": "between",
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_exact_engine_fires_the_spikes_of_the_model(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a whole clip, and of pieces."""
    model = lively_model(**VARIANTS[variant])
    video = clip(size=44 if model.config.pad_input else 48)
    with torch.inference_mode(), svf.record_firing_rates(model) as expected:
        logits = model(video)
    silent = [name for name, rate in expected.mean.items() if rate == 0]
    assert len(silent) < len(expected.mean) / 4  # so that there is something to compare
    for piece_bytes in (WHOLE, SMALL_PIECES):
        monkeypatch.setattr(engine_module, "PIECE_BYTES", piece_bytes)
        out, rates = InferenceEngine(model).run(video)
        assert rates.per_frame.keys() == expected.per_frame.keys()
        for name, rate in expected.per_frame.items():
            assert torch.equal(rates.per_frame[name], rate), name
        # the last matrix product may round differently for another number of clips
        torch.testing.assert_close(out, logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 3, 32, 32), (1, 9, 3, 32, 64), (5, 1, 3, 16, 16)])
def test_logits_are_the_same_bits_where_clips_stay_together(shape: tuple[int, ...]) -> None:
    model = lively_model()
    video = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        assert torch.equal(InferenceEngine(model)(video), model(video))


def test_every_pixel_has_the_logits_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The features of all stages are those of the model, bit for bit, in whichever pieces."""
    monkeypatch.setattr(engine_module, "PIECE_BYTES", SMALL_PIECES)
    model = lively_model(task="segmentation", pad_input=True)
    engine = InferenceEngine(model)
    seen: dict[str, tuple[Tensor, ...]] = {}
    for name, network in (("model", model), ("engine", engine.model)):
        network.head.register_forward_pre_hook(
            lambda _module, args, name=name: seen.update({name: args[0]})
        )
    video = torch.randn(1, 6, 3, 50, 70, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        assert torch.equal(engine(video), model(video))
    for ours, own in zip(seen["engine"], seen["model"], strict=True):
        assert torch.equal(ours, own)
    assert not any(fire.values for fire in engine._fires.values())  # nothing is kept


def test_classification_keeps_the_last_stage_only() -> None:
    engine = InferenceEngine(lively_model())
    seen: list[int] = []
    engine.model.head.register_forward_pre_hook(lambda _module, args: seen.append(len(args[0])))
    engine(clip())
    assert seen == [1]


def test_nothing_is_carried_from_clip_to_clip() -> None:
    engine = InferenceEngine(lively_model())
    first = engine(clip())
    engine(clip(frames=3) + 1)
    assert torch.equal(engine(clip()), first)


def test_the_model_stays_as_it_is_and_later_changes_are_not_seen() -> None:
    model = lively_model().train()
    engine = InferenceEngine(model)
    before = engine(clip())
    assert model.training and all(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(engine(clip()), before)


def test_memory_of_a_long_clip_is_that_of_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """The widest layer is never held for all frames at once."""
    monkeypatch.setattr(engine_module, "PIECE_BYTES", SMALL_PIECES)
    model = lively_model()
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and "conv" in str(func):
                largest = max(largest, out.numel())
            return out

    video = clip(clips=1, frames=32)
    engine = InferenceEngine(model)
    with Watch():
        engine(video)
    widest_frame = 4 * 8 * 24 * 24  # mlp_ratio * e1/2 at half the resolution
    assert 0 < largest < 8 * widest_frame


@pytest.mark.parametrize("neuron", ["lif", "integer_lif"])
def test_int8_engine_is_close_to_the_model(neuron: str) -> None:
    model = lively_model(neuron=neuron)
    video = clip()
    with torch.inference_mode(), svf.record_firing_rates(model) as expected:
        logits = model(video)
    out, rates = InferenceEngine(model, precision="int8").run(video)
    levels = model.config.neuron.levels
    for name, rate in expected.per_frame.items():
        assert (rates.per_frame[name] - rate).abs().max() < 0.05 * levels, name
    assert not torch.equal(out, logits)  # weights are rounded
    assert torch.corrcoef(torch.stack([out.flatten(), logits.flatten()]))[0, 1] > 0.9


@pytest.mark.parametrize("neuron", ["lif", "integer_lif"])
def test_int8_features_of_all_stages_are_close_to_the_models(
    neuron: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closer than those of another clip: what rounding flips at random weights grows in depth."""
    model = lively_model(neuron=neuron, task="segmentation", pad_input=True)
    engine = InferenceEngine(model, precision="int8")
    seen: list[tuple[Tensor, ...]] = []
    model.head.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    head = engine._head

    def look(features: tuple[Tensor, ...]) -> Tensor:
        seen.append(features)
        return head(features)

    monkeypatch.setattr(engine, "_head", look)
    video = clip(size=44)
    with torch.inference_mode():
        assert model(video).shape == engine(video).shape == (2, 5, 10, 44, 44)
        model(video.flip(-1))
    apart = [
        ((ours - own).norm() / (other - own).norm()).item()
        for own, ours, other in zip(*seen, strict=True)
    ]
    assert 0 < apart[0] < 0.5
    assert max(apart) < 1


def test_what_cannot_be_run_is_refused() -> None:
    with pytest.raises(ValueError, match="choose one of float, int16, int8, exact"):
        InferenceEngine(lively_model(), precision="int4")
    with pytest.raises(ValueError, match="runs float32 models on a CPU or a CUDA device"):
        InferenceEngine(lively_model().double())
    with pytest.raises(ValueError, match="not a FoldedSpikeVideoFormer"):
        InferenceEngine(svf.fold_for_inference(lively_model()))


@pytest.mark.parametrize("name", ["ann_nano", "gru_nano"])
@pytest.mark.parametrize("precision", ["exact", "int8"])
def test_an_ordinary_network_is_refused(name: str, precision: Any) -> None:
    with pytest.raises(ValueError, match="kind relu; call the model itself"):
        InferenceEngine(svf.create_model(name).eval(), precision=precision)


def test_a_part_of_another_kind_is_refused_by_name() -> None:
    model = lively_model()
    model.backbone.stage4.blocks[0].attention[0].proj = nn.Conv2d(80, 80, 1)
    with pytest.raises(ValueError, match=r"stage4.blocks.0.attention.0.proj is a Conv2d"):
        InferenceEngine(model)


def test_a_copy_is_an_engine_of_its_own() -> None:
    engine = InferenceEngine(lively_model())
    twin = copy.deepcopy(engine)
    assert torch.equal(twin(clip()), engine(clip()))
    assert len(twin.run(clip())[1].per_frame) == len(engine.run(clip())[1].per_frame)


def test_threads_take_turns() -> None:
    engine = InferenceEngine(lively_model())
    videos = [clip() + i for i in range(4)]
    expected = [engine(video) for video in videos]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(engine, videos), expected, strict=True):
            assert torch.equal(got, want)


def test_wrong_videos_are_refused_as_by_the_model() -> None:
    engine = InferenceEngine(lively_model())
    with pytest.raises(ValueError, match="float video"):
        engine(torch.zeros(3, 4, 48, 48))


@pytest.mark.parametrize("precision", ["exact", "int8"])
def test_checked_videos_run_without_records(precision: Any) -> None:
    """What a CUDA graph is recorded from: the same logits, nothing recorded."""
    engine = InferenceEngine(lively_model(), precision=precision)
    logits, rates = engine.run_checked(engine.model.checked(clip()), record=False)
    assert torch.equal(logits, engine(clip()))
    assert rates.per_frame == {}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["exact", "int8"])
@pytest.mark.parametrize(
    "variant", ["joint", "hierarchical", "spatial_only", "dot", "integer", "segmentation"]
)
def test_on_cuda(variant: str, precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the CPU but for spikes that rounding flips; the clip is in no pieces."""
    monkeypatch.setattr(engine_module, "PIECE_BYTES", SMALL_PIECES)
    monkeypatch.setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee")
    model = lively_model(**VARIANTS[variant])
    expected, wanted = InferenceEngine(model, precision=precision).run(clip())
    out, rates = InferenceEngine(model.cuda(), precision=precision).run(clip().cuda())
    assert out.device.type == "cuda"
    assert rates.per_frame.keys() == wanted.per_frame.keys()
    for name, rate in wanted.per_frame.items():
        off = (rates.per_frame[name].cpu() - rate).abs().max()
        assert off < 0.05 * model.config.neuron.levels, name
    assert torch.corrcoef(torch.stack([out.cpu().flatten(), expected.flatten()]))[0, 1] > 0.9


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["exact", "int8"])
def test_one_call_for_all_frames_on_cuda(precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "PIECE_BYTES", 1)
    engine = InferenceEngine(lively_model().cuda(), precision=precision)
    images = []
    first = engine.model.backbone.stages()[0].downsample.conv
    first.register_forward_hook(lambda _module, args, _out: images.append(len(args[0])))
    engine(clip(clips=3, frames=4).cuda())
    assert images == [12]
