"""Options of verbs: a frozen dataclass says which there are, and its docstring what they mean.

The type of a field decides what is typed: bool is a switch, Literal a choice, Path a path in which
~ is the home folder, a tuple numbers with commas between them. Metadata of a field may say:

positional                      there is no flag before it; a tuple takes several
choices                         what is accepted
of_task                         the attribute of a `Task` that names a dataclass of options which
                                only models of that task have; the value is what is given of them
needs_out                       what it writes, for which there must be a folder
at_least, above, multiple_of    which numbers are accepted
settings                        the dataclass of a file whose fields are options as well; the value
                                is what is given of them, nested as in that file; title heads them
metavar, type, nargs            as argparse has them
"""

from __future__ import annotations

import argparse
import math
import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from spikevideoformer.cli.output import refuse_file
from spikevideoformer.events.spec import EventFiles
from spikevideoformer.settings import field_docs, merged, yaml_value
from spikevideoformer.task import TASKS, Task, get_task
from spikevideoformer.training.config import Precision

if TYPE_CHECKING:
    from spikevideoformer.video.interface import DecodeLimits

Device = Literal["auto", "cpu", "cuda"]
DIR = {"metavar": "DIR"}
TASK: dict[str, Any] = {"choices": TASKS}
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
        from spikevideoformer.video.interface import DecodeLimits

        return DecodeLimits.unlimited() if self.no_decode_limits else DecodeLimits()


@dataclass(frozen=True, kw_only=True)
class OnModel:
    """A model of any task, and what runs it.

    Args:
        model: model folder, svf/NAME of the box (`svf models --weights`), or a hub id (owner/name).
        device: auto takes CUDA where there is one.
        precision: 16-mixed needs CUDA.
        task: complain where the model is made for another one.
    """

    model: str = field(metadata={"metavar": "FOLDER"})
    device: Device = "auto"
    precision: Precision = "32-true"
    task: str | None = field(default=None, metadata=TASK)

    def checked_task(self) -> Task:
        """The task of the model; ValueError where it or a file of it will not do."""
        from spikevideoformer.models.folder import read_about

        name: str = read_about(self.model)["task"]
        if self.task not in (None, name):
            raise ValueError(
                f"--task is {self.task}, but {self.model} is a model for {name}; leave out "
                "--task or give another --model"
            )
        return get_task(name)

    def own(self, task: Task, given: Mapping[str, Any]) -> Any:
        """Options that only models of a task have; ValueError where others are given."""
        (kind,) = (getattr(task, f.metadata["of_task"]) for f in fields(self) if _of_task(f))
        known = {f.name for f in fields(kind)}
        for name in given:
            if name not in known:
                raise ValueError(
                    f"{self.model} is a model for {task.name}, which has no {flag(name)}; leave it "
                    "out"
                )
        return kind(**given)


def _of_task(f: Field[Any]) -> str | None:
    return f.metadata.get("of_task")


def task_options(attribute: str) -> dict[str, tuple[type, list[str]]]:
    """By the name of an option of tasks: a dataclass that has it, and the tasks."""
    found: dict[str, tuple[type, list[str]]] = {}
    for task in TASKS:
        kind = getattr(get_task(task), attribute)
        for f in fields(kind):
            found.setdefault(f.name, (kind, []))[1].append(task)
    return found


@dataclass(frozen=True, kw_only=True)
class _Recordings:
    """Settings of recordings.

    Args:
        events: how they are read.
    """

    events: EventFiles = field(default_factory=EventFiles)


@dataclass(frozen=True, kw_only=True)
class OfEvents:
    """How recordings of events are read, where they differ from those of training.

    Args:
        settings: those that are given as options.
    """

    settings: dict[str, Any] = field(
        default_factory=dict,
        metadata={"settings": _Recordings, "title": "recordings of events, other than in training"},
    )


