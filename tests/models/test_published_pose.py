"""The regressor of HumanPoseTracking_SNN in a checkpoint: its forms, and files to refuse."""

import pytest
import torch

import spikevideoformer as svf
from spikevideoformer.body.stored import AbsentBody, AbsentSmpl
from spikevideoformer.models.published_file import read_published

from .test_published import WIDTHS, _model, _published_state

C = WIDTHS[-1]


def _state(joints=24, shapes=10, prefix=""):
    own = _published_state(_model().float())
    state = {f"backbone.{k}": v for k, v in own.items() if not k.startswith("head")}
    for part, rows in (("decpose", 6 * joints), ("dectrans", 3), ("decbeta", shapes)):
        state[f"regressor.{part}.weight"] = torch.randn(rows, C) / 9
        state[f"regressor.{part}.bias"] = torch.randn(rows)
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(("joints", "shapes"), [(24, 10), (17, 6)])
def test_numbers_of_the_three_layers(tmp_path, prefix, joints, shapes):
    state = _state(joints, shapes, prefix)
    torch.save({"model_state_dict": state, "scaler": None, "epoch": 3}, tmp_path / "pose.pth")
    model = svf.load_published(tmp_path / "pose.pth", num_classes=None)
    assert isinstance(model.body, AbsentSmpl if joints == 24 else AbsentBody)
    features = torch.randn(3, 2, C, 2, 2)
    mean = torch.nn.functional.adaptive_avg_pool3d(features.permute(1, 2, 0, 3, 4), (4, 1, 1))
    mean = mean[..., 0, 0].mT  # [B, T + 1, C]
    output = model.head.named(model.head((features,)))
    for part, found in (
        ("decpose", output.rotations_6d.flatten(-2)),
        ("dectrans", output.translation),
        ("decbeta", output.shape),
    ):
        weight, bias = (state[f"{prefix}regressor.{part}.{leaf}"] for leaf in ("weight", "bias"))
        torch.testing.assert_close(found, mean @ weight.T + bias)
    model.save_pretrained(tmp_path / "folder")
    again = svf.SpikeVideoFormer.from_pretrained(tmp_path / "folder")
    assert (again.num_classes, again.body.num_shape) == (joints, shapes)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"decpose.bias": None}, "lacks the tensor regressor.decpose.bias"),
        ({"dectrans.weight": torch.zeros(C)}, r"regressor.dectrans has shapes \(40,\)"),
        ({"decbeta.bias": torch.zeros(9)}, r"regressor.decbeta has shapes"),
        ({"decpose.weight": torch.zeros(143, C), "decpose.bias": torch.zeros(143)}, "gives 143,"),
        ({"dectrans.weight": torch.zeros(4, C), "dectrans.bias": torch.zeros(4)}, "and 4 numbers"),
        ({"decbeta.weight": torch.zeros(10, 3)}, r"of \[3, 40\] channels"),
        ({"extra.weight": torch.zeros(3)}, None),
    ],
)
def test_other_regressors_are_refused(tmp_path, change, says):
    state = _state()
    for key, value in change.items():
        state[f"regressor.{key}"] = value
    state = {key: value for key, value in state.items() if value is not None}
    torch.save({"model_state_dict": state}, tmp_path / "pose.pth")
    if says is None:
        says = "has a tensor regressor.extra.weight that a pose network of .* has no place for"
    with pytest.raises(ValueError, match=says) as error:
        svf.load_published(tmp_path / "pose.pth")
    assert "\n" not in str(error.value) and "pose.pth" in str(error.value)


@pytest.mark.parametrize("name", ["v3_base", "v3_large_plain"])
def test_on_other_backbones(tmp_path, golden_family, name):
    """Of E-SpikeFormers too: each frame by itself, and the poses between them."""
    whole = svf.load_published(golden_family / f"{name}.pth", heads=2)
    theirs = read_published(golden_family / f"{name}.pth").state
    width = whole.config.widths[-1]
    state = {k: v for k, v in theirs.items() if not k.startswith("head")}
    for part, rows in (("decpose", 144), ("dectrans", 3), ("decbeta", 10)):
        state[f"regressor.{part}.weight"] = torch.randn(rows, width) / 9
        state[f"regressor.{part}.bias"] = torch.randn(rows)
    torch.save({"model_state_dict": state}, tmp_path / "pose.pth")
    model = svf.load_published(tmp_path / "pose.pth", heads=2)
    video = torch.rand(1, 3, 3, 32, 32)
    with torch.no_grad():
        output = model(video)
        mean = whole.backbone(video.transpose(0, 1))[-1].mean((3, 4)).transpose(0, 1)  # [B, T, C]
    ends = torch.cat([mean[:, :1], (mean[:, 1:] + mean[:, :-1]) / 2, mean[:, -1:]], 1)
    weight, bias = state["regressor.dectrans.weight"], state["regressor.dectrans.bias"]
    torch.testing.assert_close(output.translation, ends @ weight.T + bias)
    with pytest.raises(ValueError, match="a head for 24 joints; leave num_classes out"):
        svf.load_published(tmp_path / "pose.pth", heads=2, num_classes=7)


def test_a_sew_resnet_is_named(tmp_path):
    state = {"module.backbone.body.conv1.0.weight": torch.zeros(2), **_state(prefix="module.")}
    torch.save({"model_state_dict": state}, tmp_path / "pose.pth")
    with pytest.raises(ValueError, match="with a SEW-ResNet backbone, which is not read"):
        svf.load_published(tmp_path / "pose.pth")
