"""Every snippet of the README and the docs: it runs, or at least its options and files exist."""

import argparse
import builtins
import importlib.util
import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from torch.distributed.run import get_args_parser

import spikevideoformer
from spikevideoformer import cli
from spikevideoformer.bench.rows import ROWS
from spikevideoformer.cli.parser import parsers, with_dashes
from spikevideoformer.settings import merged, read_yaml
from spikevideoformer.tasks.classification import demo as classification
from spikevideoformer.tasks.pose import demo as pose
from spikevideoformer.training.config import TrainConfig

from .demo.small import small_demo
from .snippets import (
    PAGES,
    REPOSITORY,
    SHARED,
    SHELL,
    Block,
    Command,
    blocks,
    commands,
    python_mark,
    source,
    spans,
    undefined_names,
)

BLOCKS = [block for page in PAGES for block in blocks(page)]
TYPED = [block for block in BLOCKS if block.language in SHELL and commands(block)[0]]
PYTHON = [block for block in BLOCKS if block.language == "python"]
COMMANDS = [command for block in TYPED for command in commands(block)[0]]
SPANS = sorted({c.words: c for page in PAGES for c in spans(page)}.values(), key=str)

# The folder that each demo writes.
DEMOS = {"classification": "demo", "segmentation": "demo_masks", "pose": "demo_pose"}
OWN_FILES = ("new_clip.mp4", "street.mp4", "walk.mp4")  # what a reader is taken to have
PLACEHOLDERS = {
    "VERB": "predict",
    "TASK": "pose",
    "NAME": "svf_nano",
    "KIND": "joint_hamming",
    "N": "20",
}


# --- What the pages take for granted -------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, demo_of: Callable[[str], Path]) -> Path:
    """A folder with the results of all demos, small, and the videos and weights of a reader."""
    folder = tmp_path_factory.mktemp("docs")
    world = folder / "world"
    world.mkdir()
    _copy_demos(world, demo_of)
    _make_own_files(world)
    for name in ("benchmarks", "configs"):
        (world / name).symlink_to(REPOSITORY / name)
    if (SHARED / "data").is_dir():
        _share(folder / "shared" / "data")
    return world


def _copy_demos(world: Path, demo_of: Callable[[str], Path]) -> None:
    """And the first validation clips under the names that they have in the whole demos, too."""
    for task, name in DEMOS.items():
        shutil.copytree(demo_of(task) / "demo", world / name)
    whole, small = classification.Demo(), small_demo("classification")
    assert isinstance(small, classification.Demo)
    for clip in sorted((world / "demo" / "clips" / "val").rglob("*.mp4")):
        number = int(clip.stem) - small.train_clips + whole.train_clips
        shutil.copy(clip, clip.with_name(f"{number:06}.mp4"))
    for clip in (world / "demo_pose" / "clips" / "val").rglob("*_004_00.mp4"):
        number = pose.Demo().motions * 4 // 5  # the last fifth is to measure on
        shutil.copy(clip, clip.with_name(clip.name.replace("_004_", f"_{number:03}_")))


def _make_own_files(world: Path) -> None:
    from spikevideoformer.synth.directions import write_direction_clips
    from spikevideoformer.synth.moving_shapes import write_scene_video

    write_direction_clips(world / "my_videos", train=16, val=8)
    for name in OWN_FILES:
        write_scene_video(world / name, seed=1)
    if (golden := SHARED / "golden" / "tiny_3d_hamming.pth").is_file():
        (world / "metaspikformer.pth").symlink_to(golden)


def _share(data: Path) -> None:
    """The data beside the repository, but of motion capture one action alone."""
    (data / "mocap").mkdir(parents=True)
    for name in ("action", "vss"):
        (data / name).symlink_to(SHARED / "data" / name)
    mocap = SHARED / "data" / "mocap"
    header, *rows = (mocap / "splits.csv").read_text().splitlines()
    assert header.startswith("path,subset,content,")
    chosen = [row for row in rows if row.split(",")[2] == "bow"]
    for row in chosen:
        name = row.partition(",")[0]
        (data / "mocap" / name).symlink_to(mocap / name)
    (data / "mocap" / "splits.csv").write_text("\n".join([header, *chosen]) + "\n")


# --- Nothing is left unchecked -------------------------------------------------------------------


def test_there_are_snippets() -> None:
    assert len(COMMANDS) > 30
    assert len(PYTHON) > 10
    assert len(SPANS) > 30


def test_every_block_is_of_a_known_language() -> None:
    # py: a file, which tests/tasks/test_new_task.py writes
    known = (*SHELL, "python", "py", "text")
    assert not [str(b) for b in BLOCKS if b.language not in known]


