"""docs/new_task.md and docs/data.md: a fourth task is a folder of at most 250 lines and a line in a
table, a family of data sets a file and a line."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import spikevideoformer
from spikevideoformer.video.frames import iter_frames, write_video

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "new_task.md").read_text()
FILES = dict(re.findall(r"\*\*`tasks/motion/(\w+\.py)`\*\*.*?```py\n(.*?)```", PAGE, re.DOTALL))
(LINE,) = re.findall(r'The line in the table: `("motion": .*?)`', PAGE)
(LAYOUT,) = re.findall(
    r"\*\*`tasks/classification/layouts/jsonl\.py`\*\*\n```py\n(.*?)```\n"
    r"The line in `LAYOUTS`: `(.*?)` and",
    (DOCS / "data.md").read_text(),
    re.DOTALL,
)

USE = """
import json, sys
import torch
import spikevideoformer as svf
from spikevideoformer.cli import main

def run(*words):
    print(json.dumps(words[0]), flush=True)
    assert main([*map(str, words), "--debug"]) == 0, words

SMALL = "--size", "32", "--workers", "0", "--epochs", "2"
run("train", "--task", "motion", "--data", "clips", "--out", "run", *SMALL)
run("eval", "--model", "run/model", "--data", "clips", "--workers", "0", "--json")
run("predict", "--model", "run/model", "clips/0.mp4", "--json", "--out", "drawn")
run("energy", "--model", "run/model", "clips/0.mp4", "--json", "--no-merge")
run("train", "--data", "clips", "--out", "run", "--resume")
model = svf.SpikeVideoFormer.from_pretrained("run/model")
video = torch.randn(1, 8, 3, 32, 32)
with torch.no_grad():
    expected = model(video)
    torch.testing.assert_close(svf.fold_for_inference(model)(video), expected)
    assert torch.equal(svf.InferenceEngine(model)(video), expected)
"""


def make_clips(root: Path) -> None:
    """Noise that moves at a constant speed, and `motion.csv`."""
    rng, lines = np.random.default_rng(0), ["path,split,right,down"]
    root.mkdir()
    for n in range(16):
        right, down = rng.integers(-2, 3, 2)  # pixels from frame to frame
        noise = rng.integers(0, 256, (8, 8, 3), np.uint8).repeat(4, 0).repeat(4, 1)
        shown = [np.roll(noise, (down * t, right * t), (0, 1)) for t in range(8)]
        write_video(root / f"{n}.mp4", shown, 8.0)
        lines.append(f"{n}.mp4,{'train' if n < 12 else 'val'},{right * 8 / 32},{down * 8 / 32}")
    (root / "motion.csv").write_text("\n".join(lines) + "\n")


def test_the_folder_is_small() -> None:
    assert FILES.keys() == {"task.py", "data.py", "head.py", "training.py", "predictor.py"}
    assert sum(text.count("\n") for text in FILES.values()) <= 250


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with the task in it, and clips."""
    folder = tmp_path_factory.mktemp("house")
    package = folder / "src" / "spikevideoformer"
    shutil.copytree(
        Path(spikevideoformer.__file__).parent,
        package,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    task = package / "tasks" / "motion"
    task.mkdir()
    for name, text in {**FILES, "__init__.py": ""}.items():
        (task / name).write_text(text)
    table = package / "task.py"
    begin, end = table.read_text().split('\n}\n"""A name, and where', 1)
    table.write_text(f'{begin}\n    {LINE}\n}}\n"""A name, and where{end}')
    text, line = LAYOUT
    (package / "tasks" / "classification" / "layouts" / "jsonl.py").write_text(text)
    table = package / "tasks" / "classification" / "index.py"
    home = "from spikevideoformer.tasks.classification.layouts.jsonl import read_jsonl\n"
    before, after = table.read_text().split("\nLAYOUTS: ", 1)
    head, rest = after.split("{\n", 1)
    table.write_text(f"{before}{home}\nLAYOUTS: {head}{{\n    {line}\n{rest}")
    make_clips(folder / "clips")
    return folder


def used(house: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(house / "src")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=house,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
    )


def test_all_verbs_work_on_it(house: Path) -> None:
    done = used(house, USE)
    assert done.returncode == 0, done.stderr
    parts = {}
    for line in done.stdout.splitlines():
        value = json.loads(line) if line.startswith(("{", '"')) else None
        if isinstance(value, str):
            parts[verb := value] = None
        elif value is not None:
            parts[verb] = value
    assert 0 < parts["eval"]["error"] < 2
    predicted = parts["predict"]
    assert np.array(predicted["motion"]).shape == (8, 2)
    assert len(predicted["timestamps_s"]) == 8
    drawn = [frame.image for frame in iter_frames(house / predicted["annotated"])]
    red = [(image[..., 0].astype(int) - image[..., 1:].max(-1)).max() for image in drawn]
    assert len(drawn) == 8
    assert min(red) > 100
    assert parts["energy"]


def test_mistakes_are_told_as_of_every_task(house: Path) -> None:
    code = (
        "from spikevideoformer.cli import main; import sys; "
        "sys.exit(main(['train', '--task', 'motion', '--data', 'clips', '--fold', '2']))"
    )
    done = used(house, code)
    assert done.returncode == 2
    assert "fold is 2, which task motion does not have; leave it out" in done.stderr


def test_a_layout_is_read_and_recognised(house: Path) -> None:
    rows = [("0.mp4", "b", "train"), ("1.mp4", "a", "train"), ("2.mp4", "a", "test")]
    lines = [json.dumps({"path": p, "label": name, "split": s}) for p, name, s in rows]
    (house / "clips" / "clips.jsonl").write_text("\n".join(lines))
    code = """
from spikevideoformer.task import get_task
index = get_task("classification").read("clips")
print(index.layout, index.classes, index.splits, [s.label for s in index.samples])
"""
    done = used(house, code)
    assert done.stdout.strip() == "jsonl ('a', 'b') ('train', 'test') [1, 0, 0]", done.stderr
    (house / "clips" / "clips.jsonl").write_text("{}")
    assert "clips.jsonl:1 needs path, label, split" in used(house, code).stderr
