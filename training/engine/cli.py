"""YAML and the command line to a `DistillConfig`; an unknown key is refused, and the nearest one named."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..methods.recipes import RECIPES
from .config import DistillConfig

ROOT = Path(__file__).resolve().parents[2]
INPUTS = {
    "model": ("real_score", "generator", "fake_score", "acc_wan_init"),
    "data": ("path", "vae", "text_encoder"),
    "log": ("vae",),
}
DESCRIPTION = """Distil a few-step generator; under torchrun it is spread over many processes.
Instead of training: --plan says what the run needs of its GPUs (its options are at the end); --export
FILE.safetensors writes the newest checkpoint's averaged generator, as VDOTLoadModel reads it."""


def _documented(cls: type) -> dict[str, str]:
    """Field -> its line in the class's `Attributes:` section."""
    _, _, section = (cls.__doc__ or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        head = re.match(r" {8}([a-z]\w*(?:, [a-z]\w*)*): (.*)", line)
        if head:
            names = head[1].split(", ")
            found.update(dict.fromkeys(names, head[2].strip()))
        elif line.strip():
            found.update({name: f"{found[name]} {line.strip()}" for name in names})
    return found


def _leaves(cls: type, prefix: str = "") -> dict[str, tuple[Any, Any, str]]:
    """Dotted key -> (type, default, help), in the order of the fields."""
    hints, texts, leaves = typing.get_type_hints(cls), _documented(cls), {}
    for field in dataclasses.fields(cls):
        kind, key = hints[field.name], prefix + field.name
        if dataclasses.is_dataclass(kind):
            leaves |= _leaves(kind, key + ".")
            continue
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        leaves[key] = (kind, default, texts.get(field.name, ""))
    return leaves


def known_keys() -> list[str]:
    """Every dotted key of a run's configuration."""
    return list(_leaves(DistillConfig))


def _flatten(values: Mapping[str, Any], keys: Sequence[str], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        inner = any(known.startswith(key + ".") for known in keys)
        if isinstance(value, Mapping) and (inner or key not in keys):
            flat |= _flatten(value, keys, key + ".")
        elif not (inner and value is None):
            flat[key] = value
    return flat


def _check_keys(
    given: Sequence[str], keys: Sequence[str], where: str, otherwise: str = "--help lists all keys"
) -> None:
    for key in given:
        # A key may reach into a mapping such as data.task_weights.depth.
        if key in keys or any(key.startswith(known + ".") for known in keys):
            continue
        near = difflib.get_close_matches(key, keys, 1, 0.7)
        ends = {known.rpartition(".")[2]: known for known in reversed(keys)}
        near = near or [
            ends[n] for n in difflib.get_close_matches(key.rpartition(".")[2], list(ends), 1, 0.6)
        ]
        hint = f"; did you mean {near[0]}?" if near else f"; {otherwise}"
        if where == "command line":
            from ..planning.arguments import option_of

            hint = ", which goes with --plan" if option_of(key) else hint
        raise ValueError(f"{where}: unknown key {key}{hint}")


def _check_entries(values: Mapping[str, Any], where: str) -> None:
    """As `_check_keys`, of the entries of lists such as data.groups; a command line's are text as yet."""
    import yaml

    for key, (kind, _, _) in _leaves(DistillConfig).items():
        inner = typing.get_args(kind)
        if key not in values or typing.get_origin(kind) is not list or not dataclasses.is_dataclass(inner[0]):
            continue
        entries, fields = values[key], list(_leaves(inner[0]))
        if isinstance(entries, str):
            try:
                entries = yaml.safe_load(entries)
            except yaml.YAMLError:
                # The parser says what it expects.
                continue
        for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
            if isinstance(entry, Mapping):
                place, otherwise = f"{where}, {key}[{number}]", f"an entry has {', '.join(fields)}"
                _check_keys([str(name) for name in entry], fields, place, otherwise)


def _read_yaml(path: str | Path, keys: Sequence[str]) -> dict[str, Any]:
    import yaml

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"--config {path}: there is no such file")
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"--config {path}: not YAML: {error}") from error
    if not isinstance(values, Mapping):
        raise ValueError(f"--config {path}: holds a {type(values).__name__}; expected keys and values")
    flat = _flatten(values, keys)
    _check_keys(list(flat), keys, str(path))
    _check_entries(flat, str(path))
    return flat


def _overrides(argv: Sequence[str]) -> dict[str, str]:
    """`--key value` and `--key=value` of a command line, but for what the parser itself brings."""
    given = {}
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        if word.startswith("--"):
            name, joined, value = word[2:].partition("=")
            if name not in ("config", "help", "print_config"):
                given[name.rstrip("+")] = value if joined else following
    return given


