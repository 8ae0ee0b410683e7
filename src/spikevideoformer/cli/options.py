"""Options of verbs: a frozen dataclass says which there are, and its docstring what they mean.

The type of a field decides what is typed: bool is a switch, Literal a choice, Path a path in which
~ is the home folder, a tuple numbers with commas between them. Metadata of a field may say:

positional                      there is no flag before it; a tuple takes several
tasks                           the only tasks whose models have it
at_least, above, multiple_of    which numbers are accepted
settings                        the dataclass of a file whose fields are options as well; the value
                                is what is given of them, nested as in that file
metavar, type                   as argparse has them
"""

from __future__ import annotations

import argparse
import math
import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from spikevideoformer.cli.output import refuse_file
from spikevideoformer.settings import field_docs, merged
from spikevideoformer.training.config import Precision

if TYPE_CHECKING:
    from spikevideoformer.video.sources import DecodeLimits

Task = Literal["classification", "segmentation", "pose"]
Device = Literal["auto", "cpu", "cuda"]
DIR = {"metavar": "DIR"}
LABELS, MASKS, POSE = ({"tasks": (task,)} for task in get_args(Task))
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Json:
    """How results are printed.

    Args:
        json: print JSON and nothing else.
    """

    json: bool = False


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How videos are decoded.

    Args:
        no_decode_limits: decode files that unpack to huge videos, too.
    """

    no_decode_limits: bool = False

    @property
    def limits(self) -> DecodeLimits:
        """Against files that unpack to far more than they seem."""
        from spikevideoformer.video.sources import DecodeLimits

        return DecodeLimits.unlimited() if self.no_decode_limits else DecodeLimits()


@dataclass(frozen=True, kw_only=True)
class OnModel:
    """A model of any task, and what runs it.

    Args:
        model: model folder, or a hub id (owner/name).
        device: auto takes CUDA where there is one.
        precision: 16-mixed needs CUDA.
        task: complain where the model is made for another one.
        sliding_window: look at windows as large as training crops, instead of the picture as a
            whole.
        scales: average over these multiples of the size, such as 0.75,1,1.25 (default 1).
        flip: average with the mirrored picture.
        body: SMPL as convert_smpl wrote it, for a model that was trained with it.
    """

    model: str = field(metadata={"metavar": "FOLDER"})
    device: Device = "auto"
    precision: Precision = "32-true"
    task: Task | None = None
    sliding_window: bool = field(default=False, metadata=MASKS)
    scales: tuple[float, ...] | None = field(default=None, metadata=MASKS | {"metavar": "X,X,..."})
    flip: bool = field(default=False, metadata=MASKS)
    body: Path | None = field(default=None, metadata=POSE | {"metavar": "FILE"})

    def checked_task(self) -> str:
        """The task of the model; ValueError where it or a file of it will not do."""
        from spikevideoformer.body.smpl_file import require_smpl_file
        from spikevideoformer.models.folder import read_about

        task: str = read_about(self.model)["task"]
        if self.task not in (None, task):
            raise ValueError(
                f"--task is {self.task}, but {self.model} is a model for {task}; leave out "
                "--task or give another --model"
            )
        for f in fields(self):
            given = getattr(self, f.name) not in (None, False)
            if given and task not in f.metadata.get("tasks", (task,)):
                raise ValueError(
                    f"{self.model} is a model for {task}, which has no {flag(f.name)}; leave it out"
                )
        if self.body is not None:
            require_smpl_file(self.body)
        return task


def add_options(parser: ArgumentParser, options: type) -> None:
    """Add what a verb takes to its parser."""
    hints, docs = get_type_hints(options), field_docs(options)
    groups = {task: parser.add_argument_group(f"only for {task}") for task in get_args(Task)}
    for f in fields(options):
        about, kind = f.metadata, _kind(hints[f.name])
        if "settings" in about:
            group = parser.add_argument_group("settings (--name VALUE here, name: VALUE in a file)")
            _add_settings(group, about["settings"])
            parser.set_defaults(settings={})
            continue
        required, several = f.default is MISSING, get_origin(kind) is tuple
        words: dict[str, Any] = {"help": _help(f, docs, kind)}
        if kind is bool:
            words["action"] = "store_true"
        elif get_origin(kind) is Literal:
            words["choices"] = get_args(kind)
        else:
            words["type"] = _numbers if several else expand_home if kind is Path else kind
            words["metavar"] = _metavar(kind)
        words |= {word: about[word] for word in ("metavar", "type") if word in about}
        if about.get("positional"):
            if several:
                words |= {"type": str, "nargs": "+" if required else "*"}
            parser.add_argument(f.name, **words)
        else:
            tasks = about.get("tasks", ())
            place = groups[tasks[0]] if len(tasks) == 1 else parser
            words["default"] = None if required else f.default
            place.add_argument(flag(f.name), required=required, **words)


def read_options(options: type[_T], known: Namespace) -> _T:
    """The options of a verb from what its parser understood; ValueError for what will not do."""
    given = {}
    for f in fields(options):  # type: ignore[arg-type]  # a dataclass
        value, about = getattr(known, f.name), f.metadata
        if isinstance(value, (int, float)):
            if value < about.get("at_least", -math.inf):
                raise ValueError(f"{flag(f.name)} is {value}; give at least {about['at_least']}")
            if "above" in about and not about["above"] < value < math.inf:
                raise ValueError(f"{flag(f.name)} is {value}; give a number above {about['above']}")
            if "multiple_of" in about and value % (unit := about["multiple_of"]):
                raise ValueError(f"{flag(f.name)} is {value}; give a multiple of {unit}")
        if f.name == "out":  # of every verb a folder
            refuse_file(value)
        given[f.name] = tuple(value) if isinstance(value, list) else value
    return options(**given)


def flag(name: str) -> str:
    """What is typed before the value of a field."""
    return f"--{name.replace('_', '-')}"


def expand_home(text: str) -> Path:
    """A path as a shell understands it: of --out=~/x no shell makes the home folder."""
    return Path(os.path.expanduser(text))  # Path's own raises for unknown users


def _kind(hint: Any) -> Any:
    """What there is where something is given: of a union the first that is not None."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return next(kind for kind in kinds if kind is not NoneType)


