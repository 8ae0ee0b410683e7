"""With integer weights the spikes are the same bits, whatever a clip is computed with."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spikevideoformer as svf
from spikevideoformer.bench.inputs import lively_model, made_clip, random_video
from spikevideoformer.deploy import engine as engine_module
from spikevideoformer.deploy import exact
from spikevideoformer.deploy.engine import InferenceEngine
from spikevideoformer.deploy.exact import ExactSepTail, FirstConv, exact_projections
from spikevideoformer.nn.conv import RepConv, SepConv
from spikevideoformer.ops.exact_conv import events_available, exact_sums_reference
from spikevideoformer.ops.lif import NeuronConfig
from spikevideoformer.synth.motions import standing_skeleton
from spikevideoformer.task import get_task
from spikevideoformer.video.spec import ClipSpec

from ..lively import random_norms

PRECISIONS = ("float", "int16", "int8")
T, SIZE = 6, 48


def clip(clips: int = 3, frames: int = T, size: int = SIZE) -> Tensor:
    return random_video(clips, frames, 3, size, size, seed=1)


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> int:
    assert a.keys() == b.keys()
    return sum(int((a[name] != b[name]).sum()) for name in a)


def e_spikeformer(**overrides: Any) -> svf.SpikeVideoFormer:
    """A small one whose neurons fire."""
    torch.manual_seed(0)
    options = {"widths": (16, 32, 48, 64), "depths": (1, 1, 1, 2, 1), "num_classes": 5}
    return svf.create_model("espike_5m", **(options | overrides), residual_gain=1.0).eval()


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_promise(engine: InferenceEngine, video: Tensor, monkeypatch: Any) -> None:
    """Batch 1 and all, chunks of 1, 3, 8 and odd sizes, threads, pieces of 1 and 16 MB."""
    together = engine.spikes(video)
    rates = {name: spikes.float().mean().item() for name, spikes in together.items()}
    silent = [name for name, rate in rates.items() if rate == 0]
    assert len(silent) < len(rates) / 4  # so that there is something to compare
    for i in {0, 2, len(video) - 1}:
        alone = engine.spikes(video[i : i + 1])
        assert differing(alone, {n: s[:, i : i + 1] for n, s in together.items()}) == 0
    logits = engine(video[:1])
    assert torch.equal(engine(video)[:1], logits)
    three = engine.spikes(video[:3])
    assert differing(three, {n: s[:, :3] for n, s in together.items()}) == 0
    expected = {n: s[:, :1] for n, s in together.items()}
    for sizes in ([1], [3], [8], [2, 1, 3]):
        with monkeypatch.context() as patch:

            def cut(total: int, _size: int, sizes: list[int] = sizes) -> list[slice]:
                edges = [0]
                while edges[-1] < total:
                    edges.append(min(total, edges[-1] + sizes[(len(edges) - 1) % len(sizes)]))
                return [slice(a, b) for a, b in pairwise(edges)]

            patch.setattr(engine_module, "_split", cut)
            assert differing(engine.spikes(video[:1]), expected) == 0
            assert torch.equal(engine(video[:1]), logits)
    with threads(2):
        assert differing(engine.spikes(video[:1]), expected) == 0
        assert torch.equal(engine(video[:1]), logits)
    for piece in (2**20, 2**24):
        with monkeypatch.context() as patch:
            patch.setattr(engine_module, "PIECE_BYTES", piece)
            assert differing(engine.spikes(video[:1]), expected) == 0


VARIANTS: dict[str, dict[str, Any]] = {
    "joint": {},
    "segmentation": {"task": "segmentation"},
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_spikes_are_the_same_bits(variant: str, precision: Any, monkeypatch: Any) -> None:
    model = lively_model("svf_nano", num_classes=5, frames=T, size=SIZE, **VARIANTS[variant])
    check_promise(InferenceEngine(model, precision=precision), clip(), monkeypatch)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_spikes_of_a_trained_network_are_the_same_bits(precision: Any, monkeypatch: Any) -> None:
    """On what it was trained for: events of moving pictures."""
    model = svf.SpikeVideoFormer.from_pretrained("svf/scene-motion").eval()
    task, spec = get_task(model.task), ClipSpec.from_dict(model.clip)
    video = torch.stack([task.network_input(made_clip(task, spec, i), spec) for i in range(16)])
    check_promise(InferenceEngine(model, precision=precision), video, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_spikes_of_15_m_are_the_same_bits(precision: Any, monkeypatch: Any) -> None:
    model = lively_model("svf_15m", num_classes=5, frames=9, size=64)
    check_promise(InferenceEngine(model, precision=precision), clip(16, 9, 64), monkeypatch)


@pytest.mark.parametrize(
    ("neuron", "precision"),
    [("lif", "float"), ("lif", "int8"), ("ni_lif", "int16"), ("ni_lif", "int8")],
)
def test_every_unit_fires_the_same_spikes(
    neuron: str, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D binary sub-steps of a network of integers, too: the same numbers, bit for bit."""
    model = lively_model("svf_nano", num_classes=5, frames=3, size=32)
    if neuron == "ni_lif":
        model = e_spikeformer()
    video = clip(1, 3, 32)
    expected = InferenceEngine(model, precision=precision).spikes(video)
    for unit in ("events", "int8", "float32", "sub_steps"):
        with monkeypatch.context() as patch:
            patch.setattr(exact, "UNIT", unit)
            engine = InferenceEngine(model, precision=precision)
        assert differing(engine.spikes(video), expected) == 0, unit


