"""The names in a node's refusals: those of its own inputs, as an artist sees them."""

import ast
import re

from tests.support.comfy import ROOT

CORE = ("vdot_core/vcu", "vdot_core/signals", "vdot_core/sampling")
SNAKE = re.compile(r"(?<![/.\w])[a-z]+(?:_[a-z]+)+(?![/.\w])")
SUBJECT = re.compile(
    r"^(?:a frame number of )?'?([a-z_]+)'?(?:'s| is| has| ranges| holds| gives| at frame)\b"
)
OWNER = re.compile(r", ([a-z]+) (?:is|has) \d")
# In the data that an estimator gives, and in commands.
OTHERS = {"canvas_width", "canvas_height", "vdot_core"}


def parameters() -> set[str]:
    """Names of the arguments of the functions that nodes call."""
    names = set()
    for folder in CORE:
        for path in (ROOT / folder).rglob("*.py"):
            for part in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(part, ast.FunctionDef):
                    names |= {argument.arg for argument in (*part.args.args, *part.args.kwonlyargs)}
    return names


def inputs_of(node: type) -> set[str]:
    """Names of a node's inputs and outputs, grown ones included."""
    names = set()
    for entry in node.define_schema().inputs:
        names.add(entry.id)
        if hasattr(entry, "template"):
            names |= {entry.template.input.id, *(f"{entry.template.input.id}{i}" for i in range(9))}
    return names | {entry.display_name or entry.id for entry in node.define_schema().outputs}


def foreign_names(text: str, node: type, known: set[str]) -> set[str]:
    """Names in a refusal that look like an input's and are none of this node's.

    Args:
        text: the sentence.
        node: the node that raised it.
        known: what may be taken for an input's name: `parameters`, and the inputs of all nodes.
    """
    own = inputs_of(node) | OTHERS
    subjects = {match[1] for pattern in (SUBJECT, OWNER) for match in pattern.finditer(text)}
    return {name for name in set(SNAKE.findall(text)) | (subjects & known) if name not in own}
