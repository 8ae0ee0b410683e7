"""A run that ends in the middle, and what comes of it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.training import TrainConfig, train
from spikevideoformer.training.loop import Loop


def killed_and_resumed(config: TrainConfig, at_step: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Check that a run killed after a step and resumed has the bits of one that was not.

    Returns:
        The folder of the run that was killed.
    """
    whole = train(config)
    step = Loop._step

    def step_and_die(self: Loop, batches: object) -> None:
        step(self, batches)
        if self.state.step == at_step:
            raise SystemExit("killed")

    broken = replace(config, out=config.out.with_name("broken"))
    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_step", step_and_die)
        with pytest.raises(SystemExit, match="killed"):
            train(broken)
    resumed = train(broken, resume=True)
    assert resumed.evaluation == whole.evaluation
    ours, theirs = (
        SpikeVideoFormer.from_pretrained(result.model).state_dict() for result in (whole, resumed)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    return broken.out
