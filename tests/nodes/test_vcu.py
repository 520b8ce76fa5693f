"""The task nodes: thin over vdot_core's builders, and honest about what they change."""

import pytest
import torch


def test_text_snaps_and_says_so(run):
    out = run("VDOTText", width=70, height=64, length=18)
    unit = out.args[0]
    assert (unit.width, unit.height, unit.num_frames) == (64, 64, 17)
    text = " ".join(out.ui["text"])
    assert "70x64 -> 64x64" in text and "18 -> 17" in text


def test_control_takes_the_clip_as_it_is(run):
    clip = torch.rand(9, 32, 48, 3)
    unit = run("VDOTControl", frames=clip, width=0, height=0, length=0).args[0]
    assert unit.kind == "control" and torch.equal(unit.frames, clip) and bool((unit.masks == 1).all())
    region = torch.zeros(1, 32, 48)
    region[:, :16] = 1
    unit = run("VDOTControl", frames=clip, width=0, height=0, length=0, region=region).args[0]
    assert bool((unit.frames[:, 16:] == 0.5).all()) and torch.equal(unit.frames[:, :16], clip[:, :16])


def test_control_snaps_a_clip_and_says_so(run):
    out = run("VDOTControl", frames=torch.rand(11, 37, 50, 4), width=0, height=0, length=0)
    unit = out.args[0]
    assert (unit.width, unit.height, unit.num_frames) == (48, 32, 9)
    text = " ".join(out.ui["text"])
    assert "11 frames -> 9" in text and "50x37" in text and "alpha" in text


def test_depth_stretches_each_frame_near_bright(run):
    ramp = torch.linspace(0.2, 0.4, 32).view(1, 1, 32, 1).expand(5, 32, 32, 3)
    fit = {"width": 0, "height": 0, "length": 0}
    unit = run("VDOTDepth", depth=ramp, normalization="frame", invert=False, **fit).args[0]
    assert unit.frames.amin() == 0 and unit.frames.amax() == 1 and unit.frames[0, 0, -1, 0] == 1
    turned = run("VDOTDepth", depth=ramp, normalization="frame", invert=True, **fit).args[0]
    assert torch.allclose(turned.frames, 1 - unit.frames)
    rgba = torch.cat([ramp, torch.ones(5, 32, 32, 1)], -1)
    assert torch.equal(
        run("VDOTDepth", depth=rgba, normalization="frame", invert=False, **fit).args[0].frames, unit.frames
    )


def test_mask_hides_what_was_under_it(run):
    clip, mask = torch.rand(5, 32, 32, 3), torch.zeros(1, 32, 32)
    mask[:, 8:20, 4:12] = 1
    options = {"mask_shape": "original", "expand": 0.0, "width": 0, "height": 0, "length": 0}
    unit = run("VDOTMask", frames=clip, mask=mask, **options).args[0]
    inside = unit.masks[..., None].expand_as(clip) > 0.5
    assert bool((unit.frames[inside] == 0.5).all()) and torch.equal(unit.frames[~inside], clip[~inside])
    assert float(unit.masks.sum()) == 5 * 12 * 8


def test_outpaint_adds_margins(run):
    sides = {"left": 16, "right": 0, "top": 0, "bottom": 16}
    clip = torch.rand(5, 32, 32, 3)
    unit = run("VDOTOutpaint", frames=clip, **sides, width=0, height=0, length=0).args[0]
    assert (unit.width, unit.height) == (48, 48)
    assert torch.equal(unit.frames[:, :32, 16:], clip) and float(unit.masks[0].sum()) == 48 * 48 - 32 * 32


def test_extend_image_to_video(run):
    image, last = torch.rand(1, 32, 32, 3), torch.rand(2, 32, 32, 3)
    unit = run("VDOTExtend", length=9, width=0, height=0, first=image, last=last).args[0]
    assert unit.kind == "extension" and unit.masks[:, 0, 0].tolist() == [0, 1, 1, 1, 1, 1, 1, 0, 0]
    assert torch.equal(unit.frames[0], image[0]) and torch.equal(unit.frames[-2:], last)


