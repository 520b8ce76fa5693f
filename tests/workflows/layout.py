"""Where the nodes of a workflow file lie: a note on top, then groups in rows of at most 2,100 pixels."""

import math
from collections.abc import Iterator, Sequence

TOP, GAP, MAX_COLUMN, MAX_WIDTH = 60, 80, 1330, 2100
MARGIN, GROUP_GAP, GROUP_TOP = 20, 30, -10
WIDTH, TASK_WIDTH = 300, 340
PART_WIDTH = 295  # six columns of optional groups fit into a row
NOTE_WIDTH, NOTE_ROW, NOTE_LETTERS = 900, 19, 122
TABLE_PX = 15  # by which a row of a table is higher than one of text
SCALE, LEFT_PX, TOP_PX = 0.8, 80, 120  # the page's menus cover what is further left and higher
PART_COLOR = "#6d6d6d"
# Heights that nodes grow to in the classic renderer after a run with open previews; others: two lines more.
GROWN = {
    **{"VDOTLoadClip": 600, "LoadImage": 335, "LoadImageMask": 335, "SaveVideo": 400},
    **{"VDOTEncode": 290, "VDOTSampler": 940, "VDOTLongVideo": 1250},
}
SLACK = 36
NATIVE_NODES = (
    *("CheckpointLoaderSimple", "UNETLoader", "LoadDA3Model", "DA3Inference", "DA3Render", "RTDETR_detect"),
    *("SDPoseKeypointExtractor", "SDPoseFaceBBoxes", "SAM3_VideoTrack", "SAM3_TrackToMask"),
)
STAGES = (
    (
        "Model and text",
        "#457290",
        ("VDOTLoad", "CLIPTextEncode"),
        WIDTH,
    ),
    (
        "Inputs",
        "#6067b2",
        ("VDOTLoadClip", "LoadImage", "LoadImageMask", "ImageToMask", "PrimitiveBoundingBox"),
        WIDTH,
    ),
    ("Look at the clip", "#a05353", NATIVE_NODES, WIDTH),
    ("Task", "#3b7b41", (), TASK_WIDTH),  # all nodes of no other stage
    ("Encode and sample", "#8a661d", ("VDOTEncode", "VDOTSampler", "VDOTLongVideo"), WIDTH),
    ("Video", "#9e4c9a", ("VAEDecode", "VDOTPasteBack", "VDOTStitch", "CreateVideo", "SaveVideo"), WIDTH),
)


def note_node(text: str) -> dict:
    """A note above the graph, as high as its text."""
    rows = sum(math.ceil(len(line) / NOTE_LETTERS) for line in text.splitlines())
    height = NOTE_ROW * (rows + text.count("\n\n") // 2 + 3)
    height += TABLE_PX * text.count("\n|")
    return {
        "id": 1,
        "type": "MarkdownNote",
        "pos": [0, GROUP_TOP - GROUP_GAP - height],
        "size": [NOTE_WIDTH, height],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "color": "#432",
        "bgcolor": "#653",
        "title": "Read me",
        "widgets_values": [text],
    }


def lay_out(nodes: list[dict], parts: Sequence[tuple[str, set[int]]] = ()) -> list[dict]:
    """Put nodes into columns, stage by stage, in as many rows as it needs.

    Args:
        nodes: of the graph.
        parts: titles and node numbers of optional groups, which lie behind the stages.

    Returns:
        The groups of stages and parts.
    """
    groups: list[dict] = []
    row: list[dict] = []
    x, top, lowest = 0, GROUP_TOP, 0
    for title, color, members, width in _sections(nodes, parts):
        columns = _columns(members)
        total = len(columns) * (width + 2 * MARGIN)
        if row and x + total > MAX_WIDTH:
            row, x, top = [], 0, lowest + MARGIN + GROUP_GAP
        for index, column in enumerate(columns):
            left = x + MARGIN + index * (width + 2 * MARGIN)
            lowest = max(lowest, _stack(column, left, top + TOP - GROUP_TOP, width))
        group = {"id": len(groups) + 1, "title": title, "color": color}
        groups.append({**group, "bounding": [x, top, total, 0], "font_size": 24, "flags": {}})
        row.append(groups[-1])
        for other in row:
            other["bounding"][3] = lowest + MARGIN - top
        x += total + GROUP_GAP
    return groups


def _sections(
    nodes: list[dict], parts: Sequence[tuple[str, set[int]]]
) -> Iterator[tuple[str, str, list[dict], int]]:
    """Title, color, nodes and width of every group."""
    placed = {kind for _, _, kinds, _ in STAGES for kind in kinds}
    apart = {number for _, numbers in parts for number in numbers}
    number = 0
    for title, color, kinds, width in STAGES:
        members = [node for node in nodes if node["id"] not in apart]
        members = [n for n in members if n["type"] in kinds or (not kinds and n["type"] not in placed)]
        if members:
            number += 1
            yield f"{number} {title}", color, members, width
    for title, numbers in parts:
        yield f"Optional: {title}", PART_COLOR, [node for node in nodes if node["id"] in numbers], PART_WIDTH


def _columns(members: list[dict]) -> list[list[dict]]:
    columns: list[list[dict]] = [[]]
    for node in members:
        heights = [_room(other) + GAP for other in columns[-1]]
        if heights and sum(heights) + _room(node) > MAX_COLUMN:
            columns.append([])
        columns[-1].append(node)
    return columns


def _stack(column: list[dict], x: int, y: int, width: int) -> int:
    """Put nodes under each other; returns the lower edge of the last one."""
    for node in column:
        node["pos"], node["size"][0] = [x, y], width
        y += _room(node) + GAP
    return y - GAP


def _room(node: dict) -> int:
    """Pixels from a node's title to the lower edge that it may grow to."""
    return max(GROWN.get(node["type"], 0), node["size"][1] + SLACK)
