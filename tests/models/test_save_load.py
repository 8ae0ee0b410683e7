"""A model as a folder: written in one step, read safely, refused in one line."""

import copy
import json
import math
import os
import resource
import shutil
import time

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

import spikevideoformer as svf
from spikevideoformer.models import spikevideoformer as module

CLASSES = ("left", "right", "up")
CLIP = {"frames": 8, "size": 32, "frame_rate_hz": None, "mean": [0.5] * 3, "std": [0.25] * 3}


@pytest.fixture(scope="module")
def made(lively, tmp_path_factory):
    """A model and its folder, for all tests; what they take is a copy."""
    torch.manual_seed(0)
    model = lively(svf.create_model("svf_nano", num_classes=3, depths=(1, 1, 1, 1, 1))).eval()
    folder = tmp_path_factory.mktemp("made")
    model.save_pretrained(folder, classes=CLASSES, clip=CLIP)
    return model, folder


@pytest.fixture
def model(made):
    return copy.deepcopy(made[0])


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made[1], tmp_path / "model")


def _outputs(model):
    with torch.no_grad():
        return model(torch.rand(1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"design": "factorized", "attention": "dot", "drop_path": 0.1, "readout": "membrane"},
        {"neuron": svf.NeuronConfig.integer(3), "constant_term": True, "pad_input": True},
        {"neuron": svf.NeuronConfig.from_beta(1, decay_input=False, v_reset=None)},
        {"neuron": "relu", "attention": "softmax", "design": "hierarchical"},
        {
            "neuron": "relu",
            "attention": "none",
            "design": "spatial_only",
            "readout": "gru",
            "depths": (1, 1, 1, 1, 0),
        },
    ],
    ids=["published", "dot", "integer", "no_leak", "softmax", "recurrent"],
)
def test_round_trip(tmp_path, lively, overrides):
    model = lively(svf.create_model("svf_nano", num_classes=3, **overrides))
    model.save_pretrained(tmp_path, classes=CLASSES, clip=CLIP)
    for given in (tmp_path, str(tmp_path)):
        loaded = svf.SpikeVideoFormer.from_pretrained(given)
        assert not loaded.training
        assert loaded.config == model.config
        assert loaded.task == "classification"
        assert loaded.classes == CLASSES
        assert loaded.clip == CLIP
        assert torch.equal(_outputs(loaded), _outputs(model.eval()))
        state = loaded.state_dict()
        assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())


def test_what_is_known_is_kept(model, folder, tmp_path):
    loaded = svf.SpikeVideoFormer.from_pretrained(folder)
    loaded.save_pretrained(tmp_path / "again")  # without naming classes and clip
    again = svf.SpikeVideoFormer.from_pretrained(tmp_path / "again")
    assert again.classes == CLASSES
    assert again.clip == CLIP
    model.save_pretrained(tmp_path / "bare")
    bare = svf.SpikeVideoFormer.from_pretrained(tmp_path / "bare")
    assert bare.classes is None
    assert bare.clip is None


def test_contents_of_the_folder(model, folder):
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    about = json.loads((folder / "config.json").read_text("utf-8"))
    assert about["format_version"] == 1
    assert about["model"]["widths"] == [16, 32, 64, 80]
    assert load_file(folder / "model.safetensors").keys() == model.state_dict().keys()
    assert (folder / "config.json").stat().st_mode & 0o777 == 0o644


def test_a_trained_float64_or_channels_last_model(model, tmp_path):
    model.double().to(memory_format=torch.channels_last)
    model.save_pretrained(tmp_path)
    loaded = svf.SpikeVideoFormer.from_pretrained(tmp_path)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(
            loaded.state_dict()[key], value.to(loaded.state_dict()[key].dtype)
        )


def test_wrong_number_of_classes(model, tmp_path):
    with pytest.raises(ValueError, match="2 class names for 3 classes"):
        model.save_pretrained(tmp_path, classes=["a", "b"])


@pytest.mark.parametrize("broken", ["save_file", "replace", "fsync"])
def test_an_interrupted_write_leaves_the_old_model(folder, lively, monkeypatch, broken):
    old = {p.name: p.read_bytes() for p in folder.iterdir()}
    other = svf.create_model("svf_nano", num_classes=3, depths=(1, 1, 1, 1, 1))

    def fail(*_args, **_kwargs):
        raise OSError("disk full")

    if broken == "save_file":

        def half_written(_state, path):
            path.write_bytes(b"half")
            fail()

        monkeypatch.setattr(module, "save_file", half_written)
    elif broken == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(type(folder), "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        other.save_pretrained(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == old


# --- Refusals -------------------------------------------------------------------------------------


def _edited(folder, change):
    """``config.json`` after ``change`` of what it says."""
    path = folder / "config.json"
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))


