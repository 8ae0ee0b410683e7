"""q and k of networks: what is recorded, and how it is put into numbers."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spikevideoformer.bench.inputs import random_video
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer, create_model
from spikevideoformer.nn.attention import SpikeAttention, to_tokens
from spikevideoformer.nn.conv import per_frame
from spikevideoformer.nn.neuron import record_firing_rates
from spikevideoformer.nn.statistics import measure_statistics
from spikevideoformer.ops.hamming import hamming_similarity_reference
from spikevideoformer.ops.lif import NeuronConfig, lif, unroll_integer_spikes
from spikevideoformer.theory.network import (
    _compare,
    _merge,
    _Part,
    _record,
    hamming_scores,
    measure_files,
    measure_network,
)
from spikevideoformer.video.frames import VideoError

VIDEO = random_video(2, 3, 3, 32, 48)


def lively(**overrides: object) -> SpikeVideoFormer:
    """An untrained nano model in which every layer fires."""
    torch.manual_seed(0)
    model = create_model("svf_nano", num_classes=2, residual_gain=1.0, **overrides)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.bias, 0.5, 0.3)
    measure_statistics(model, [VIDEO])
    model.eval()
    return model


def refuse(error: VideoError) -> None:
    raise AssertionError(error)


def test_currents_are_what_made_the_spikes() -> None:
    """Norm and neuron are fused; what is recorded as current still fires what is recorded."""
    model = lively()
    with torch.inference_mode():
        want = model(VIDEO)
        with _record(model) as seen:
            assert torch.equal(model(VIDEO), want)
    modules = dict(model.named_modules())
    assert list(seen) == [n for n, m in modules.items() if isinstance(m, SpikeAttention)]
    for name, (module, tensors) in seen.items():
        assert module is modules[name]
        for letter in "qk":
            spikes, current = tensors[letter], tensors[f"{letter}_current"]  # [B, h, T*H*W, d]
            assert (
                spikes.shape
                == current.shape
                == (2, 8, 3 * 2 * 3, module.q_conv.pw2.out_channels // 8)
            )
            assert 0 < spikes.mean() < 1
            frames = [z.unflatten(2, (3, 6)).movedim(2, 0) for z in (spikes, current)]
            fired, _ = lif(frames[1].contiguous(), getattr(module, f"{letter}_neuron").config)
            assert (fired != frames[0]).double().mean() < 1e-3  # fused norms round differently


def test_recording_ends_with_the_context() -> None:
    model = lively()
    with _record(model) as seen, torch.inference_mode():
        model(VIDEO)
    seen.clear()
    with torch.inference_mode():
        model(VIDEO)
    assert not seen


def test_recorded_current_is_that_of_the_projection() -> None:
    model = lively(depths=(1, 1, 1, 1, 1))
    inputs: list[Tensor] = []
    module = next(m for m in model.modules() if isinstance(m, SpikeAttention))
    module.register_forward_pre_hook(lambda _m, args: inputs.append(args[0]))
    with torch.inference_mode(), _record(model) as seen:
        model(VIDEO)
        want = to_tokens(per_frame(module.q_conv, inputs[0]), module.heads, module.axes)
    got = next(tensors for m, tensors in seen.values() if m is module)["q_current"]
    assert torch.allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("levels", [1, 4])
def test_hamming_scores_are_the_similarity(levels: int) -> None:
    q = torch.randint(0, levels + 1, (2, 5, 7)).double()
    k = torch.randint(0, levels + 1, (2, 6, 7)).double()
    # all pairs of sub-steps: [D, 1, ...] against [1, D, ...]
    pairs = hamming_similarity_reference(
        unroll_integer_spikes(q, levels)[:, None], unroll_integer_spikes(k, levels)[None]
    )
    got = hamming_scores(q, k, levels) / (levels**2 * 7) / 2 + 0.5
    assert torch.allclose(got, pairs.mean((0, 1)))


def attention(width: int, levels: int = 1) -> SpikeAttention:
    neuron = NeuronConfig() if levels == 1 else NeuronConfig.integer(levels)
    return SpikeAttention(
        8 * width,
        heads=8,
        axes="space_time",
        kind="hamming",
        constant_term=False,
        neuron=neuron,
        reset_each_frame=False,
    )


def test_sign_bits_keep_the_order_of_their_currents() -> None:
    """Bits whose currents are known: signs, of which Hamming similarity knows more."""
    generator = torch.Generator().manual_seed(0)
    tensors = {f"{a}_current": torch.randn(1, 8, 150, 64, generator=generator) for a in "qk"}
    tensors |= {a: (tensors[f"{a}_current"] > 0).float() for a in "qk"}
    found = _compare(attention(64), tensors, generator)
    assert found.rates.tolist() == pytest.approx([0.5, 0.5], abs=0.02)
    hamming, dot = found.kept.mean(0).tolist()
    # a Gaussian and its sign are correlated by sqrt(2/pi), for q and for k; the dot product has
    # the signs of k where q fires, half of them
    assert hamming == pytest.approx(2 / math.pi, abs=0.03)
    assert dot == pytest.approx(2 / math.pi / math.sqrt(2), abs=0.03)


def test_silent_queries_keep_no_order_and_equal_keys_have_none() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {f"{a}_current": torch.randn(1, 8, 20, 4, generator=generator) for a in "qk"}
    tensors |= {"q": torch.zeros(1, 8, 20, 4), "k": (tensors["k_current"] > 0).float()}
    found = _compare(attention(4), tensors, generator)
    assert found.kept[:, 1].isnan().all()
    assert not found.kept[:, 0].isnan().any()
    tensors["k_current"] = torch.ones(1, 8, 20, 4) * (1 + 1e-7 * torch.rand(1, 8, 20, 4))
    assert len(_compare(attention(4), tensors, generator).kept) == 0


@pytest.mark.parametrize(
    ("options", "axes"),
    [
        ({}, ["space_time"] * 3),
        ({"attention": "dot"}, ["space_time"] * 3),
        ({"design": "factorized"}, ["space", "time"] * 3),
        ({"neuron": {"kind": "integer_lif", "levels": 4, "v_threshold": 0.5}}, ["space_time"] * 3),
    ],
)
def test_networks(options: dict[str, object], axes: list[str]) -> None:
    model = lively(**options)
    layers = measure_network(model, [VIDEO, VIDEO.flip(1)], seed=2)
    assert [layer.axes for layer in layers] == axes
    assert [layer.width for layer in layers[:: len(layers) // 3]] == [8, 8, 10]
    for layer in layers:
        assert -1 <= layer.hamming <= 1
        assert -1 <= layer.dot <= 1
        assert 0 <= layer.hamming_undecided <= 1
        assert 0 <= layer.dot_undecided <= 1
        assert layer.dot_decided is not None
        share = 1 - layer.dot_undecided
        if layer.hamming_undecided == 0:
            assert layer.dot_decided * share == pytest.approx(layer.dot)
        assert layer.levels == model.config.neuron.levels
    with record_firing_rates(model) as rates, torch.inference_mode():
        model(torch.cat([VIDEO, VIDEO.flip(1)]))
    for layer in layers:
        want = rates.mean[f"{layer.layer}.q_neuron"]
        assert layer.q_firing_rate == pytest.approx(want, rel=1e-3)
    again = measure_network(model, [VIDEO, VIDEO.flip(1)], seed=2)
    assert again == layers
    assert measure_network(model, [VIDEO, VIDEO.flip(1)], seed=3) != layers


def test_a_picture_of_nothing_has_no_order() -> None:
    model = lively(design="spatial_only")
    with pytest.raises(ValueError, match="no order to keep; give a video in which"):
        measure_network(model, [torch.zeros(1, 1, 3, 16, 16)])


def test_means_over_queries() -> None:
    nan, rates = math.nan, torch.tensor([0.25, 0.5], dtype=torch.float64)
    parts = [
        _Part(rates=rates, kept=torch.tensor([[0.8, nan], [0.4, 0.2]], dtype=torch.float64)),
        _Part(rates=rates, kept=torch.tensor([[nan, nan], [0.6, 0.4]], dtype=torch.float64)),
    ]
    got = _merge("name", attention(4), parts)
    assert (got.queries, got.width, got.axes, got.levels) == (4, 4, "space_time", 1)
    assert (got.q_firing_rate, got.k_firing_rate) == (0.25, 0.5)
    assert (got.hamming, got.dot) == pytest.approx((0.45, 0.15))
    assert (got.hamming_undecided, got.dot_undecided) == (0.25, 0.5)
    assert (got.hamming_decided, got.dot_decided) == pytest.approx((0.5, 0.3))
    got = _merge("name", attention(4), [_Part(rates=rates, kept=parts[0].kept[:1])])
    assert (got.hamming_decided, got.dot_decided) == (None, None)


def test_files(model_folder: Path, video_folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    failed: list[VideoError] = []
    found = measure_files(
        model_folder, [bad, video_folder / "one.mp4", video_folder], failed=failed.append
    )
    assert [Path(error.path) for error in failed] == [bad]
    assert [Path(v).name for v in found.videos] == ["one.mp4", "three.avi", "two.mkv"]
    assert len(found.layers) == 3
    assert found.layers[0].queries == 3 * 8 * 16  # videos, heads, tokens: T = 4 at 2x2
    with pytest.raises(VideoError, match=r"bad\.mp4"):
        measure_files(model_folder, [bad], failed=refuse)


def test_model_that_does_not_know_its_clips(
    model_folder: Path, video_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "model")
    model = SpikeVideoFormer.from_pretrained(folder)
    model.clip = None
    model.save_pretrained(folder)
    with pytest.raises(ValueError, match="how clips are made; train it"):
        measure_files(folder, [video_folder / "one.mp4"], failed=refuse)
