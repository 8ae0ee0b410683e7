"""What an installation promises: quick imports, one version, and hands off an installed torch."""

import ast
import itertools
import json
import re
import subprocess
import sys
import sysconfig
import tempfile
import venv
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import spikevideoformer
from spikevideoformer.models.box import OF_TASK, boxed
from spikevideoformer.task import get_task

PACKAGE = Path(spikevideoformer.__file__).parent
REPOSITORY = Path(__file__).resolve().parents[1]
# Wanted by one verb or another, never by `import spikevideoformer` or `svf --help`.
HEAVY = {"lightning", "pytorch_lightning", "tensorboard", "torchmetrics", "triton", "matplotlib"}


def loaded_modules(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after ``code``."""
    report = "import sys; print('\\n' + ' '.join({m.partition('.')[0] for m in sys.modules}))"
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return set(run.stdout.splitlines()[-1].split())


def test_import_is_light() -> None:
    code = "import spikevideoformer.ops.affine_lif, spikevideoformer.ops.batch_norm_lif"
    assert not loaded_modules(code) & (HEAVY | {"av", "numba"})


def test_what_is_public_is_shown() -> None:
    names = dir(spikevideoformer)
    assert {name for name in names if not name.startswith("__")} == set(spikevideoformer.__all__)
    assert names == sorted(names)
    assert {"__all__", "__version__", "__doc__"} <= set(names)
    assert spikevideoformer.list_models()


def test_package_runs_as_a_module() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "spikevideoformer", "--help"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "predict" in run.stdout


def test_version_stands_in_one_place() -> None:
    assert spikevideoformer.__version__ == metadata.version("spikevideoformer")
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    assert f"## {spikevideoformer.__version__}" in changelog


def test_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_no_file_holds_a_path_of_this_machine() -> None:
    places = {str(REPOSITORY), str(REPOSITORY.parent), str(Path.home()), tempfile.gettempdir()}
    local = re.compile("|".join(rf"(?<![\w.]){re.escape(p)}/" for p in places - {"/"}))
    found = [
        f"{file.relative_to(PACKAGE)}: {match.group()}"
        for file in sorted(PACKAGE.rglob("*"))
        if file.suffix not in {".pyc", ".so"} and file.is_file()
        for match in local.finditer(file.read_text(errors="replace"))
    ]
    assert not found


def requirements() -> dict[str, Requirement]:
    """What a plain installation asks for, by lower-case name."""
    found = map(Requirement, metadata.requires("spikevideoformer") or [])
    return {r.name.lower(): r for r in found if r.marker is None}


def test_dependencies_are_what_is_imported() -> None:
    imported = {"tensorboard"}  # by torch.utils.tensorboard
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add((node.module or "").partition(".")[0])
    distributions = metadata.packages_distributions()
    wanted = {
        distribution.lower().replace("_", "-")
        # torch for CUDA brings triton along; SpikingJelly is compared with where it is installed
        for module in imported
        - sys.stdlib_module_names
        - {"spikevideoformer", "triton", "spikingjelly"}
        for distribution in distributions[module]
    }
    assert wanted == {name.replace("_", "-") for name in requirements()}


@pytest.mark.parametrize("version", ["2.10.0", "2.11.0+cu128", "2.13.0+cpu", "2.13.0", "2.99"])
def test_installed_torch_is_accepted(version: str) -> None:
    assert requirements()["torch"].specifier.contains(version)


def test_torch_with_the_unpickler_hole_is_refused() -> None:
    assert not requirements()["torch"].specifier.contains("2.9.1")


@pytest.mark.slow
@pytest.mark.parametrize("version", ["2.10.0", "2.11.0", "2.13.0"])
def test_pip_leaves_an_installed_torch_alone(tmp_path: Path, version: str) -> None:
    """In an environment that announces some torch, pip plans to install all but torch."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    purelib = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )
    info = Path(purelib.strip()) / f"torch-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
    (info / "RECORD").touch()
    (info / "INSTALLER").write_text("pip\n")

    report = tmp_path / "report.json"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--dry-run", "--report", report, REPOSITORY],
        check=True,
    )
    planned = {p["metadata"]["name"].lower() for p in json.loads(report.read_text())["install"]}
    assert {"spikevideoformer", "numpy", "av"} <= planned
    assert "torch" not in planned


OFFLINE = """
import socket, sys
import spikevideoformer
from spikevideoformer.cli import main
def refuse(*_): raise AssertionError("the network was asked")
socket.socket.connect = refuse
print(spikevideoformer.__file__, file=sys.stderr)
video, *tasks = sys.argv[1:]
sys.exit(max(main(["predict", video, "--task", task, "--json"]) for task in tasks))
"""


@pytest.mark.processes
def test_an_installed_wheel_predicts_with_its_own_weights_offline(
    tmp_path: Path, video_folder: Path
) -> None:
    """In an environment that has what the package needs, and of the package the wheel alone."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 13_000_000  # 12 MB of weights, and the code
    venv.create(tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    subprocess.run([*install, "--no-deps", "--no-index", wheel], check=True)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    inside = sorted(task for task, name in OF_TASK.items() if name in boxed())
    assert inside
    run = [python, "-I", "-c", OFFLINE, video_folder / "one.mp4", *inside]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "env") in done.stderr.splitlines()[0]
    paths = [json.loads(line)["path"] for line in done.stdout.splitlines()]
    assert [Path(path).name for path in paths] == ["one.mp4"] * len(inside)


def test_the_path_from_the_command_to_the_equation_is_short() -> None:
    """Each file on it imports the next one; at most eight of them."""
    page = (REPOSITORY / "CONTRIBUTING.md").read_text()
    told = re.search(r"path leads from `svf predict FILE` to the equation: (.*?) \(", page)
    assert told is not None
    path = re.findall(r"`([a-z_/]+\.py)`", told[1])
    assert path[0] == "cli/__init__.py" and path[-1] == "ops/hamming.py"
    assert len(path) <= 8
    for file, following in itertools.pairwise(path):
        tree = ast.parse((PACKAGE / file).read_text())
        imported = {
            f"{node.module}.{name.name}" if node.module == "spikevideoformer.cli" else node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for name in node.names
        }
        if following == "tasks/classification/predictor.py":  # by the table of tasks
            assert "spikevideoformer.task" in imported
            home = get_task("classification").predictor().__module__
            assert home == "spikevideoformer.tasks.classification.predictor"
            continue
        module = "spikevideoformer." + following.removesuffix(".py").replace("/", ".")
        assert module in imported, f"{file} does not import {following}"
