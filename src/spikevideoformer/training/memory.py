"""How much memory may still be taken, and that what a step frees is there for the next one."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_SYSTEM = Path("/")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3), and the most that it takes by itself
_TRIM_USUAL, _MMAP_USUAL = 2**26, 2**25


@contextmanager
def freed_memory_kept(device: torch.device) -> Iterator[None]:
    """On a CPU, memory that is freed stays with the process until this is left.

    glibc gives large blocks back to the system, which clears them before it hands them out again:
    a twentieth of the time of a small network's step. With another C library nothing is changed.
    """
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if device.type != "cpu" or not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):
        yield
        return
    assert libc is not None
    if not libc.mallopt(_MMAP_THRESHOLD, 2**30):  # glibc before 2.35 refuses that
        libc.mallopt(_MMAP_THRESHOLD, _MMAP_USUAL)
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, _MMAP_USUAL)
        libc.mallopt(_TRIM_THRESHOLD, _TRIM_USUAL)
        libc.malloc_trim(0)


def available_bytes(system: Path = _SYSTEM) -> int:
    """What can be taken without swapping, or breaking the limit of a container or job.

    The least counts: what the machine has available, and what the limits of the control groups
    leave that this process is in. Files that the system keeps in memory but can drop are available.
    Where the machine does not tell, half of its memory is.

    Args:
        system: where /proc and /sys are.
    """
    return max(0, min([_machine(system), *_control_groups(system)]))


def _machine(system: Path) -> int:
    fields = _fields(system / "proc/meminfo")
    if "MemAvailable:" in fields:
        return 1024 * fields["MemAvailable:"]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _control_groups(system: Path) -> Iterator[int]:
    """What each limit leaves; those of outer groups hold, too."""
    root = system / "sys/fs/cgroup"
    for line in _lines(system / "proc/self/cgroup"):
        _, controllers, group = line.split(":", 2)
        if controllers == "":  # version 2, which may be there beside version 1
            for limit in ("memory.max", "memory.high"):
                yield from _limits(root, group, limit, "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
            yield from _limits(root / "memory", group, *names)


def _limits(root: Path, group: str, limit: str, usage: str, droppable: str) -> Iterator[int]:
    # A container may name its group as the host does, and not find it: its own is the root then.
    inner = root / group.lstrip("/")
    for folder in (inner, *(p for p in inner.parents if p.is_relative_to(root))):
        most, used = _number(folder / limit), _number(folder / usage)
        if most is not None and used is not None:  # most can be the word "max"
            yield most - used + _fields(folder / "memory.stat").get(droppable, 0)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdecimal() else None


def _fields(path: Path) -> dict[str, int]:
    """Name and number of each line."""
    pairs = (line.split()[:2] for line in _lines(path))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