def test_plain_torch_fires_the_same_spikes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without compiled kernels: what other devices run."""
    model = lively_model("svf_nano", num_classes=5, frames=3, size=32)
    video = clip(1, 3, 32)
    compiled = InferenceEngine(model, precision="float")
    expected, logits = compiled.spikes(video), compiled(video)
    for module in (exact, sys.modules["spikevideoformer.ops.exact_conv"]):
        monkeypatch.setattr(module, "events_available", lambda: "not here")
    plain = InferenceEngine(model, precision="float")
    assert differing(plain.spikes(video), expected) == 0
    assert torch.equal(plain(video), logits)


# Run by each process with instructions of its own: digests of spikes and logits as JSON.
CHILD = """
import hashlib, json, sys, torch
from spikevideoformer.bench.inputs import random_video
from spikevideoformer.deploy import exact
from spikevideoformer.deploy.engine import InferenceEngine
torch.set_num_threads(1)
model = torch.load(sys.argv[1], weights_only=False)
video = random_video(1, 3, 3, 32, 32, seed=1)
found = {}
for exact.UNIT in ("auto", "int8", "float32"):
    for precision in ("float", "int16", "int8"):
        engine = InferenceEngine(model, precision=precision)
        outputs = engine.spikes(video) | {"logits": engine(video)}
        for name, values in outputs.items():
            digest = hashlib.sha256(values.numpy().tobytes()).hexdigest()
            found[f"{exact.UNIT} {precision} {name}"] = digest
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_processors_fire_the_same_spikes(tmp_path: Any) -> None:
    """oneDNN and numba as on processors with AVX2, AVX-512 and VNNI, each in its process."""
    path = tmp_path / "model.pt"
    torch.save(lively_model("svf_nano", num_classes=5, frames=3, size=32), path)
    found = {}
    for isa in ("AVX2", "AVX512_CORE", "AVX512_CORE_VNNI", "DEFAULT"):
        environment = os.environ | {"ONEDNN_MAX_CPU_ISA": isa}
        if isa == "AVX2":
            environment |= {
                "NUMBA_CPU_NAME": "haswell",
                "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+bmi,+bmi2,+lzcnt,+popcnt",
                "ATEN_CPU_CAPABILITY": "avx2",
            }
        command = [sys.executable, "-c", CHILD, str(path)]
        out = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert out.returncode == 0, out.stderr
        found[isa] = json.loads(out.stdout)
    first = found["DEFAULT"]
    assert len(first) > 300
    for isa, digests in found.items():
        assert [name for name in first if digests[name] != first[name]] == [], isa


