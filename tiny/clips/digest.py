"""What the drawn clips were drawn by: anything made from them keeps it, and is refused under other code."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

# What only shows or times clips decides nothing about them; any other module here, a new one too, does.
SHOWING = ("__init__.py", "digest.py", "render_examples.py", "speed.py")


def drawing_sources() -> tuple[Path, ...]:
    """The modules that decide what is drawn, annotated and captioned, in the order of their names."""
    folder = Path(__file__).parent
    return tuple(sorted(path for path in folder.glob("*.py") if path.name not in SHOWING))


@cache
def drawing_digest() -> str:
    """Identifies the code that draws the clips, read once in a process.

    Returns:
        The first 16 hexadecimal digits of the SHA-256 of `drawing_sources`, names and texts. Line endings do
        not count: a checkout on another system draws the same.
    """
    total = hashlib.sha256()
    for path in drawing_sources():
        total.update(f"{path.name}\0{path.read_text(encoding='utf-8')}\0".encode())
    return total.hexdigest()[:16]
