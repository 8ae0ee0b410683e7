import csv
import json
import logging
import os
import shutil
import signal
import threading
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from spikevideoformer.data.specs import Augmentation
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.progress import Progress
from spikevideoformer.tasks.classification.index import read_index
from spikevideoformer.tasks.classification.task import ClassificationOptions
from spikevideoformer.training import TrainConfig, evaluate_folder, train
from spikevideoformer.training.checkpoint import load_checkpoint
from spikevideoformer.training.loop import Loop

from .tiny import tiny_config

pytestmark = pytest.mark.usefixtures("undrawn")


def weights(out) -> dict[str, torch.Tensor]:
    state = load_checkpoint(sorted((out / "checkpoints").glob("step-*.pt"))[-1])
    moments = state["optimizer"]["state"]
    return state["model"] | {f"{i}.{k}": v for i, s in moments.items() for k, v in s.items()}


def assert_same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def rows(out) -> list[dict[str, str]]:
    with (out / "metrics.csv").open() as file:
        found = list(csv.DictReader(file))
    for row in found:
        del row["clips_per_second"]
    return found


def test_a_run_leaves_what_it_promises(tiny, caplog, clips):
    caplog.set_level(logging.INFO)
    config = tiny(accumulate=3, batch_size=2, checkpoint_every_steps=1)
    result = train(config)
    out = config.out
    assert {p.name for p in out.iterdir() if not p.name.startswith("events")} == {
        "config.yaml", "metrics.csv", "checkpoints", "model", "evaluation.json", "confusion.png",
        "learning_curves.png",
    }  # fmt: skip
    assert len(list(out.glob("events*"))) == 1
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == [
        "best.pt", "step-00000003.pt", "step-00000004.pt",
    ]  # fmt: skip
    assert TrainConfig.from_yaml(out / "config.yaml") == config
    fact = "effective batch size 6 (batch_size 2 x accumulate 3 x 1 processes)"
    assert f"# {fact}\n" in (out / "config.yaml").read_text()
    assert fact in caplog.text
    assert "silent" in caplog.text
    assert "ETA" in caplog.text

    assert [(row["epoch"], row["step"]) for row in rows(out)] == [("1", "2"), ("2", "4")]
    for row in result.history:
        assert all(isinstance(value, (int, float)) for value in row.values())
    assert json.loads((out / "evaluation.json").read_text())["top1"] == result.evaluation.top1

    model = SpikeVideoFormer.from_pretrained(result.model)
    assert model.classes == ("left", "right")
    assert model.clip == config.spec.to_dict()
    best = load_checkpoint(out / "checkpoints" / "best.pt")
    assert_same_bits(model.state_dict(), best["model"])
    again = evaluate_folder(result.model, read_index(clips, split="val"), device="cpu")
    assert again == result.evaluation
    assert f"epoch {result.best_epoch} of 2" in repr(result)
    assert len(repr(result)) < 400


@pytest.fixture(scope="module")
def done(clips, tmp_path_factory):
    """A run of one epoch, ``tiny(epochs=1)``."""
    return train(tiny_config(clips, tmp_path_factory.mktemp("done") / "run", epochs=1))


@pytest.fixture
def begun(done, tiny):
    """The configuration of a copy of it."""
    config = tiny(epochs=1)
    shutil.copytree(done.out, config.out)
    return config


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"seed": 2}, False),
        ({"cache": "off"}, True),
        ({"workers": 2, "cache": "memory"}, True),
        ({"gradient_checkpointing": True}, True),
    ],
    ids=str,
)
def test_the_seed_decides_everything(tiny, done, change, same):
    """Workers, the cache and ways to save memory nothing."""
    config = tiny(epochs=1, **change)
    train(config)
    if same:
        assert_same_bits(weights(done.out), weights(config.out))
    else:
        ours, theirs = (weights(out)["head.fc.weight"] for out in (done.out, config.out))
        assert not torch.equal(ours, theirs)


