"""Every number of every node at its widget's bounds, one by one and in pairs, with little memory to use."""

from itertools import combinations

import pytest

from tests.nodes.fuzz import check_sentence
from tests.nodes.test_image_kinds import CALLS, made, skip_without_parts  # noqa: F401
from tests.support.memory import Resident
from tests.support.pack import run_node, submodule

FREE_BYTES = 3e8
POINTS = [20.0, 30.0, 1.0] * 18
KEYPOINTS = [{"people": [{"pose_keypoints_2d": POINTS}], "canvas_width": 64, "canvas_height": 64}]
MORE = {
    "VDOTText": {"width": 64, "height": 64, "length": 5},
    "VDOTLayout": {"boxes": "0: 4, 4, 20, 20", "width": 64, "height": 64, "length": 5},
    "VDOTDrawPose": {"keypoints": KEYPOINTS, "width": 0, "height": 0, "face": True, "hands": True},
}


def numbers(node):
    return [entry for entry in node.define_schema().inputs if entry.get_io_type() in ("INT", "FLOAT")]


def alone(node):
    entries = numbers(node)
    yield from ({entry.id: bound} for entry in entries for bound in (entry.min, entry.max))
    yield {entry.id: entry.max for entry in entries}
    yield {entry.id: entry.min for entry in entries}


def in_pairs(node):
    yield from ({one.id: one.max, other.id: other.max} for one, other in combinations(numbers(node), 2))


@pytest.mark.parametrize("node_id", sorted(CALLS | MORE))
@pytest.mark.parametrize("bounds", [alone, pytest.param(in_pairs, marks=pytest.mark.full)])
def test_bounds_of_widgets_stay_within_memory(node_classes, made, monkeypatch, node_id, bounds):  # noqa: F811
    skip_without_parts(node_id)
    monkeypatch.setattr(submodule("vdot_core.memory"), "available_bytes", lambda: FREE_BYTES)
    inputs = (CALLS | MORE)[node_id]
    inputs = {
        key: made.get(value, value) if isinstance(value, str) else value for key, value in inputs.items()
    }
    resident = Resident()
    for extreme in bounds(node_classes[node_id]):
        resident.start()
        try:
            run_node(node_classes[node_id], **{**inputs, **extreme})
        except ValueError as refusal:
            check_sentence(str(refusal))
        assert resident.grown_bytes() < 2 * FREE_BYTES, extreme
