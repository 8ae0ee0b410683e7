from pathlib import Path

import pytest

from spikevideoformer.data.specs import Augmentation
from spikevideoformer.settings import yaml_value
from spikevideoformer.training.config import TrainConfig

FULL = TrainConfig(
    out=Path("run"),
    data=Path("clips"),
    design="factorized",
    neuron={"kind": "lif", "tau": 3.0},
    frame_rate_hz=12.5,
    augmentation=Augmentation(flip=0.5, crop_scale=None),
    checkpoint_every_steps=50,
    precision="bf16-mixed",
)


def test_yaml_round_trip(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("# a comment\n" + FULL.to_yaml())
    assert TrainConfig.from_yaml(path) == FULL
    path.write_text(TrainConfig(out=Path("run")).to_yaml())
    assert TrainConfig.from_yaml(path) == TrainConfig(out=Path("run"))


@pytest.mark.parametrize(
    "name", ["08", "0928", "1e5", "1e-3", "09.5e3", ".5e1", "1:30", "0x1f", "null", "yes", "~", "1"]
)
def test_names_that_look_like_something_else_come_back(tmp_path, name):
    config = TrainConfig(out=Path(name), data=Path(name), train_split=name, layout=name)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert TrainConfig.from_yaml(tmp_path / "config.yaml") == config


def test_merge_keys_are_read():
    text = "a: &usual {flip: 0.1}\nb: {<<: *usual, contrast: 0.2}"
    assert yaml_value(text)["b"] == {"flip": 0.1, "contrast": 0.2}


@pytest.mark.parametrize(
    ("written", "means"),
    [("auto", "auto"), ("memory", "memory"), ("true", "memory"), ("off", "off"), ("false", "off")],
)
def test_ways_to_set_the_cache(tmp_path, written, means):
    path = tmp_path / "config.yaml"
    path.write_text(f"out: run\ncache: {written}\n")
    config = TrainConfig.from_yaml(path)
    assert config.cache == means
    path.write_text(config.to_yaml())
    assert TrainConfig.from_yaml(path) == config
    assert TrainConfig(out=Path("run")).cache == "auto"


def test_numbers_as_yaml_reads_them():
    config = TrainConfig.from_dict({"out": "run", "learning_rate": "1e-3", "clip_grad_norm": 2})
    assert (config.learning_rate, config.clip_grad_norm) == (1e-3, 2.0)


@pytest.mark.parametrize(
    ("text", "value"),
    [("010", 10), ("1:30", "1:30"), ("1e-3", 1e-3), ("-.5", -0.5), ("0x1f", "0x1f"), ("07.5", 7.5)],
)
def test_numbers_in_files_are_decimal(text, value):
    assert yaml_value(f"key: {text}") == {"key": value}


def test_a_key_that_is_given_twice_is_an_error(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("out: run\nbatch_size: 4\nepochs: 2\nbatch_size: 8\n")
    with pytest.raises(
        ValueError, match=r"twice\.yaml.*batch_size is given twice, again in line 4"
    ):
        TrainConfig.from_yaml(path)
    path.write_text("out: run\naugmentation: {flip: 0.1, flip: 0.2}\n")
    with pytest.raises(ValueError, match="flip is given twice"):
        TrainConfig.from_yaml(path)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"learn_rate": 1}, "unknown setting learn_rate; did you mean learning_rate?"),
        ({"xyzzy": 1}, "unknown setting xyzzy; known: out, data"),
        ({"augmentation": {"flop": 1}}, "augmentation.flop; did you mean augmentation.flip?"),
        ({"augmentation": {"flip": 2}}, "flip must be between 0 and 1"),
        ({"augmentation": 3}, "augmentation is 3; expected"),
        ({"epochs": 0}, "epochs is 0; give a number at least 1"),
        ({"epochs": "ten"}, "epochs is 'ten'; expected a whole number"),
        ({"epochs": 2.5}, "epochs is 2.5; expected a whole number"),
        ({"epochs": True}, "epochs is True; expected a whole number"),
        ({"cache": 1}, "cache is 1; expected auto or memory or off, or true or false"),
        ({"learning_rate": -1}, "learning_rate is -1.0; give a number above 0"),
        ({"learning_rate": "nan"}, "learning_rate is nan; give a number above 0"),
        ({"label_smoothing": 1}, "label_smoothing is 1.0; give a number at least 0 and below 1"),
        ({"warmup_epochs": 30}, "warmup_epochs is 30 of 20 epochs"),
        ({"precision": "fp8"}, "precision is 'fp8'; expected 32-true or bf16-mixed or 16-mixed"),
        ({"size": 50}, "size is 50; give a multiple of 16, such as 48"),
        ({"frames": 0}, "frames must be a whole number of at least 1"),
        ({"model": "svf_huge"}, "model 'svf_huge' is unknown"),
        ({"design": "joined"}, "design is 'joined'; expected joint or hierarchical"),
        ({"drop_path": 1.5}, "drop_path is 1.5"),
        ({"neuron": "relu"}, "relu"),
        ({"neuron": {"tau": 2, "theta": 1}}, "theta"),
        ({"clip_grad_norm": 0}, "clip_grad_norm is 0.0; give a number above 0"),
        ({"optimizer": "lion"}, "optimizer is 'lion'; expected adamw or lamb"),
        ({"layer_decay": 0}, "layer_decay is 0.0; give a number above 0 and at most 1"),
        ({"ema": 1.0}, "ema is 1.0; give a number above 0 and below 1"),
        ({"keep": 0}, "keep is 0; give a number at least 1"),
    ],
)
def test_mistakes_give_one_line_with_a_remedy(values, text):
    with pytest.raises(ValueError, match=r".") as caught:
        TrainConfig.from_dict({"out": "run", **values})
    message = str(caught.value)
    assert text in message
    assert "\n" not in message


def test_out_is_needed():
    with pytest.raises(ValueError, match="out is missing"):
        TrainConfig.from_dict({"data": "clips"})


@pytest.mark.parametrize("text", ["epochs: [1", "- 1", "", "epochs: 0\nout: run"])
def test_a_bad_yaml_file_is_named(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"bad\.yaml"):
        TrainConfig.from_yaml(path)


def test_an_absent_yaml_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.yaml: cannot be read"):
        TrainConfig.from_yaml(tmp_path / "absent.yaml")


def test_what_may_change_on_resume():
    base = TrainConfig(out=Path("run"), workers=0)
    moved = TrainConfig(out=Path("elsewhere"), workers=2, keep=5, cache="off")
    assert moved.differences(base.to_dict()) == []
    assert moved.differences({**base.to_dict(), "cache": True}) == []  # as it used to be written
    posed = TrainConfig(out=Path("run"), task="pose").to_dict()
    before = {**posed, "pose": {n: v for n, v in posed["pose"].items() if n not in ("gap", "head")}}
    assert TrainConfig.from_dict(posed).differences(before) == []  # settings that came later
    longer = TrainConfig(out=Path("run"), epochs=30)
    assert longer.differences(base.to_dict()) == ["epochs: 20 then, 30 now"]


def test_only_what_is_set_overrides_the_preset():
    assert TrainConfig(out=Path("run")).model_options == {}
    assert TrainConfig(out=Path("run"), model="ann_nano").model_options == {}
    assert TrainConfig(out=Path("run"), model="gru_nano").model_options == {}
    assert FULL.model_options["design"] == "factorized"
