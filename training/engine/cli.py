"""YAML files and the command line to a run's configuration; after an unknown key the nearest is named."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Generic, TypeVar, get_type_hints

import yaml
from jsonargparse import (
    ArgumentError,
    ArgumentParser,
    DefaultHelpFormatter,
    Namespace,
    set_loader,
)

from vdot_core.files import read_file
from vdot_core.text import described, shown

from ..paths import ROOT
from .yaml_text import MAX_CHARACTERS, load_yaml

Config = TypeVar("Config")
MAX_BYTES = 4 * MAX_CHARACTERS  # of UTF-8
# Files that a run reads: keys whose last part is one of these.
INPUTS = (
    "path",
    "vae",
    "text_encoder",
    "start_from",
    "real_score",
    "generator",
    "fake_score",
    "acc_wan_init",
)
# Folders that a run writes: empty, as of a shell variable without a value, they are the working directory.
OUTPUTS = ("out_dir", "cache_dir")
MAX_INTEGER = 10**20 - 1  # a JSON file of ours is read with as many digits
set_loader("yaml", load_yaml, (yaml.YAMLError,))


class Formatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the lines of a description as they are."""


class RunParser(Generic[Config]):
    """Parser of a dataclass of settings: a key for every field, explained by the class's docstring.

    Args:
        config_class: Dataclass of the settings.
        recipes: Name -> dotted keys with other defaults; the key `recipe` chooses.
        prog: Name of the program in messages.
        description: First lines of `--help`.

    Attributes:
        parser: The `jsonargparse.ArgumentParser`; a program may add arguments that are no keys.
    """

    def __init__(
        self,
        config_class: type[Config],
        recipes: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        prog: str | None = None,
        description: str | None = None,
    ) -> None:
        self.config_class, self.recipes = config_class, recipes or {}
        self.parser = ArgumentParser(
            prog=prog,
            description=description,
            exit_on_error=False,
            allow_abbrev=False,
            formatter_class=Formatter,
        )
        self.parser.add_argument("--config", action="config", help="YAML file with the keys below")
        self.parser.add_class_arguments(config_class, nested_key=None)

    def read(self, argv: Sequence[str]) -> tuple[Config, Namespace]:
        """Parse a command line such as `--config FILE --losses.eps 0.1`.

        Args:
            argv: Without the program's name.

        Returns:
            The configuration, and all values, for arguments that are no keys of it. `--help` and
            `--print_config` print and end the program.

        Raises:
            ValueError: A key is unknown (the nearest is named), a value is of a wrong type or out of range.
        """
        for key, value in _options(argv):
            if key == "config":
                check_file(value, self.config_class)
            else:
                _check_groups_files({key: value}, self.config_class, "")
        # The recipe's defaults must be there before --print_config prints.
        plain = [word for word in argv if not word.startswith("--print_config")]
        return self._read(lambda: self.parser.parse_args(plain), lambda: self.parser.parse_args(list(argv)))

    def read_values(self, values: Mapping[str, Any]) -> Config:
        """A configuration from nested or dotted keys; errors as `read`."""
        _check_groups_files(values, self.config_class, "")
        parse = partial(self.parser.parse_object, nest(values))
        return self._read(parse, parse)[0]

    def _read(
        self, first: Callable[[], Namespace], second: Callable[[], Namespace]
    ) -> tuple[Config, Namespace]:
        """Parse once to know the recipe, and again with its defaults."""
        try:
            self.parser.set_defaults(dict(self.recipes.get(getattr(first(), "recipe", None), {})))
            values = second()
            _check_groups(self.config_class, values)
            check_values(values.as_dict())
            ready = self.parser.instantiate(values)
        except ArgumentError as error:
            raise ValueError(self._explained(str(error))) from error
        values = {f.name: getattr(ready, f.name) for f in dataclasses.fields(self.config_class)}
        return find_inputs(self.config_class(**values)), ready

    def _explained(self, message: str) -> str:
        """jsonargparse's message in one line, with the nearest known key after an unknown one."""
        message = shown(" ".join(message.split()), 300)
        group = re.search(r'"([\w.]+)": Unable to load config', message)
        if group:
            return (
                f"{group[1]} is a group of keys; give them one by one (--{group[1]}.NAME), or a file of them"
            )
        unknown = re.search(r"unrecognized arguments: --([\w.]+)", message)
        in_group = re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message)
        in_file = re.search(r"Option '([\w.]+)' is not accepted|No action for key \"([\w.]+)\"", message)
        if unknown:
            key = unknown[1]
        elif in_group:
            key = f"{in_group[1]}.{in_group[2]}"
        elif in_file:
            key = in_file[1] or in_file[2]
        else:
            return message
        return f"unknown key {key}{self._hint(key)} ({message})"

    def _hint(self, key: str) -> str:
        keys = [action.dest for action in self.parser._actions if action.dest != "help"]
        near = difflib.get_close_matches(key, keys, 1, 0.7)
        if not near:
            ends = {name.rpartition(".")[2]: name for name in reversed(keys)}
            near = [ends[n] for n in difflib.get_close_matches(key.rpartition(".")[2], list(ends), 1, 0.6)]
        return f"; did you mean {near[0]}?" if near else "; --help lists all keys"


