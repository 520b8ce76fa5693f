"""Sentences of nodes to artists: no words of commands or calls, singular and plural, slots by their names."""

import ast
import re

import pytest
import torch

from tests.support.comfy import ROOT

# Programs and functions that no node calls say what their own callers type.
NOT_REACHED = {
    "__main__.py",
    "convert.py",
    "gguf_write.py",
    "merge.py",
    "targets.py",
    "write.py",
    "context_scale.py",
    "initialize.py",
    "discriminator.py",
}
NOT_SHOWN = {
    "vdot_core/checkpoints/read.py": "nodes always read to one dtype, from one path",
    "vdot_core/checkpoints/survey.py: config=": "nodes give no config",
    "vdot_core/checkpoints/safetensors_files.py: --overwrite": "nodes write no checkpoint over another",
}
CALLS = re.compile(r"(^|\s)--\w|\b[a-z_]+=(\W|$|False|True|None)|\[\.\.\.|\(--")
COUNTED = re.compile(
    r"^ (latent frames|frames|masks|images|pictures|keyframes|references|colors|things|boxes)\b"
)
FIT = {"width": 0, "height": 0, "length": 0}


def sources():
    for folder in (
        "nodes",
        "vdot_core/vcu",
        "vdot_core/signals",
        "vdot_core/checkpoints",
        "vdot_core/networks",
    ):
        for path in sorted((ROOT / folder).glob("*.py")):
            if path.name not in NOT_REACHED and str(path.relative_to(ROOT)) not in NOT_SHOWN:
                yield path


def sentences(tree: ast.AST):
    """(line, text) of what is raised as a ValueError or kept as a problem."""
    for node in ast.walk(tree):
        call = node.exc if isinstance(node, ast.Raise) else node
        if not isinstance(call, ast.Call) or getattr(call.func, "id", "") not in ("ValueError", "Problem"):
            continue
        for part in ast.walk(call):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.lineno, part.value


@pytest.mark.parametrize("path", list(sources()), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_words_of_calls_or_commands(path):
    names = [key.split(": ")[1] for key in NOT_SHOWN if key.startswith(f"{path.relative_to(ROOT)}: ")]
    wrong = [
        f"{path.name}:{line}: {text}"
        for line, text in sentences(ast.parse(path.read_text("utf-8")))
        if CALLS.search(text) and not any(part in text for part in names)
    ]
    assert not wrong


def test_numbers_and_their_nouns_agree():
    """A number in front of a noun goes through `counted`, or is known to be more than one."""
    plural_anyway = {"len(clip)", "count", "difference", "expected", "(total - used)"}
    wrong = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.JoinedStr):
                continue
            for value, text in zip(node.values, node.values[1:], strict=False):
                if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                    number = ast.unparse(value.value)
                    if COUNTED.match(text.value) and number not in plural_anyway:
                        wrong.append(f"{path.name}:{node.lineno}: {{{number}}}{text.value[:20]}")
    assert not wrong


def refusal(run, node_id, **inputs) -> str:
    with pytest.raises(ValueError) as refused:
        run(node_id, **inputs)
    return str(refused.value)


def test_slots_are_named_as_the_node_shows_them(run):
    picture, wrong = torch.rand(1, 32, 32, 3), torch.rand(1, 32, 32, 3) * 99
    size = {"width": 32, "height": 32, "length": 5}
    images = {"image0": picture, "image1": wrong}
    assert refusal(run, "VDOTReference", images=images, **size).startswith("image1 ")
    batch = {"image0": torch.cat([picture, wrong])}
    assert refusal(run, "VDOTReference", images=batch, **size).startswith("image0 (picture 2) ")
    places = {"positions": "0, -1", "length": 9, "width": 0, "height": 0}
    assert refusal(run, "VDOTKeyframes", images=images, **places).startswith("image1 ")
    both = refusal(
        run, "VDOTKeyframes", images={"image0": picture, "image1": picture}, **places | {"positions": "0, 0"}
    )
    assert both.startswith("image0 and image1 are both at frame 0")
    layout = {"boxes": "", **FIT, "masks": {"mask0": torch.ones(5, 32, 32), "mask1": torch.zeros(5, 32, 32)}}
    assert refusal(run, "VDOTLayout", **layout).startswith(
        "mask1 is empty in every frame; make the thing white"
    )
    units = {
        f"unit{index}": run("VDOTControl", frames=torch.rand(5, 32, 32, 3), **FIT).args[0]
        for index in range(2)
    }
    message = refusal(run, "VDOTCompose", units=units)
    assert message.startswith("unit0 (control 32x32, 5 frames) and unit1 (")


def test_one_frame_is_no_plural(run):
    unit = run("VDOTControl", frames=torch.rand(1, 32, 32, 3), **FIT)
    assert unit.ui["text"][0] == "control 32x32, 1 frame"
