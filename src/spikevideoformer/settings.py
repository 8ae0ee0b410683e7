"""Plain values and frozen dataclasses: the one reader for YAML, JSON and flags.

A dataclass says what settings there are; its docstring explains each under `Args:`. Nothing here
needs torch.
"""

from __future__ import annotations

import inspect
import math
import os
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import (
    Any,
    Literal,
    Self,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import yaml

_T = TypeVar("_T")


class Stored:
    """A dataclass of settings that files hold: to plain values and back."""

    _what = "clip setting"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON and YAML have them; `from_dict` reads them back."""
        return plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read plain values; what is left out keeps its default.

        Raises:
            ValueError: an unknown name (the nearest known one is suggested), one that is missing,
                or a value that is not accepted.
        """
        return read_settings(cls, values, what=cls._what)

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Read a YAML file.

        Raises:
            ValueError: the file cannot be read, or as `from_dict`.
        """
        values = read_yaml(path)
        try:
            return cls.from_dict(values)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def read_settings(
    cls: type[_T], values: Mapping[str, Any], *, what: str = "setting", prefix: str = ""
) -> _T:
    """A dataclass from plain values, such as a file or options hold.

    Args:
        cls: the dataclass. Fields that are dataclasses themselves are read from nested values.
        values: by the names of its fields; what is left out keeps its default.
        what: what a field is called in errors.
        prefix: of names in errors.

    Raises:
        ValueError: an unknown name (the nearest known one is suggested), one that is missing, or a
            value that is not accepted.
    """
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]  # a dataclass
    for key in values:
        if key not in known:
            near = get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"unknown {what} {prefix}{key}; {hint}")
    for name, f in known.items():
        if f.default is MISSING and f.default_factory is MISSING and name not in values:
            raise ValueError(f"{what} {prefix}{name} is missing; give it a value")
    hints = get_type_hints(cls)
    given = {
        key: read_settings(hints[key], value, what=what, prefix=f"{prefix}{key}.")
        if is_dataclass(hints[key]) and isinstance(value, Mapping)
        else typed(prefix + key, value, hints[key])
        for key, value in values.items()
    }
    return cls(**given)


def typed(name: str, value: Any, hint: Any) -> Any:
    """`value` as what a type hint asks for, where that loses nothing.

    Args:
        name: of the setting, for the error.
        value: as a file or an option gives it.
        hint: a type, a union or a literal.

    Raises:
        ValueError: the value is something else.
    """
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        origin = get_origin(option) or option
        if origin is Any:
            return value
        if origin is Literal:
            if value in get_args(option):
                return value
        elif origin is tuple and isinstance(value, (list, tuple)):
            return tuple(value)  # its class checks what is inside
        elif origin is Path and isinstance(value, (str, Path)) and str(value):
            return Path(os.path.expanduser(value))
        elif origin is float and not isinstance(value, bool) and _is_number(value):
            return float(value)  # 1e-3 without a dot is text to YAML
        elif isinstance(value, bool):
            if origin is bool:
                return value
        elif isinstance(origin, type) and isinstance(value, origin):
            return value
    raise ValueError(f"{name} is {value!r}; expected {_described(options)}")


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):  # 10**400 of JSON is no float
        return False
    return True


def _described(options: tuple[Any, ...]) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    words |= {Path: "a path", type(None): "null", dict: "key: value pairs"}
    texts = [
        " or ".join(map(str, get_args(option)))
        if get_origin(option) is Literal
        else words.get(get_origin(option) or option, getattr(option, "__name__", str(option)))
        for option in options
    ]
    return ", or ".join(texts)


def check_types(settings: Any) -> None:
    """Bring the fields of a dataclass to their types, in its `__post_init__`; as `typed` does."""
    hints = get_type_hints(type(settings))
    for f in fields(settings):
        value = typed(f.name, getattr(settings, f.name), hints[f.name])
        object.__setattr__(settings, f.name, value)


def require(
    settings: Any,
    *names: str,
    at_least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    at_most: float = math.inf,
) -> None:
    """Raise ValueError for a field that is neither None nor a finite number within these bounds."""
    for name in names:
        value = getattr(settings, name)
        if value is None:
            continue
        if not (at_least <= value <= at_most and above < value < below and abs(value) < math.inf):
            bounds = [f"at least {at_least:g}"] if at_least > -math.inf else [f"above {above:g}"]
            if below < math.inf:
                bounds.append(f"below {below:g}")
            if at_most < math.inf:
                bounds.append(f"at most {at_most:g}")
            raise ValueError(f"{name} is {value!r}; give a number {' and '.join(bounds)}")


def plain(value: Any) -> Any:
    """A setting as JSON and YAML have it; of a dataclass all its fields."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings of which the ones above hide the ones below."""
    both = dict(below)
    for key, value in above.items():
        inner = both.get(key)
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            value = merged(inner, value)
        both[key] = value
    return both


_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _Loader(yaml.SafeLoader):
    """YAML in which 010 is ten, 1:30 is text, and a key that is given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; an error for a key that is there already."""
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        keys = [self.construct_object(key, deep=True) for key in own]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                mark = own[number].start_mark
                raise yaml.YAMLError(f"{key} is given twice, again in line {mark.line + 1}")
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Digits, whatever the first of them is."""
        return int(str(self.construct_scalar(node)))


_Loader.yaml_implicit_resolvers = {
    first: [rule for rule in rules if rule[0] not in _NUMBERS]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_NUMBERS[0], re.compile(r"[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _NUMBERS[1],
    re.compile(
        r"([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)
_Loader.add_constructor(_NUMBERS[0], _Loader.construct_yaml_int)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever `_Loader` would take for something else than text."""


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def yaml_text(values: Mapping[str, Any]) -> str:
    """Plain values as YAML, in their order, which `yaml_value` reads back as they are."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def yaml_value(text: str) -> Any:
    """What a text is in YAML; nothing in it is executed.

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    return yaml.load(text, _Loader)


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file, unchecked.

    Args:
        path: the file.

    Raises:
        ValueError: it cannot be read or does not hold settings.
    """
    try:
        values = yaml_value(path.read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: not valid YAML ({reason}); correct the file") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected lines like `epochs: 20`, got {values!r}")
    return values


def field_docs(cls: type) -> dict[str, str]:
    """What the docstrings of a dataclass and of its bases say of each field."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        name = ""
        for line in (inspect.getdoc(base) or "").partition("Args:")[2].splitlines():
            if found := re.match(r"    (\w+): (.*)", line):
                name = found[1]
                docs[name] = found[2]
            elif name and line.startswith(8 * " "):
                docs[name] += f" {line.strip()}"
            elif line.strip():
                break
    return docs
