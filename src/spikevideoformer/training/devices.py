"""Processes, devices and precision: what Fabric is asked for."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast

import torch
from lightning.fabric import Fabric as Fabric
from lightning.fabric.strategies.ddp import DDPStrategy
from torch import Tensor

Device = Literal["auto", "cpu", "cuda"]
_T = TypeVar("_T")


def launch(*, device: Device, devices: int, precision: str) -> Fabric:
    """Start the processes, or join those that `torchrun` started.

    Args:
        device: auto takes CUDA where there is one.
        devices: processes on this machine; under torchrun its number counts.
        precision: "32-true", "bf16-mixed" or "16-mixed".

    Raises:
        ValueError: a device that is not there, a precision that it lacks, or a count of devices
            that contradicts torchrun's.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch sees no CUDA device; use cpu or auto")
    accelerator = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    if accelerator == "cpu" and precision == "16-mixed":
        raise ValueError("precision 16-mixed needs CUDA; use bf16-mixed or 32-true on the CPU")
    nodes = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        if devices not in (1, local):
            raise ValueError(
                f"devices is {devices} under a torchrun of {local} processes; leave it out"
            )
        devices, nodes = local, int(os.environ["WORLD_SIZE"]) // local
    if accelerator == "cuda" and devices > torch.cuda.device_count():
        raise ValueError(f"devices is {devices}; torch sees {torch.cuda.device_count()}")
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        precision=precision,  # type: ignore[arg-type]  # Fabric lists the names as literals
        strategy=DDPStrategy(
            # The loop itself keeps the statistics of batch norm equal (MeanStatistics).
            broadcast_buffers=False,
            # The others wait while the first process checks the files of a large data set.
            timeout=timedelta(hours=12),
        )
        if devices * nodes > 1
        else "auto",
    )
    if "LOCAL_RANK" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
        _end_with_parent()
    try:
        fabric.launch()
    except KeyboardInterrupt:
        end_others(fabric)
        raise
    if fabric.world_size > 1:
        atexit.register(_leave_group)
    return fabric


def _leave_group() -> None:
    """Without it gloo's threads, now and then, abort the interpreter at its end (SIGABRT)."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _end_with_parent() -> None:
    """A process that the first one started ends when that one does, in whatever moment (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, linux/prctl.h
        if os.getppid() == 1:  # it was gone before
            raise SystemExit(1)


def end_others(fabric: Fabric) -> None:
    """Kill the processes that this one started, which would wait for it for hours.

    To be called where this one leaves for Ctrl-C or SIGTERM: only the first process writes files,
    so the others have nothing to lose.
    """
    for process in getattr(fabric.strategy.launcher, "procs", ()):
        process.kill()


def from_first_process(fabric: Fabric, look: Callable[[], _T]) -> _T:
    """What the first process finds, given to all.

    Args:
        fabric: launched.
        look: called in the first process only.

    Raises:
        Exception: in the first process, what `look` raises.
        SystemExit: in the others, when `look` raised; they have nothing to tell, and leave with
            status 0 because launchers kill the first process when another one fails.
    """
    found: _T | None = None
    error: Exception | None = None
    if fabric.is_global_zero:
        try:
            found = look()
        except Exception as caught:  # noqa: BLE001 - raised below, once the others know
            error = caught
    failed, found = fabric.broadcast((error is not None, found))
    if failed:
        fabric.barrier()  # nobody leaves before everybody knows
        raise error if error is not None else SystemExit(0)
    return cast(_T, found)


def over_processes(fabric: Fabric, tensor: Tensor, how: Literal["sum", "mean"]) -> Tensor:
    """The sum or mean of a tensor over all processes, the same in each.

    Args:
        fabric: launched.
        tensor: on the device of `fabric`, of the same shape in every process; may be overwritten.
        how: sum or mean.
    """
    return cast(Tensor, fabric.all_reduce(tensor, reduce_op=how))


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Refuse operations whose result depends on the order of threads, on the CPU.

    On CUDA several operations of the backward pass have no such form.
    """
    if device.type != "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    settings: Any = torch.utils.deterministic
    fill = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False  # it costs time and finds bugs, which is for tests
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        settings.fill_uninitialized_memory = fill
