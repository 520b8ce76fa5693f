"""Console output of the demo: progress, and the final summary."""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from devtools.demo.options import DemoOptions

if TYPE_CHECKING:
    from PIL import Image

WORTH_A_LINE = 0.05  # seconds


class Stages:
    """Names and seconds of the finished stages, in order."""

    def __init__(self):
        self.items: list[tuple[str, float]] = []

    def add(self, name: str, seconds: float) -> None:
        """Note a stage that was measured elsewhere."""
        self.items.append((name, seconds))

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Measure a block; its name is printed when it begins."""
        print(f"[demo] {name} ...", flush=True)
        started = time.monotonic()
        yield
        self.add(name, time.monotonic() - started)


class Progress:
    """Prints a line for each node that took a while; on a terminal the running one counts its steps.

    Args:
        prompt: the prompt that is run, for the nodes' titles.
    """

    def __init__(self, prompt: dict):
        self._titles = {node_id: node["_meta"]["title"] for node_id, node in prompt.items()}
        self._node: str | None = None
        self._started = 0.0
        self._steps = ""

    def __call__(self, kind: str, data: dict) -> None:
        """Take one websocket event."""
        if kind == "executing":
            self.close()
            self._node, self._started, self._steps = data.get("node"), time.monotonic(), ""
            self._show()
        elif kind == "progress" and data.get("node") == self._node:
            self._steps = f"{data['value']}/{data['max']}"
            self._show()

    def close(self) -> None:
        """Finish the line of the node that ran last."""
        if self._node is None:
            return
        seconds = time.monotonic() - self._started
        self._show(clear=True)
        if seconds >= WORTH_A_LINE:
            print(
                f"       {self._titles.get(self._node, self._node):<28}{self._steps:>6}{seconds:>8.1f} s",
                flush=True,
            )
        self._node = None

    def _show(self, *, clear: bool = False) -> None:
        if sys.stdout.isatty() and self._node is not None:
            text = (
                "" if clear else f"       {self._titles.get(self._node, self._node):<28}{self._steps:>6} ..."
            )
            sys.stdout.write("\r\033[K" + text[: shutil.get_terminal_size().columns - 1])
            sys.stdout.flush()


def node_notes(prompt: dict, outputs: dict[str, dict]) -> str:
    """Notes of the pack's nodes about a run, as ComfyUI shows them: a line for each sentence.

    Args:
        prompt: the prompt that was run.
        outputs: each node's UI values, by node id.
    """
    speakers: dict[str, str] = {}  # VDOT Encode repeats what the task's node said
    for node_id, node in prompt.items():
        if node["class_type"].startswith("VDOT"):
            for line in outputs.get(node_id, {}).get("text") or []:
                speakers.setdefault(line, node["_meta"]["title"])
    return "\n".join(f"[demo] {title}: {line}" for line, title in speakers.items())


def closing_words(
    options: DemoOptions, video: Path, sheet: Path, frames: "list[Image.Image]", stages: Stages
) -> str:
    """The final summary: result files, seconds of each stage, and next commands."""
    width, height = frames[0].size
    table = "\n".join(f"  {name:<32}{seconds:>7.1f} s" for name, seconds in stages.items)
    total = sum(seconds for _, seconds in stages.items)
    other = "inpaint" if options.task != "inpaint" else "depth"
    return f"""
{table}
  {"total":<32}{total:>7.1f} s

  video           {video}  ({width}x{height}, {len(frames)} frames)
  contact sheet   {sheet}

The bundled model is tiny: in four steps it draws moving shapes at 64x64, and runs on any machine.
The same nodes run the 14B weights; README.md says where to put them. Next:
  python dev.py demo --task {other}
  python dev.py demo --task text --prompt "a green triangle moving right on a white background" --seed 1
  python dev.py comfy                # the same ComfyUI in your browser"""