def test_a_folder_with_a_run_is_not_overwritten(begun):
    config = begun
    with pytest.raises(ValueError, match="already holds a training run; continue it with --resume"):
        train(config)
    before = weights(config.out)
    assert len(train(config, resume=True).history) == 1  # nothing left to do
    assert_same_bits(before, weights(config.out))


def test_resume_refuses_another_run(begun, clips, tmp_path):
    config = begun
    with pytest.raises(ValueError, match=r"learning_rate: 0\.004 then, 0\.1 now.*resume with"):
        train(replace(config, learning_rate=0.1), resume=True)
    fewer = tmp_path / "fewer"
    shutil.copytree(clips, fewer)
    (fewer / "train" / "left" / "0.mp4").unlink()
    with pytest.raises(ValueError, match="the clips"):
        train(replace(config, data=fewer, batch_size=4), resume=True)


def test_too_few_clips_for_a_step(tiny):
    with pytest.raises(ValueError, match="12 training clips do not fill one step of 20"):
        train(tiny(batch_size=10, accumulate=2))


def test_no_data_is_an_error(tiny):
    with pytest.raises(ValueError, match="set --data"):
        train(tiny(data=None))


def test_a_diverged_run_stops_with_a_remedy(tiny):
    config = tiny(learning_rate=1.0, clip_grad_norm=None, warmup_epochs=0, epochs=4)
    object.__setattr__(config, "learning_rate", 1e30)  # which no configuration would have
    with pytest.raises(ValueError, match=r"became NaN or infinite .*lower learning_rate"):
        train(config)


