"""Train from a YAML file and report in one line: the program that several processes run."""

import json
import sys
from pathlib import Path

import torch

from spikevideoformer.training import TrainConfig, train

torch.set_num_threads(1)
result = train(TrainConfig.from_yaml(Path(sys.argv[1])), resume=True)
if result.is_main_process:
    print(json.dumps({"top1": result.evaluation.top1}))
