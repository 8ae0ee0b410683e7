"""docs/new_task.md and docs/data.md: a fourth task is a folder of at most 250 lines and a line in a
table, a family of data sets a file and a line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import spikevideoformer
from spikevideoformer.video.frames import iter_frames, write_video

PACKAGE = Path(spikevideoformer.__file__).parent
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
import importlib, json, sys
from pathlib import Path
import torch
import spikevideoformer as svf

# The files of the house stand before those of the package. A copy of the package would do as well,
# but its kernels would be compiled anew.
for module in ("", ".tasks", ".tasks.classification", ".tasks.classification.layouts"):
    name = f"spikevideoformer{module}"
    importlib.import_module(name).__path__.insert(0, str(Path("src", *name.split("."))))

from spikevideoformer.cli import main
from spikevideoformer.task import get_task

def run(*words):
    print(json.dumps(words[0]), flush=True)
    assert main([*map(str, words), "--debug"]) == 0, words

SMALL = "--size", "32", "--workers", "0", "--epochs", "1"
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

assert main("train --task motion --data clips --fold 2".split()) == 2

listed = get_task("classification").read("listed")
found = listed.layout, listed.classes, listed.splits, [s.label for s in listed.samples]
print(json.dumps({"listed": found}))
try:
    get_task("classification").read("spoilt")
except ValueError as error:
    print(error, file=sys.stderr)
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
    """The task, the layout and the tables that name them, and data."""
    folder = tmp_path_factory.mktemp("house")
    package = folder / "src" / "spikevideoformer"
    task = package / "tasks" / "motion"
    layouts = package / "tasks" / "classification" / "layouts"
    task.mkdir(parents=True)
    layouts.mkdir(parents=True)
    for name, text in {**FILES, "__init__.py": ""}.items():
        (task / name).write_text(text)
    begin, end = (PACKAGE / "task.py").read_text().split('\n}\n"""A name, and where', 1)
    (package / "task.py").write_text(f'{begin}\n    {LINE}\n}}\n"""A name, and where{end}')
    text, line = LAYOUT
    (layouts / "jsonl.py").write_text(text)
    index = PACKAGE / "tasks" / "classification" / "index.py"
    home = "from spikevideoformer.tasks.classification.layouts.jsonl import read_jsonl\n"
    before, after = index.read_text().split("\nLAYOUTS: ", 1)
    head, rest = after.split("{\n", 1)
    (layouts.parent / "index.py").write_text(
        f"{before}{home}\nLAYOUTS: {head}{{\n    {line}\n{rest}"
    )
    make_clips(folder / "clips")
    for name in ("listed", "spoilt"):
        (folder / name).mkdir()
        for clip in ("0.mp4", "1.mp4", "2.mp4"):
            (folder / name / clip).symlink_to(folder / "clips" / clip)
    rows = [("0.mp4", "b", "train"), ("1.mp4", "a", "train"), ("2.mp4", "a", "test")]
    lines = [json.dumps({"path": p, "label": name, "split": s}) for p, name, s in rows]
    (folder / "listed" / "clips.jsonl").write_text("\n".join(lines))
    (folder / "spoilt" / "clips.jsonl").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def used(house: Path) -> subprocess.CompletedProcess[str]:
    """What a process said that has done all of ``USE`` in the house."""
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=house, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.processes
def test_all_verbs_work_on_it(house: Path, used: subprocess.CompletedProcess[str]) -> None:
    parts = {}
    for line in used.stdout.splitlines()[:-1]:
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


@pytest.mark.processes
def test_mistakes_are_told_as_of_every_task(used: subprocess.CompletedProcess[str]) -> None:
    assert "fold is 2, which task motion does not have; leave it out" in used.stderr


@pytest.mark.processes
def test_a_layout_is_read_and_recognised(used: subprocess.CompletedProcess[str]) -> None:
    found = json.loads(used.stdout.splitlines()[-1])
    assert found == {"listed": ["jsonl", ["a", "b"], ["train", "test"], [1, 0, 0]]}
    assert "clips.jsonl:1 needs path, label, split" in used.stderr
