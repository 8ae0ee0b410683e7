"""NaN is never saved: a run stops before the update, and what was saved before stays good."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spikevideoformer.training import train
from spikevideoformer.training.checkpoint import load_checkpoint
from spikevideoformer.training.config import TrainConfig
from spikevideoformer.training.loop import Loop

from .tiny import tiny_config

PLACES = ("weight", "gradient", "moment", "running_mean", "running_var", "loss")
pytestmark = pytest.mark.usefixtures("undrawn")


def spoil(loop: Loop, place: str, value: float) -> None:
    """Put a value where a cosmic ray or a bad kernel would."""
    if place == "moment":
        state = next(iter(loop.optimizer.state.values()))
        moment = state["exp_avg_sq"]
        moment[(0,) * moment.ndim] = value
    elif place.startswith("running"):
        name = next(n for n in loop._statistics if n.endswith(place))
        loop._statistics[name].view(-1)[0] = value
    else:
        loop.model.head.fc.weight.data.view(-1)[0] = value


@pytest.fixture(scope="module")
def stopped(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended in the fifth of six steps."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    config, step = tiny_config(clips, out, checkpoint_every_steps=1), Loop._step

    def step_or_end(loop, batches):
        if loop.state.step == 4:
            raise SystemExit
        step(loop, batches)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Loop, "_step", step_or_end)
        with pytest.raises(SystemExit):
            train(config)
    return config.out


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *((p, math.nan) for p in PLACES),
        *((p, math.inf) for p in PLACES[:2]),
    ],
)
def test_a_run_stops_before_the_update(stopped, tiny, monkeypatch, place, value):
    """In the fifth of six steps, two after the checkpoint of the first epoch."""
    config, step = tiny(checkpoint_every_steps=1), Loop._step
    shutil.copytree(stopped, config.out)

    def spoilt(loop, batches):
        if place == "gradient":
            weight = loop.model.head.fc.weight
            weight.register_hook(lambda grad: torch.full_like(grad, value))
        elif place == "loss":
            loss = loop.task.loss
            monkeypatch.setattr(loop.task, "loss", lambda *a: loss(*a) * value)
        else:
            spoil(loop, place, value)
        step(loop, batches)

    monkeypatch.setattr(Loop, "_step", spoilt)
    with pytest.raises(ValueError, match=r"became NaN or infinite .*step 4.*--resume") as caught:
        train(config, resume=True)
    if place == "gradient":
        assert "head.fc.weight" in str(caught.value)
    if place in ("gradient", "loss"):
        assert ".mp4" in str(caught.value)  # the clips of the step
    saved = sorted((config.out / "checkpoints").glob("*.pt"))
    assert [path.name for path in saved] == ["best.pt", "step-00000003.pt", "step-00000004.pt"]
    for path in saved:
        assert path.read_bytes() == (stopped / "checkpoints" / path.name).read_bytes()
    if place != "weight" or math.isinf(value):  # of the same files
        return
    for path in saved:
        tensors = load_checkpoint(path)["model"].values()
        assert all(bool(v.isfinite().all()) for v in tensors if v.is_floating_point())
    monkeypatch.undo()
    train(config, resume=True)
    weights = load_file(config.out / "model" / "model.safetensors").values()
    assert all(bool(v.isfinite().all()) for v in weights if v.is_floating_point())


def test_a_norm_that_overflows_is_clipped_all_the_same(tiny, tmp_path, monkeypatch):
    """Of gradients that are finite; divided by an infinite norm all of them would be 0."""
    step = Loop._step

    def steep(loop, batches):
        before = loop.model.head.fc.weight.detach().clone()
        with loop.model.head.fc.weight.register_hook(lambda grad: torch.full_like(grad, -3e38)):
            step(loop, batches)
        moved.append(loop.model.head.fc.weight.detach() - before)

    moved: list[torch.Tensor] = []
    monkeypatch.setattr(Loop, "_step", steep)
    train(tiny(epochs=1, weight_decay=0.0))
    assert all(bool((move > 0).all()) for move in moved)
    with pytest.raises(ValueError, match="infinite in step 0: their norm, of clips"):
        train(replace(tiny(epochs=1, clip_grad_norm=None), out=tmp_path / "other"))


def test_statistics_spoilt_before_a_validation_are_not_released(tiny, monkeypatch):
    config, end = tiny(epochs=1), Loop._end_epoch

    def spoilt(loop):
        spoil(loop, "running_var", math.nan)
        end(loop)

    monkeypatch.setattr(Loop, "_end_epoch", spoilt)
    with pytest.raises(ValueError, match=r"of batch norms are not finite|became NaN or infinite"):
        train(config)
    assert not list((config.out / "checkpoints").glob("*.pt"))
    assert not (config.out / "model").exists()


def test_a_learning_rate_that_nobody_means_is_refused():
    with pytest.raises(ValueError, match=r"learning_rate is 1e\+09; .* give at most 1"):
        TrainConfig(out="run", learning_rate=1e9)
