"""Time and memory of calls, measured side by side.

Times: the candidates run in turn in one process, round after round, and what is reported is the
median of the ratios within a round, so that a machine that slows down slows all of them.

Memory on a CPU: what the process holds at its worst moment during the call, less what it held
before, as Linux counts it. That includes what any library allocates for itself, which torch's own
counters miss. Each candidate is measured in a fresh process, because memory that one leaves
behind would be reused by the next. On a GPU: torch's allocator.
"""

import ctypes
import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median and quartiles.

    Attributes:
        median: middle value.
        low, high: first and third quartile (the extremes where there are fewer than 4 values).
        rounds: number of values.
    """

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarise at least one value."""
        if not values:
            raise ValueError("got no values; expected at least one")
        low, high = min(values), max(values)
        if len(values) >= 4:
            low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median=statistics.median(values), low=low, high=high, rounds=len(values))


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Spread of ``above`` over ``below``, round by round."""
    return Spread.of([a / b for a, b in zip(above, below, strict=True)])


def time_in_turn(
    calls: Mapping[str, Call],
    *,
    rounds: int,
    warm_up: int = 1,
    least_s: float = 0.0,
    device: str = "cpu",
) -> dict[str, list[float]]:
    """Seconds a call, of every candidate in every round.

    Args:
        calls: the candidates.
        rounds: how often each is timed; every other round runs them in reverse.
        warm_up: calls of each before the first round (compilation, caches).
        least_s: a short call is repeated until a sample lasts this long.
        device: cpu or cuda; on the latter the device is waited for.

    Raises:
        ValueError: no round.
    """
    if rounds < 1:
        raise ValueError(f"got {rounds} rounds; expected at least 1")
    repeats = {}
    for name, call in calls.items():
        once = min(_timed(call, 1, device) for _ in range(max(warm_up, 1)))
        repeats[name] = max(1, round(least_s / max(once, 1e-9)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds):
        for name in list(calls) if i % 2 == 0 else reversed(list(calls)):
            seconds[name].append(_timed(calls[name], repeats[name], device))
    return seconds


def _timed(call: Call, repeats: int, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


# --- Memory ---------------------------------------------------------------------------------------


class NoPeakError(RuntimeError):
    """Peak memory cannot be measured on this machine; the message says why."""


def peak_memory(build: Callable[..., Call], *args: object, threads: int | None = None) -> int:
    """Bytes that one call adds to its process at most, on the CPU.

    Args:
        build: a function at the top level of a module; ``build(*args)`` makes the call. It runs
            in a fresh process, is called once to warm up, and then measured.
        args: anything that can be pickled.
        threads: of torch in that process; as many as here where None.

    Raises:
        NoPeakError: not Linux, or /proc cannot be written.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(_peak_in_child, build, args, threads or torch.get_num_threads()).result()


def _peak_in_child(build: Callable[..., Call], args: tuple[object, ...], threads: int) -> int:
    torch.set_num_threads(threads)
    call = build(*args)
    call()
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)  # freed memory that the call would take first must not hide its size
    _restart_peak()
    before = _status_bytes("VmRSS")
    call()
    return _status_bytes("VmHWM") - before


def _restart_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise NoPeakError(
            f"the peak of a process cannot be restarted here ({error}); it needs Linux and a "
            "writable /proc/self/clear_refs"
        ) from error


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise NoPeakError(f"/proc/self/status has no {key} on this system")


def peak_memory_cuda(call: Call) -> int:
    """Bytes that one call adds to torch's CUDA memory at most, after a warm-up call."""
    call()
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
