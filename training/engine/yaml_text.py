"""YAML from outside, read with care: some short texts crash the libraries' readers or take them minutes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from jsonargparse import get_loader

from vdot_core.text import shown

# Of one file: references to references, each several times, are copied and double with each level.
MAX_ALIASES = 16
MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 50  # the fast reader calls itself for each level, and overflows the stack
MAX_DIGITS = 64
NUMBER = re.compile(r"[-+]?[0-9a-fA-FxXo._:]+")  # of base 60, too: 1:30:00
TEXT = "tag:yaml.org,2002:str"
_load = get_loader("yaml")
_EVENTS = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class _Collection:
    """A list or a mapping that is being read."""

    is_mapping: bool
    anchor: str | None
    keys: set[str] = field(default_factory=set)
    at_key: bool = True


def load_yaml(text: str) -> Any:
    """Read YAML of a configuration or of a value.

    Raises:
        yaml.YAMLError: It is no YAML, is too long or too deep, has a key twice, refers back to values too
            often or to a value around it, or has numbers of hundreds of digits.
    """
    if len(text) > MAX_CHARACTERS:
        raise yaml.YAMLError(f"{len(text)} characters, expected at most {MAX_CHARACTERS}")
    try:
        _check(text)
        return _load(text)
    except ValueError as error:  # such as a date of month 13, or bytes that are not UTF-8
        raise yaml.YAMLError(shown(error, 120)) from error


def _check(text: str) -> None:
    """Follow the text's events, of which no value is made."""
    num_aliases, parents = 0, []
    for event in yaml.parse(text, _EVENTS):
        if isinstance(event, yaml.CollectionEndEvent):
            parents.pop()
            continue
        if isinstance(event, yaml.NodeEvent) and parents and parents[-1].is_mapping:
            _check_key(parents[-1], event)
        if isinstance(event, yaml.AliasEvent):
            num_aliases += 1
            if any(parent.anchor == event.anchor for parent in parents):
                raise yaml.YAMLError(f"*{shown(event.anchor, 40)} is a part of itself; write the value out")
        elif isinstance(event, yaml.ScalarEvent):
            digits, is_text = event.value, not event.implicit[0] and event.tag in (None, "!", TEXT)
            if not is_text and len(digits) > MAX_DIGITS and NUMBER.fullmatch(digits):
                raise yaml.YAMLError(f"a number of {len(digits)} digits; put text in quotes")
        elif isinstance(event, yaml.CollectionStartEvent):
            parents.append(_Collection(isinstance(event, yaml.MappingStartEvent), event.anchor))
            if len(parents) > MAX_DEPTH:
                raise yaml.YAMLError(f"nested more than {MAX_DEPTH} levels deep; give plain settings")
    if num_aliases > MAX_ALIASES:
        raise yaml.YAMLError(
            f"{num_aliases} aliases (*name), expected at most {MAX_ALIASES}; write the values out"
        )


def _check_key(parent: _Collection, event: yaml.NodeEvent) -> None:
    """Refuse a key that stands twice: the last one would count, without a word."""
    if parent.at_key and isinstance(event, yaml.ScalarEvent):
        if event.value in parent.keys:
            line = event.start_mark.line + 1
            raise yaml.YAMLError(
                f"the key {shown(event.value, 40)} stands twice, the second time in line {line}; keep one"
            )
        parent.keys.add(event.value)
    parent.at_key = not parent.at_key
