"""From arguments to the options of one verb; help, version and completion."""

from __future__ import annotations

import argparse
import inspect
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NoReturn

from spikevideoformer import __version__
from spikevideoformer.cli.options import add_options, expand_home


@dataclass(frozen=True)
class Verb:
    """One thing that ``svf`` does.

    Attributes:
        options: a dataclass, as `options` describes; its docstring is the help.
        run: takes such options, and returns how many inputs failed.
    """

    options: type
    run: Callable[[Any], int | None]

    @property
    def example(self) -> str:
        """A command that works as printed."""
        return self.said("Example: ") or ""

    def said(self, word: str) -> str | None:
        """What follows a word at the beginning of a line of that docstring."""
        lines = (inspect.getdoc(self.options) or "").splitlines()
        return next((line.removeprefix(word) for line in lines if line.startswith(word)), None)


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one ValueError."""

    def error(self, message: str) -> NoReturn:
        """Complain, and say where help is."""
        raise ValueError(f"{message}; see `{self.prog} --help`")


def parsed(arguments: Sequence[str], verbs: Mapping[str, Verb]) -> Namespace:
    """The verb and its options; ValueError for wrong usage."""
    parser, verb_parsers = parsers(arguments, verbs)
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        verb_parser = verb_parsers[known.verb]
        option = next((u for u in unknown if u.startswith("-")), None)
        if option is None:
            verb_parser.error(f"did not expect {unknown[0]!r}")
        flags = [flag for action in verb_parser._actions for flag in action.option_strings]
        near = get_close_matches(option.partition("=")[0], flags, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        verb_parser.error(f"unknown option {option}{hint}")
    return known


def parsers(
    arguments: Sequence[str], verbs: Mapping[str, Verb]
) -> tuple[Parser, dict[str, Parser]]:
    """The parser and those of verbs: with options that of the verb in use, or all to complete."""
    every = any(a.partition("=")[0] == "--completion" for a in arguments[:1])
    first = None if every else next((a for a in arguments if not a.startswith("-")), None)
    if first is not None and first not in verbs:
        near = get_close_matches(first, verbs, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(verbs)}"
        raise ValueError(f"unknown verb {first!r}; {hint}")
    parser = Parser(
        prog="svf",
        description="Spiking video transformer: train on a folder of videos, use on a new one.",
        epilog="`svf VERB --help` has an example of each.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__, help="show the version")
    parser.add_argument(
        "--completion",
        action=_Completion,
        verbs=verbs,
        choices=("bash", "zsh", "fish"),
        help="print what makes this shell complete options with the tab key (docs/cli.md)",
    )
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    verb_parsers = {}
    for name, verb in verbs.items():
        does = verb.said("") or ""
        verb_parser = verb_parsers[name] = subparsers.add_parser(
            name,
            help=does[0].lower() + does[1:-1],
            usage=verb.said("Usage: "),
            description=does,
            epilog=f"example:\n  {verb.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if every or name == first:
            add_options(verb_parser, verb.options)
            verb_parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser, verb_parsers


def with_dashes(argument: str) -> str:
    """--batch_size is as good as --batch-size: configuration files have the former."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


class _Completion(argparse.Action):
    def __init__(self, *about: Any, verbs: Mapping[str, Verb], **more: Any) -> None:
        super().__init__(*about, **more)
        self._verbs = verbs

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        _namespace: Namespace,
        values: Any,
        _option: str | None = None,
    ) -> None:
        import shtab

        whole, verb_parsers = parsers(["--completion"], self._verbs)
        for verb_parser in verb_parsers.values():
            for action in verb_parser._actions:
                is_file = action.type is expand_home or action.metavar == "PATH"
                if is_file or action.dest in ("model", "inputs", "videos"):
                    action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab's own
        print(shtab.complete(whole, values))
        parser.exit()
