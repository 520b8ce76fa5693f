"""Workflow file -> API prompt, written without a look at the demo's converter, which is held against it."""

FRONTEND_ONLY = {"MarkdownNote"}
PLAIN_WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
BYPASSED = 4
AFTERWARDS = ("fixed", "randomize", "increment", "decrement")


def to_prompt(workflow: dict, info: dict) -> dict:
    """API prompt of a flat workflow: linked inputs by name, widgets in the order of /object_info."""
    sources = {link[0]: _source(workflow, link) for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in FRONTEND_ONLY or node["mode"] == BYPASSED:
            continue
        linked = {i["name"]: sources[i["link"]] for i in node["inputs"] if sources.get(i["link"])}
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": {**widgets(node, info), **linked}}
    return prompt


def _source(workflow: dict, link: list) -> list | None:
    """Where a link starts: behind bypassed nodes, the first input of the output's type."""
    node = next(node for node in workflow["nodes"] if node["id"] == link[1])
    if node["mode"] != BYPASSED:
        return [str(link[1]), link[2]]
    same = [entry["link"] for entry in node["inputs"] if entry["type"] == node["outputs"][link[2]]["type"]]
    before = [other for other in workflow["links"] if same and other[0] == same[0]]
    return _source(workflow, before[0]) if before else None


def widgets(node: dict, info: dict) -> dict:
    """A node's widget values by name."""
    values, named = list(node.get("widgets_values", [])), {}
    num_uploads = _take(node["type"], info[node["type"]]["input"], values, named, "")
    # The page puts upload buttons after all other widgets.
    assert values == ["image"] * num_uploads, f"{node['type']}: {values} belong to no widget"
    return named


def _take(node_type: str, inputs: dict, values: list, named: dict, prefix: str) -> int:
    """Move values into `named`, those of a dynamic combo's choice after it; returns the number of uploads."""
    num_uploads = 0
    for name, (kind, *options) in {**inputs.get("required", {}), **inputs.get("optional", {})}.items():
        options = options[0] if options else {}
        dynamic = kind == "COMFY_DYNAMICCOMBO_V3"
        if not (isinstance(kind, list) or kind in PLAIN_WIDGETS or dynamic) or options.get("forceInput"):
            continue
        assert values, f"{node_type}: no value for {prefix}{name}"
        named[prefix + name] = value = values.pop(0)
        if options.get("control_after_generate"):
            assert values.pop(0) in AFTERWARDS
        if dynamic:
            (choice,) = (option for option in options["options"] if option["key"] == value)
            num_uploads += _take(node_type, choice["inputs"], values, named, f"{prefix}{name}.")
        num_uploads += bool(options.get("image_upload") or options.get("video_upload"))
    return num_uploads
