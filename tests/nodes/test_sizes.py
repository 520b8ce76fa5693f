"""The size of VDOT Load on task nodes: the model's own size, with boxes and positions scaled along."""

import pytest
import torch

from tests.support.pack import submodule

FIT = {"width": 0, "height": 0}


@pytest.fixture(scope="module")
def sizes(pack):
    return submodule("vdot_core.vcu").SIZES


@pytest.fixture(scope="module")
def demo(pack):
    return submodule("nodes.comfy_load_all").DEMO_SIZE


def shape(output):
    unit = output.args[0]
    return unit.width, unit.height, unit.num_frames


def test_text_takes_the_models_size_and_says_so(run, sizes, demo):
    numbers = {"width": 1920, "height": 1080, "length": 161}
    out = run("VDOTText", **numbers, size=sizes["480p"])
    assert shape(out) == (832, 480, 81)
    assert "size (480p): 832x480, 81 frames (length was 161" in out.ui["text"][1]
    assert shape(run("VDOTText", **{**numbers, "length": 50}, size=sizes["480p"])) == (832, 480, 49)
    assert shape(run("VDOTText", width=64, height=64, length=81, size=demo)) == (64, 64, 17)
    assert shape(run("VDOTText", width=512, height=512, length=9)) == (512, 512, 9)


def test_an_examples_square_becomes_the_models_landscape(run, sizes, demo):
    numbers = {"width": 64, "height": 64, "length": 81}
    out = run("VDOTText", **numbers, size=sizes["480p"])
    assert shape(out) == (832, 480, 81)
    assert any("width and height (64x64) are an example's" in line for line in out.ui["text"])
    square = {"width": 1024, "height": 1024, "length": 81}
    assert shape(run("VDOTText", **square, size=sizes["480p"]))[:2] == (624, 624)
    boxes = {"boxes": "16, 16, 48, 48", **numbers}
    written = run("VDOTLayout", **boxes, size=sizes["480p"]).args[0]
    expected = run("VDOTLayout", boxes="208, 120, 624, 360", width=832, height=480, length=81).args[0]
    assert torch.equal(written.frames, expected.frames)


def test_gray_follows_the_model(run, sizes, demo):
    frames = torch.rand(1, 16, 16, 3)
    size = submodule("nodes.comfy_load_all").load_all(*["bundled demo"] * 3, "auto", "default").size
    for source, weights in ((None, "vace"), (sizes["480p"], "vace"), (size, "bt601")):
        auto = run("VDOTGray", frames=frames, weights="auto", size=source).args[0]
        assert torch.equal(auto, run("VDOTGray", frames=frames, weights=weights).args[0])


@pytest.mark.parametrize(
    ("name", "chunk", "overlap", "expected"),
    [
        (None, 0, 0, (81, 17)),
        ("480p", 0, 0, (81, 17)),
        ("demo", 0, 0, (17, 5)),
        ("demo", 49, 0, (49, 13)),
        ("480p", 0, 9, (81, 9)),
        (None, 5, 0, (5, 1)),
    ],
)
def test_chunks_follow_the_model(sizes, demo, name, chunk, overlap, expected):
    size = {**sizes, "demo": demo, None: None}[name]
    assert submodule("nodes.sizes").chunking(size, chunk, overlap) == expected


def test_a_picture_decides_the_shape(run, demo, sizes):
    picture = torch.rand(1, 108, 192, 3)
    out = run("VDOTExtend", length=81, **FIT, first=picture, size=demo)
    assert shape(out) == (80, 48, 17)
    out = run("VDOTExtend", length=5, **FIT, last=picture, size=sizes["480p"])
    assert shape(out) == (832, 480, 5)
    assert any("192x108, far less than the model's 832x480" in line for line in out.ui["text"])
    assert shape(run("VDOTExtend", length=5, width=64, height=64, first=picture, size=demo)) == (64, 64, 5)


def test_a_unit_decides_over_the_size(run, demo):
    unit = run("VDOTText", width=96, height=48, length=5).args[0]
    numbers = {"width": 832, "height": 480, "length": 81}
    picture = {"image0": torch.rand(1, 32, 32, 3)}
    assert shape(run("VDOTReference", images=picture, **numbers, unit=unit, size=demo)) == (96, 48, 5)
    assert shape(run("VDOTReference", images=picture, **numbers, size=demo)) == (80, 48, 17)


def test_boxes_are_scaled_along(run, demo):
    """Numbers written for 640x640 with 81 frames, on the demo's 64x64 with 17."""
    boxes = "0: 40, 80, 240, 320\n40: 240, 280, 440, 520\n-1: 400, 80, 600, 320"
    small = "0: 4, 8, 24, 32\n8: 24, 28, 44, 52\n-1: 40, 8, 60, 32"
    written = run("VDOTLayout", boxes=boxes, width=640, height=640, length=81, size=demo).args[0]
    expected = run("VDOTLayout", boxes=small, width=64, height=64, length=17).args[0]
    assert torch.equal(written.frames, expected.frames)
    path = "100, 100\n500, 500"
    sides = {"box_width": 160, "box_height": 160}
    written = run("VDOTLayout", boxes=path, width=640, height=640, length=81, **sides, size=demo).args[0]
    sides = {"box_width": 16, "box_height": 16}
    expected = run("VDOTLayout", boxes="10, 10\n50, 50", width=64, height=64, length=17, **sides).args[0]
    assert torch.equal(written.frames, expected.frames)


