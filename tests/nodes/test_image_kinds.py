"""Every image and mask input, given what packs really send: half precision, bytes, alpha, NaN, views."""

import math

import pytest
import torch

from tests.nodes.fuzz import check_sentence
from tests.support.annotators import skip_without
from tests.support.pack import run_node, submodule

CLIP = torch.rand(5, 32, 48, 3, generator=torch.Generator().manual_seed(0))
DEPTH = CLIP[..., :1].expand_as(CLIP).clone()
MASK = torch.zeros(5, 32, 48)
MASK[:, 8:20, 8:30] = 1
FIT = {"width": 0, "height": 0, "length": 0}
BOX, PATH = {"x": 1, "y": 1, "width": 9, "height": 9}, "0: 4, 4, 20, 20"
COARSE = {"mask_shape": "hull", "expand": 0.3, "still": True, "grow_px": 3, "blur_px": 2.0}
CALLS = {
    "VDOTGray": {"frames": CLIP, "weights": "vace"},
    "VDOTLines": {"frames": CLIP, "threshold": 0.25, "thickness": 1.5, "softness": 0.5},
    "VDOTFlow": {"frames": CLIP, "estimator": "dis", "scale": "frame"},
    "VDOTNormalizeDepth": {"depth": DEPTH, "mode": "stable", "values": "metric"},
    "VDOTPose": {"frames": CLIP[:1]},
    "VDOTMatte": {"frames": CLIP[:1]},
    "VDOTFace": {"frames": CLIP[:1]},
    "VDOTBoxMask": {"image": CLIP, "bboxes": BOX, "which": "all"},
    "VDOTCrop": {"frames": CLIP, "mask": MASK, "margin": 0.5, "width": 0, "height": 0},
    "VDOTControl": {"frames": CLIP, "region": MASK, **FIT},
    "VDOTDepth": {"depth": DEPTH, "normalization": "stable", "invert": False, "region": MASK, **FIT},
    "VDOTLayout": {"boxes": "", "masks": {"mask0": MASK}, **FIT},
    "VDOTMask": {"frames": CLIP, "mask": MASK, **COARSE, **FIT},
    "VDOTOutpaint": {"frames": CLIP, "left": 16, "right": 0, "top": 0, "bottom": 0, "feather_px": 2, **FIT},
    "VDOTExtend": {"first": CLIP, "last": CLIP, **FIT, "length": 17},
    "VDOTKeyframes": {"images": {"image0": CLIP}, "positions": "0", "clips": True, **FIT, "length": 17},
    "VDOTMove": {"image": CLIP[:1], "boxes": PATH, **FIT, "length": 9},
    "VDOTReference": {"images": {"image0": CLIP}, "masks": {"mask0": MASK}, "cut_out": "crop", "margin": 0.5}
    | {"width": 64, "height": 64, "length": 5},
    "VDOTPasteBack": {"images": CLIP, "unit": "<unit>", "feather_px": 4},
    "VDOTStitch": {
        "original": CLIP,
        "images": "<part>",
        "unit": "<part_unit>",
        "crop": "<crop>",
        "feather_px": 4,
    },
}
ANNOTATORS = {"VDOTPose": "pose", "VDOTMatte": "matte", "VDOTFace": "face"}
KINDS = {
    **{
        str(dtype): lambda t, d=dtype: t.to(d)
        for dtype in (torch.half, torch.bfloat16, torch.double, torch.long)
    },
    "bool": lambda t: t > 0.5,
    "bytes": lambda t: (t * 255).byte(),
    "NaN": lambda t: t * math.nan,
    "infinite": lambda t: t / 0,
    "negative": lambda t: t - 5,
    "0 to 255": lambda t: t * 255,
    "a little over": lambda t: t * 1.05,
    "with a gradient": lambda t: t.clone().requires_grad_(),
    "one frame for all": lambda t: t[:1].expand_as(t),
    "a view": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
    "one frame": lambda t: t[:1],
    "fewer frames": lambda t: t[:-1],
    "one pixel": lambda t: t[:, :1, :1],
    "one row": lambda t: t[:, :1],
    "smaller": lambda t: t[:, ::2, ::2],
    "black": lambda t: t * 0,
    "white": lambda t: t * 0 + 1,
    "one channel": lambda t: t[..., :1] if t.ndim == 4 else t[..., None],
    "two channels": lambda t: t[..., :2],
    "alpha": lambda t: torch.cat([t, t[..., :1]], -1),
}


@pytest.fixture(scope="module")
def made(pack):
    """Outputs of earlier nodes that the last nodes of a graph need."""
    vcu = submodule("vdot_core.vcu")
    part, cut, crop = vcu.crop_region(CLIP, MASK)
    return {
        "<unit>": vcu.inpaint(CLIP, MASK),
        "<part>": part,
        "<part_unit>": vcu.inpaint(part, cut),
        "<crop>": crop,
    }


def with_kinds(inputs):
    """The inputs with each of their images and masks in each kind."""
    for key, value in inputs.items():
        group = value if isinstance(value, dict) and key in ("images", "masks") else {}
        for name, tensor in (group or {key: value}).items():
            if isinstance(tensor, torch.Tensor):
                for kind, change in KINDS.items():
                    yield (
                        f"{name} {kind}",
                        {**inputs, key: {name: change(tensor)} if group else change(tensor)},
                    )


def skip_without_parts(node_id):
    """Skip where a node's optional package or models are not there."""
    if node_id == "VDOTFlow":
        pytest.importorskip("cv2")
    if node_id in ANNOTATORS:
        skip_without(ANNOTATORS[node_id])


@pytest.mark.parametrize("node_id", CALLS)
def test_images_and_masks_of_any_kind_are_taken_or_refused_in_words(node_classes, made, node_id):
    skip_without_parts(node_id)
    inputs = {
        key: made.get(value, value) if isinstance(value, str) else value
        for key, value in CALLS[node_id].items()
    }
    assert run_node(node_classes[node_id], **inputs).args
    for what, changed in with_kinds(inputs):
        try:
            outputs = run_node(node_classes[node_id], **changed).args
        except ValueError as refusal:
            check_sentence(str(refusal))
            continue
        for value in outputs:
            for tensor in (value,) if isinstance(value, torch.Tensor) else getattr(value, "frames", ()):
                low, high = (float(bound) for bound in tensor.detach().aminmax())
                assert tensor.dtype == torch.float32 and 0 <= low <= high <= 1, (
                    what,
                    tensor.dtype,
                    low,
                    high,
                )