# --- Against the model in float64 -----------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"task": "segmentation"},
        {"task": "pose", "body": standing_skeleton(), "readout": "membrane"},
        {"task": "pose", "body": standing_skeleton(), "readout": "spike"},
        {"task": "pose", "body": standing_skeleton(), "pose_head": "regressor", "poses": "between"},
        {"task": "pose", "body": standing_skeleton(), "pose_head": "heatmap"},
        {"readout": "spike", "design": "spatial_only"},
        {"readout": "membrane", "design": "factorized"},
        {"readout": "membrane", "neuron": "integer_lif"},
        {"readout": "membrane", "attention": "dot"},
    ],
    ids=lambda options: "-".join(str(v) for v in options.values() if isinstance(v, str)) or "usual",
)
def test_24_bits_fire_what_the_model_fires_in_float64(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    options = {"task": "classification", "num_classes": 5} | options
    model = svf.create_model("svf_nano", **options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.2, 0.3)
    video = clip(2)
    out, rates = InferenceEngine(model, precision="float").run(video)
    with torch.inference_mode(), svf.record_firing_rates(model.double()) as wanted:
        expected = model(video.double())
    assert rates.per_frame.keys() == wanted.per_frame.keys()
    assert sum(wanted.mean.values()) > 0.5
    for name, rate in wanted.per_frame.items():
        assert (rates.per_frame[name] - rate).abs().max() < 2e-3, name
    if not isinstance(out, Tensor):
        out, expected = out[0], expected[0]
    torch.testing.assert_close(out, expected.float(), rtol=0, atol=2e-2)


# --- Parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "tolerance"), [(24, 1e-6), (16, 1e-4), (8, 5e-2)])
@pytest.mark.parametrize("levels", [1, 4])
def test_parts_compute_what_the_modules_do(bits: int, tolerance: float, levels: int) -> None:
    torch.manual_seed(0)
    config = NeuronConfig()
    if levels > 1:
        config = NeuronConfig(kind="integer_lif", levels=levels, v_reset=None)
    spikes = torch.randint(levels + 1, (2, 24, 9, 8), dtype=torch.uint8)
    sep, rep = SepConv(12, config, False).eval(), RepConv(24, config).eval()
    random_norms(sep), random_norms(rep)
    tail = ExactSepTail(sep, bits, levels, torch.device("cpu"))
    merged = exact_projections([rep], bits, levels, torch.device("cpu"))
    with torch.inference_mode():
        sep, rep = sep.double(), rep.double()
        pairs = ((tail, sep.bn2(sep.pw2(sep.dw(spikes.double())))), (merged, rep(spikes.double())))
    for part, expected in pairs:
        got = exact.scaled(part(spikes)[0], *part.norms[0])
        error = (got - expected).abs().max() / expected.abs().max()
        assert error < tolerance


@pytest.mark.parametrize("events", [True, False])
@pytest.mark.parametrize(("channels", "levels", "width"), [(40, 1, 7), (5, 4, 1), (16, 1, 6)])
def test_both_halves_of_a_sep_conv_are_exact(
    channels: int, levels: int, width: int, events: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The products in float64 against int64, by our kernel and by torch."""
    if not events:
        monkeypatch.setattr(exact, "events_available", lambda: "not asked for")
    elif (reason := events_available()) is not None:
        pytest.skip(reason)
    torch.manual_seed(0)
    sep = SepConv(channels, NeuronConfig(), False).eval()
    spikes = torch.randint(levels + 1, (2, 2 * channels, 7, width), dtype=torch.uint8)
    spikes[0, :, 3:] = levels
    for bits in (8, 16, 24):
        tail = ExactSepTail(sep, bits, levels, torch.device("cpu"))
        a = exact_sums_reference(spikes, tail.dw, (1, 1), (3, 3), 2 * channels)
        total = torch.einsum("nchw,co->nohw", a, tail.pw.long())
        assert torch.equal(tail(spikes)[0], total.float())


@pytest.mark.parametrize("break_even", [0.0, 2.0])
def test_few_spikes_make_the_same_sums_by_events(
    break_even: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (reason := events_available() or exact.int8_available()) is not None:
        pytest.skip(reason)
    monkeypatch.setattr(exact, "_break_even", lambda: break_even)
    torch.manual_seed(0)
    parts = [(torch.randn(96, 40, 3, 3), torch.randn(96)) for _ in range(3)]
    convs = exact.ExactConvs(parts, bits=8, levels=1, padding=(1, 1))
    spikes = (torch.rand(2, 40, 9, 8) < 0.3).to(torch.uint8)
    for sums, weights in zip(convs(spikes), convs.weights, strict=True):
        expected = exact_sums_reference(spikes, weights.integers, (1, 1), (1, 1))
        assert torch.equal(sums, expected.float())
    assert isinstance(convs.sums, exact._DenseOrEvents)
    assert (convs.sums.events is not None) == (break_even > 1)


def test_upsampling_is_bilinear() -> None:
    upsample = exact._InOrder().upsample
    x = torch.randn(2, 1, 3, 5, 4)
    for factor in (2, 4):
        expected = F.interpolate(
            x.flatten(0, 1), scale_factor=factor, mode="bilinear", align_corners=False
        )
        torch.testing.assert_close(upsample(x, factor).flatten(0, 1), expected)
    assert upsample(x[..., :1, :1], 4).shape == (2, 1, 3, 4, 4)


def test_the_first_layer_is_convolution_and_norm() -> None:
    torch.manual_seed(0)
    conv, bn = nn.Conv2d(3, 8, 7, 2, 3), nn.BatchNorm2d(8)
    random_norms(nn.Sequential(bn))
    x = torch.randn(2, 3, 20, 22)
    expected = bn.eval().double()(conv.double()(x.double()))
    got = FirstConv(conv.float(), bn.float())(x)
    torch.testing.assert_close(got, expected.float(), rtol=1e-5, atol=1e-6)