def test_keyframes_from_growing_inputs_and_batches(run):
    images = {"image0": torch.rand(1, 32, 32, 3), "image1": torch.rand(2, 32, 32, 3)}
    unit = run("VDOTKeyframes", images=images, positions="0, 4; -1", length=9, width=0, height=0).args[0]
    assert [i for i in range(9) if unit.masks[i].sum() == 0] == [0, 4, 8]
    assert torch.equal(unit.frames[4], images["image1"][0])
    with pytest.raises(ValueError, match="whole numbers"):
        run("VDOTKeyframes", images=images, positions="0, middle", length=9, width=0, height=0)


def test_reference_of_several_sizes_on_white(run):
    wide, tall = torch.zeros(1, 16, 64, 3), torch.zeros(1, 64, 16, 4)
    unit = run("VDOTReference", images={"image0": wide, "image1": tall}, width=64, height=64, length=17).args[
        0
    ]
    assert len(unit.references) == 2 and unit.references[0].shape == (64, 64, 3)
    assert unit.references[0][0, 0, 0] == 1 and unit.references[0][32, 32, 0] == 0
    assert bool((unit.references[1] == 1).all()), "a fully transparent picture is white"


def test_reference_joins_a_unit_and_takes_its_size(run):
    control = run("VDOTControl", frames=torch.rand(9, 32, 48, 3), width=0, height=0, length=0).args[0]
    images, masks = {"image0": torch.rand(1, 40, 40, 3)}, {"mask0": torch.ones(1, 40, 40)}
    unit = run(
        "VDOTReference", images=images, masks=masks, width=832, height=480, length=81, unit=control
    ).args[0]
    assert (unit.width, unit.height, unit.num_frames, len(unit.references)) == (48, 32, 9, 1)
    assert torch.equal(unit.frames, control.frames)


def test_compose_joins_units(run):
    image, pose = torch.rand(1, 32, 32, 3), torch.rand(9, 32, 32, 3)
    start = run("VDOTExtend", length=9, width=0, height=0, first=image).args[0]
    control = run("VDOTControl", frames=pose, width=0, height=0, length=0).args[0]
    unit = run("VDOTCompose", units={"unit0": start, "unit1": control}).args[0]
    assert torch.equal(unit.frames[0], image[0]) and torch.equal(unit.frames[1:], pose[1:])
    other = run("VDOTText", width=64, height=64, length=9).args[0]
    with pytest.raises(ValueError, match="size"):
        run("VDOTCompose", units={"unit0": start, "unit1": other, "unit2": control})


@pytest.mark.parametrize(
    ("node", "inputs", "message"),
    [
        ("VDOTControl", {"frames": torch.rand(5, 32, 32, 2)}, "frames has 2 channels, expected"),
        ("VDOTControl", {"frames": torch.rand(5, 32, 32, 3) * 255}, "divide 0..255"),
        (
            "VDOTMask",
            {"frames": torch.rand(9, 32, 32, 3), "mask": torch.ones(5, 32, 32)},
            "mask has 5 frames, the clip in frames has 9",
        ),
        ("VDOTOutpaint", {"frames": torch.rand(5, 32, 32, 3)}, "nothing to outpaint"),
        ("VDOTExtend", {"length": 9}, "nothing to extend"),
        ("VDOTExtend", {"length": 5, "first": torch.rand(9, 32, 32, 3)}, "longer video"),
        ("VDOTDepth", {"depth": torch.rand(5, 32, 32, 3)}, "color"),
    ],
)
def test_bad_inputs_say_what_to_do(run, node, inputs, message):
    defaults = {
        "VDOTControl": {"width": 0, "height": 0, "length": 0},
        "VDOTMask": {"mask_shape": "original", "expand": 0.0, "width": 0, "height": 0, "length": 0},
        "VDOTOutpaint": dict.fromkeys(("left", "right", "top", "bottom", "width", "height", "length"), 0),
        "VDOTExtend": {"width": 0, "height": 0},
        "VDOTDepth": {"normalization": "frame", "invert": False, "width": 0, "height": 0, "length": 0},
    }
    with pytest.raises(ValueError, match=message):
        run(node, **{**defaults[node], **inputs})
