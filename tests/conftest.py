"""What all tests share: determinism, one thread per process, and the data beside the repository."""

from __future__ import annotations

import fcntl
import gc
import hashlib
import io
import json
import logging
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import beartype._check.code.codemain as beartype_code
import numpy as np
import pytest
import torch
from hypothesis import settings

import spikevideoformer

if TYPE_CHECKING:
    from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
    from spikevideoformer.training import TrainConfig

SHARED = Path(__file__).resolve().parents[2] / "shared"
SOURCE = Path(spikevideoformer.__file__).parent

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for processes that tests start
os.environ["MPLBACKEND"] = "Agg"
# The checker of array shapes looks at a random item of a list: not with Python's own generator,
# which would hide a function of ours that draws from it.
beartype_code.getrandbits = random.Random(0).getrandbits
settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what reads shared files as ``data``, and skip ``gpu`` tests where there is no GPU."""
    no_gpu = pytest.mark.skip(reason="needs a CUDA device, and torch sees none")
    for item in items:
        if {"shared_data", "golden", "golden_family"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("data")
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(no_gpu)


def pytest_collection_finish() -> None:
    """What was imported stays: the collector of garbage need not go through it, nor run often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _no_power_cut() -> Iterator[None]:
    """Files are synced against a loss of power, which no test sees; each sync waits for a disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _file: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _alike_measured_once() -> Iterator[None]:
    """Fresh networks of the same configuration and weights get the statistics of the first."""
    from spikevideoformer.models import spikevideoformer
    from spikevideoformer.nn.statistics import batch_norms

    measure, known = spikevideoformer.start_statistics, {}

    def start(model: SpikeVideoFormer, in_channels: int) -> None:
        if next(model.parameters()).device.type != "cpu":
            return measure(model, in_channels)
        about = hashlib.sha1(repr(model.config).encode(), usedforsecurity=False)
        for weight in model.parameters():
            about.update(weight.detach().flatten().view(torch.uint8).numpy())
        norms = batch_norms(model)
        if about.digest() not in known:
            measure(model, in_channels)
            found = [(n.running_mean.clone(), n.running_var.clone()) for n in norms]
            known[about.digest()] = found
        for norm, (mean, var) in zip(norms, known[about.digest()], strict=True):
            norm.running_mean.copy_(mean), norm.running_var.copy_(var)
        return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spikevideoformer, "start_statistics", start)
        yield


@pytest.fixture(scope="session", autouse=True)
def _refusals_are_one_line() -> Iterator[None]:
    """Of every error of ours that a test provokes with `pytest.raises`."""
    leave = pytest.RaisesExc.__exit__

    def leave_in_one_line(
        self: pytest.RaisesExc, kind: type | None, error: Exception | None, trace: TracebackType
    ) -> bool:
        as_expected = leave(self, kind, error, trace)
        if isinstance(error, (ValueError, RuntimeError)):
            raised_in = Path(self.excinfo.traceback[-1].path)
            assert not raised_in.is_relative_to(SOURCE) or "\n" not in str(error)
        return as_expected

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pytest.RaisesExc, "__exit__", leave_in_one_line)
        yield


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries that draw from the global generator
    torch.manual_seed(0)


def _shared_folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the folder ../shared/{name} beside the repository, which is absent")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real clips and data sets for tests."""
    return _shared_folder("data")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of published-format checkpoints and what they compute."""
    return _shared_folder("golden")


@pytest.fixture(scope="session")
def golden_family() -> Path:
    """The same of the rest of the published family."""
    return _shared_folder("golden_family")


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``once(name, make)``: a folder that ``make(folder)`` fills once for all workers of a run."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def folder(name: str, make: Callable[[Path], None]) -> Path:
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (base / f"{name}.made").exists():
                (base / name).mkdir()
                make(base / name)
                (base / f"{name}.made").touch()
        return base / name

    return folder


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """PNG files of figures are blank: matplotlib draws for longer than small runs take steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.image import imsave

    def blank(canvas: FigureCanvasAgg, file: io.BufferedIOBase) -> None:
        imsave(file, canvas.get_renderer().buffer_rgba(), format="png")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FigureCanvasAgg, "print_png", blank)
        yield


