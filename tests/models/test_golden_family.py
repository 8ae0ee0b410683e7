"""What the published code of the family computes (../shared/golden_family)."""

import json

import pytest
import torch
from safetensors import safe_open

import spikevideoformer as svf
from spikevideoformer.body.rotations import matrix_from_6d
from spikevideoformer.deploy.engine import InferenceEngine
from spikevideoformer.deploy.fold import fold_for_inference

# file -> further inputs to the same checkpoint, and arguments besides those of its meta entry
CASES = {
    "sdt2_backbone": ({}, {"num_classes": 3}),
    "sdt2_cls_state_dict": ({}, {}),
    "v3_base": ({}, {}),
    "v3_large_kd": ({}, {}),
    "v3_large_plain": ({}, {}),
    "sdt2_seg": ({"wide": True, "video": True}, {}),
    "v3_seg": ({"wide": True}, {}),
}


INPUTS = [
    (name, io)
    for name, (more, _) in CASES.items()
    for io in (name, *(f"{name}.{further}" for further in more))
]
# each structure, task and head once; the others run with the slow tests
DEPLOYED = ("sdt2_cls_state_dict", "v3_base", "v3_large_kd", "sdt2_seg.video", "v3_seg.wide")


def of_inputs(*quick):
    """Parametrize with all inputs; those that are not named are slow."""
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param((name, io), id=io, marks=() if io in quick else pytest.mark.slow)
            for name, io in INPUTS
        ],
        indirect=True,
    )


@pytest.fixture(scope="module")
def case(request, golden_family):
    name, io = request.param
    with safe_open(golden_family / f"{io}.io.safetensors", "pt") as file:
        expected = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        meta = json.loads(file.metadata()["meta"])
    told = {"heads": meta["num_heads"], "frames": meta["T"], "levels": meta.get("D", 4)}
    model = svf.load_published(golden_family / f"{name}.pth", **told, **CASES[name][1])
    video = expected["input"].double()
    video = video.unsqueeze(1) if video.ndim == 4 else video.transpose(0, 1)
    return model.double(), video, expected, meta


@of_inputs(*(io for _, io in INPUTS))
def test_logits_features_and_firing_rates(case):
    model, video, expected, meta = case
    names, got = svf.published_names(model), {}
    for ours, module in model.named_modules():
        if (theirs := names.get(ours)) is not None:
            module.register_forward_hook(
                lambda _m, _args, out, theirs=theirs: got.update({theirs: out})
            )
    with torch.no_grad(), svf.record_firing_rates(model) as rates:
        got["logits"] = model(video)
    for module in model.modules():
        module._forward_hooks.clear()
    before = "backbone." if model.task == "segmentation" else ""
    maps = "ConvBlock1_1.0", "ConvBlock1_2.0", "ConvBlock2_2.0", "block4.1"
    compared = 0
    for key, value in expected.items():
        kind, _, name = key.partition(".")
        if kind == "feat":
            found = got[name]
        elif kind == "feat_mean":
            found = got[name].mean((0, 1))
        elif kind == "backbone_out":
            found = got[before + maps[int(name)]].mean(0, keepdim=True)
        elif kind == "neck_out":
            found = got[f"neck.fpn_convs.{name}"]
        elif key == "logits_resized_f64" or (key == "logits_f64" and model.task != "segmentation"):
            found = got["logits"]
        else:
            continue
        if found.ndim == 5 and model.config.still_frames == 1 and meta["T"] > len(found):
            found = found.expand(meta["T"], *found.shape[1:])  # equal frames of an image network
        found = found.reshape(value.shape)
        torch.testing.assert_close(found, value, rtol=0, atol=1e-9, msg=key)
        compared += 1
    assert compared >= 16
    levels = model.config.neuron.levels
    mean = {names[ours]: rate / levels for ours, rate in rates.mean.items() if ours in names}
    for name, rate in zip(meta["rate_names"], expected["rate_f64"].tolist(), strict=True):
        assert mean[name] == pytest.approx(rate, rel=0, abs=1e-12), name


@of_inputs(*DEPLOYED)
def test_folded_engine_and_energy(case, tmp_path):
    model, video, _, _ = case
    with torch.no_grad():
        expected = model(video)
        for forms in ({}, {"repconv": "factorised", "sepconv": "dense"}):
            folded = fold_for_inference(model, **forms)
            torch.testing.assert_close(folded(video), expected, rtol=0, atol=1e-9)
    model.float().save_pretrained(tmp_path)
    same = svf.SpikeVideoFormer.from_pretrained(tmp_path)
    with torch.no_grad():
        logits = model(video.float())
        assert torch.equal(same(video.float()), logits)
    assert torch.equal(InferenceEngine(model)(video.float()), logits)
    for precision in ("float", "int16", "int8"):
        engine = InferenceEngine(model, precision=precision)
        together = engine(video.float())
        assert together.isfinite().all()
        assert torch.equal(engine(video[:1].float()), together[:1])
    report = svf.energy_report(model, video[:1].float(), merge=False)
    model.double()
    assert report.by_convention("executed").energy_mj > 0


@pytest.mark.parametrize("poses", ["between", "frames"])
def test_pose_head(golden_family, poses, tmp_path):
    """T frames give T + 1 poses, or T; folded, in the engine and counted, too."""
    with safe_open(golden_family / "pose.io.safetensors", "pt") as file:
        expected = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    model = svf.load_published(golden_family / "pose.pth", heads=2, poses=poses).double()
    assert (model.task, model.num_classes) == ("pose", 24)
    video, prefix = expected["input"], "" if poses == "between" else "frames."
    pooled = []
    model.head.fc.register_forward_hook(lambda _m, args, _out: pooled.append(args[0]))
    with torch.no_grad(), svf.record_firing_rates(model) as rates:
        output = model(video.double())
    model.head.fc._forward_hooks.clear()
    for key, value in (
        ("pose6d", output.rotations_6d.flatten(-2)),
        ("trans", output.translation),
        ("beta", output.shape),
        ("rotmats", matrix_from_6d(output.rotations_6d)),
        ("pooled", pooled[0].transpose(0, 1)),
    ):
        torch.testing.assert_close(value, expected[f"{prefix}{key}_f64"], rtol=0, atol=1e-9)
    meta = json.loads(file_meta(golden_family / "pose.io.safetensors"))
    theirs = svf.published_names(model)
    mean = {f"backbone.{theirs[ours]}": rate for ours, rate in rates.mean.items()}
    for name, rate in zip(meta["rate_names"], expected["rate_f64"].tolist(), strict=True):
        assert mean[name] == pytest.approx(rate, rel=0, abs=1e-12), name
    with torch.no_grad():
        folded = fold_for_inference(model)(video.double())
        torch.testing.assert_close(torch.cat(folded[1:], -1), torch.cat(output[1:], -1))
        model.float().save_pretrained(tmp_path)
        same = svf.SpikeVideoFormer.from_pretrained(tmp_path)
        assert torch.equal(same(video).translation, model(video).translation)
        assert torch.equal(InferenceEngine(same)(video).translation, model(video).translation)
    report = svf.energy_report(same, video[:1], merge=False)
    assert report.by_convention("executed").energy_mj > 0
    loss = sum(part.square().sum() for part in model.train()(video))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def file_meta(path):
    with safe_open(path, "pt") as file:
        return file.metadata()["meta"]


def test_a_backbone_asks_for_the_number_of_classes(golden_family):
    with pytest.raises(ValueError, match="num_classes=N"):
        svf.load_published(golden_family / "sdt2_backbone.pth", heads=2)
