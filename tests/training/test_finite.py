"""NaN is never saved: a run stops before the update, and what was saved before stays good."""

import math

import pytest
import torch
from safetensors.torch import load_file

from spikevideoformer.training import train
from spikevideoformer.training.checkpoint import load_checkpoint
from spikevideoformer.training.config import TrainConfig
from spikevideoformer.training.loop import Loop

PLACES = ("weight", "gradient", "moment", "running_mean", "running_var", "loss")


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


@pytest.mark.parametrize(
    ("place", "value"), [*((p, math.nan) for p in PLACES), *((p, math.inf) for p in PLACES[:2])]
)
def test_a_run_stops_before_the_update(tiny, monkeypatch, place, value):
    """In the fifth of six steps, two after the checkpoint of the first epoch."""
    config, step, seen = tiny(checkpoint_every_steps=1), Loop._step, []

    def spoilt(loop, batches):
        if loop.state.step == 4:
            seen.append(loop.model)
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
        train(config)
    if place == "gradient":
        assert "head.fc.weight" in str(caught.value)
    if place in ("gradient", "loss"):
        assert ".mp4" in str(caught.value)  # the clips of the step
    saved = sorted((config.out / "checkpoints").glob("*.pt"))
    assert [path.name for path in saved] == ["best.pt", "step-00000003.pt", "step-00000004.pt"]
    for path in saved:
        tensors = load_checkpoint(path)["model"].values()
        assert all(bool(v.isfinite().all()) for v in tensors if v.is_floating_point())
    monkeypatch.undo()
    train(config, resume=True)
    weights = load_file(config.out / "model" / "model.safetensors").values()
    assert all(bool(v.isfinite().all()) for v in weights if v.is_floating_point())


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
