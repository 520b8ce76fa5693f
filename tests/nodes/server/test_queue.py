"""The pack loads and is described; errors, refusals, interrupts and freed memory leave the queue working."""

import re

import pytest

from tests.nodes.server.graphs import graph, images
from tests.nodes.small_models import LATIN_1
from tests.support.server import PromptRefusedError


def test_import_is_clean(server):
    """Its CPU time is measured in test_schema."""
    log = server.log()
    assert re.search(r"[\d.]+ seconds[^\n]*ComfyUI-VDOT", log), log[-3000:]
    assert "ComfyUI-VDOT (IMPORT FAILED)" not in log and "Traceback" not in log


def test_object_info_explains_every_input(server, node_classes):
    info = server.get("/object_info")
    for node_id in node_classes:
        entry = info[node_id]
        assert entry["description"] and entry["display_name"] and entry["category"].startswith("VDOT/")
        for name, (_, options) in {
            **entry["input"]["required"],
            **entry["input"].get("optional", {}),
        }.items():
            assert options.get("tooltip"), f"{node_id}.{name}"
        assert all(entry["output_tooltips"]), node_id
    assert "vdot_meta.safetensors" in info["VDOTLoadModel"]["input"]["required"]["model_name"][1]["options"]


def test_a_failing_node_says_why_and_the_queue_continues(server):
    bad = server.run(graph(n7__cfg=2.0))
    assert bad.status == "error" and bad.error["node_id"] == "7"
    assert "nothing is connected to negative" in bad.error["exception_message"]
    bad = server.run(graph(n6__unit=["10", 0]) | extend_nothing())
    assert bad.status == "error" and "nothing to extend" in bad.error["exception_message"]
    good = server.run(graph(n7__seed=4))
    assert good.status == "success" and len(images(good)) == 17


def test_a_file_named_in_another_encoding_does_not_stop_the_queue(server):
    """Its name, raw in an error or a log line, would end ComfyUI's thread that runs prompts."""
    bad = server.run(graph(n1__model_name=f"cut_{LATIN_1}"))
    assert (
        bad.status == "error"
        and "cut_mod\\udce8le.safetensors is truncated" in bad.error["exception_message"]
    )
    good = server.run(graph(n1__model_name=LATIN_1))
    assert good.status == "success", good.error
    assert good.outputs["1"]["text"][0].startswith("mod\\udce8le.safetensors: VACE model")
    assert server.run(graph(n7__seed=12)).status == "success"


def extend_nothing():
    return {"10": {"class_type": "VDOTExtend", "inputs": {"length": 17, "width": 0, "height": 0}}}


def test_impossible_values_are_refused_before_running(server):
    with pytest.raises(PromptRefusedError) as refused:
        server.run(graph(n7__preset="fastest"))
    assert refused.value.answer["node_errors"]["7"]["errors"][0]["type"] == "value_not_in_list"
    assert server.run(graph(n7__seed=5)).status == "success"


def test_cancel_in_the_middle_and_continue(server):
    def press_stop(kind, data):
        if kind == "vdot.preview" and data["step"] == 2:
            server.interrupt()

    custom = {"n7__preset": "custom", "n7__steps": 100, "n7__solver": "euler", "n4__length": 81}
    run = server.run(graph(**custom), on_event=press_stop)
    assert run.status == "interrupted"
    assert run.of_type("vdot.preview")[-1]["step"] < 100
    assert server.run(graph(n7__seed=6)).status == "success"


def test_freed_memory_is_loaded_again(server):
    server.post("/free", {"unload_models": True, "free_memory": True})
    assert server.run(graph(n7__seed=8)).status == "success"