def test_blocks_of_commands_hold_nothing_else() -> None:
    assert not [f"{block}: {line}" for block in TYPED for line in commands(block)[1]]


def test_every_command_has_a_rule() -> None:
    assert not [str(command) for command in COMMANDS if command.rule is None]


def test_names_are_defined_where_they_are_used() -> None:
    for page in {block.page for block in PYTHON}:
        code = [block.text for block in PYTHON if block.page == page]
        assert not undefined_names(code, set(dir(builtins))), page


def test_public_names_exist() -> None:
    used = {name for b in PYTHON for name in re.findall(r"\bsvf\.(\w+)", b.text)}
    assert used <= set(spikevideoformer.__all__)
    for block in PYTHON:
        for module, names in re.findall(r"^from ([\w.]+) import (.*)$", block.text, re.MULTILINE):
            assert all(hasattr(import_module(module), name) for name in names.split(", ")), block


# --- Commands: options and files -----------------------------------------------------------------


def check(command: Command, world: Path, monkeypatch: pytest.MonkeyPatch, *, whole: bool) -> None:
    """That options, values and files of a command exist.

    Args:
        command: one of a page.
        world: the folder it is meant for.
        monkeypatch: of the test.
        whole: false for one that stands in a sentence and may leave out what is required.
    """
    program, *arguments = (PLACEHOLDERS.get(word, word) for word in command.words)
    if program == "python" and arguments[:2] == ["-m", "spikevideoformer"]:
        program, arguments = "svf", arguments[2:]
    if program == "torchrun":
        at = arguments.index("spikevideoformer")
        get_args_parser().parse_args([*arguments[: at + 1]])
        program, arguments = "svf", arguments[at + 1 :]
    if program == "svf":
        check_svf(arguments, world, whole=whole)
    elif program == "python":
        check_script(arguments, monkeypatch)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in arguments if "=" not in word} <= set(targets)
    elif program == "pip":
        check_pip(arguments)
    else:
        assert program == "pytest"  # test_pytest_lines_select_tests tells the rest
        assert all((REPOSITORY / word).is_file() for word in arguments if word.endswith(".py"))
    roots = {entry.name for entry in world.iterdir()}
    for word in arguments:
        if word.partition("/")[0] in roots:
            assert (world / word).exists(), f"{word} does not exist"


def check_svf(arguments: list[str], world: Path, *, whole: bool) -> None:
    if "--completion" in arguments:
        arguments = arguments[: arguments.index(">")] if ">" in arguments else arguments
        assert cli.main(arguments) == 0
        return
    if "--help" in arguments or not arguments:
        assert cli.main(arguments or ["--help"]) == 0
        return
    parser, verbs = parsers(arguments, cli.VERBS)
    if not whole:
        for action in verbs[arguments[0]]._actions:
            action.required = False
            action.nargs = "*" if action.nargs == "+" else action.nargs or "?"
    known, unknown = parser.parse_known_args([with_dashes(word) for word in arguments])
    assert unknown == []
    if known.verb == "demo" and whole:
        assert known.out is None or known.out.name == DEMOS[known.task]
    elif known.verb == "bench" and known.rows:
        assert set(known.rows.split(",")) <= set(ROWS)
    elif known.verb == "train" and (settings := known.settings):
        written = known.config is not None and (world / known.config).is_file()
        below = read_yaml(world / known.config) if written else {"out": "run"}
        TrainConfig.from_dict(merged(below, settings))


class _ParsedError(Exception):
    """The script understood its arguments."""