def _options(argv: Sequence[str]) -> list[tuple[str, str]]:
    """Names of a command line's options, with their values."""
    after = [(option[2:], word) for option, word in pairwise(argv) if option.startswith("--")]
    parts = [word[2:].partition("=") for word in argv if word.startswith("--")]
    return after + [(name, value) for name, equals, value in parts if equals]


def _check_groups_files(values: Mapping[str, Any], config_class: type, folder: str) -> None:
    """Refuse files that are given for a group of keys and are none: jsonargparse would wait for a pipe.

    Args:
        values: Nested or dotted keys.
        config_class: Dataclass of the keys.
        folder: That relative names of files start from.
    """
    values, kinds = nest(values), get_type_hints(config_class)
    for name, kind in kinds.items():
        value = values.get(name)
        if not dataclasses.is_dataclass(kind):
            continue
        if isinstance(value, Mapping):
            _check_groups_files(value, kind, folder)
        elif isinstance(value, str):
            path = os.path.join(folder, os.path.expanduser(value))
            if os.path.exists(path) and not os.path.isdir(path):
                check_file(path, kind)


def check_file(path: str, config_class: type | None = None) -> None:
    """Refuse a configuration that is no file of keys; ValueError names it.

    Args:
        path: The file.
        config_class: Dataclass of its keys, whose groups may be files too.
    """
    text = read_file(path, MAX_BYTES)
    try:
        values = load_yaml(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(path)} is not UTF-8 ({shown(error, 80)}); save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{shown(path)} is no YAML ({shown(error, 200)}); correct it") from error
    if not isinstance(values, dict):
        kind = "nothing" if values is None else f"a {type(values).__name__}"
        raise ValueError(f"{shown(path)} holds {kind}, expected keys and values such as `seed: 1`")
    if config_class:
        names = {str(name): value for name, value in values.items()}
        _check_groups_files(names, config_class, os.path.dirname(path))


def _check_groups(config_class: type, values: Namespace, prefix: str = "") -> None:
    """Refuse null for a group of keys, of which jsonargparse knows no error."""
    for name, kind in get_type_hints(config_class).items():
        if dataclasses.is_dataclass(kind):
            group = values.get(f"{prefix}{name}", ...)
            if group is None:
                some = ", ".join(field.name for field in dataclasses.fields(kind)[:3])
                raise ValueError(
                    f"{prefix}{name} is null, expected keys ({some}, ..); leave it out, or give some"
                )
            _check_groups(kind, values, f"{prefix}{name}.")


def check_values(values: Any, key: str = "") -> None:
    """Refuse values that no key or option of a program can have.

    Args:
        values: Of one key, or nested ones by their names.
        key: Dotted name of the group, for the message.

    Raises:
        ValueError: A number is not finite or has more than 20 digits, a text holds a null byte, or a folder
            to write is
            empty or named by bytes that are no UTF-8.
    """
    if isinstance(values, float) and not math.isfinite(values):
        raise ValueError(f"{key} is {values}; expected a finite number")
    if isinstance(values, int) and abs(values) > MAX_INTEGER:
        raise ValueError(f"{key} is {described(values)}; expected at most 20 digits")
    if isinstance(values, str) and "\0" in values:
        raise ValueError(f"{key} is {described(values)}, which holds a null byte; give it without")
    if isinstance(values, str) and not values.strip() and key.rpartition(".")[2] in OUTPUTS:
        raise ValueError(f"{key} is empty; give a folder")
    if isinstance(values, str) and key.rpartition(".")[2] in OUTPUTS and not _is_utf8(values):
        raise ValueError(f"{key} is {described(values)}, whose bytes are no UTF-8; give another folder")
    if isinstance(values, Mapping):
        for name, value in values.items():
            check_values(value, f"{key}.{name}" if key else str(name))
    elif isinstance(values, (list, tuple)):
        for value in values:
            check_values(value, key)


def _is_utf8(text: str) -> bool:
    """False for a name of other bytes: SQLite, Parquet and FFmpeg write no file of such a name."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys to nested ones: {"a.b": 1} -> {"a": {"b": 1}}."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *parents, name = key.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = {**place.get(name, {}), **value} if isinstance(value, Mapping) else value
    return nested


def find_inputs(config: Config) -> Config:
    """Find bundled files such as assets/vdot_tiny.safetensors from any directory, and ~/ in the user's home.

    A relative path of an input that is not in the working directory but is in this repository becomes the
    latter. Outputs (out_dir, cache_dir) are relative to the working directory, always.
    """
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        before = getattr(config, field.name)
        # A shell does so on a command line, and nobody does in a file.
        value = [_at_home(v) for v in before] if isinstance(before, list) else _at_home(before)
        if value != before:
            changes[field.name] = value
        if dataclasses.is_dataclass(value):
            changes[field.name] = find_inputs(value)
        elif isinstance(value, list):
            changes[field.name] = [find_inputs(v) if dataclasses.is_dataclass(v) else v for v in value]
        elif field.name in INPUTS and isinstance(value, str) and not os.path.exists(value):
            # `Path.exists` raises for names that are too long.
            bundled = os.path.join(ROOT, value)
            changes[field.name] = bundled if os.path.exists(bundled) else value
    return dataclasses.replace(config, **changes)


def _at_home(value: Any) -> Any:
    """A path that starts with ~/ from the root; any other value as it is."""
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~/") else value
