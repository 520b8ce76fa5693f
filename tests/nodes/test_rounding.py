"""Every size and length that a node rounds is reported on it, with the number that was asked for."""

import pytest
import torch

from tests.nodes.test_extremes import MORE
from tests.nodes.test_image_kinds import CALLS, made  # noqa: F401
from tests.support.pack import run_node

SIZES = {"width": 70, "height": 54, "length": 8}
ROUNDED = {"width": "64", "height": "48", "length": "5 frames"}
EXACT = {"VDOTDrawPose", "VDOTLoadClip"}  # draws at any size; reads a file, in a test of its own
OTHERS = {
    "VDOTReference": {"images": {"image0": torch.rand(1, 32, 48, 3)}, "masks": {}, "cut_out": "auto"}
    | {"width": 64, "height": 64, "length": 5},
    "VDOTExtend": {"first": torch.rand(1, 32, 48, 3), "length": 9, "width": 0, "height": 0},
    "VDOTKeyframes": {"images": {"image0": torch.rand(1, 32, 48, 3)}, "positions": "0", "length": 9}
    | {"width": 0, "height": 0},
}


def sized(node_classes):
    for node_id, node in node_classes.items():
        names = [entry.id for entry in node.define_schema().inputs if entry.id in SIZES]
        if names and node_id not in EXACT:
            yield node_id, node, names


def test_rounded_sizes_and_lengths_are_reported(node_classes, made):  # noqa: F811
    nodes = list(sized(node_classes))
    assert len(nodes) > 10
    silent = []
    for node_id, node, names in nodes:
        inputs = {**(CALLS | MORE)[node_id], **OTHERS.get(node_id, {})}
        inputs = {key: made.get(v, v) if isinstance(v, str) else v for key, v in inputs.items()}
        for asked in ([name] for name in names), [["width", "height"]] if "width" in names else []:
            for together in asked:
                numbers = {name: SIZES[name] for name in together}
                try:
                    text = " ".join(run_node(node, **{**inputs, **numbers}).ui["text"])
                except ValueError as refusal:
                    text = str(refusal)
                    if "set both" in text:
                        continue
                silent += [
                    f"{node_id} {name} {numbers[name]}: {text}"
                    for name in together
                    if str(numbers[name]) not in text or ROUNDED[name] not in text
                ]
    assert not silent, "\n".join(silent)


@pytest.mark.parametrize("node_id", ["VDOTExtend", "VDOTKeyframes"])
def test_a_length_of_8_becomes_5_in_words(run, node_id):
    out = run(node_id, **{**OTHERS[node_id], "length": 8})
    assert any("length 8 -> 5 frames" in line for line in out.ui["text"])


@pytest.mark.parametrize(
    ("node_id", "inputs"),
    [
        ("VDOTExtend", {"first": torch.rand(6, 32, 48, 3)}),
        ("VDOTKeyframes", {"positions": "6"}),
        ("VDOTKeyframes", {"images": {"image0": torch.rand(5, 32, 48, 3)}, "positions": "0", "clips": True}),
        ("VDOTLayout", {"boxes": "7: 4, 4, 20, 20"}),
        ("VDOTLayout", {"boxes": "7: 4, 4"}),
        ("VDOTLayout", {"boxes": "0: 4, 4, 20, 20", "start_frame": 6}),
        ("VDOTMove", {"image": torch.rand(1, 32, 48, 3), "boxes": "7: 4, 4, 20, 20"}),
        ("VDOTControl", {"frames": torch.rand(5, 32, 48, 3), "start_frame": 6}),
    ],
)
def test_a_refusal_in_the_rounded_length_names_it(run, node_id, inputs):
    fixed = (CALLS | MORE)[node_id] | OTHERS.get(node_id, {})
    with pytest.raises(ValueError, match=r"\(length 8 -> 5 frames \(4n\+1\)\)$"):
        run(node_id, **{**fixed, "length": 8, **inputs})
