"""Renders a model's chat template, a program of its folder, in a process with limits of time and memory.

transformers' sandbox keeps templates from Python's internals, but not from endless loops or huge texts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from vdot_core.text import shown

from ..paths import ROOT

MAX_TEMPLATE, MAX_TEXT = 200_000, 200_000  # characters; the longest templates have some 20,000
CPU_S, WALL_S = 5, 120  # of the rendering; of its process, which first imports transformers
FREE_BYTES = 1 << 30


@lru_cache(maxsize=64)
def render(template: str, num_pictures: int, question: str, tokens: str) -> str:
    """The text of a dialog that asks a question about pictures.

    Args:
        template: Jinja, as transformers renders it.
        num_pictures: Pictures before the question; the template sees none of their content.
        question: Text after them.
        tokens: JSON of the tokenizer's special tokens, by name.

    Raises:
        ValueError: The template fails, or exceeds a limit.
    """
    if len(template) > MAX_TEMPLATE:
        raise ValueError(f"its chat template has {len(template)} characters, expected at most {MAX_TEMPLATE}")
    content = [{"type": "image"}] * num_pictures + [{"type": "text", "text": question}]
    request = json.dumps([template, [{"role": "user", "content": content}], json.loads(tokens)])
    command = [sys.executable, "-m", __spec__.name]
    try:
        done = subprocess.run(
            command, input=request.encode(), capture_output=True, cwd=ROOT, timeout=WALL_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError("its chat template takes too long") from error
    if done.returncode:
        raise ValueError(
            f"its chat template takes more than {CPU_S} s, or ended its process (status {done.returncode})"
        )
    text, reason = json.loads(done.stdout.splitlines()[-1])
    if reason:
        raise ValueError(reason)
    return text


def _answer() -> None:
    """Render the request of the standard input to the standard output: (text, why there is none)."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    template, messages, tokens = json.load(sys.stdin)
    _limit()
    try:
        options = {"tools": None, "documents": None, "add_generation_prompt": True}
        text = _compile_jinja_template(template).render(**(tokens | options), messages=messages)
        reason = f"its chat template gives {len(text)} characters" if len(text) > MAX_TEXT else ""
    except Exception as error:
        text, reason = "", f"its chat template fails: {type(error).__name__} {shown(error, 80)}"
    sys.stdout.write("\n" + json.dumps(["" if reason else text, reason]) + "\n")


def _limit() -> None:
    """Bound what this process may use from now on, where the system can: Windows has its time alone."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        most = int(used) + CPU_S
        resource.setrlimit(resource.RLIMIT_CPU, (most, most))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + FREE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    _answer()
