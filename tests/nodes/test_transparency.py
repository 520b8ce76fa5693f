"""Pictures with transparency: through ComfyUI's Load Image, and as images of four channels."""

import pytest
import torch
from PIL import Image, ImageDraw

SIZE = {"width": 64, "height": 64, "length": 5}
FIT = {"width": 0, "height": 0, "length": 0}
BOX = {"x": 4, "y": 4, "width": 20, "height": 12}
DEPTH = {"mode": "frame", "values": "disparity"}
LINES = {"threshold": 0.25, "thickness": 1.5, "softness": 0.5}
CASES = {
    "VDOTGray": ("frames", {}),
    "VDOTLines": ("frames", LINES),
    "VDOTFlow": ("frames", {"estimator": "dis", "scale": "frame"}),
    "VDOTNormalizeDepth": ("depth", DEPTH),
    "VDOTControl": ("frames", FIT),
    "VDOTDepth": ("depth", {"normalization": "frame", "invert": False, **FIT}),
    "VDOTMask": ("frames", {"mask": torch.ones(1, 32, 48), "mask_shape": "box", "expand": 0.0, **FIT}),
    "VDOTOutpaint": ("frames", {"left": 16, "right": 0, "top": 0, "bottom": 0, **FIT}),
    "VDOTExtend": ("first", {"length": 9, "width": 0, "height": 0}),
    "VDOTMove": ("image", {"boxes": "0: 4, 4, 20, 20", "length": 5, "width": 0, "height": 0}),
}
# These take pictures too: references on white, a size or a background alone, a growing input, or what a unit
# was made from.
OTHERS = {
    "VDOTReference",
    "VDOTBoxMask",
    "VDOTPose",
    "VDOTMatte",
    "VDOTFace",
    "VDOTLayout",
    "VDOTKeyframes",
    "VDOTCrop",
    "VDOTPasteBack",
    "VDOTStitch",
}


@pytest.fixture(scope="module")
def loaded(comfy, tmp_path_factory):
    """IMAGE and MASK of Load Image for a PNG with a subject on nothing."""
    import folder_paths

    import nodes

    folder = tmp_path_factory.mktemp("input")
    picture = Image.new("RGBA", (64, 64))
    ImageDraw.Draw(picture).ellipse((20, 12, 44, 52), fill=(200, 60, 20, 255))
    picture.save(folder / "subject.png")
    before = folder_paths.get_input_directory()
    folder_paths.set_input_directory(str(folder))
    yield nodes.LoadImage().load_image("subject.png")
    folder_paths.set_input_directory(before)


def reference(run, image, **inputs):
    return run("VDOTReference", images={"image0": image}, **SIZE, **inputs)


def test_load_images_mask_cuts_the_subject_out(run, loaded):
    image, mask = loaded
    out = reference(run, image, masks={"mask0": mask}, mask_is="transparent")
    (canvas,) = out.args[0].references
    assert canvas[32, 32].tolist() == pytest.approx([200 / 255, 60 / 255, 20 / 255], abs=1e-3)
    assert (canvas[0, 0] == 1).all(), "on white"
    assert not any("mask_is" in line for line in out.ui["text"])


def test_a_faint_subject_is_told_apart_from_a_wrong_mask(run):
    image, mask = torch.rand(1, 64, 64, 3), torch.ones(1, 64, 64)
    mask[:, 20:40, 20:40] = 0.6
    with pytest.raises(ValueError, match="subject is nowhere more than half opaque"):
        reference(run, image, masks={"mask0": mask}, mask_is="transparent")
    assert reference(run, image, masks={"mask0": mask}, mask_is="transparent", cut_out="whole").args


def test_the_node_says_what_is_wrong_with_the_usual_wires(run, loaded, caplog):
    image, mask = loaded
    caplog.set_level("INFO", logger="vdot")
    for masks, advice in (({"mask0": mask}, "set mask_is to transparent"), ({}, "connect Load Image's MASK")):
        out = reference(run, image, masks=masks)
        (line,) = [line for line in out.ui["text"] if "mask_is" in line]
        assert line.startswith("image0") and advice in line and line in caplog.text


@pytest.mark.parametrize("node_id", CASES)
def test_a_fourth_channel_is_ignored_and_said(run, node_id):
    name, inputs = CASES[node_id]
    count = 1 if node_id in ("VDOTMove", "VDOTExtend") else 5
    clip = torch.rand(count, 32, 48, 1).expand(-1, -1, -1, 3)
    plain, with_alpha = (
        run(node_id, **{name: frames}, **inputs)
        for frames in (clip, torch.cat([clip, torch.rand(count, 32, 48, 1)], -1))
    )
    results = [getattr(out.args[0], "frames", out.args[0]) for out in (plain, with_alpha)]
    assert torch.equal(*results)
    assert any("alpha channel ignored" in line for line in with_alpha.ui["text"])
    assert not plain.ui or not any("alpha" in line for line in plain.ui["text"])


def test_every_node_with_a_picture_is_covered(node_classes):
    with_pictures = {
        node_id
        for node_id, node in node_classes.items()
        if any(
            entry.io_type == "IMAGE"
            or (hasattr(entry, "template") and entry.template.input.io_type == "IMAGE")
            for entry in node.GET_SCHEMA().inputs
        )
    }
    assert with_pictures == set(CASES) | OTHERS


def test_keyframes_and_crop_take_four_channels(run):
    clip = torch.rand(5, 32, 48, 4)
    out = run("VDOTKeyframes", images={"image0": clip[:1]}, positions="0", length=5, width=0, height=0)
    assert any("alpha channel ignored" in line for line in out.ui["text"])
    mask = run("VDOTBoxMask", image=clip, bboxes=BOX, which="all").args[0]
    part = run("VDOTCrop", frames=clip, mask=mask, margin=0.0, width=0, height=0).args[0]
    assert part.shape[-1] == 3


def test_an_empty_region_is_said(run):
    out = run("VDOTControl", frames=torch.rand(5, 32, 48, 3), region=torch.zeros(1, 32, 48), **FIT)
    assert any("region is empty" in line for line in out.ui["text"])
