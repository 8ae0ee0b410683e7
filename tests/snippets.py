"""What the pages of the documentation tell a reader to type, and how each of it is tested.

``RULES`` and ``PYTHON_RULES`` are the place for a new snippet that takes too long as printed.
"""

import ast
import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"  # data that may lie beside the repository
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
PROGRAMS = ("svf", "python", "make", "pytest", "torchrun", "pip")
SHELL = ("", "sh", "bash", "shell", "console")


@dataclass(frozen=True)
class Rule:
    """How commands are tested, besides that their options and files must exist.

    Args:
        pattern: what the command begins with, as a regular expression.
        extra: options that make it small.
        slow: why it is left to `make test-slow`.
        unrun: why it is not run at all.
    """

    pattern: str
    extra: str = ""
    slow: str = ""
    unrun: str = ""


SMALL = "--epochs 1 --size 32 --batch-size 8 --workers 0"

RULES = (
    Rule(r"svf demo", unrun="the demos were made, by a small recipe, for all other snippets"),
    Rule(r"svf train .*--resume"),
    Rule(
        r"svf train --config recipes/scene_motion/places\.yaml",
        "--epochs 1 --batch-size 8",
        slow="learns the pictures that a slow command makes",
    ),
    Rule(r"svf train", SMALL + " --frames 2"),
    Rule(r"svf ablate", SMALL + " --frames 2 --seeds 0"),
    Rule(r"svf eval .*--scales", "--workers 0 --scales 0.75,1"),
    Rule(r"svf eval", "--workers 0"),
    Rule(r"svf predict"),
    Rule(r"svf convert"),
    Rule(r"svf models"),
    Rule(r"svf --completion", unrun="writes into the home folder; tests/test_cli.py runs it"),
    Rule(r"svf energy .*--growth", "--size 32"),
    Rule(r"svf energy --model svf_15m", "--frames 1 --size 32 --no-merge"),
    Rule(r"svf energy", "--clips 1"),
    Rule(r"svf theory", slow="seconds for each of the tables"),
    Rule(r"svf bench", "--quick --rows attention_bytes", slow="times kernels"),
    Rule(
        r"svf render .*--mocap",
        "--clips-per-motion 1 --size 32 --frames 8",
        slow="reads motion capture, for the benchmark below it",
    ),
    Rule(r"svf render --puppets", "--puppets 8"),
    Rule(r"svf render", "--motions 5 --clips-per-motion 1 --size 32 --frames 4"),
    Rule(
        r"python benchmarks/first_hour\.py",
        "--only clips2 --tuned 0",
        slow="trains two networks, minutes each",
    ),
    Rule(
        r"python recipes/scene_motion/views\.py",
        "--train 2 --val 1",
        slow="makes the pictures that a slow command learns",
    ),
    Rule(
        r"python benchmarks/action_crossval\.py",
        "--puppets 24 --pretrain-epochs 2 --epochs 3 --arms transfer --jobs 1",
        slow="trains six networks",
    ),
    Rule(
        r"python benchmarks/twin\.py",
        "--seeds 0 --epochs 2 --train-clips 16 --val-clips 8",
        slow="trains three networks",
    ),
    Rule(
        r"python benchmarks/training_memory\.py",
        "--preset svf_nano --size 32 --frames 2 --rounds 2 --plot memory.png",
        slow="a process for each option",
    ),
    Rule(
        r"python benchmarks/motion\.py",
        "--seeds 0 --only pose-hamming-0",
        slow="trains on rendered motion",
    ),
    Rule(r"python benchmarks/gpu\.py", unrun="needs a CUDA device"),
    Rule(r"python benchmarks/(cpu_time|training_step)\.py", unrun="needs SpikingJelly, or git"),
    Rule(r"git worktree add", unrun="changes the repository"),
    Rule(r"torchrun", unrun="needs several processes, which test_distributed.py starts"),
    Rule(
        r"make", unrun="installs, or runs these very tests; that there is such a target is tested"
    ),
    Rule(r"pytest", unrun="runs anyway; that it selects a test is tested"),
    Rule(r"pip install", unrun="would change the environment of the tests"),
)


@dataclass(frozen=True)
class PythonRule:
    """How a block of Python is tested that cannot run as printed.

    Args:
        pattern: text of the block, as a regular expression.
        smaller: what is replaced by what, so that it takes seconds.
        mark: marker of its test.
    """

    pattern: str
    smaller: tuple[tuple[str, str], ...] = ()
    mark: str = ""


