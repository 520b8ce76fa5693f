"""A reminder to raise CLIPS_VERSION: what some seeds draw, in numbers of the version that drew them."""

import hashlib

import numpy as np
import pytest
import torch

from tiny.clips import CLIPS_VERSION
from tiny.clips.textures import texture_clip
from tiny.tasks import TRAINING, build_unit, draw_scenes

SIZE = (9, 48, 64)
VERSION = 2  # of the clips that GOLDEN is of
# Task -> frames, masks and references of its unit for one clip, each summed with random weights.
GOLDEN = {
    "text": [-219.998, 195.067, 0],
    "depth": [-59.202, 195.067, 0],
    "pose": [3.326, 195.067, 0],
    "flow": [-265.412, 195.067, 0],
    "gray": [-317.217, 195.067, 0],
    "lines": [-448.327, 195.067, 0],
    "layout": [-335.987, 195.067, 0],
    "inpaint": [-172.948, 0.975, 0],
    "outpaint": [-254.842, 45.856, 0],
    "extend": [-279.708, 234.246, 0],
    "keyframes": [-299.017, 58.401, 0],
    "move": [-577.7, 219.364, 0],
    "inpaint_depth": [-275.404, 98.868, 0],
    "extend_depth": [-124.069, 163.914, 0],
    "extend_pose": [-81.106, 97.58, 0],
    "reference": [-219.998, 195.067, 87.615],
    "reference_depth": [12.338, 195.067, 101.92],
    "reference_pose": [-1.575, 195.067, 105.563],
    "reference_flow": [-290.779, 195.067, 129.924],
    "reference_gray": [-222.581, 195.067, 126.121],
    "reference_lines": [-300.642, 195.067, 52.17],
    "reference_layout": [-498.734, 195.067, 69.857],
    "reference_inpaint": [-368.185, 39.647, 40.291],
    "reference_outpaint": [-120.725, -27.228, 115.553],
    "reference_extend": [-248.279, 82.698, 96.036],
    "animate": [18.962, 195.067, 116.043],
    "face": [-219.998, 195.067, 132.983],
    "face_pose": [6.752, 195.067, 50.18],
    "replacement": [-156.203, -0.078, 134.931],
    "swap": [-219.998, 69.51, 32.203],
    "try_on": [-279.969, -63.079, 96.607],
    "references": [-219.998, 195.067, 194.059],
    "references_depth": [-46.409, 195.067, 224.744],
    "references_layout": [-478.177, 195.067, 262.487],
    "expand": [-228.709, 180.497, 239.864],
    "textures": [3.102, -47.1, 1.322],
    "captions": 3022120937,
}


def weighted_sum(values):
    """Any pixel that changes visibly changes it by far more than rounding does."""
    weights = torch.randn(values.numel(), generator=torch.Generator().manual_seed(values.numel()))
    return round(float(weights.double() @ values.double().flatten()), 3)


def signatures():
    """The clips and units that this code draws, in a few numbers each."""
    tasks = list(TRAINING)
    values, captions = {}, []
    for index, task in enumerate(tasks):
        rng = np.random.default_rng([index, 13])
        scene = draw_scenes([task], index, "train", 0.0, SIZE)[task]
        unit = build_unit(task, scene, rng)
        references = sum(weighted_sum(image) for image in unit.references)
        values[task] = [weighted_sum(unit.frames), weighted_sum(unit.masks), round(references, 3)]
        captions += scene.captions
    values["textures"] = [weighted_sum(texture_clip(seed, num_frames=5)) for seed in range(3)]
    values["captions"] = int(hashlib.sha256("\n".join(captions).encode()).hexdigest()[:8], 16)
    return values


def test_what_is_drawn_changes_with_the_version_alone():
    assert CLIPS_VERSION == VERSION, "renew VERSION and GOLDEN here for the new clips"
    values = signatures()
    changed = [n for n in values if n not in GOLDEN or values[n] != pytest.approx(GOLDEN[n], abs=0.02)]
    assert not changed, "drawn differently: raise CLIPS_VERSION in tiny/clips/__init__.py, renew GOLDEN here"
