"""A model folder: which one is meant, and what its ``config.json`` says, without torch."""

import hashlib
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

from spikevideoformer.models.box import PREFIX, boxed, boxed_folder

FORMAT_VERSION = 1
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
HUB_TIMEOUT_S = 5.0  # for the hub to answer at all; downloads may take as long as they need
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_DEMOS = {"demo": "", "demo_masks": " --task segmentation", "demo_pose": " --task pose"}


def local_folder(folder_or_hub_id: str | os.PathLike[str]) -> Path:
    """The folder of a model; one of the Hugging Face hub is fetched where it is not here yet.

    Names that begin with svf/ are of the box (`models.box`); a folder of such a name is found as
    ./svf/NAME. The hub is asked only for another name like owner/name whose first part is no
    folder here.

    Raises:
        ValueError: no such folder, not in the box, and no such model of the hub.
    """
    name = os.fspath(folder_or_hub_id)
    if name in boxed():
        return boxed_folder(name)
    folder = Path(os.path.expanduser(name))
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ValueError(f"{name} is a file; give the folder that holds {CONFIG_FILE}")
    if name.startswith(PREFIX):
        return boxed_folder(name)
    if (task := _DEMOS.get(name.partition("/")[0])) is not None:
        raise ValueError(
            f"{name} does not exist; `svf demo{task}` makes it, or give another folder"
        )
    if PREFIX + name in boxed():
        raise ValueError(f"{name} does not exist; the network in the box is {PREFIX}{name}")
    if not _HUB_ID.fullmatch(name) or folder.parent.is_dir():
        raise ValueError(f"{name} does not exist; give a model folder or a hub id (owner/name)")
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    """A model of the hub; where the hub cannot be asked, what was fetched from it before."""
    from huggingface_hub import HfApi, snapshot_download

    failure: Exception | None = None
    try:
        HfApi().model_info(name, timeout=HUB_TIMEOUT_S)  # a download waits without end
    except Exception as error:  # noqa: BLE001 - of two HTTP libraries, by the version of the hub's
        failure = error
    try:
        folder = snapshot_download(
            name,
            allow_patterns=[CONFIG_FILE, WEIGHTS_FILE],
            local_files_only=failure is not None,
        )
    except Exception as error:  # noqa: BLE001 - the same
        failure = failure or error
        reason = (str(failure).strip() or type(failure).__name__).splitlines()[0]
        raise ValueError(
            f"no folder {name} here, and the hub hands out no such model ({reason}); check the "
            "spelling and, for a model of the hub, the network"
        ) from failure
    return Path(folder)


def read_about(folder_or_hub_id: str | os.PathLike[str]) -> dict[str, Any]:
    """What ``config.json`` of a model says (task, classes, ...), without loading its weights.

    Weights must lie beside it.

    Raises:
        ValueError: as :func:`local_folder` and :func:`read_config`.
    """
    folder = local_folder(folder_or_hub_id)
    about = read_config(folder / CONFIG_FILE)
    weights_file(folder)
    return about


def weights_file(folder: Path) -> Path:
    """The file of the weights; ValueError where there is none."""
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise ValueError(f"{weights} is missing; a model folder holds {CONFIG_FILE} and it")
    return weights


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_palette(value: Any, classes: int) -> TypeGuard[Sequence[Sequence[int]]]:
    """Whether it is a colour [R, G, B], each 0 to 255, for each class."""
    return (
        isinstance(value, (list, tuple))
        and len(value) == classes
        and all(isinstance(colour, (list, tuple)) and len(colour) == 3 for colour in value)
        and all(isinstance(v, int) and 0 <= v <= 255 for colour in value for v in colour)
    )


def read_config(path: Path) -> dict[str, Any]:
    """The checked entries of a ``config.json``.

    Raises:
        ValueError: no such file, damage, or another format.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; give a folder that save_pretrained or train wrote")
    try:
        about = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error})") from error
    keys = {"format_version", "task", "num_classes", "model", "classes", "palette", "body", "clip"}
    keys |= {"temperature", "familiarity", "sha256"}
    if not isinstance(about, dict) or about.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} is not of format version {FORMAT_VERSION}; it was not written by this "
            "version of spikevideoformer"
        )
    about.setdefault("palette", None)  # which came with segmentation
    about.setdefault("body", None)  # which came with pose
    about.setdefault("temperature", None)  # which came with calibration, as did the next
    about.setdefault("familiarity", None)
    about.setdefault("sha256", None)
    if about.keys() != keys:
        odd = sorted(about.keys() ^ keys)[0]
        raise ValueError(f"{path}: key {odd!r} is missing or unknown; expected {sorted(keys)}")
    accepted_kinds: dict[str, Any] = {"num_classes": int, "model": dict}
    accepted_kinds |= dict.fromkeys(("clip", "body", "familiarity"), dict | None)
    accepted_kinds["temperature"] = float | int | None
    accepted_kinds["sha256"] = str | None
    for key, accepted in accepted_kinds.items():
        if not isinstance(about[key], accepted):
            raise ValueError(f"{path}: {key} is {about[key]!r}, of another kind than was saved")
    names = about["classes"]
    if names is not None and not (
        isinstance(names, list)
        and all(isinstance(name, str) for name in names)
        and len(names) == about["num_classes"]
    ):
        raise ValueError(f"{path}: classes is {names!r}; expected {about['num_classes']} names")
    palette = about["palette"]
    if palette is not None and not is_palette(palette, about["num_classes"]):
        raise ValueError(
            f"{path}: palette is {palette!r}; expected a colour [R, G, B], each 0 to 255, for each "
            f"of {about['num_classes']} classes"
        )
    temperature = about["temperature"]
    if temperature is not None and (
        isinstance(temperature, bool) or not 0 < temperature < math.inf
    ):
        raise ValueError(f"{path}: temperature is {temperature!r}; expected a number above 0")
    return about
