"""What an independent implementation of the published architecture computes (../shared/golden)."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import spikevideoformer as svf
from spikevideoformer.nn.neuron import Neuron

CASES = {
    "tiny_3d_hamming": "joint_hamming",
    "tiny_3d_dot": "joint_dot",
    "tiny_2d_dot": "spatial_dot",
}
WITH_GRADIENTS = ["tiny_3d_hamming", "tiny_3d_dot"]
# A bias before a batch norm has no effect: its true gradient is zero, and what either
# implementation computes is rounding noise of at most 1e-13.
ZERO_GRADIENT = 1e-9
ZERO_FLOOR = 1e-12


@dataclass(frozen=True)
class Case:
    path: Path
    attention: str
    expected: dict[str, Tensor]
    meta: dict

    def model(self) -> svf.SpikeVideoFormer:
        return svf.load_published(self.path, attention=self.attention).double()

    @property
    def video(self) -> Tensor:
        return self.expected["input"].double().transpose(0, 1)  # [B, T, C, H, W]


@pytest.fixture(scope="module", params=list(CASES))
def case(request, golden) -> Case:
    name = request.param
    with safe_open(golden / f"{name}.io.safetensors", "pt") as file:
        expected = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        meta = json.loads(file.metadata()["meta"])
    return Case(golden / f"{name}.pth", CASES[name], expected, meta)


def test_what_is_read_off_the_tensors(case):
    model = case.model()
    assert not model.training
    assert list(model.config.widths) == case.meta["embed"]
    assert model.config.depths == (1, 1, 2, 6, 2)
    assert model.num_classes == case.meta["num_classes"]
    assert model.num_parameters() == case.meta["params"]


def test_names_cover_everything_in_both_directions(case):
    model = case.model()
    names = svf.published_names(model)
    assert len(set(names.values())) == len(names)
    state = torch.load(case.path, weights_only=True)["model"]
    translated = {}
    for key in model.state_dict():
        module, _, leaf = key.rpartition(".")
        translated[f"{names[module]}.{leaf}"] = key
    assert translated.keys() == state.keys()
    neurons = {names[n] for n, m in model.named_modules() if isinstance(m, Neuron)}
    assert neurons == set(case.meta["firing_rate_names"])


def test_logits_features_and_firing_rates(case):
    model = case.model()
    names = svf.published_names(model)
    features = {}
    for ours, module in model.named_modules():
        theirs = names.get(ours)
        if f"feat_mean_TB.{theirs}" in case.expected:
            module.register_forward_hook(
                lambda _m, _args, out, theirs=theirs: features.update({theirs: out})
            )
    with torch.no_grad(), svf.record_firing_rates(model) as rates:
        logits = model(case.video)
    torch.testing.assert_close(logits, case.expected["logits_f64"], rtol=0, atol=1e-9)

    wanted = {k.removeprefix("feat_mean_TB.") for k in case.expected if k.startswith("feat_mean")}
    assert features.keys() == wanted
    assert len(wanted) == 11
    for name, feature in features.items():
        expected = case.expected[f"feat_mean_TB.{name}"]
        if expected.ndim == 4:  # stored as a mean over T and B, in float32
            feature, expected = feature.mean((0, 1)), expected.double()
        torch.testing.assert_close(feature, expected, rtol=0, atol=1e-9, msg=name)

    mean = {names[ours]: rate for ours, rate in rates.mean.items()}
    assert len(mean) == len(case.meta["firing_rate_names"])
    firing = case.expected["firing_rate_f64"].tolist()
    for name, rate in zip(case.meta["firing_rate_names"], firing, strict=True):
        assert mean[name] == pytest.approx(rate, rel=0, abs=1e-12), name
    assert max(firing) > 0.1


def test_float32_agrees_up_to_rare_flips(case):
    with torch.no_grad():
        logits = case.model().float()(case.video.float())
    expected = case.expected["logits_f64"]
    error = (logits.double() - expected).abs().max()
    assert error < 0.05 * expected.std()


@pytest.mark.parametrize("case", WITH_GRADIENTS, indirect=True)
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_training_logits_and_gradients(case, gradient_checkpointing):
    model = case.model().train()
    model.backbone.gradient_checkpointing = gradient_checkpointing
    names = svf.published_names(model)
    logits = model(case.video)
    torch.testing.assert_close(logits, case.expected["train_logits_f64"], rtol=1e-7, atol=0)
    (logits * case.expected["train_loss_weight"]).sum().backward()

    norms, whole = {}, {}
    for ours, parameter in model.named_parameters():
        module, _, leaf = ours.rpartition(".")
        norms[f"gradnorm.{names[module]}.{leaf}"] = parameter.grad.norm().item()
        whole[f"grad.{names[module]}.{leaf}"] = parameter.grad
    assert norms.keys() == {key for key in case.expected if key.startswith("gradnorm.")}
    zeros = 0
    for name, norm in norms.items():
        expected = case.expected[name].item()
        if abs(expected) < ZERO_GRADIENT:
            assert abs(norm - expected) < ZERO_FLOOR, name
            zeros += 1
        else:
            assert norm == pytest.approx(expected, rel=1e-7), name
    # five convolutions of Downsample and, in each of eight blocks, four RepConv and two MLP ones
    assert zeros == 5 + 8 * 6

    given = [key for key in case.expected if key.startswith("grad.")]
    assert len(given) == 3
    for name in given:
        expected = case.expected[name]
        gradient = whole[name].reshape(expected.shape)  # 1-d convolutions in the published MLP
        error = (gradient - expected).norm() / expected.norm()
        assert error < 1e-7, name
