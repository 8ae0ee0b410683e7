"""What this machine is, in words; imports nothing of ours."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def processor() -> str:
    """Name of the CPU."""
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine(device: str) -> str:
    """Name of what a device of that name is: a GPU, or the CPU and its cores.

    Args:
        device: auto (CUDA where there is one), cpu or cuda.
    """
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor()}, {cores} core{'' if cores == 1 else 's'}"
