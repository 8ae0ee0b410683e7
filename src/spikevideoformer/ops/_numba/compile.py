"""Compile a kernel, and keep the code on disk."""

import ctypes
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import numba
import torch
from numba import types
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

from spikevideoformer.ops._numba.vector import BFLOAT16, FLOAT32, UINT8

log = logging.getLogger("spikevideoformer")

KIND = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.uint8: UINT8}
SERIAL = 32_768  # numbers below which a second thread costs more than it gives
ARGUMENTS = 40  # length of a kernel's argument array; place 0 counts the parts taken
Arguments = ctypes.c_int64 * ARGUMENTS

# what the code on disk was made from
SOURCE = crc32(b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py"))))


class _KernelCode(JITCodeLibrary):
    """Code of a kernel: optimised once, with all that it calls.

    numba's own way optimises each function before those that it calls are put in: where its loops
    were copied by then, so are the calls.
    """

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        passes, builder = self._codegen._module_pass_manager()
        passes.run(self._final_module, builder)


class _HelperCode(JITCodeLibrary):
    """Code that goes into that of a kernel, and runs nowhere else."""

    codegen = property(lambda self: self)

    def _finalize_final_module(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """Nowhere."""
        return 0

    def set_env(self, name: str, env: Any) -> None:
        """Nobody reads it."""


class _RawCode(_HelperCode):
    """Code that is optimised in the kernel only."""

    _optimize_functions = _KernelCode._optimize_functions

    def _optimize_final_module(self) -> None:
        pass


def _compiler(code: type[JITCodeLibrary]) -> type[Compiler]:
    """numba's, which makes code of another class."""

    class Special(Compiler):
        def __init__(self, typing: Any, target: Any, library: Any, *arguments: Any) -> None:
            library = code(target.codegen(), code.__name__)
            library.enable_object_caching()
            super().__init__(typing, target, library, *arguments)

    return Special


def _helper(code: type[JITCodeLibrary]) -> Any:
    njit: Any = numba.njit  # its types know only some of its options
    return njit(
        forceinline=True,
        error_model="numpy",
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
        pipeline_class=_compiler(code),
    )


# For functions that only other compiled ones call. An inner loop of many registers is quicker where
# it is optimised by itself before it is put into its kernel.
jit, jit_loop = _helper(_RawCode), _helper(_HelperCode)


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
    signature = (types.CPointer(types.int64),), types.void
    compiled: Any = CFunc(kernel, signature, {}, {"error_model": "numpy"}, _compiler(_KernelCode))
    try:
        compiled._cache = _Cache(kernel)
    except RuntimeError as error:  # numba's word for no writable place
        log.info("neuron kernels are compiled anew in each process: %s", error)
    else:
        compiled._cache.variant = variant
    compiled.compile()
    return compiled.ctypes, compiled.address