def _refused(folder, says):
    with pytest.raises(ValueError, match=says):
        svf.SpikeVideoFormer.from_pretrained(folder)


def test_missing_things(folder, tmp_path):
    _refused(tmp_path / "nowhere", "does not exist")
    _refused("./nowhere", "does not exist")
    _refused("nowhere", "does not exist")
    _refused(folder / "config.json", "is a file")
    for name in ("config.json", "model.safetensors"):
        part = tmp_path / f"without_{name}"
        shutil.copytree(folder, part)
        (part / name).unlink()
        _refused(part, f"{name} is missing")


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "null", '"text"', "\x00\x01", '{"format_version": 1'], ids=repr
)
def test_broken_json(folder, text):
    (folder / "config.json").write_text(text)
    _refused(folder, "not valid JSON|format version")


def test_json_that_is_no_text(folder):
    (folder / "config.json").write_bytes(b"\xff\xfe\x00{}")
    _refused(folder, "not valid JSON")


CHANGES = {
    "other_version": ({"format_version": 2}, "format version 1"),
    "no_version": ({"format_version": None}, "format version 1"),
    "unknown_key": ({"colour": "red"}, "'colour' is missing or unknown"),
    "unknown_task": ({"task": "tracking"}, "choose one of classification"),
    "unhashable_task": ({"task": ["classification"]}, "choose one of classification"),
    "class_count_as_text": ({"num_classes": "3"}, "num_classes"),
    "other_class_count": ({"num_classes": 4, "classes": list("abcd")}, "has shape"),
    "class_names_short": ({"classes": ["left"]}, "expected 3 names"),
    "class_names_number": ({"classes": 3}, "classes"),
    "class_names_text": ({"classes": "abc"}, "classes"),
    "class_names_numbers": ({"classes": [1, 2, 3]}, "classes"),
    "clip_number": ({"clip": 3}, "clip"),
    "model_number": ({"model": 3}, "model"),
    "model_text": ({"model": "svf_nano"}, "model"),
    "model_list": ({"model": [1, 2]}, "model"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_configs(folder, name):
    change, says = CHANGES[name]
    _edited(folder, lambda about: about.update(change))
    _refused(folder, says)


def test_missing_key(folder):
    _edited(folder, lambda about: about.pop("clip"))
    _refused(folder, "'clip' is missing")


MODEL_CHANGES = {
    "unknown_key": ({"desing": "joint"}, "did you mean 'design'"),
    "unknown_design": ({"design": "diagonal"}, "expected joint or"),
    "unknown_neuron_key": ({"neuron": {"taau": 2}}, "did you mean 'tau'"),
    "neuron_number": ({"neuron": 3}, "NeuronConfig"),
    "widths_number": ({"widths": 3}, "4 positive integers"),
    "widths_text": ({"widths": "wide"}, "4 positive integers"),
    "drop_path_text": ({"drop_path": "a lot"}, "drop_path"),
    "tau_text": ({"neuron": {"tau": "long"}}, "tau"),
    "other_widths": ({"widths": [16, 32, 64, 88]}, "has shape"),
    "other_depths": ({"depths": [1, 1, 1, 1, 2]}, "lacks the tensor"),
    "fewer_norms": ({"attention": "dot"}, "no place for"),
}


@pytest.mark.parametrize("name", MODEL_CHANGES)
def test_other_model_configs(folder, name):
    change, says = MODEL_CHANGES[name]
    _edited(folder, lambda about: about["model"].update(change))
    _refused(folder, says)


def test_weights_of_a_compiled_model(folder):
    weights = folder / "model.safetensors"
    save_file({f"_orig_mod.{name}": value for name, value in load_file(weights).items()}, weights)
    _refused(folder, "of a compiled model; save the model itself")


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.999])
def test_truncated_weights(folder, share):
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(share * len(content))])
    _refused(folder, "no readable safetensors")


def test_weights_that_are_a_pickle(folder):
    torch.save({"a": torch.zeros(3)}, folder / "model.safetensors")
    _refused(folder, "no readable safetensors")


def test_other_weights(folder):
    weights = folder / "model.safetensors"
    state = load_file(weights)
    key = "backbone.stage3.blocks.0.mlp.fc1.weight"
    save_file({k: v for k, v in state.items() if k != key}, weights)
    _refused(folder, f"lacks the tensor {key}")
    save_file({**state, "more": torch.zeros(1)}, weights)
    _refused(folder, "tensor more that the architecture has no place for")
    save_file({**state, key: torch.zeros(3, 3)}, weights)
    _refused(folder, rf"{key} has shape \(3, 3\)")


