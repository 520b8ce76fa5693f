"""Sentences that locales translate are sentences that nodes write, word for word."""

import json
import re

import pytest
import torch

from tests.support.comfy import ROOT
from tests.support.pack import submodule
from vdot_core import vcu

FRAMES = torch.rand(5, 32, 48, 3)
MASK = torch.ones(5, 32, 48)


def refused(call) -> list[str]:
    """The refusal of a call."""
    with pytest.raises(ValueError) as caught:
        call()
    return [str(caught.value)]


def control(num_frames: int, width: int = 48) -> vcu.VCU:
    return vcu.control(torch.rand(num_frames, 32, width, 3))


def other_vae() -> None:
    submodule("nodes.comfy_load_all")._check_vae_choice(None, None, 4096)


SAID = {
    "length_rounded": lambda _: vcu.control(FRAMES, num_frames=7).notes,
    "size_rounded": lambda _: vcu.control(FRAMES, width=50, height=40).notes,
    "frames_dropped": lambda _: vcu.control(torch.rand(7, 32, 48, 3)).notes,
    "frames_free": lambda _: vcu.control(FRAMES, num_frames=13).notes,
    "frame_held": lambda _: vcu.inpaint(torch.rand(81, 32, 48, 3), torch.ones(80, 32, 48)).notes,
    "scaled_and_cropped": lambda _: vcu.control(FRAMES, width=64, height=64).notes,
    "scaled": lambda _: vcu.control(FRAMES, width=96, height=64).notes,
    "cropped": lambda _: vcu.control(torch.rand(5, 32, 50, 3)).notes,
    "alpha_ignored": lambda _: vcu.control(torch.rand(5, 32, 48, 4)).notes,
    "all_kept": lambda _: vcu.inpaint(FRAMES, 0 * MASK).notes,
    "mask_empty": lambda _: refused(lambda: vcu.crop_region(FRAMES, 0 * MASK)),
    "mask_length": lambda _: refused(lambda: vcu.inpaint(FRAMES, torch.ones(3, 32, 48))),
    "mask_size": lambda _: refused(lambda: vcu.inpaint(FRAMES, torch.ones(5, 48, 32))),
    "sizes_differ": lambda _: refused(lambda: vcu.compose(control(5), control(5, 64))),
    "lengths_differ": lambda _: refused(lambda: vcu.compose(control(5), control(33))),
    "same_region": lambda _: refused(lambda: vcu.compose(control(5), control(5))),
    "nothing_to_outpaint": lambda _: refused(lambda: vcu.outpaint(FRAMES)),
    "nothing_left": lambda _: refused(lambda: vcu.extend(FRAMES, num_frames=5)),
    "length_range": lambda _: refused(lambda: vcu.snap_length(0)),
    "no_box": lambda run: refused(lambda: run("VDOTBoxMask", image=FRAMES, which="all")),
    "other_vae": lambda _: refused(other_vae),
}


def pattern_of(sentence: str) -> re.Pattern:
    """As js/strings.js reads it."""
    parts = re.split(r"\{\w+\}", sentence)
    return re.compile(".+?".join(re.escape(part).replace(r"\(s\)", "s?") for part in parts))


SENTENCES = json.loads((ROOT / "locales/en/main.json").read_text("utf-8"))["vdot"]["sentences"]
# Those of runs with a model are seen in the page (tests/browser/test_page.py).
OF_RUNS = {"encoded", "sampled"}


def test_every_sentence_is_listed():
    assert set(SENTENCES) == set(SAID) | OF_RUNS


@pytest.mark.parametrize("key", SAID)
def test_nodes_write_the_sentence(run, key):
    lines = list(SAID[key](run))
    keys = [next((k for k, s in SENTENCES.items() if pattern_of(s).fullmatch(line)), None) for line in lines]
    assert key in keys, lines
