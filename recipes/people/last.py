"""The last epoch of a run as a model: python last.py RUN --data DATA --out MODEL (see README.md).

Few rendered people validate, so that the best epoch by them is one of luck. The moving average of
weights as it is in the newest checkpoint, the statistics of batch norms measured over training
clips; then it learns what its training clips are like.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from release import measured, training_of

import spikevideoformer as svf
from spikevideoformer.training.checkpoint import CheckpointFolder


def main() -> None:
    """Read the options and do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="what it was trained on")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = svf.SpikeVideoFormer.from_pretrained(options.run / "model")
    newest = CheckpointFolder(options.run / "checkpoints", keep=1).newest()
    if newest is None:
        raise SystemExit(f"{options.run} has no checkpoint")
    step, state = newest
    average = {name.removeprefix("module."): value for name, value in state["average"].items()}
    model.load_state_dict({name: average[name] for name in model.state_dict()})
    training = training_of(options.run, options.data)
    measured(model, training)
    print(f"step {step}: {training.calibrate(model)}")
    model.save_pretrained(options.out)


if __name__ == "__main__":
    main()
