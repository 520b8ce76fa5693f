"""The steps of a tokenizer.json, each of which may make a text longer: together they must stay bounded."""

from __future__ import annotations

import base64
import json
import math
import re
from pathlib import Path
from typing import Any

from .files import read_file
from .text import shown

MAX_BYTES = 40_000_000  # that of the largest models has 35 MB
MAX_GROWTH = 1000  # T5's steps: about 100
MAX_TEXT, MAX_ITEMS = 16, 64  # characters that a step adds at a place; steps in a row, ids of a token
_STEPS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
# Keys of objects that are kept: a vocabulary as Python's objects would take 20 times its size.
_KEYS = {*_STEPS, "type", "normalizers", "pretokenizers", "processors", "decoders", "pattern", "content"}
_KEYS |= {"String", "Regex", "single", "pair", "special_tokens", "ids", "prepend", "Sequence", "SpecialToken"}
_KEYS |= {"precompiled_charsmap"}
_ADDED = ("content", "prepend", "prefix", "replacement")


def is_tokenizer(name: str) -> bool:
    """True for tokenizer.json, and for tokenizer.4.0.0.json, of later versions of transformers."""
    return bool(re.fullmatch(r"tokenizer(\.[^/\\]*)?\.json", name))


def check_tokenizer(path: Path) -> None:
    """Refuse a tokenizer.json whose steps make a text longer without bound.

    Raises:
        ValueError: They may, or the file is too large or no JSON.
    """
    try:
        values = json.loads(read_file(path, MAX_BYTES), object_pairs_hook=_kept)
        growth = math.prod(_growth(values.get(step)) for step in _STEPS) if values else 1
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        reason = "brackets nested too deeply" if isinstance(error, RecursionError) else shown(error, 120)
        raise ValueError(f"{shown(path)} is damaged ({reason}); download it again") from error
    if growth > MAX_GROWTH:
        raise ValueError(
            f"{shown(path)} can make a text over {MAX_GROWTH} times as long (by Replace, Precompiled or "
            "TemplateProcessing); download it again, or give another folder"
        )


def _kept(pairs: list[tuple[str, Any]]) -> dict[str, Any] | None:
    """An object of steps; None for a vocabulary, and for what holds no known key."""
    if not any(key in _KEYS for key, _ in pairs):
        inner = [value for _, value in pairs if isinstance(value, dict)]  # by tokens' names
        return {"": inner} if inner else None
    values = dict(pairs)
    if len(pairs) > len(values) and "type" in values:
        raise ValueError("a key stands twice in an object")
    return values


def _growth(step: Any) -> float:
    """Times as long as before that a text may be after a step, and the steps in it; inf for unbounded."""
    if isinstance(step, list):
        return math.prod(map(_growth, step)) if len(step) <= MAX_ITEMS else math.inf
    if not isinstance(step, dict):
        return 1
    if any(isinstance(step.get(key), str) and len(step[key]) > MAX_TEXT for key in _ADDED):
        return math.inf
    growth = math.prod(_growth(value) for key, value in step.items() if key not in ("single", "pair"))
    if isinstance(content := step.get("content"), str):
        # An expression may match between two characters, which stay.
        is_text = isinstance(step.get("pattern"), dict) and step["pattern"].get("String")
        growth *= max(1, len(content)) if is_text else 1 + len(content)
    templates = [step[key] for key in ("single", "pair") if isinstance(step.get(key), (list, str))]
    growth *= max(1, *map(len, templates)) if templates else 1
    if isinstance(table := step.get("precompiled_charsmap"), str):
        growth *= _longest(base64.b64decode(table))
    return growth


def _longest(table: bytes) -> int:
    """Most characters that SentencePiece's table puts in the place of one: a trie, then texts with a null."""
    texts = table[4 + int.from_bytes(table[:4], "little") :].split(b"\0")
    return max(1, *(len(text.decode("utf-8", "replace")) for text in texts))
