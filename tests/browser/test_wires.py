"""Editors follow values that other nodes give them: through Reroutes, and in and out of subgraphs."""

import pytest

from tests.browser.test_boxes import CONNECT

SET = "([id, value]) => { app.graph.getNodeById(id).widgets[0].value = value }"
SET_WITHIN = """([id, value]) => {
    app.graph.getNodeById(id).subgraph.nodes[0].widgets[0].value = value
}"""
INTO_SUBGRAPH = """(ids) => {
    const nodes = ids.map((id) => app.graph.getNodeById(id))
    return app.graph.convertToSubgraph(new Set(nodes)).node.id
}"""
OPEN_SUBGRAPH = """(id) => {
    const node = app.graph.getNodeById(id)
    app.canvas.openSubgraph(node.subgraph, node)
}"""
CLOSE_SUBGRAPH = "() => app.canvas.setGraph(app.rootGraph ?? app.graph)"
# Wires an input of the first node in an open subgraph to the subgraph's border, as a drag there does.
GIVE_OUT = """(name) => {
    const {subgraph} = app.canvas
    const node = subgraph.nodes[0]
    const slot = node.inputs.findIndex((input) => input.name === name)
    subgraph.addInput(name, "INT").connect(node.inputs[slot], node)
}"""
SET_OUTER = """([id, name, value]) => {
    const widgets = (app.rootGraph ?? app.graph).getNodeById(id).widgets
    widgets.find((widget) => widget.name === name).value = value
}"""
SAID = {
    "VDOTLayout": ("0 / {last}", "guided from the first to the last of {length} frames"),
    "VDOTControl": ("guided from the first to the last of {length} frames",),
    "VDOTExtend": ("{length} in all",),
}


@pytest.fixture
def graph(page):
    page.clear()
    yield page
    page.evaluate(CLOSE_SUBGRAPH)


def wait_for_length(graph, kind: str, length: int) -> None:
    for said in SAID[kind]:
        text = said.format(length=length, last=length - 1)
        graph.page.get_by_text(text).first.wait_for(timeout=20_000)


def test_a_wired_value_that_is_set_is_shown(graph):
    """Set by another pack, or by ComfyUI after a run: no handler is called."""
    number, reroute = graph.add("PrimitiveInt"), graph.add("Reroute")
    graph.evaluate(SET, [number, 33])
    graph.evaluate(CONNECT, [number, reroute, None])
    for place, kind in enumerate(SAID):
        node = graph.add(kind)
        graph.evaluate("([id, x]) => { app.graph.getNodeById(id).pos = [x, 0] }", [node, 450 * place])
        graph.evaluate(CONNECT, [reroute, node, "length"])
    graph.look_at(100, 50, 0.7)
    for length in (33, 49):
        graph.evaluate(SET, [number, length])
        for kind in SAID:
            wait_for_length(graph, kind, length)
    assert graph.our_problems() == []


@pytest.mark.parametrize("within", ["editor", "number"])
def test_values_come_in_and_out_of_subgraphs(graph, within):
    number, node = graph.add("PrimitiveInt"), graph.add("VDOTExtend")
    graph.look_at(100, 50, 0.8)
    graph.evaluate(SET, [number, 33])
    graph.evaluate(CONNECT, [number, node, "length"])
    wait_for_length(graph, "VDOTExtend", 33)
    subgraph = graph.evaluate(INTO_SUBGRAPH, [node if within == "editor" else number])
    if within == "editor":
        graph.evaluate(SET, [number, 49])
        graph.evaluate(OPEN_SUBGRAPH, subgraph)
    else:
        graph.evaluate(SET_WITHIN, [subgraph, 49])
    graph.look_at(100, 50, 0.8)
    wait_for_length(graph, "VDOTExtend", 49)
    assert graph.our_problems() == []


def test_a_widget_of_a_subgraph_counts_as_that_of_its_node(graph):
    subgraph = graph.evaluate(INTO_SUBGRAPH, [graph.add("VDOTExtend")])
    graph.evaluate(OPEN_SUBGRAPH, subgraph)
    graph.evaluate(GIVE_OUT, "length")
    graph.look_at(100, 50, 0.8)
    graph.evaluate(SET_OUTER, [subgraph, "length", 49])
    wait_for_length(graph, "VDOTExtend", 49)
    assert graph.our_problems() == []
