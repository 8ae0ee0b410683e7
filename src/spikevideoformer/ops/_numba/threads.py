"""Run a compiled function on the threads that torch uses.

A second pool of threads beside torch's would fight with it for the cores. ``GOMP_parallel`` is
how compiled OpenMP code enters a parallel region; called in the very library that torch is linked
with, it uses torch's own threads. The compiled functions share out their parts among whatever
threads come (a counter in their arguments), so that they are complete even where fewer come.
"""

import ctypes
import logging
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


# The OpenMP library's threads do not exist in a forked child, and it would wait for them.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@cache
def _gomp_parallel() -> Any:
    """``GOMP_parallel`` of torch's own OpenMP library; None where it has none."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    # looks through the library and all that it is linked with
    function = (
        getattr(ctypes.CDLL(str(library)), "GOMP_parallel", None) if library.exists() else None
    )
    if function is None:
        logging.getLogger("spikevideoformer").info(
            "neuron kernels use one thread: torch %s has no GOMP_parallel", torch.__version__
        )
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    return function


def thread_count() -> int:
    """Threads that :func:`run` may use now."""
    count = torch.get_num_threads()
    return 1 if count == 1 or _forked or _gomp_parallel() is None else count


def run(function: Callable[[Any], None], address: int, arguments: Any, threads: int) -> None:
    """Call ``function(arguments)`` once on each of ``threads`` threads; returns when all have.

    Args:
        function: ctypes form of the compiled function, which releases Python's lock.
        address: its address.
        arguments: ctypes array of int64.
        threads: at most :func:`thread_count`.
    """
    if threads == 1:
        function(arguments)
    else:
        _gomp_parallel()(address, ctypes.addressof(arguments), threads, 0)
