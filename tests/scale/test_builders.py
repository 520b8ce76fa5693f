"""Peak memory of every builder and signal, at a small size; docs/BENCHMARKS.md has a full one."""

import inspect
import json
import subprocess
import sys

import pytest

from benchmarks._builders import CASES, EXEMPT
from tests.core.checkpoints.helpers import SUBPROCESS_ENV
from tests.support.comfy import ROOT
from tests.support.pack import load_nodes
from vdot_core import signals, vcu

ONLY_NUMBERS = {"VDOTStrength", "VDOTStepRange"}
"""Nodes that change numbers of a unit and share its frames."""
WITH_TESTS_OF_THEIR_OWN = {"VDOTLoadClip", "VDOTLongVideo", "VDOTPose", "VDOTMatte", "VDOTFace"}
"""Nodes that read or write clips in bounded memory or need models: other tests hold them on it."""
SIZE = (17, 240, 416)
CLIP_MB = 17 * 240 * 416 * 12 / 1e6
LIMIT_MB = 2 * CLIP_MB + 12
"""Twice the clip, and the frames at work: of 17 frames, two count for more than of 81."""


def test_every_function_is_measured_or_says_why_not():
    public = {
        name
        for module in (vcu, signals)
        for name in module.__all__
        if inspect.isfunction(getattr(module, name))
    }
    measured = {case.function for case in CASES.values()}
    assert measured | EXEMPT.keys() == public and not measured & EXEMPT.keys()


def test_every_node_that_makes_frames_is_measured(comfy):
    measured = {case.node for case in CASES.values()} | ONLY_NUMBERS | WITH_TESTS_OF_THEIR_OWN
    makers = {
        name
        for name, node in load_nodes().items()
        if {output.io_type for output in node.GET_SCHEMA().outputs} & {"IMAGE", "MASK", "VDOT_VCU"}
    }
    assert makers and makers <= measured


@pytest.mark.skipif(sys.platform != "linux", reason="measures by Linux's /proc")
@pytest.mark.parametrize("options", [["--first"], pytest.param([], marks=pytest.mark.full)])
def test_no_peak_is_above_twice_the_clip(options):
    size = "x".join(map(str, SIZE))
    command = [sys.executable, "benchmarks/memory.py", "--size", size, "--json", *options]
    run = subprocess.run(command, env=SUBPROCESS_ENV, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1), run.stderr[-3000:]
    peaks = {row["name"]: row["clips"] * CLIP_MB for row in map(json.loads, run.stdout.splitlines())}
    assert {CASES[name].function for name in peaks} == {case.function for case in CASES.values()}
    assert peaks["inpaint"] > 1.2 * CLIP_MB, "the measurement does not see the result"
    assert {name: peak for name, peak in peaks.items() if peak > LIMIT_MB} == {}
