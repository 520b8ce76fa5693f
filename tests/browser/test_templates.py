"""Templates as a newcomer meets them: by address, with an optional group, lacking models, as one node."""

import pytest

from devtools.demo.options import read_workflow
from tests.workflows.native_tasks import URLS, WAN_CHOICES

MODES = "() => Object.fromEntries(app.graph._nodes.map((node) => [node.id, node.mode]))"
SUBJECT = "Optional: a subject from a picture"
GROUP_PLACE = "(title) => [...app.graph._groups.find((group) => group.title === title).pos]"
# Inputs of the blueprints; those that wires give, by the node and the output that they come from.
BLUEPRINTS = {
    "VDOT Depth to video": ["model", "clip", "vae", "depth", "text", "seed"],
    "VDOT Inpaint": ["model", "clip", "vae", "frames", "mask", "text", "seed"],
    "VDOT Reference to video": ["model", "clip", "vae", "size", "image", "mask", "text", "seed"],
    "VDOT Extend a clip": ["model", "clip", "vae", "size", "first", "length", "text", "seed"],
}
WIRES = {
    **{name: ("load", slot) for slot, name in enumerate(("model", "clip", "vae", "size"))},
    **dict.fromkeys(("depth", "frames", "first"), ("clip", 0)),
    **{"image": ("picture", 0), "mask": ("mask", 0)},
}
# Where an output and an input are on the page.
SOCKETS = """([source, output, target, input]) => {
    const {scale, offset} = app.canvas.ds, {left, top} = app.canvas.canvas.getBoundingClientRect()
    const [from, to] = [source, target].map((id) => app.graph.getNodeById(id))
    const places = [from.getOutputPos(output), to.getInputPos(input)]
    return places.map(([x, y]) => [left + (x + offset[0]) * scale, top + (y + offset[1]) * scale])
}"""
LINKED = """([source, output, target, input]) => {
    const number = app.graph.getNodeById(target).inputs[input].link
    const link = number == null ? null : app.graph.getLink(number)
    return link && String(link.origin_id) === String(source) && link.origin_slot === output
}"""
CANVAS_PLACE = """() => {
    const {left, top} = app.canvas.canvas.getBoundingClientRect()
    return [left, top]
}"""


def modes(name: str) -> dict[str, int]:
    """Node number -> mode of a shipped task."""
    return {str(node["id"]): node["mode"] for node in read_workflow(name)["nodes"]}


def draw_wire(page, source: tuple, target: tuple) -> None:
    """Drag from an output to an input, each a node and the number of its socket."""
    start, end = page.evaluate(SOCKETS, [*source, *target])
    mouse = page.page.mouse
    mouse.move(*start)
    mouse.down()
    mouse.move(*end, steps=6)
    mouse.up()
    page.page.wait_for_function(LINKED, arg=[*source, *target], timeout=10_000)


def choose_of_group(page, title: str, label: str, expected: dict[str, int]) -> None:
    """Right-click a group's title, click an entry of its menu (the note names it too), and see the modes."""
    x, y = page.evaluate(GROUP_PLACE, title)
    page.look_at(200 - x, 300 - y, 0.6)
    left, top = page.evaluate(CANVAS_PLACE)
    page.page.mouse.click(left + 0.6 * 260, top + 0.6 * 314, button="right")
    page.page.get_by_text(label, exact=True).and_(page.page.locator(":not(em)")).click()
    page.wait_for_value(MODES, None, expected)


def test_an_address_opens_a_task_with_its_group_switched_on(page):
    address, page.address = page.address, f"{page.address}/?template=vdot_reference_depth&source=ComfyUI-VDOT"
    try:
        page.open()
    finally:
        page.address = address
    page.page.wait_for_function("() => app.graph._nodes.some((node) => node.type === 'VDOTReference')")
    page.wait_for_value(MODES, None, modes("vdot_reference_depth"))
    page.clear()
    assert page.our_problems() == []


def test_a_group_is_switched_by_its_menu(page):
    page.load(read_workflow("vdot_depth"))
    assert page.evaluate(MODES) == modes("vdot_depth")
    choose_of_group(page, SUBJECT, "Set Group Nodes to Always", modes("vdot_reference_depth"))
    assert page.run() == "execution_success"
    choose_of_group(page, SUBJECT, "Bypass Group Nodes", modes("vdot_depth"))
    assert page.our_problems() == []


def test_missing_model_files_are_offered_for_download(page):
    """By the page itself, which compares `properties.models` with the values of widgets."""
    page.load(read_workflow("native_sdpose"))
    page.page.get_by_role("button", name="View details").click()
    files = [url.rsplit("/", 1)[1] for url in URLS if "depth_anything" not in url and "sam3" not in url]
    assert WAN_CHOICES["vae"] in files and len(files) == 4
    for file in files:
        page.page.get_by_text(file).last.wait_for()
    page.clear()
    assert page.our_problems() == []


@pytest.mark.parametrize(
    "name",
    [
        name if name == "VDOT Depth to video" else pytest.param(name, marks=pytest.mark.full)
        for name in BLUEPRINTS
    ],
)
def test_a_blueprint_is_found_by_search_wired_by_mouse_and_run(page, name):
    page.clear()
    page.add_by_search(name)
    page.page.wait_for_function("() => app.graph._nodes.length === 1 && app.graph._nodes[0].isSubgraphNode()")
    blueprint = page.evaluate("() => app.graph._nodes[0].id")
    names = page.evaluate("() => app.graph._nodes[0].inputs.map((input) => input.name)")
    assert names == BLUEPRINTS[name]
    file = {"VDOT Depth to video": "depth.mp4", "VDOT Extend a clip": "start.mp4"}.get(name, "clip.mp4")
    sources = {
        "load": page.add("VDOTLoad"),
        "clip": page.add("VDOTLoadClip", file=file, length=5),
        "picture": page.add("LoadImage", image="subject.png"),
        "mask": page.add("LoadImageMask", image="mask.png", channel="red"),
    }
    save = page.add("PreviewImage")
    places = [
        *zip(sources.values(), [(0, 0), (0, 450), (340, 0), (340, 450)], strict=True),
        *((blueprint, (700, 0)), (save, (1100, 0))),
    ]
    for node, place in places:
        page.evaluate("([id, pos]) => { app.graph.getNodeById(id).pos = pos }", [node, list(place)])
    page.look_at(140, 130, 0.8)
    for slot, entry in enumerate(names):
        if entry in WIRES:
            kind, output = WIRES[entry]
            draw_wire(page, (sources[kind], output), (blueprint, slot))
    draw_wire(page, (blueprint, 0), (save, 0))
    assert page.run() == "execution_success"
    assert page.our_problems() == []
    page.clear()
    page.wait_for_open_bitmaps(0)  # of the sampler inside