def check_script(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A script parses its arguments with its own parser, and goes no further."""
    path = REPOSITORY / arguments[0]
    assert path.is_file()
    monkeypatch.syspath_prepend(path.parent)  # as for a script that is run
    spec = importlib.util.spec_from_file_location(f"benchmarks_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser: argparse.ArgumentParser) -> argparse.Namespace:
        parse(parser)
        raise _ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(_ParsedError):
        module.main()


def check_pip(arguments: list[str]) -> None:
    assert arguments[0] == "install"
    words = [word for word in arguments[1:] if not word.startswith("-")]
    if "--target" in arguments:
        words.remove(arguments[arguments.index("--target") + 1])
    for word in words:
        if word != ".":
            wanted = Requirement(word)
            if wanted.name == "spikevideoformer":
                extras = metadata.metadata("spikevideoformer").get_all("Provides-Extra") or []
                assert wanted.extras <= set(extras)


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_command_is_understood(
    command: Command, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(command, world, monkeypatch, whole=True)


@pytest.mark.parametrize("command", SPANS, ids=str)
def test_command_in_the_text_is_understood(
    command: Command, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(command, world, monkeypatch, whole=False)


SELECT = """
import json, sys, pytest
class Selected:
    def pytest_collection_finish(self, session):
        self.tests = len(session.items)
# without the check of shapes, which can be switched on only once in a process
first = ["-o", "addopts=--import-mode=importlib", "-m", "not slow"]
last = ["--collect-only", "-qq", "-p", "no:cacheprovider"]
for arguments in json.load(sys.stdin):
    selected = Selected()
    assert pytest.main([*first, *arguments, *last], plugins=[selected]) == 0, arguments
    assert selected.tests, arguments
"""


@pytest.mark.slow  # imports what the tests import once more
def test_pytest_lines_select_tests() -> None:
    lines = sorted({c.words[1:] for c in (*COMMANDS, *SPANS) if c.words[0] == "pytest"})
    run = subprocess.run(
        [sys.executable, "-c", SELECT],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]


# --- From top to bottom --------------------------------------------------------------------------


class Reader:
    """Somebody who types what a page says, block by block, in a folder that has what it needs."""

    def __init__(self, page: str, folder: Path) -> None:
        self.page, self.folder = page, folder
        self.typed: set[Block] = set()
        self.namespace: dict[str, object] = {"__name__": "__main__"}

    def type(self, block: Block, *, slow: bool) -> None:
        """Type a block, after those above it that have not been typed and run everywhere."""
        for earlier in RUN:
            if earlier.page == self.page and earlier.line < block.line:
                marked = earlier.language == "python" and python_mark(earlier)
                if earlier not in self.typed and not (marked or what_is_missing(earlier)):
                    self._type(earlier, slow=False)
        self._type(block, slow=slow)

    def _type(self, block: Block, *, slow: bool) -> None:
        self.typed.add(block)
        if block.language == "python":
            exec(compile(source(block), str(block), "exec"), self.namespace)
            return
        for command in commands(block)[0]:
            if runs(command, slow=slow):
                run(command)


def runs(command: Command, *, slow: bool) -> bool:
    """Whether a command is run by the default tests, or by the slow ones."""
    rule = command.rule
    return rule is not None and not rule.unrun and (slow or not rule.slow)


def run(command: Command) -> None:
    """Run a command, made small as its rule says."""
    assert command.rule is not None
    program, *words = [*command.words, *command.rule.extra.split()]
    if program == "svf":
        assert cli.main(words) == 0, command
        return
    assert program == "python"
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"


BESIDE = {"../shared/": SHARED / "data", "metaspikformer.pth": SHARED / "golden"}


def what_is_missing(block: Block) -> str:
    """Why a block cannot run here; nothing where it can."""
    for sign, folder in BESIDE.items():
        if sign in block.text and not folder.is_dir():
            return (
                f"needs the folder ../shared/{folder.name} beside the repository, which is absent"
            )
    return ""


def _marked(block: Block, *, slow: bool) -> object:
    # a page stays in one process, where each block finds what those above it left
    marks: list[pytest.MarkDecorator] = [pytest.mark.xdist_group(block.page)]
    if slow:
        marks += [pytest.mark.slow, pytest.mark.timeout(1800)]
    else:
        marks.append(pytest.mark.docs)
    if any(sign in block.text for sign in BESIDE):
        marks.append(pytest.mark.data)
    if block.language == "python" and (mark := python_mark(block)):
        marks.append(getattr(pytest.mark, mark))
    return pytest.param(block, slow, id=f"{block}-slow" if slow else str(block), marks=marks)


RUN = [
    block
    for block in BLOCKS
    if (block in PYTHON and block.page != "docs/new_neuron.md")  # tests/nn/test_new_neuron.py
    or (block in TYPED and any(runs(c, slow=False) for c in commands(block)[0]))
]
SLOW = [block for block in TYPED if any(c.rule and c.rule.slow for c in commands(block)[0])]


@pytest.fixture(scope="module")
def readers(world: Path) -> Callable[[str], Reader]:
    """One for each page, whose folder looks like the world and lies beside it."""
    found: dict[str, Reader] = {}

    def reader(page: str) -> Reader:
        if page not in found:
            folder = world.parent / page.replace("/", "-")
            folder.mkdir()
            for entry in world.iterdir():
                (folder / entry.name).symlink_to(entry)
            found[page] = Reader(page, folder)
        return found[page]

    return reader


@pytest.mark.parametrize(
    ("block", "slow"),
    [_marked(b, slow=False) for b in RUN] + [_marked(b, slow=True) for b in SLOW],
)
def test_block_runs(
    block: Block,
    slow: bool,
    readers: Callable[[str], Reader],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if missing := what_is_missing(block):
        pytest.skip(missing)
    reader = readers(block.page)
    monkeypatch.chdir(reader.folder)
    reader.type(block, slow=slow)
