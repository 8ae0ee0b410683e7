"""Compile a kernel, and keep the code on disk."""

import ctypes
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import numba
import torch
from numba import carray, types  # type: ignore[attr-defined]
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc

from spikevideoformer.ops._numba.vector import BFLOAT16, FLOAT32, UINT8

log = logging.getLogger("spikevideoformer")

KIND = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.uint8: UINT8}
SERIAL = 32_768  # numbers below which a second thread costs more than it gives
ARGUMENTS = 32  # length of a kernel's argument array; place 0 counts the parts taken
Arguments = ctypes.c_int64 * ARGUMENTS

# what the code on disk was made from
SOURCE = crc32(b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py"))))

# for functions that only other compiled ones call
njit: Any = numba.njit  # its types know only some of its options
jit = njit(forceinline=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)


class _Place(FunctionCache._impl_class):  # type: ignore[misc, valid-type]
    """Where numba keeps code, with the user's cache folder before that of the package."""

    _locator_classes = sorted(
        FunctionCache._impl_class._locator_classes, key=lambda place: "InTree" in place.__name__
    )


class _Cache(FunctionCache):
    """numba's cache on disk, looked up by what a kernel was made for.

    numba's own key would contain the functions that a kernel calls, as objects, which differ from
    process to process.
    """

    _impl_class = _Place
    variant: tuple[Any, ...]

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return sig, codegen.magic_tuple(), SOURCE, self.variant


def compile_kernel(kernel: Callable[..., None], *variant: Any) -> tuple[Any, int]:
    """A function of an int64 array as C code: its ctypes form and its address.

    The compiled code is kept on disk where numba finds a writable place.

    Args:
        kernel: Python source, a function of the array.
        variant: hashable values that say what ``kernel`` was made for.
    """
    # put in before anything is compiled: as one more function it would be optimised twice
    kernel_code = njit(inline="always", error_model="numpy")(kernel)

    def entry(pointer: Any) -> None:
        arguments = carray(pointer, (ARGUMENTS,))
        kernel_code(arguments, arguments.ctypes.data)

    compiled: Any = CFunc(entry, ((types.CPointer(types.int64),), types.void), {}, {})
    try:
        compiled._cache = _Cache(entry)
    except RuntimeError as error:  # numba's word for no writable place
        log.info("neuron kernels are compiled anew in each process: %s", error)
    else:
        compiled._cache.variant = variant
    compiled.compile()
    return compiled.ctypes, compiled.address
