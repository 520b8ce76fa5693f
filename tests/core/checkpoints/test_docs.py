"""The commands that the docs show are commands that exist."""

import re
import shlex
from pathlib import Path

import pytest

from vdot_core.checkpoints.__main__ import _parser

ROOT = Path(__file__).resolve().parents[3]
PAGES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_commands_parse(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    commands = re.findall(r"^python -m vdot_core\.checkpoints (\S+ .+)$", text, re.MULTILINE)
    assert commands or page not in ("README.md", "docs/LORA.md", "docs/PUBLISHING.md")
    for command in commands:
        options = _parser().parse_args(shlex.split(command, comments=True))
        assert options.command == command.split()[0]
