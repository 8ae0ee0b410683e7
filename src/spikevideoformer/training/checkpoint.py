"""Checkpoints that are either whole or absent, and that never execute what they carry.

A checkpoint is a `torch.save` zip of tensors and plain values. It is written to a temporary file in
the same folder, flushed to the disk, renamed over its final name, and the folder flushed: a kill at
any moment leaves the old file or the new one. It is read with the restricted unpickler only, after
the checksum of every record in the zip has been verified (torch itself skips that check).
"""

from __future__ import annotations

import io
import logging
import pickle
import re
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from spikevideoformer.files import TEMPORARY, write_atomically

FORMAT = "spikevideoformer-training-1"
_STEP_FILE = re.compile(r"step-\d+\.pt")
log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint that must not be used; one line: the path, the reason and the remedy."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values, nested) atomically."""
    payload = {"format": FORMAT, **state}

    def write(file: BinaryIO) -> None:
        noting = _Noting(file)
        try:
            torch.save(payload, cast(BinaryIO, noting))
        except RuntimeError as error:  # which does not say what ails the disk
            raise noting.error or error from None

    write_atomically(path, write)


class _Noting(io.RawIOBase):
    """A file that remembers why it could not be written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        CheckpointError: the file is damaged, not a checkpoint of this library, or holds objects
            other than tensors and plain values (which are refused without being executed).
    """
    if (damage := _damage(path)) is not None:
        raise CheckpointError(
            f"{path}: not a whole checkpoint ({damage}); delete it or use an older one"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol, ahead of refusing it
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"{path}: holds something other than tensors and plain values and was not loaded; "
            "use a checkpoint written by svf train"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of svf train (no format {FORMAT!r})")
    return state


def _damage(path: Path) -> str | None:
    """What is wrong with the zip file, if its records and their checksums do not agree."""
    try:
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
        return type(error).__name__
    except (NotImplementedError, RuntimeError):  # flags of compression or encryption
        return "unknown zip features"
    return None if record is None else f"bad checksum of {record}"


class CheckpointFolder:
    """`step-00000120.pt` files, of which the newest few are kept, and `best.pt`."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        """Open the folder, creating it.

        Args:
            folder: where the files lie.
            keep: how many step files to keep, at least 1.
        """
        self.folder = folder
        self.keep = keep
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def best(self) -> Path:
        """Where the weights with the best validation metric lie, once there are any."""
        return self.folder / "best.pt"

    def steps(self) -> list[Path]:
        """Step files, the newest first."""
        found = [path for path in self.folder.iterdir() if _STEP_FILE.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(path.stem.removeprefix("step-")), reverse=True)

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write the checkpoint of `step`, then delete those beyond `keep`."""
        path = self.folder / f"step-{step:08d}.pt"
        save_checkpoint(path, state)
        for old in self.steps()[self.keep :]:
            old.unlink()
        return path

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that is whole; None where there is none at all.

        Leftovers of interrupted writes are removed; damaged files are named in the log and passed
        over.

        Raises:
            CheckpointError: there are checkpoints but not one can be used.
        """
        for leftover in self.folder.glob(f"*{TEMPORARY}"):
            leftover.unlink()
        refused: list[CheckpointError] = []
        for path in self.steps():
            try:
                return path, load_checkpoint(path)
            except CheckpointError as error:
                log.warning("passed over %s", error)
                refused.append(error)
        if refused:
            raise refused[0]
        return None