@pytest.fixture(scope="session")
def demo_of(once: Callable[..., Path]) -> Callable[[str], Path]:
    """``demo_of(task)``: a folder with a small demo, and what it said in told.json."""
    from spikevideoformer.cli import main

    from .demo.small import small_demo

    def make(task: str, folder: Path) -> None:
        small = small_demo(task)
        with (
            pytest.MonkeyPatch.context() as patch,
            redirect_stdout(io.StringIO()) as out,
            redirect_stderr(io.StringIO()) as err,
        ):
            patch.setattr(
                import_module(f"spikevideoformer.tasks.{task}.demo"), "Demo", lambda: small
            )
            status = main(["demo", "--task", task, "--out", str(folder / "demo")])
        told = {"status": status, "out": out.getvalue(), "err": err.getvalue()}
        (folder / "told.json").write_text(json.dumps(told))

    return lambda task: once(f"demo-{task}", partial(make, task))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained nano model of six classes, lively enough that videos differ: T = 4, 32 x 32."""
    from spikevideoformer.models.spikevideoformer import create_model
    from spikevideoformer.video.spec import ClipSpec

    torch.manual_seed(0)
    model = create_model(
        "svf_nano",
        num_classes=6,
        residual_gain=1.0,
        readout="membrane",
        neuron={"v_threshold": 0.1},
    )
    torch.nn.init.normal_(model.head.fc.weight, std=3.0)
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(
        folder,
        classes=["wave", "jump", "run", "sit", "fall", "cost $5, or more: a rather long name"],
        clip=ClipSpec(frames=4, size=32).to_dict(),
    )
    return folder


@pytest.fixture(scope="session")
def mask_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained nano model that segments five classes, lively as well: T = 3, short side 32."""
    from spikevideoformer.models.spikevideoformer import create_model
    from spikevideoformer.tasks.segmentation.spec import SegmentationSpec

    torch.manual_seed(0)
    model = create_model(
        "svf_nano",
        task="segmentation",
        num_classes=5,
        pad_input=True,
        residual_gain=1.0,
        neuron={"v_threshold": 0.1},
    )
    torch.nn.init.normal_(model.head.fc.weight, std=3.0)
    model.palette = ((128, 64, 128), (70, 70, 70), (220, 20, 60), (0, 0, 142), (107, 142, 35))
    folder = tmp_path_factory.mktemp("mask-model")
    model.save_pretrained(
        folder,
        classes=["road", "building", "person", "cost $5 or $6", "_vegetation of every kind"],
        clip=SegmentationSpec(frames=3, short_side=32, crop=(32, 32)).to_dict(),
    )
    return folder


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small sound videos, one.mp4, two.mkv and three.avi, of 1, 2 and 3 s at 10 Hz."""
    from spikevideoformer.video.frames import write_video

    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    codec = {"avi": "mpeg4"}
    for seconds, name in enumerate(("one.mp4", "two.mkv", "three.avi"), 1):
        base = rng.integers(0, 256, (6, 8, 3))
        frames = [
            np.kron(np.roll(base, (i, seconds * i), (0, 1)), np.ones((8, 8, 1))).astype(np.uint8)
            for i in range(10 * seconds)
        ]
        write_video(folder / name, frames, 10.0, codec=codec.get(name[-3:], "libx264"))
    return folder


_CODEC = {".mp4": "mpeg4", ".avi": "mpeg4", ".webm": "libvpx"}


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    """``make_video(path, seed, frames=8, size=32)`` writes a moving square; content by seed."""
    from spikevideoformer.video.frames import write_video

    written = 0

    def write(path: Path, seed: int | None = None, frames: int = 8, size: int = 32) -> Path:
        nonlocal written
        written += 1
        draw = np.random.default_rng(written if seed is None else seed)
        background = draw.integers(0, 256, 3)
        path.parent.mkdir(parents=True, exist_ok=True)
        images = np.tile(background.astype(np.uint8), (frames, size, size, 1))
        for t, image in enumerate(images):
            image[:, 2 * t : 2 * t + 6] = 255 - image[0, 0]
        write_video(path, images, 10.0, codec=_CODEC[path.suffix])
        return path

    return write


@pytest.fixture(scope="session")
def lively() -> Callable[[SpikeVideoFormer], SpikeVideoFormer]:
    """`measured_norms`: a network whose neurons fire."""
    from .lively import measured_norms

    return measured_norms


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares that move left or right: 12 clips for training, 4 to validate, in class folders."""
    root = tmp_path_factory.mktemp("clips")
    draw = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for name, step in (("left", -3), ("right", 3)):
            for i in range(count):
                path = root / split / name / f"{i}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(path, step, *draw.integers(0, 24, 2), draw.integers(100, 256, 3))
    return root


def _write(path: Path, step: int, x: int, y: int, colour: np.ndarray) -> None:
    from spikevideoformer.video.frames import write_video

    images = np.zeros((8, 32, 32, 3), np.uint8)
    for t, image in enumerate(images):
        image[y : y + 8, (x + step * t + np.arange(8)) % 32] = colour
    write_video(path, images, 10.0, codec="mpeg4")


@pytest.fixture
def tiny(clips: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """``tiny(**changes)``: a `tiny_config` on ``clips``."""
    from .training.tiny import tiny_config

    return lambda **changes: tiny_config(**{"data": clips, "out": tmp_path / "run", **changes})


@pytest.fixture(autouse=True)
def _restore_log_level() -> None:
    logging.getLogger("spikevideoformer").setLevel(logging.NOTSET)
