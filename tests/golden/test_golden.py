"""Today's numbers are the recorded ones; files that earlier code wrote are still read.

Float bits depend on the CPU and on torch: `VDOT_GOLDEN_EXACT=1` asks for every bit, as
`python -m tests.golden.record --check` does, and takes in the run on two processes.
"""

import os

import pytest

from tests.golden import prompts, subjects
from tests.golden.compare import compare
from tests.golden.items import ITEMS, STOP_AT, unpack_run
from tests.golden.record import comparisons, read, run

EXACT = os.environ.get("VDOT_GOLDEN_EXACT") == "1"
RTOL, ATOL = 1e-4, 5e-6
# tests/training/distill/test_processes.py compares two processes with one in every run.
IN_SUITE = [name for name in ITEMS if name != "processes" or EXACT]


def assert_equal(results: dict) -> None:
    wrong = {
        item: result.describe(RTOL)
        for item, result in results.items()
        if result.differences or (EXACT and not result.exact)
    }
    assert not wrong, "\n".join(f"{item}: {difference}" for item, difference in wrong.items())


@pytest.mark.parametrize("name", IN_SUITE)
def test_numbers_are_the_recorded_ones(name, tmp_path):
    if name == "cache" and subjects.OLD_CACHE_REFUSED:
        with pytest.raises(ValueError, match=subjects.OLD_CACHE_REFUSED):
            run(name, tmp_path)
        return
    if name == "prompts":
        pytest.importorskip("tests.support.comfy").comfyui_path()
    assert_equal(comparisons(name, run(name, tmp_path), RTOL, ATOL))


def test_bundled_workflows_give_the_recorded_values():
    """Those of the recorded inputs that do not follow the model that VDOT Load is set to."""
    pytest.importorskip("tests.support.comfy").comfyui_path()
    _, recorded = read("prompts")
    bundled = prompts.bundled_prompts()
    for name, graph in recorded.items():
        known = {kind: inputs.keys() for node in graph.values() for kind, inputs in node.items()}
        assert _values(bundled[name], known) == _values(graph, known), name


FOLLOWING = {"width", "height", "length", "positions", "preset", "fps", "weights", "chunk", "overlap"}
REPLACED = {
    *("LoadVideo", "GetVideoComponents", "VDOTLoadDemo", "VDOTLoadModel", "CLIPLoader", "VAELoader"),
    "VDOTCompose",  # where a reference takes its size from the task at `unit` instead
    "VDOTPreviewUnit",  # the strip on task nodes shows the same
}


def _values(graph: dict, known: dict) -> dict[str, list]:
    """Node type -> the values of each such node's widgets."""
    values: dict[str, list] = {}
    for node in graph.values():
        ((kind, inputs),) = node.items()
        if kind not in known or kind in REPLACED:
            continue
        kept = [(n, v) for n, v in inputs.items() if n in known[kind] and n not in FOLLOWING]
        values.setdefault(kind, []).append(sorted((n, v) for n, v in kept if not isinstance(v, list)))
    return {kind: sorted(entries) for kind, entries in values.items()}


def test_an_old_run_resumes_to_the_metrics_of_an_uninterrupted_one(tmp_path):
    folder = unpack_run(tmp_path)
    assert set(subjects.losses_by_step(folder)) == set(range(1, STOP_AT + 1))
    trainer = subjects.distillation(folder, "corrected")
    assert trainer.step == STOP_AT
    assert trainer.run() == 10
    _, recorded = read("distill")
    results = {}
    for step, metrics in subjects.losses_by_step(folder).items():
        results[step] = compare(recorded[f"corrected, step {step}"]["metrics"], metrics, RTOL, ATOL)
    assert set(results) == set(range(1, 11))
    assert_equal(results)
