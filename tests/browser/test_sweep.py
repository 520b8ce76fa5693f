"""Every template after a run with the demo: no red node, and nothing lies over anything else."""

import pytest

from devtools.demo.options import read_workflow
from devtools.demo.titles import TITLES

pytestmark = pytest.mark.full

RUN = [name for name in TITLES if not name.startswith("native_")]
SCALE, WINDOW_PX, BORDER_PX = 0.5, 1500, 150
TITLE_PX = 30
# Of every node [name, left, top, right, bottom] in the graph, with its title, as it is drawn.
PLACES = """(title) => app.graph._nodes.map((node) => {
    const drawn = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect()
    const scale = app.canvas.ds.scale
    const own = [node.size[0], node.size[1] + title]
    const [width, height] = drawn ? [drawn.width / scale, drawn.height / scale] : own
    const [left, top] = [node.pos[0], node.pos[1] - title]
    return [`${node.id} ${node.type}`, left, top, left + width, top + height]
})"""
GROUPS = (
    "() => app.graph._groups.map(({title, pos, size}) => [title, ...pos, pos[0] + size[0], pos[1] + size[1]])"
)
RED = """() => app.graph._nodes.filter(
    (node) => node.has_errors || !LiteGraph.registered_node_types[node.type]).map((node) => node.type)"""


@pytest.fixture
def large(page):
    """The open page in a window that shows a template from end to end."""
    before = page.page.viewport_size
    page.page.set_viewport_size({"width": WINDOW_PX, "height": WINDOW_PX})
    yield page
    page.page.set_viewport_size(before)


def meets(one, other) -> bool:
    """Two places have a part in common."""
    (_, left, top, right, bottom), (_, left2, top2, right2, bottom2) = one, other
    return left < right2 and left2 < right and top < bottom2 and top2 < bottom


def overlaps(places) -> list[tuple[str, str]]:
    """Names of places that meet."""
    pairs = ((one, other) for number, one in enumerate(places) for other in places[:number])
    return [(one[0], other[0]) for one, other in pairs if meets(one, other)]


@pytest.mark.parametrize("name", TITLES)
def test_templates_run_and_keep_their_places(large, name):
    workflow = read_workflow(name)
    large.load(workflow)
    left, top = (min(node["pos"][axis] for node in workflow["nodes"]) for axis in (0, 1))
    large.look_at(BORDER_PX - left, 2 * BORDER_PX - top, SCALE)
    if name in RUN:
        assert large.evaluate(RED) == []
        assert large.run() == "execution_success"
        large.page.wait_for_timeout(1500)  # previews and notes come after the run's end
    places, groups = large.evaluate(PLACES, TITLE_PX), large.evaluate(GROUPS)
    assert overlaps(places) == []
    crossing = [(place[0], group[0]) for place in places for group in groups if crosses(place, group)]
    assert crossing == []
    assert large.our_problems() == []


def crosses(place, group) -> bool:
    """A place lies neither inside nor outside of a group."""
    (_, left, top, right, bottom), (_, left2, top2, right2, bottom2) = place, group
    is_inside = left2 <= left and right <= right2 and top2 <= top and bottom <= bottom2
    return meets(place, group) and not is_inside
