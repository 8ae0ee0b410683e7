"""Available memory, on systems laid out in a folder, and memory that is kept."""

import platform
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from spikevideoformer.training.memory import (
    _MMAP_THRESHOLD,
    available_bytes,
    freed_memory_kept,
)

KIB, GIB = 2**10, 2**30
System = Callable[..., Path]


@pytest.fixture
def system(tmp_path: Path) -> System:
    """``system(groups, files)``: a machine with 20 GiB available, its groups and their files."""

    def make(groups: str, files: dict[str, object]) -> Path:
        meminfo = f"MemTotal: {24 * GIB // KIB} kB\nMemAvailable:   {20 * GIB // KIB} kB\n"
        everything = {"proc/meminfo": meminfo, "proc/self/cgroup": groups}
        everything |= {f"sys/fs/cgroup/{name}": f"{value}\n" for name, value in files.items()}
        for name, text in everything.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(text))
        return tmp_path

    return make


def test_of_this_machine() -> None:
    assert 0 < available_bytes() < 2**50


def test_without_limits(system: System) -> None:
    assert available_bytes(system("", {})) == 20 * GIB


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert 0 < available_bytes(tmp_path) < 2**50


def test_a_container_of_version_2(system: System) -> None:
    files = {
        "memory.max": 4 * GIB,
        "memory.high": "max",
        "memory.current": 3 * GIB,
        "memory.stat": f"anon {GIB}\ninactive_file {GIB}\nactive_file {GIB}",
    }
    assert available_bytes(system("0::/\n", files)) == 2 * GIB
    assert available_bytes(system("0::/as/the/host/calls/it\n", files)) == 2 * GIB


def test_the_limit_of_an_outer_group_of_version_2(system: System) -> None:
    files = {
        "job/memory.max": 8 * GIB,
        "job/memory.current": 1 * GIB,
        "job/task/memory.max": "max",
        "job/task/memory.high": 9 * GIB,
        "job/task/memory.current": 0,
        "other/memory.max": 1,
        "other/memory.current": 0,
    }
    assert available_bytes(system("0::/job/task\n", files)) == 7 * GIB


@pytest.mark.parametrize("group", ["/", "/docker/1234", "/job"])
def test_version_1(system: System, group: str) -> None:
    place = "memory/job" if group == "/job" else "memory"
    files = {
        "memory/memory.limit_in_bytes": 9223372036854771712,
        "memory/memory.usage_in_bytes": GIB,
        f"{place}/memory.limit_in_bytes": 6 * GIB,
        f"{place}/memory.usage_in_bytes": 2 * GIB,
        f"{place}/memory.stat": f"inactive_file 5\ntotal_inactive_file {GIB}",
    }
    groups = f"9:name=systemd:/\n5:cpu,memory:{group}\n0::/\n"
    assert available_bytes(system(groups, files)) == 5 * GIB


def test_a_group_over_its_limit(system: System) -> None:
    files = {"memory.max": 4 * GIB, "memory.current": 5 * GIB}
    assert available_bytes(system("0::/\n", files)) == 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="its allocator is meant")
def test_freed_memory_is_there_again() -> None:
    """Pages are touched for the first time once, not in each step."""

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            blocks = [torch.ones(2**22) for _ in range(4)]  # of 16 MiB
            del blocks
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with freed_memory_kept(torch.device("cpu")):
        # Of 163,840 pages where they are given back; a heap in pieces takes some anew at times.
        assert min(faults() for _ in range(5)) < 16_384
    with freed_memory_kept(torch.device("meta")):
        pass


def test_older_libraries_get_the_most_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """glibc before 2.35 refuses a threshold above 32 MiB, and by then no longer moves it itself."""
    taken: dict[int, int] = {}

    class Older:
        def mallopt(self, name: int, value: int) -> int:
            if name == _MMAP_THRESHOLD and value > 2**25:
                return 0
            taken[name] = value
            return 1

        def malloc_trim(self, _: int) -> int:
            return 1

    monkeypatch.setattr("ctypes.CDLL", lambda _: Older())
    with freed_memory_kept(torch.device("cpu")):
        assert taken[_MMAP_THRESHOLD] == 2**25