def test_bad_files_stop_the_run_or_are_skipped_and_listed(tiny, clips, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(clips, data)
    (data / "train" / "left" / "0.mp4").write_bytes(b"")
    config = tiny(data=data, epochs=1, check="full")
    with pytest.raises(ValueError, match=r"empty file.*--skip-bad"):
        train(config)
    train(replace(config, skip_bad=True))
    assert "0.mp4" in (config.out / "skipped.csv").read_text()


def test_the_check_before_the_first_step_tells_how_far_it_is(tiny, monkeypatch, capsys):
    monkeypatch.setattr(Progress, "due", lambda _: True)
    train(tiny(epochs=1, check="full"))
    assert "checked file:  12% 2/16 [" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train_split", "val_split"])
def test_a_misspelt_split_is_reported_before_the_check(tiny, clips, tmp_path, name):
    data = tmp_path / "data"
    shutil.copytree(clips, data)
    (data / "train" / "left" / "0.mp4").write_bytes(b"")  # what the check would find
    with pytest.raises(ValueError, match=r"no split 'vla' \(it has: train, val\)"):
        train(tiny(data=data, check="full", **{name: "vla"}))


def test_resume_without_a_checkpoint_begins(tiny):
    """And splits go by their other names."""
    config = tiny(epochs=1, train_split="training", val_split="validation")
    assert train(config, resume=True).best_epoch == 1


def test_a_model_that_gives_nan_in_validation_stops_the_run(tiny, monkeypatch):
    step = Loop._step

    def step_and_spoil(self, batches):
        step(self, batches)
        self.model.head.fc.bias.data.fill_(float("nan"))

    monkeypatch.setattr(Loop, "_step", step_and_spoil)
    with pytest.raises(ValueError, match="NaN or infinite; use precision 32-true"):
        train(tiny(epochs=1, batch_size=12))


def test_a_part_is_set_aside_where_there_is_no_validation_split(tiny, clips, tmp_path):
    shutil.copytree(clips / "train", tmp_path / "data" / "train")
    result = train(tiny(data=tmp_path / "data", epochs=1))
    assert 2 <= result.evaluation.clips <= 3


def test_statistics_are_measured_for_evaluation_and_do_not_touch_training(tiny, tmp_path):
    measured, running = (
        train(tiny(out=tmp_path / name, norm_clips=clips, keep=9))
        for name, clips in (("measured", 128), ("running", 0))
    )
    a, b = (
        load_checkpoint(r.out / "checkpoints" / "step-00000006.pt") for r in (measured, running)
    )
    assert_same_bits(a["model"], b["model"])
    assert_same_bits(b["measured"], {k: v for k, v in b["model"].items() if k in b["measured"]})
    step = load_checkpoint(measured.out / "checkpoints" / f"step-{3 * measured.best_epoch:08d}.pt")
    released = SpikeVideoFormer.from_pretrained(measured.model).state_dict()
    assert_same_bits(released, step["model"] | step["measured"])
    variance = "backbone.stage1a.downsample.bn.running_var"
    assert (step["measured"][variance] / step["model"][variance]).log().abs().max() > 0.1


def test_without_validation_the_last_epoch_is_released(tiny, clips):
    result = train(tiny(val_split="none"))
    assert result.best_epoch == 2
    assert result.evaluation.clips == 12
    assert any("no clips were set aside" in note for note in result.notes)
    model = SpikeVideoFormer.from_pretrained(result.model)
    assert model.temperature is None
    assert model.familiarity.false_alarms is None


def test_probabilities_are_calibrated_and_kept_with_the_model(tiny, done, clips, tmp_path):
    """With more than four clips to validate: an index stands in for the data folder."""
    assert SpikeVideoFormer.from_pretrained(done.model).temperature is None
    config = tiny(data=None, epochs=1, out=tmp_path / "more")
    result = train(config, index=read_index(clips).folds(2)[0])
    assert result.evaluation.clips == 8
    model = SpikeVideoFormer.from_pretrained(result.model)
    assert 0.2 <= model.temperature <= 20
    assert len(model.familiarity.mean) > 30  # layers, and facts of the pictures


def test_starting_from_a_released_model(tiny, done, clips, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    head = "new: head.fc.weight, head.fc.bias"
    config = tiny(out=tmp_path / "second", init_from=done.model, learning_rate=1e-12, epochs=1)
    second = train(config)
    assert "new: none" in caplog.text
    a, b = (load_file(r.model / "model.safetensors") for r in (done, second))
    assert torch.allclose(a["head.fc.weight"], b["head.fc.weight"], atol=1e-9)

    renamed = read_index(clips)
    renamed = replace(renamed, classes=("up", "down"))
    third = train(replace(config, out=tmp_path / "third"), index=renamed)
    assert head in caplog.text
    c = load_file(third.model / "model.safetensors")
    assert not torch.allclose(a["head.fc.weight"], c["head.fc.weight"], atol=1e-3)
    weight = "backbone.stage1a.downsample.conv.weight"
    assert torch.allclose(a[weight], c[weight], atol=1e-9)

    with pytest.raises(ValueError, match=r"no weight of .* fits"):
        train(replace(config, out=tmp_path / "fourth", model="svf_tiny"))


def test_ctrl_c_leaves_a_checkpoint_and_resuming_gives_the_same_bits(tiny, tmp_path, monkeypatch):
    config = tiny()
    train(replace(config, out=tmp_path / "whole"))
    step = Loop._step

    def step_and_interrupt(self, batches):
        if self.state.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        step(self, batches)

    monkeypatch.setattr(Loop, "_step", step_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    assert load_checkpoint(config.out / "checkpoints" / "step-00000004.pt")["step"] == 4
    assert not (config.out / "model").exists()
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train(config, resume=True)
    assert_same_bits(weights(tmp_path / "whole"), weights(config.out))
    assert rows(tmp_path / "whole") == rows(config.out)


PUBLISHED = {
    "optimizer": "lamb",
    "schedule": "poly",
    "head_lr": 2.0,
    "layer_decay": 0.8,
    "ema": 0.9,
    "augmentation": Augmentation(flip=0.0, rand_augment=9.0, erasing=0.25),
    "options": ClassificationOptions(mixup=0.8, cutmix=1.0),
    "eval_clips": 2,
    "eval_crops": 3,
}


def test_the_published_recipe_resumes_to_the_same_bits(tiny, clips, tmp_path):
    config = tiny(**PUBLISHED, checkpoint_every_steps=1, keep=9)
    train(config)
    last = config.out / "checkpoints/step-00000006.pt"
    whole, released = load_checkpoint(last), load_file(config.out / "model/model.safetensors")
    for path in (config.out / "checkpoints").glob("step-*.pt"):
        if path.name > "step-00000002.pt":  # in the middle of the first epoch
            path.unlink()
    result = train(config, resume=True)
    resumed = load_checkpoint(last)
    for part in ("model", "average", "measured"):
        assert_same_bits(whole[part], resumed[part])
    for i, state in whole["optimizer"]["state"].items():
        assert state["step"] == resumed["optimizer"]["state"][i]["step"] == 6
        assert all(
            torch.equal(state[n], resumed["optimizer"]["state"][i][n]) for n in state if n != "step"
        )
    again = load_file(config.out / "model/model.safetensors")
    assert_same_bits(released, again)
    # the average is what was validated and released
    name = "head.fc.weight"
    best = load_checkpoint(config.out / "checkpoints/best.pt")["model"][name]
    assert torch.equal(again[name], best)
    at_best = config.out / f"checkpoints/step-{result.best_epoch * 3:08d}.pt"
    kept = load_checkpoint(at_best)
    assert torch.equal(best, kept["average"][f"module.{name}"])
    assert not torch.equal(best, kept["model"][name])
    index = read_index(clips, split="val")
    judged = evaluate_folder(result.model, index, clips_per_video=2, crops=3)
    assert judged.top1 == result.evaluation.top1
    assert judged.loss == pytest.approx(result.evaluation.loss, rel=1e-5)


@pytest.mark.parametrize("engine", ["model", "int8"])
def test_evaluation_of_a_silent_network_says_so_once(done, clips, tmp_path, caplog, engine):
    model = SpikeVideoFormer.from_pretrained(done.model)
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.zeros_(norm.weight)
        torch.nn.init.constant_(norm.bias, -1.0)
    model.save_pretrained(tmp_path / "silent", classes=model.classes, clip=model.clip)
    index = read_index(clips, split="val")
    with caplog.at_level(logging.WARNING, "spikevideoformer"):
        evaluate_folder(tmp_path / "silent", index, batch_size=1, device="cpu", engine=engine)
    assert caplog.text.count("the network is silent") == 1


def test_training_in_a_thread(tiny):
    results = []
    thread = threading.Thread(target=lambda: results.append(train(tiny(epochs=1))))
    thread.start()
    thread.join()
    assert len(results) == 1


def test_bfloat16_keeps_its_weights_in_full_precision(tiny):
    config = tiny(precision="bf16-mixed", epochs=1)
    train(config)
    saved = load_checkpoint(config.out / "checkpoints" / "step-00000003.pt")
    assert all(v.dtype == torch.float32 for v in saved["model"].values() if v.is_floating_point())


def test_float16_is_refused_on_the_cpu(tiny):
    with pytest.raises(ValueError, match="16-mixed needs CUDA; use bf16-mixed or 32-true"):
        train(tiny(precision="16-mixed"))


@pytest.mark.gpu
def test_the_scaler_is_saved_and_taken_up(tiny):
    config = tiny(device="cuda", precision="16-mixed")
    train(config)
    saved = load_checkpoint(config.out / "checkpoints" / "step-00000006.pt")
    assert saved["scaler"]["scale"] > 0
    train(config, resume=True)


@pytest.mark.parametrize("val_split", ["val", "none"])
def test_one_class_is_nothing_to_tell_apart(tiny, clips, tmp_path, val_split):
    for split in ("train", "val"):
        (tmp_path / "data" / split).mkdir(parents=True)
        (tmp_path / "data" / split / "left").symlink_to(clips / split / "left")
    with pytest.raises(ValueError, match="has one class only"):
        train(tiny(data=tmp_path / "data", val_split=val_split))