def build_parser(recipe: str = "corrected"):
    """The parser of all keys, with a recipe's defaults.

    Args:
        recipe: A name in `RECIPES`.

    Returns:
        A jsonargparse parser.
    """
    from jsonargparse import ArgumentParser, DefaultHelpFormatter

    from ..planning.arguments import plan_help

    class Formatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
        """Leaves the lines of description and plan as they are."""

    if recipe not in RECIPES:
        raise ValueError(f"recipe is {recipe!r}; expected one of {', '.join(RECIPES)}")
    texts = {"description": DESCRIPTION, "epilog": plan_help()}
    parser = ArgumentParser(prog="python training/distill.py", formatter_class=Formatter, **texts)
    parser.add_argument("--config", action="config", help="YAML file with the keys below")
    leaves = _leaves(DistillConfig)
    for key, (kind, default, text) in leaves.items():
        given = RECIPES[recipe].get(key, default)
        note = text.replace("%", "%%")
        changed = [f"{name}: {table[key]}" for name, table in RECIPES.items() if key in table]
        parser.add_argument(
            f"--{key}", type=kind, default=given, help=note + (f" ({', '.join(changed)})" if changed else "")
        )
    unknown = [key for table in RECIPES.values() for key in table if key not in leaves]
    assert not unknown, f"recipes set {unknown}, which are no keys"
    return parser


def _from_namespace(parser: Any, parsed: Any) -> DistillConfig:
    # Instantiating makes the entries of lists, such as data.groups, the dataclasses that they are.
    return _construct(DistillConfig, parser.instantiate(parsed))


def _construct(cls: type, values: Any) -> Any:
    hints, arguments = typing.get_type_hints(cls), {}
    for field in dataclasses.fields(cls):
        value = getattr(values, field.name)
        nested = dataclasses.is_dataclass(hints[field.name])
        arguments[field.name] = _construct(hints[field.name], value) if nested else value
    return cls(**arguments)


def make_config(values: Mapping[str, Any]) -> DistillConfig:
    """A configuration from nested (or dotted) keys, as a YAML file's.

    Args:
        values: Keys that differ from the recipe's defaults.

    Returns:
        The configuration.

    Raises:
        ValueError: a key is not known, or a value is of the wrong type or out of range.
    """
    from jsonargparse import ArgumentError

    keys = known_keys()
    flat = _flatten(values, keys)
    _check_keys(list(flat), keys, "configuration")
    _check_entries(flat, "configuration")
    parser = build_parser(str(flat.get("recipe", "corrected")))
    parser.exit_on_error = False
    try:
        return _from_namespace(parser, parser.parse_object(_nest(flat)))
    except ArgumentError as error:
        raise ValueError(str(error)) from error


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, name = key.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return nested


@dataclasses.dataclass(frozen=True)
class Command:
    """What the command line asks for.

    Attributes:
        config: The run.
        export: Where to write the newest checkpoint's generator; None: train.
    """

    config: DistillConfig
    export: str | None


def parse_command(argv: Sequence[str] | None = None) -> Command:
    """Read `--config FILE`, overrides such as `--losses.eps 0.1`, and the program's flags.

    Args:
        argv: Command line without the program's name; None reads the process's own.

    Returns:
        The command; `--help` and `--print_config` print and end the program.

    Raises:
        ValueError: an unknown key (the nearest is named), or a value out of range.
    """
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--export")
    own, argv = flags.parse_known_args(sys.argv[1:] if argv is None else list(argv))
    keys = known_keys()
    given = _overrides(argv)
    recipe = "corrected"
    for path in _config_files(argv):
        recipe = str(_read_yaml(path, keys).get("recipe", recipe))
    _check_keys(list(given), keys, "command line")
    _check_entries(given, "command line")
    parser = build_parser(given.get("recipe", recipe))
    config = _from_namespace(parser, parser.parse_args(argv))
    return Command(find_inputs(config), own.export)


def find_inputs(config: DistillConfig) -> DistillConfig:
    """Bundled files such as assets/vdot_tiny.safetensors are found from any directory.

    A relative path of an input that is not in the working directory but is in this repository becomes the
    latter. What is written (out_dir, cache_dir) is relative to the working directory, always.
    """

    def found(path: Any) -> Any:
        if not isinstance(path, str) or Path(path).exists() or not (ROOT / path).exists():
            return path
        return str(ROOT / path)

    sections = {
        section: dataclasses.replace(
            getattr(config, section),
            **{name: found(getattr(getattr(config, section), name)) for name in names},
        )
        for section, names in INPUTS.items()
    }
    return dataclasses.replace(config, **sections)


def _config_files(argv: Sequence[str]) -> list[str]:
    after = [argv[i + 1] for i, word in enumerate(argv[:-1]) if word == "--config"]
    return after + [word.partition("=")[2] for word in argv if word.startswith("--config=")]