def add_options(parser: ArgumentParser, options: type) -> None:
    """Add what a verb takes to its parser."""
    hints, docs = get_type_hints(options), field_docs(options)
    for f in fields(options):
        if "settings" in f.metadata:
            title = f.metadata.get("title", "settings (--name VALUE here, name: VALUE in a file)")
            group = parser.add_argument_group(title)
            _add_settings(group, f.metadata["settings"])
            parser.set_defaults(settings={})
        elif attribute := _of_task(f):
            groups = {task: parser.add_argument_group(f"only for {task}") for task in TASKS}
            for name, (kind, tasks) in task_options(attribute).items():
                place = groups[tasks[0]] if len(tasks) == 1 else parser
                own = next(f for f in fields(kind) if f.name == name)
                _add_option(place, own, get_type_hints(kind)[name], field_docs(kind))
        else:
            _add_option(parser, f, hints[f.name], docs)


def _add_option(
    place: argparse._ActionsContainer, f: Field[Any], hint: Any, docs: Mapping[str, str]
) -> None:
    about, kind = f.metadata, _kind(hint)
    required, several = f.default is MISSING, get_origin(kind) is tuple
    words: dict[str, Any] = {"help": _help(f, docs, kind)}
    if kind is bool:
        words["action"] = "store_true"
    elif get_origin(kind) is Literal:
        words["choices"] = get_args(kind)
    elif "choices" in about:
        words["choices"] = tuple(about["choices"])
    else:
        words["type"] = _numbers if several else expand_home if kind is Path else kind
        words["metavar"] = _metavar(kind)
    words |= {word: about[word] for word in ("metavar", "type", "nargs") if word in about}
    if about.get("positional"):
        if several:
            words |= {"type": str, "nargs": "+" if required else "*"}
        place.add_argument(f.name, **words)
    else:
        words["default"] = None if required else f.default
        place.add_argument(flag(f.name), required=required, **words)


def read_options(options: type[_T], known: Namespace) -> _T:
    """The options of a verb from what its parser understood; ValueError for what will not do."""
    given: dict[str, Any] = {}
    for f in fields(options):  # type: ignore[arg-type]  # a dataclass
        if attribute := _of_task(f):
            own = {}
            for name, (kind, _) in task_options(attribute).items():
                about = next(f for f in fields(kind) if f.name == name)
                value = _checked(about, getattr(known, name))
                if value != about.default:
                    own[name] = value
            given[f.name] = own
            continue
        given[f.name] = _checked(f, getattr(known, f.name))
        if f.name == "out":  # of every verb a folder
            refuse_file(given[f.name])
    return options(**given)


def _checked(f: Field[Any], value: Any) -> Any:
    """The value of an option; ValueError for a number that is not accepted."""
    about = f.metadata
    if isinstance(value, (int, float)):
        if value < about.get("at_least", -math.inf):
            raise ValueError(f"{flag(f.name)} is {value}; give at least {about['at_least']}")
        if "above" in about and not about["above"] < value < math.inf:
            raise ValueError(f"{flag(f.name)} is {value}; give a number above {about['above']}")
        if "multiple_of" in about and value % (unit := about["multiple_of"]):
            raise ValueError(f"{flag(f.name)} is {value}; give a multiple of {unit}")
    return tuple(value) if isinstance(value, list) else value


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


def _help(f: Field[Any], docs: Mapping[str, str], kind: Any = None) -> str:
    text = docs[f.name].removesuffix(".").replace("%", "%%")
    told = kind is bool or f.default in (MISSING, None, (), "")
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
        if name == "options":  # a section for each task
            for task in TASKS:
                _add_settings(group, get_task(task).options, f"{task}.")
            continue
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
            metavar="|".join(f.metadata.get("choices", ())) or _metavar(_kind(hint)),
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
        value = yaml_value(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, (bool, int, float, list, dict, type(None))) else text


def _text_or_null(text: str) -> Any:
    """Names and paths stay as typed, even one that looks like a number; null and {...} do not."""
    return _yaml_value(text) if text == "null" or text.startswith("{") else text
