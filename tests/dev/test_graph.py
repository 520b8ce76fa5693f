"""Overrides reach the right nodes by what they feed, and taps lead only to what they show."""

import copy

import pytest

from devtools.demo.graph import apply, final_units, tap_prompt
from devtools.demo.loaders import assign, loaders, mask_people
from devtools.demo.options import PEOPLE, DemoOptions
from devtools.errors import DevError

IMAGES = [
    "COMFY_AUTOGROW_V3",
    {"template": {"input": {"required": {"image": ["IMAGE", {}]}}, "prefix": "image"}},
]
INFO = {
    "LoadVideo": {"input": {"required": {"file": ["COMBO", {}]}}, "output": ["VIDEO"]},
    "Components": {"input": {"required": {"video": ["VIDEO"]}}, "output": ["IMAGE"]},
    "LoadImage": {"input": {"required": {"image": [[], {}]}}, "output": ["IMAGE", "MASK"]},
    "Unit": {
        "input": {
            "required": {
                "video": ["IMAGE"],
                "mask": ["MASK"],
                "width": ["INT"],
                "height": ["INT"],
                "length": ["INT"],
            }
        },
        "output": ["VDOT_VCU"],
    },
    "Crop": {
        "input": {"required": {"frames": ["IMAGE"], "mask": ["MASK"], "width": ["INT"], "height": ["INT"]}},
        "output": ["IMAGE", "MASK", "VDOT_CROP"],
    },
    "References": {
        "input": {"required": {"images": IMAGES}, "optional": {"unit": ["VDOT_VCU"]}},
        "output": ["VDOT_VCU"],
    },
    "CLIPTextEncode": {"input": {"required": {"text": ["STRING"]}}, "output": ["CONDITIONING"]},
    "Encode": {
        "input": {
            "required": {"positive": ["CONDITIONING"], "negative": ["CONDITIONING"], "unit": ["VDOT_VCU"]},
            "optional": {"unit_2": ["VDOT_VCU"]},
        },
        "output": ["LATENT"],
    },
    "Show": {"input": {"required": {"unit": ["VDOT_VCU"]}}, "output": ["IMAGE"], "output_node": True},
    "Sampler": {
        "input": {"required": {"latent": ["LATENT"], "seed": ["INT"], "width": ["INT"]}},
        "output": ["LATENT"],
    },
}
PROMPT = {
    "1": {"class_type": "LoadVideo", "inputs": {"file": "clip.mp4"}},
    "2": {"class_type": "Components", "inputs": {"video": ["1", 0]}},
    "3": {"class_type": "LoadImage", "inputs": {"image": "mask.png"}},
    "4": {
        "class_type": "Unit",
        "inputs": {"video": ["2", 0], "mask": ["3", 1], "width": 0, "height": 0, "length": 0},
    },
    "5": {"class_type": "LoadImage", "inputs": {"image": "cat.png"}},
    "10": {"class_type": "LoadImage", "inputs": {"image": "dog.png"}},
    "6": {
        "class_type": "References",
        "inputs": {"images.image0": ["5", 0], "images.image1": ["10", 0], "unit": ["4", 0]},
    },
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat"}},
    "8": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry"}},
    "9": {"class_type": "Encode", "inputs": {"positive": ["7", 0], "negative": ["8", 0], "unit": ["6", 0]}},
    "11": {"class_type": "Sampler", "inputs": {"latent": ["9", 0], "seed": 0, "width": 5}},
}


@pytest.fixture
def prompt():
    return copy.deepcopy(PROMPT)


def run(prompt, /, **options):
    options = DemoOptions(**options)
    files = assign(loaders(prompt, INFO), options)
    apply(prompt, INFO, options)
    return {loader.node_id: file for loader, file in files.items()}


def test_loaders_are_known_by_what_they_feed(prompt):
    roles = {loader.node_id: loader.role for loader in loaders(prompt, INFO)}
    assert roles == {"1": "video", "3": "mask", "5": "image", "10": "image"}


def test_files_go_to_their_loaders_in_order(prompt):
    assert run(prompt, video="v.mp4", mask="m.png", images=("a.png", "b.png")) == {
        "1": "v.mp4",
        "3": "m.png",
        "5": "a.png",
        "10": "b.png",
    }
    assert run(prompt, images=("a.png",)) == {"5": "a.png"}