def test_a_moved_picture_takes_its_boxes_along(run, demo):
    picture = torch.rand(1, 320, 320, 3, generator=torch.Generator().manual_seed(0))
    boxes, small = "1: 40, 40, 120, 120\n-1: 200, 200, 280, 280", "1: 8, 8, 24, 24\n-1: 40, 40, 56, 56"
    written = run("VDOTMove", image=picture, boxes=boxes, length=17, **FIT, size=demo).args[0]
    expected = run("VDOTMove", image=picture, boxes=small, length=17, width=64, height=64).args[0]
    assert torch.equal(written.frames, expected.frames)


@pytest.mark.parametrize(
    ("span", "frames"),
    [((20, 60), (5, 13)), ((0, 13), (0, 1)), ((60, 0), (13, 17)), ((0, 0), (0, 17)), ((40, 41), (5, 9))],
)
def test_the_guided_span_is_moved_along(run, demo, span, frames):
    numbers = {"boxes": "8, 8, 40, 40", "height": 64, "start_frame": span[0], "end_frame": span[1]}
    out = run("VDOTLayout", **numbers, width=64, length=81, size=demo)
    unit, (first, last) = out.args[0], frames
    guided = [k for k in range(17) if not torch.all(unit.frames[k] == 0.5)]
    assert guided == list(range(first, last))
    said = f"control: guides frames {first}..{last - 1} of 17 ("
    assert [line.startswith(said) for line in out.ui["text"]].count(True) == (frames != (0, 17))
    assert sum("guides frames" in line for line in out.ui["text"]) == (frames != (0, 17))


def test_a_wrong_span_is_refused_in_the_numbers_that_were_set(run, demo):
    numbers = {"boxes": "8, 8, 40, 40", "width": 64, "height": 64, "length": 81, "size": demo}
    with pytest.raises(ValueError, match="start_frame is frame 60, and the control ends at frame 20 of 81"):
        run("VDOTLayout", **numbers, start_frame=60, end_frame=20)
    lines = run("VDOTLayout", **numbers, end_frame=100).ui["text"]
    assert "control: end_frame 100 is past the video's 81 frames: it guides to its end" in lines


def test_the_span_of_tracked_masks_counts_their_frames(run, demo):
    masks = {"mask0": torch.ones(81, 64, 64)}
    numbers = {"boxes": "", "width": 64, "height": 64, "length": 81, "start_frame": 5, "end_frame": 13}
    unit = run("VDOTLayout", **numbers, masks=masks, size=demo).args[0]
    assert [k for k in range(17) if not torch.all(unit.frames[k] == 0.5)] == list(range(5, 13))


def test_masks_give_the_shape_of_a_layout(run, demo):
    masks = torch.zeros(5, 90, 160)
    masks[:, 20:50, 30:80] = 1
    numbers = {"boxes": "", "width": 832, "height": 480, "length": 81}
    assert shape(run("VDOTLayout", **numbers, masks={"mask0": masks}, size=demo))[:2] == (80, 48)


def test_keyframes_move_along(run, demo):
    pictures = {f"image{k}": torch.full((1, 64, 64, 3), 0.2 + 0.3 * k) for k in range(3)}
    numbers = {"positions": "0, 40, -1", "length": 81, **FIT}
    unit = run("VDOTKeyframes", images=pictures, **numbers, size=demo).args[0]
    assert unit.num_frames == 17
    kept = [k for k in range(17) if not bool(unit.masks[k].any())]
    assert kept == [0, 8, 16]


def test_an_outpainted_clip_gets_the_models_size_in_its_new_shape(run, sizes):
    sides = {"left": 50, "right": 50, "top": 0, "bottom": 0, "mode": "percent"}
    numbers = {"width": 0, "height": 0, "length": 0}
    output = run("VDOTOutpaint", frames=torch.rand(5, 64, 64, 3), **sides, **numbers, size=sizes["480p"])
    assert shape(output) == (*sizes["480p"].fit(2, 1), 5)


def test_a_region_is_made_at_the_models_size(run, sizes):
    frames, mask = torch.rand(2, 96, 160, 3), torch.zeros(96, 160)
    mask[20:50, 60:100] = 1
    square = {"margin": 0.5, "width": 64, "height": 64, "size": sizes["480p"]}
    part, cut, _ = run("VDOTCrop", frames=frames, mask=mask, **square).args
    width, height = sizes["480p"].fit(1, 1)
    assert part.shape == (2, height, width, 3) and cut.shape == (2, height, width)


def test_another_value_is_refused_in_words(run):
    with pytest.raises(ValueError, match="size is 5, expected a size; connect the size of VDOT Load"):
        run("VDOTText", width=64, height=64, length=5, size=5)
