"""A page that is reloaded during a run shows what is said of it, on the workflow that it was made from."""

import time

import pytest

from tests.browser.test_panel import shown, wait_for

OTHER = "5f0c5d0e-5b7a-4a31-9a55-0d3c7a1e0002"
STARTED = "() => window.vdotSteps?.length > 0"
PREVIEWED = "() => Number(document.querySelector('.vdot-preview')?.dataset.step ?? 0) > 0"
QUEUE = "async () => { await app.queuePrompt(0) }"
# With the demo model, longer than a reload takes on the same machine.
LONG_RUN = {"width": 128, "height": 128, "length": 65}
MANY_STEPS = 100
# Puts a layout in the place of a node that gives a unit.
REPLACE = """([old, id]) => {
    const [from, to] = [old, id].map((id) => app.graph.getNodeById(id))
    const link = app.graph.getLink(from.outputs[0].links[0])
    to.connect(0, app.graph.getNodeById(link.target_id), link.target_slot)
    app.graph.remove(from)
}"""


@pytest.fixture
def endless(page, server, demo_workflow):
    """The open page in the middle of a long run, its workflow, and the id of its layout."""
    page.clear()
    page.load(demo_workflow)
    (sampler,), (depth,) = page.nodes_of("VDOTSampler"), page.nodes_of("VDOTDepth")
    layout = page.add(
        "VDOTLayout", boxes=f"0: 8, 8, 24, {20 + len(page.renderer)}", **LONG_RUN
    )  # not from the cache
    page.evaluate(REPLACE, [depth, layout])
    page.pick(sampler, "preset", "custom")
    page.pick(sampler, "steps", MANY_STEPS)
    page.set_seed(sampler, time.time_ns() % 2**32)
    page.watch_steps()
    page.evaluate(QUEUE)
    page.page.wait_for_function(STARTED)
    yield page, page.save(), layout
    server.post("/interrupt", {})


@pytest.mark.full
def test_a_reloaded_page_knows_the_workflow_of_the_run(endless, server):
    page, graph, layout = endless
    wait_for(page, layout, "notes", "128x128")
    said = shown(page, layout, "notes")

    page.open()
    page.load({**graph, "id": OTHER})
    page.watch_steps()
    page.page.wait_for_function(STARTED)
    page.page.wait_for_timeout(500)
    assert not page.evaluate(PREVIEWED), "a video of another workflow"

    page.load(graph)
    page.page.wait_for_function(PREVIEWED)
    server.post("/interrupt", {})
    wait_for(page, layout, "notes", said)
    wait_for(page, layout, "strip", "")
    assert page.our_problems() == []