def test_values_go_to_the_right_inputs_and_nowhere_else(prompt):
    run(prompt, prompt="a dog", seed=9, num_frames=13, size=(80, 48))
    changed = {
        (node_id, name): value
        for node_id, node in prompt.items()
        for name, value in node["inputs"].items()
        if value != PROMPT[node_id]["inputs"][name]
    }
    assert changed == {
        ("7", "text"): "a dog",
        ("11", "seed"): 9,
        ("4", "length"): 13,
        ("4", "width"): 80,
        ("4", "height"): 48,
    }


def test_a_size_goes_to_the_region_where_one_is_cut_out(prompt):
    """Its unit takes the region's size: another one could not be pasted back."""
    inputs = {"frames": ["2", 0], "mask": ["3", 1], "width": 64, "height": 64}
    prompt["20"] = {"class_type": "Crop", "inputs": inputs}
    prompt["4"]["inputs"] |= {"video": ["20", 0], "mask": ["20", 1]}
    run(prompt, size=(80, 48))
    assert (prompt["20"]["inputs"]["width"], prompt["20"]["inputs"]["height"]) == (80, 48)
    assert (prompt["4"]["inputs"]["width"], prompt["4"]["inputs"]["height"]) == (0, 0)


def test_nothing_given_changes_nothing(prompt):
    assert run(prompt) == {}
    assert prompt == PROMPT


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": ("a", "b", "c")}, r"--image was given 3 times, the depth workflow reads 2 images"),
        ({"video": "v"}, r"--video was given 1 time, the depth workflow reads 0 videos"),
        ({"seed": 1}, "--seed: the depth workflow has no input"),
    ],
)
def test_what_has_no_place_is_refused(prompt, options, message):
    if "images" not in options:
        prompt = {"5": prompt["5"]}  # alone, it feeds nothing
    with pytest.raises(DevError, match=message):
        run(prompt, **options)


def test_the_units_that_reach_the_encoder_are_found_and_no_others(prompt):
    assert final_units(prompt, INFO) == [("6", 0)]
    prompt["12"] = {"class_type": "Show", "inputs": {"unit": ["4", 0]}}
    prompt["9"]["inputs"]["unit_2"] = ["4", 0]
    assert final_units(prompt, INFO) == [("6", 0), ("4", 0)]


def test_a_sampler_that_saves_its_video_takes_finished_units(prompt):
    long = {"input": {"required": {"unit": ["VDOT_VCU"]}}, "output": ["IMAGE", "VIDEO"], "output_node": True}
    prompt = {"4": prompt["4"], "20": {"class_type": "Long", "inputs": {"unit": ["4", 0]}}}
    assert final_units(prompt, {**INFO, "Long": long}) == [("4", 0)]


def test_the_tap_prompt_makes_the_units_and_runs_no_model(prompt):
    extended = tap_prompt(prompt, [("6", 0), ("4", 0)], [0, 8, 16])
    assert extended["tap1"]["inputs"] == {"unit": ["4", 0], "indices": "0,8,16"}
    assert set(extended) == {"1", "2", "3", "4", "5", "6", "10", "tap0", "tap1"}
    assert "tap0" not in prompt


def test_people_in_the_clip_are_the_mask(prompt):
    prompt["3"] = {"class_type": "LoadVideo", "inputs": {"file": "mask.mp4"}}
    prompt["31"] = {"class_type": "Components", "inputs": {"video": ["3", 0]}}
    prompt["32"] = {"class_type": "ToMask", "inputs": {"image": ["31", 0]}}
    prompt["4"]["inputs"]["mask"] = ["32", 0]
    info = {**INFO, "ToMask": {"input": {"required": {"image": ["IMAGE"]}}, "output": ["MASK"]}}
    options = mask_people(prompt, info, DemoOptions("t", video="a.mp4", mask=PEOPLE))
    assert options.mask is None and not {"3", "31", "32"} & prompt.keys()
    matte = prompt[prompt["4"]["inputs"]["mask"][0]]
    assert matte["class_type"] == "VDOTMatte" and matte["inputs"] == {"frames": ["2", 0]}
    (file,) = assign(loaders(prompt, info), options).items()
    assert file[0].node_id == "1" and file[1] == "a.mp4"
    with pytest.raises(DevError, match="--mask people: the t workflow has no clip with a mask"):
        mask_people(prompt, info, DemoOptions("t", mask=PEOPLE))
