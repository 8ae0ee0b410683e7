"""Damaged files of ours: configurations and weights of models, checkpoints of runs."""

import json
import math
import random
import resource
import shutil
import time
from collections.abc import Iterator
from typing import Any

import torch
from workshop import Tally, Workshop, damaged

from spikevideoformer.models.folder import CONFIG_FILE, WEIGHTS_FILE
from spikevideoformer.tasks.classification.predictor import VideoPredictor
from spikevideoformer.training.checkpoint import CheckpointFolder, save_checkpoint
from spikevideoformer.training.checkpoint import load_checkpoint as load

ODD: list[Any] = [
    *(None, True, False, 0, -1, 3.5, 1e300, math.nan, math.inf, 10**6, 10**9, 10**400),
    *("", "x", "joint", "\x1b[31m", "\ud800"),
    *([], [1], [1e6] * 4, [10**6] * 4, [10**6] * 5, [[[[]]]], {}, {"a": 1}),
]
TASKS = ("classification", "segmentation", "pose")


def configs(shop: Workshop) -> Tally:
    """config.json with odd values, lacking entries or damaged bytes: one line, quick and small."""
    tally, draw = Tally(), shop.random
    folders = {task: shop.model(task) for task in TASKS}
    for folder in folders.values():
        VideoPredictor.from_pretrained(folder, device="cpu")  # what this takes is normal
    before_mb = _peak_mb()
    slowest_s = 0.0
    for number in range(shop.count(300)):
        source = folders[TASKS[number % len(TASKS)]]
        target = shop.folder / "model"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        text, what = _changed((source / CONFIG_FILE).read_text(), draw)
        (target / CONFIG_FILE).write_bytes(text)
        begin_s = time.monotonic()
        with tally.case(f"{source.name} {what}", file=str(target)):
            VideoPredictor.from_pretrained(target, device="cpu")
        seconds = time.monotonic() - begin_s
        slowest_s = max(slowest_s, seconds)
        if seconds > 2:
            tally.wrong.append(f"{source.name} {what}: took {seconds:.1f} s")
    above_mb = _peak_mb() - before_mb
    if above_mb > 300:
        tally.wrong.append(f"{above_mb:.0f} MB above normal")
    tally.notes.append(f"at most {slowest_s:.2f} s, {above_mb:.0f} MB above normal")
    return tally


def models(shop: Workshop) -> Tally:
    """model.safetensors with damaged bytes: refused, since config.json has its SHA-256."""
    tally, draw, source = Tally(), shop.random, shop.model()
    content = (source / WEIGHTS_FILE).read_bytes()
    target = shop.folder / "model"
    shutil.copytree(source, target)
    for number in range(shop.count(300)):
        if number % 4 == 0:  # in the header, which is a thousandth of the file
            made = damaged(content[:4096], draw) + content[4096:]
        else:
            made = damaged(content, draw)
        (target / WEIGHTS_FILE).write_bytes(made)
        refused = tally.refused
        with tally.case(f"damage {number}", file=WEIGHTS_FILE):
            VideoPredictor.from_pretrained(target, device="cpu")
        if tally.refused == refused and not tally.wrong:
            tally.wrong.append(f"damage {number} was read")
    return tally


def checkpoints(shop: Workshop) -> Tally:
    """A damaged checkpoint is refused, and a run goes on from the one before it."""
    tally, draw = Tally(), shop.random
    torch.manual_seed(shop.seed)
    state = {"step": 1, "model": {f"w{i}": torch.randn(64, 8) for i in range(8)}, "history": []}
    folder = CheckpointFolder(shop.folder / "checkpoints", keep=3)
    folder.save(1, state)
    newest = folder.folder / "step-00000002.pt"
    save_checkpoint(newest, {**state, "step": 2})
    content = newest.read_bytes()
    for number in range(shop.count(200)):
        newest.write_bytes(damaged(content, draw))
        with tally.case(f"damage {number}", file=newest.name):
            saved = load(newest)
            same = saved["step"] == 2 and all(
                torch.equal(saved["model"][name], value) for name, value in state["model"].items()
            )
            if not same:  # but in bytes that nothing reads, such as the time of a file in the zip
                raise AssertionError("other values were read")
        found = folder.newest()
        if found is None or found[1]["step"] not in (1, 2):
            tally.wrong.append(f"damage {number}: the checkpoint before was not taken")
    return tally


def _changed(text: str, draw: random.Random) -> tuple[bytes, str]:
    """A configuration with one change, and what it is."""
    if draw.random() < 0.2:
        return damaged(text.encode(), draw), "with damaged bytes"
    value = json.loads(text)
    path = draw.choice(list(_places(value)))
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    if draw.random() < 0.15:
        del holder[path[-1]]
        return json.dumps(value).encode(), f"without {path}"
    holder[path[-1]] = odd = draw.choice(ODD)
    return json.dumps(value).encode(), f"with {path} = {odd!r:.40}"


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield (*path, key)
        yield from _places(inner, (*path, key))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
