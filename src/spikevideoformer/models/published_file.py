"""Published checkpoint files, read without executing what is in them."""

import argparse
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path, PosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spikevideoformer.models.spikevideoformer import unusable


class PublishedFile(NamedTuple):
    """What is used of one.

    Attributes:
        state: tensors by their names, without the prefixes of wrappers.
        about: what mmengine keeps of the data set beside them, as ``classes`` and ``palette``.
    """

    state: dict[str, Tensor]
    about: Mapping[str, Any]


def read_published(path: Path) -> PublishedFile:
    """The tensors of a checkpoint; nothing in the file is run.

    Raises:
        ValueError: a file that is missing, damaged, carries code or no state dict, or weights that
            are no numbers, in one line.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist or is no file; give a published .pth checkpoint")
    try:
        # Training scripts of this field store their arguments and best metrics beside the weights.
        # What torch warns about, it then refuses, or reads all the same: one line is enough.
        with (
            torch.serialization.safe_globals([*_HARMLESS, *_foreign(path)]),
            warnings.catch_warnings(action="ignore"),
        ):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and plain values, or is damaged; it was refused "
            "without running anything in it: get the file from its authors again"
        ) from error
    except Exception as error:  # a damaged pickle can fail in any way
        reason = next(iter(str(error).strip().splitlines()), "damaged").partition(". ")[0]
        raise ValueError(f"{path} is no readable checkpoint ({reason}); copy it again") from error
    entries = content if isinstance(content, Mapping) else {}
    state: Any = next((entries[key] for key in _WRAPPED if key in entries), content)
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise ValueError(
            f"{path} is no state dict of tensors, nor has it one under "
            f"{', '.join(map(repr, _WRAPPED))}"
        )
    bare = {_PREFIXES.sub("", key): value for key, value in state.items()}
    if len(bare) != len(state):
        raise ValueError(f"{path} holds several networks under different prefixes; keep one")
    if (fault := unusable(bare)) is not None:
        raise ValueError(f"{path}: {fault}; get the file from its authors again")
    meta = entries.get("meta")
    about = meta.get("dataset_meta") if isinstance(meta, Mapping) else None
    return PublishedFile(bare, about if isinstance(about, Mapping) else {})


_WRAPPED = ("model", "state_dict", "model_state_dict", "module", "model_ema")
"""Where a state dict may stand in a file; the first that is there."""

_PREFIXES = re.compile(r"^((module|_orig_mod|model|backbone)\.)+")
"""What DistributedDataParallel, torch.compile, and networks around a backbone put before names."""


def _scalar(dtype: np.dtype[Any], content: bytes) -> Any:
    """A number of numpy, from its bytes."""
    if dtype.kind not in "biufc" or len(content) != dtype.itemsize:
        raise pickle.UnpicklingError("no number")
    return np.frombuffer(content, dtype)[0]


def _bytes(text: str, encoding: str) -> bytes:
    """Bytes as old pickles hold them."""
    if encoding != "latin1":
        raise pickle.UnpicklingError("no bytes")
    return text.encode("latin1")


class _Inert:
    """Stands for an object of another library: takes what it is made of, and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _foreign(path: Path) -> list[Any]:
    """Classes of OpenMMLab in a file, which training leaves beside the weights, as inert ones."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # noqa: BLE001 - damaged, or of the old format: the reader itself says so
        return []
    return [(_Inert, name) for name in names if re.match(r"(mmengine|mmcv|mmseg|mmdet)\.", name)]


_HARMLESS: list[Any] = [
    argparse.Namespace,
    PosixPath,
    np.dtype,
    *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type)),
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    (_bytes, "_codecs.encode"),
    (_Inert, "numpy.ndarray"),
    *((_Inert, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]
"""Plain values that are no tensors: arguments, paths, numbers and arrays of numpy."""
