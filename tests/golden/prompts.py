"""Workflow files and the API prompts they become, compared through the maps of renamed inputs and values."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from devtools.demo.options import names, read_workflow

from . import subjects

GRAPHS = subjects.OLD / "workflows.json"
NATIVE = subjects.OLD / "native_nodes.json"
DRAWN = {"MarkdownNote", "Note"}
NODE_KEYS = ("id", "type", "mode", "title", "inputs", "outputs", "widgets_values")
OPTIONS = ("default", "control_after_generate", "forceInput", "widgetType", "image_upload", "video_upload")


def read_graphs() -> dict[str, dict]:
    """Today's workflows by name."""
    return {name: read_workflow(name) for name in sorted(names())}


def bare_graph(workflow: dict) -> dict:
    """A workflow without notes and layout."""
    nodes = [node for node in workflow["nodes"] if node["type"] not in DRAWN]
    return {
        "nodes": [{key: node[key] for key in NODE_KEYS if key in node} for node in nodes],
        "links": workflow["links"],
    }


def write_graphs() -> None:
    """Keep today's workflow files, and the inputs of ComfyUI's nodes that they use."""
    graphs = {name: bare_graph(workflow) for name, workflow in read_graphs().items()}
    write_lines(graphs, GRAPHS)
    used = {node["type"] for graph in graphs.values() for node in graph["nodes"]}
    native = subjects.native_node_inputs(used - set(subjects.own_node_inputs()))
    write_lines({name: bare_inputs(inputs) for name, inputs in native.items()}, NATIVE)


def write_lines(values: dict[str, Any], path) -> None:
    """A JSON object with a line for each key."""
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def bare_inputs(inputs: dict) -> dict:
    """The parts of a node's inputs that decide the names of widget values; lists of files are left out."""
    bare: dict[str, dict] = {}
    for section in ("required", "optional"):
        for name, (kind, *options) in (inputs.get(section) or {}).items():
            options = options[0] if options else {}
            entry = {key: options[key] for key in OPTIONS if key in options}
            if kind == "COMFY_DYNAMICCOMBO_V3":
                entry["options"] = [
                    {"key": option["key"], "inputs": bare_inputs(option["inputs"])}
                    for option in options["options"]
                ]
            bare.setdefault(section, {})[name] = [[] if isinstance(kind, list) else kind, entry]
    return bare


@cache
def _definitions() -> dict[str, dict]:
    native = json.loads(NATIVE.read_text("utf-8"))
    return {name: {"input": inputs} for name, inputs in {**native, **subjects.own_node_inputs()}.items()}


def prompt(workflow: dict) -> dict[str, Any]:
    """Node id -> {class type: {input: value}}."""
    nodes = subjects.prompt_of(workflow, _definitions())
    return {node_id: {node["class_type"]: node["inputs"]} for node_id, node in nodes.items()}


def renamed(recorded: dict[str, Any]) -> dict[str, Any]:
    """A recorded prompt in today's names."""
    now: dict[str, Any] = {}
    for node_id, node in recorded.items():
        ((kind, inputs),) = node.items()
        names = subjects.RENAMED_INPUTS.get(kind, {})
        now[node_id] = {
            kind: {
                names.get(name, name): _value(value, subjects.RENAMED_VALUES.get((kind, name)))
                for name, value in inputs.items()
            }
        }
    return now


def _value(value: Any, names: dict[Any, Any] | None) -> Any:
    return names.get(value, value) if names and not isinstance(value, (list, dict)) else value


def saved_prompts() -> dict[str, Any]:
    """Prompts of the saved workflows with today's nodes."""
    graphs = json.loads(GRAPHS.read_text("utf-8"))
    return {name: prompt(graph) for name, graph in graphs.items()}


def bundled_prompts() -> dict[str, Any]:
    """Prompts of today's workflow files with today's nodes."""
    return {name: prompt(graph) for name, graph in read_graphs().items()}
