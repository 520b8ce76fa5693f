"""UI workflow -> API prompt: as ComfyUI's front end does on Run.

A workflow file keeps widget values as a bare list in the order in which the node shows its widgets; the API
wants them by name. The names come from the server's /object_info.
"""

from collections.abc import Iterator
from typing import Any

from devtools.errors import DevError

MUTED, BYPASSED = 2, 4
DRAWN_ONLY = {"Note", "MarkdownNote", "Reroute", "PrimitiveNode"}
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR"}
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
SEEDS = {"seed", "noise_seed"}
AFTER_GENERATE = {"fixed", "increment", "decrement", "randomize", "increment-wrap"}


def to_prompt(workflow: dict, object_info: dict) -> dict[str, dict]:
    """Convert a workflow as the front end saves it to what POST /prompt takes.

    Muted nodes are left out, bypassed ones pass their inputs through, notes and reroutes vanish.

    Args:
        workflow: a workflow of schema 0.4 or 1.
        object_info: the server's answer to GET /object_info.

    Returns:
        {node id: {"class_type", "inputs", "_meta"}}; a link is [node id, output slot].

    Raises:
        DevError: the workflow uses a node that the server does not have, or subgraphs.
    """
    graph = _Graph(workflow)
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in DRAWN_ONLY or node.get("mode") in (MUTED, BYPASSED):
            continue
        info = object_info.get(node["type"])
        if info is None:
            raise DevError(f"node {node['id']} is a {node['type']}, which this ComfyUI does not have")
        inputs = dict(_widgets(node, info))
        for entry in node.get("inputs") or []:
            if entry.get("link") is None:
                continue
            source = graph.source(entry["link"])
            if source is not None:
                inputs[entry["name"]] = source
        title = node.get("title") or info.get("display_name") or node["type"]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs, "_meta": {"title": title}}
    return prompt


def described(workflow: dict) -> dict[str, dict]:
    """Descriptions of a workflow's nodes as far as its file has them: types of inputs and outputs.

    They are enough for `loaders.loaders()` before there is a server to ask; widgets' names are not known.
    """
    info: dict[str, dict] = {}
    for node in workflow["nodes"]:
        outputs = [entry["type"] for entry in node.get("outputs") or []]
        kind = info.setdefault(node["type"], {"input": {"required": {}}, "output": outputs})
        for entry in node.get("inputs") or []:
            kind["input"]["required"][entry["name"].split(".")[0]] = [entry["type"]]
    return info


class _Graph:
    """Follows links backwards to the node that really makes the value."""

    def __init__(self, workflow: dict):
        if (workflow.get("definitions") or {}).get("subgraphs"):
            raise DevError(
                "the workflow has subgraphs, which the demo does not convert: unpack them in ComfyUI"
            )
        self._nodes = {node["id"]: node for node in workflow["nodes"]}
        self._links = {}
        for link in workflow["links"]:
            if isinstance(link, dict):
                self._links[link["id"]] = (link["origin_id"], link["origin_slot"])
            else:
                self._links[link[0]] = (link[1], link[2])

    def source(self, link: int) -> Any:
        """[node id, slot] that a link starts from, a primitive's value, or None where it leads nowhere."""
        if link not in self._links:
            return None
        node_id, slot = self._links[link]
        node = self._nodes[node_id]
        if node.get("mode") == MUTED:
            return None
        if node["type"] == "PrimitiveNode":
            return _literal(node["widgets_values"][0])
        if node["type"] == "Reroute":
            return self._pass_through(node["inputs"][:1])
        if node.get("mode") == BYPASSED:
            return self._pass_through(_matching_inputs(node, slot))
        return [str(node_id), slot]

    def _pass_through(self, entries: list[dict]) -> Any:
        for entry in entries:
            if entry.get("link") is not None:
                return self.source(entry["link"])
        return None


def _matching_inputs(node: dict, slot: int) -> list[dict]:
    """Inputs that a bypassed node may pass on as its output: the one at the same place first."""
    entries = node.get("inputs") or []
    output_type = node["outputs"][slot]["type"]
    ordered = entries[slot : slot + 1] + entries
    return [
        entry for entry in ordered if entry["type"] == output_type or "*" in (entry["type"], output_type)
    ][:1]


def _widgets(node: dict, info: dict) -> Iterator[tuple[str, Any]]:
    """(input name, value) of every widget of a node."""
    values = node.get("widgets_values") or []
    if isinstance(values, dict):  # some packs save by name
        names = {name for _, name, _, _ in _inputs(info["input"])}
        yield from ((name, _literal(value)) for name, value in values.items() if name in names)
        return
    on_node = {entry["name"] for entry in node.get("inputs") or [] if entry.get("widget")}
    yield from _take(info["input"], _Values(values), on_node, "")


class _Values:
    """The saved values, taken one after the other."""

    def __init__(self, values: list):
        self._values, self._next = values, 0

    def take(self, default: Any) -> Any:
        """The next value; the default where the file was saved before the widget existed."""
        if self._next >= len(self._values):
            return default
        self._next += 1
        return self._values[self._next - 1]

    def skip_if(self, values: set) -> None:
        """Pass over the next value if it is one of those."""
        if self._next < len(self._values) and isinstance(self._values[self._next], str):
            self._next += self._values[self._next] in values


def _take(inputs: dict, values: _Values, on_node: set[str], prefix: str) -> Iterator[tuple[str, Any]]:
    for _, name, kind, options in _inputs(inputs):
        full_name = prefix + name
        if not _is_widget(kind, options) and full_name not in on_node:
            continue
        value = values.take(_default(kind, options))
        if options.get("control_after_generate") or (kind == "INT" and name in SEEDS):
            values.skip_if(AFTER_GENERATE)
        if value is not None:
            yield full_name, _literal(value)
        if kind == DYNAMIC_COMBO:
            for option in options["options"]:
                if option["key"] == value:
                    yield from _take(option["inputs"], values, on_node, f"{full_name}.")


def _inputs(inputs: dict) -> Iterator[tuple[str, str, Any, dict]]:
    """(section, name, type, options) in the order in which a node shows its widgets."""
    for section in ("required", "optional"):
        for name, spec in (inputs.get(section) or {}).items():
            yield section, name, spec[0], (spec[1] if len(spec) > 1 else {})


def _is_widget(kind: Any, options: dict) -> bool:
    if options.get("forceInput"):
        return False
    kind = options.get("widgetType") or kind
    return isinstance(kind, list) or kind == DYNAMIC_COMBO or kind in WIDGET_TYPES


def _default(kind: Any, options: dict) -> Any:
    choices = kind if isinstance(kind, list) else options.get("options") or []
    if "default" in options:
        return options["default"]
    if kind == DYNAMIC_COMBO:
        return choices[0]["key"] if choices else None
    if isinstance(kind, list) or choices:
        return choices[0] if choices else None
    return {"STRING": "", "BOOLEAN": False, "INT": 0, "FLOAT": 0.0}.get(kind)


def _literal(value: Any) -> Any:
    """A list would be read as a link."""
    return {"__value__": value} if isinstance(value, list) else value