def _help(f: Field[Any], docs: dict[str, str], kind: Any = None) -> str:
    text = docs[f.name].removesuffix(".").replace("%", "%%")
    told = kind is bool or f.default in (MISSING, None, ())
    return text if told else f"{text} (default {f.default})"


def _metavar(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    names = {bool: "true|false", int: "N", float: "X", Path: "PATH", str: "NAME"}
    return names.get(kind, "VALUE")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is no list of numbers like 0.75,1") from error


def _add_settings(group: argparse._ArgumentGroup, settings: type, prefix: str = "") -> None:
    """An option for each setting of a file, in which values are written as in that file."""
    hints, docs = get_type_hints(settings), field_docs(settings)
    for f in fields(settings):
        hint, name = hints[f.name], prefix + f.name
        if is_dataclass(hint):
            _add_settings(group, hint, f"{name}.")  # type: ignore[arg-type]  # a class
            continue
        flags = [flag(name)]
        if name == "unlimited_decoding":
            flags.append("--no-decode-limits")  # as it is called everywhere else
        kinds = {hint, *get_args(hint)}
        # can be switched on without a value
        switch: dict[str, Any] = {"nargs": "?", "const": True} if bool in kinds else {}
        group.add_argument(
            *flags,
            action=_Setting,
            dest=name,
            default=argparse.SUPPRESS,
            type=_text_or_null if {str, Path} & kinds else _yaml_value,
            metavar=_metavar(_kind(hint)),
            help=_help(f, docs),
            **switch,
        )


class _Setting(argparse.Action):
    """Puts a value among the settings that are given."""

    def __call__(
        self, _: ArgumentParser, known: Namespace, value: Any, flag: str | None = None
    ) -> None:
        for key in reversed(self.dest.split(".")):
            value = {key: value}
        known.settings = merged(known.settings, value)


def _yaml_value(text: str) -> Any:
    """What the text would be in a file; the configuration decides whether it will do."""
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, (bool, int, float, list, dict, type(None))) else text


def _text_or_null(text: str) -> Any:
    """Names and paths stay as typed, even one that looks like a number; null and {...} do not."""
    return _yaml_value(text) if text == "null" or text.startswith("{") else text