PYTHON_RULES = (
    PythonRule(
        r"painter = ",
        smaller=(
            ('model = svf.create_model("svf_15m"', 'model = svf.create_model("svf_nano"'),
            ('painter = svf.create_model("svf_15m"', 'painter = svf.create_model("svf_nano"'),
        ),
    ),
    PythonRule(
        r"train\(TrainConfig\(",
        smaller=(
            ("folds(5)", "folds(2)"),
            ("epochs=30", "epochs=1, batch_size=4, frames=2, size=32, workers=0"),
        ),
    ),
    PythonRule(
        r"random_video\(1, 4, 3, 512, 1024\)",
        smaller=(
            ("svf_15m", "svf_nano"),
            ('"frames": 4, "size": 724', '"frames": 1, "size": 32'),
            ("512, 1024", "32, 32"),
        ),
    ),
    PythonRule(r"\.cuda\(\)", mark="gpu"),
)


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is that of its first line."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command without comment, pipe and assignments in front of it."""

    where: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.where}: {shlex.join(self.words)}"

    @property
    def rule(self) -> Rule | None:
        """The first one that fits."""
        line = " ".join(self.words)
        return next((rule for rule in RULES if re.match(rf"{rule.pattern}\b", line)), None)


def blocks(page: Path) -> Iterator[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text()
    name = page.relative_to(REPOSITORY).as_posix()
    for found in re.finditer(r"^( *)```(.*)\n((?:.*\n)*?)\1``` *$", text, re.MULTILINE):
        line = text.count("\n", 0, found.start(3)) + 1
        yield Block(name, line, found[2].strip(), textwrap.dedent(found[3]))


def commands(block: Block) -> tuple[list[Command], list[str]]:
    """The commands of a shell block, and its lines that are none."""
    found, others = [], []
    for line in block.text.replace("\\\n", " ").splitlines():
        here = [Command(f"{block}", words) for words in split(line) if words[0] in PROGRAMS]
        found += here
        if not here and line.strip() and not line.lstrip().startswith("#"):
            others.append(line)
    return found, others


def split(line: str) -> list[tuple[str, ...]]:
    """The words of each command of a line: of pipes the first one."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # an apostrophe in some output
        return []
    parts: list[list[str]] = [[]]
    for word in words:
        if word in ("&&", ";"):
            parts.append([])
        else:
            parts[-1].append(word)
    return [part for part in map(_without_surroundings, parts) if part]


def _without_surroundings(words: list[str]) -> tuple[str, ...]:
    if "|" in words:
        words = words[: words.index("|")]
    if words[:1] == ["$"]:
        words = words[1:]
    while words and re.fullmatch(r"[A-Z][A-Z0-9_]*=.*", words[0]):
        words = words[1:]
    return tuple(words)


def spans(page: Path) -> Iterator[Command]:
    """Commands within the text and the tables of a page; they may be shortened."""
    text = re.sub(r"^( *)```.*\n(?:.*\n)*?\1``` *$", "", page.read_text(), flags=re.MULTILINE)
    name = page.relative_to(REPOSITORY).as_posix()
    for found in re.finditer(rf"`((?:{'|'.join(PROGRAMS)})\s[^`]*)`", text):
        line = " ".join(re.sub(r"(?<!\S)\[|\](?!\S)", " ", found[1].replace(r"\|", "|")).split())
        for words in split(line):
            yield Command(name, tuple(word for word in words if word != "..."))


def python_rule(block: Block) -> PythonRule | None:
    """The first one that fits."""
    return next((rule for rule in PYTHON_RULES if re.search(rule.pattern, block.text)), None)


def python_mark(block: Block) -> str:
    """The marker of the test of a block of Python, or nothing."""
    rule = python_rule(block)
    return rule.mark if rule else ""


def source(block: Block) -> str:
    """The code of a block of Python, made small as its rule says."""
    code = block.text
    rule = python_rule(block)
    for printed, smaller in rule.smaller if rule else ():
        assert code.count(printed) == 1, f"{block}: the rule for it does not fit: {printed!r}"
        code = code.replace(printed, smaller)
    return code


def undefined_names(sources: list[str], known: set[str]) -> set[str]:
    """Names that code reads and that nothing in it or before it gives a value."""
    known, unknown = set(known), set()
    for code in sources:
        nodes = list(ast.walk(ast.parse(code)))
        names = [node for node in nodes if isinstance(node, ast.Name)]
        known |= {name.id for name in names if isinstance(name.ctx, ast.Store)}
        for node in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                known |= {(a.asname or a.name).partition(".")[0] for a in node.names}
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                known.add(node.name)
            elif isinstance(node, ast.arg):
                known.add(node.arg)
        unknown |= {name.id for name in names if name.id not in known}
    return unknown