def test_the_first_misfit_is_always_the_same_one(folder):
    """Not the pick of a set, whose order changes from process to process."""
    save_file({}, folder / "model.safetensors")
    _refused(folder, "lacks the tensor backbone.stage1a.downsample.conv.weight")


# --- The hub: only the network call is replaced ---------------------------------------------------


def test_hub_id_is_fetched(folder, model, monkeypatch):
    asked = []
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: None)

    def snapshot_download(repo_id, **options):
        asked.append((repo_id, options))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    loaded = svf.SpikeVideoFormer.from_pretrained("owner/some-model")
    files = ["config.json", "model.safetensors"]
    assert asked == [("owner/some-model", {"allow_patterns": files, "local_files_only": False})]
    assert torch.equal(_outputs(loaded), _outputs(model))


def test_what_was_fetched_before_is_used_where_the_hub_cannot_be_asked(folder, model, monkeypatch):
    def model_info(*_args, **_options):
        raise ConnectionError("no route to host")

    def snapshot_download(_repo_id, *, local_files_only, **_options):
        assert local_files_only
        return str(folder)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    loaded = svf.SpikeVideoFormer.from_pretrained("owner/some-model")
    assert torch.equal(_outputs(loaded), _outputs(model))


def test_an_existing_folder_is_never_looked_up(folder, monkeypatch):
    def snapshot_download(*_args, **_options):
        pytest.fail("the network was asked for a folder that is here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(folder.parent.parent)
    svf.SpikeVideoFormer.from_pretrained(f"{folder.parent.name}/{folder.name}")
    for path in ("/nowhere/at/all", "../nowhere", "~/nowhere", "a/b/c", "nowhere"):
        _refused(path, "does not exist")


@pytest.mark.parametrize("problem", ["offline", "not_found", "wrong_name", "no_route"])
def test_what_the_hub_does_not_hand_out(monkeypatch, problem):
    def snapshot_download(repo_id, **_options):
        if problem == "offline":
            raise huggingface_hub.errors.LocalEntryNotFoundError("cannot reach it\nand more")
        if problem == "no_route":
            raise ConnectionError("no route\nto host")
        raise huggingface_hub.errors.HFValidationError(f"bad name {repo_id}\n")

    if problem in ("offline", "no_route", "wrong_name"):
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: None)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    else:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    where = "no folder owner/no-such-model here"
    _refused("owner/no-such-model", f"{where}, and the hub hands out no such model")


def test_a_mistyped_path_is_not_taken_for_a_hub_id(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    _refused("runs/nope", "runs/nope does not exist")


def test_files_that_do_not_belong_together_are_refused(folder, model, tmp_path):
    other = svf.create_model("svf_nano", num_classes=3, depths=(1, 1, 1, 1, 1))
    other.save_pretrained(tmp_path / "other", classes=CLASSES, clip=CLIP)
    shutil.copy(tmp_path / "other" / "model.safetensors", folder)
    _refused(folder, "another SHA-256")
    # as folders were that were written before there was one
    _edited(folder, lambda about: about.pop("sha256"))
    svf.SpikeVideoFormer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("head.fc.weight", math.nan, "head.fc.weight holds NaN or infinite values"),
        ("head.fc.bias", -math.inf, "head.fc.bias holds NaN or infinite values"),
        ("running_var", -0.1, "running_var holds a variance below 0"),
    ],
)
def test_values_that_no_network_has_are_neither_written_nor_read(folder, model, name, value, fault):
    state = model.state_dict()
    name = next(key for key in state if key.endswith(name))
    state[name].view(-1)[0] = value
    with pytest.raises(ValueError, match=fault):
        model.save_pretrained(folder)
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "model.safetensors")
    _edited(folder, lambda about: about.update(sha256=None))
    _refused(folder, rf"model\.safetensors: .*{fault}")


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("model", "widths", [16000, 16000, 16000, 16000]),
        ("model", "widths", [1e6] * 4),
        ("model", "depths", [10**6] * 5),
        ("model", "heads", 10**9),
        ("clip", "frame_rate_hz", 1e300),
        ("clip", "frames", 10**9),
        ("clip", "size", "x"),
        ("clip", "mean", None),
    ],
)
def test_damaged_numbers_are_refused_before_a_network_is_made(folder, part, name, value):
    _edited(folder, lambda about: about[part].update({name: value}))
    before, begin_s = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    _refused(folder, str(folder))
    assert time.monotonic() - begin_s < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes
