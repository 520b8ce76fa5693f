"""Templates as a newcomer meets them: by address, with an optional group, lacking models, as one node."""

import pytest

from devtools.demo.options import read_workflow
from tests.workflows.native_tasks import URLS, WAN_CHOICES

MODES = "() => Object.fromEntries(app.graph._nodes.map((node) => [node.id, node.mode]))"
SUBJECT = "Optional: a subject from a picture"
GROUP_PLACE = "(title) => [...app.graph._groups.find((group) => group.title === title).pos]"
CANVAS_PLACE = """() => {
    const {left, top} = app.canvas.canvas.getBoundingClientRect()
    return [left, top]
}"""


def modes(name: str) -> dict[str, int]:
    """Node number -> mode of a shipped task."""
    return {str(node["id"]): node["mode"] for node in read_workflow(name)["nodes"]}


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


@pytest.mark.parametrize("name", ["VDOT Depth to video"])
def test_a_blueprint_is_found_by_search_and_run(page, name):
    page.clear()
    page.add_by_search(name)
    page.page.wait_for_function("() => app.graph._nodes.length === 1 && app.graph._nodes[0].isSubgraphNode()")
    names = page.evaluate("() => app.graph._nodes[0].inputs.map((input) => input.name)")
    assert names == ["model", "clip", "vae", "depth", "text", "seed"]
    load, clip = page.add("VDOTLoad"), page.add("VDOTLoadClip", file="depth.mp4", length=5)
    save = page.add("PreviewImage")
    page.evaluate(
        """([load, clip, save]) => {
            const [blueprint, ...rest] = [app.graph._nodes[0], load, clip, save].map(
                (node) => (typeof node === "object" ? node : app.graph.getNodeById(node)))
            for (const slot of [0, 1, 2]) rest[0].connect(slot, blueprint, slot)
            rest[1].connect(0, blueprint, 3)
            blueprint.connect(0, rest[2], 0)
        }""",
        [load, clip, save],
    )
    assert page.run() == "execution_success"
    assert page.our_problems() == []
