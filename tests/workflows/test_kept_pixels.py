"""Workflows that keep something of a clip give it back bit for bit, not as the VAE decodes it."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from devtools.demo.options import workflow_file
from devtools.demo.titles import TITLES
from tests.workflows.prompts import to_prompt

FILES = {name: workflow_file(name) for name in TITLES}
KEEP = ("VDOTMask", "VDOTOutpaint")
RESTORE = ("VDOTPasteBack", "VDOTStitch")
# Restoring the one frame of a picture would let it jump; VDOT Long Video restores by itself.
UNRESTORED = ("vdot_expand", "vdot_long_replace")
FEATHER_PX = 8


def kinds_of(path) -> set[str]:
    return {node["type"] for node in json.loads(path.read_text("utf-8"))["nodes"]}


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_workflow_that_keeps_pixels_restores_them(name):
    kinds = kinds_of(FILES[name])
    keeps = bool(kinds.intersection(KEEP)) and name not in UNRESTORED
    assert bool(kinds.intersection(RESTORE)) is keeps


def pictures(run, server, prefix: str) -> np.ndarray:
    """Frames [F, H, W, 3] of a Save Image node."""
    saved = [item for output in run.outputs.values() for item in (output or {}).get("images", [])]
    names = sorted(item["filename"] for item in saved if item["filename"].startswith(prefix))
    return np.stack([np.asarray(Image.open(server.base / "output" / name)) for name in names])


def test_pixels_beyond_the_mask_are_the_clip_s_own(server, info):
    prompt = to_prompt(json.loads(FILES["vdot_inpaint"].read_text("utf-8")), info)
    by_kind = {node["class_type"]: key for key, node in prompt.items()}
    unit = prompt[by_kind["VDOTMask"]]["inputs"]
    (result,) = (n["inputs"]["images"] for n in prompt.values() if n["class_type"] == "CreateVideo")
    for kind in ("CreateVideo", "SaveVideo"):
        del prompt[by_kind[kind]]
    images = {"clip": unit["frames"], "result": result, "mask": ["as_image", 0]}
    prompt["as_image"] = {"class_type": "MaskToImage", "inputs": {"mask": unit["mask"]}}
    for prefix, source in images.items():
        prefix = f"kept_{prefix}"
        prompt[prefix] = {"class_type": "SaveImage", "inputs": {"images": source, "filename_prefix": prefix}}
    run = server.run(prompt)
    assert run.status == "success", run.error
    clip, made, mask = (pictures(run, server, f"kept_{prefix}") for prefix in images)
    assert clip.shape == made.shape
    far = np.stack([ndimage.distance_transform_edt(frame == 0) > FEATHER_PX for frame in mask[..., 0]])
    far = np.broadcast_to(far, made.shape[:3])
    assert 0.05 < far.mean() < 0.95
    assert np.array_equal(made[far], clip[far])
    assert np.abs(made.astype(int) - clip)[~far].mean() > 3, "nothing was generated"
