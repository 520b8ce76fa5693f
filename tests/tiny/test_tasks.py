"""Training's tasks are the nodes' units, and the cache holds what encoding them gives."""

import numpy as np
import pytest
import torch

from tiny import encode, tasks, vae
from tiny.clips import shapes, truth
from tiny.clips.regions import random_region
from tiny.config import CacheGroup
from training.data import wan_vae

SIZE = (13, 32, 48)


def scene_for(task, index=5):
    return tasks.draw_scene(index, "validation", 0.0, SIZE, kind=tasks.TASKS[task].scene)


@pytest.fixture(scope="module")
def tiny_vae():
    network = wan_vae.build_vae(4)
    vae.initialize_vae(network, torch.Generator().manual_seed(0))
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("task", tasks.TASKS)
def test_what_a_unit_keeps_is_the_clip_and_what_it_asks_for_is_hidden(task):
    for seed in (None, 0, 1, 2):
        scene = scene_for(task, seed or 0)
        unit = tasks.build_unit(task, scene, None if seed is None else np.random.default_rng(seed))
        assert unit.frames.shape == scene.frames.shape and not unit.notes
        assert set(unit.masks.unique().tolist()) <= {0.0, 1.0} and unit.masks.any()
        assert len(unit.references) == tasks.TASKS[task].num_references
        unmasked = unit.masks < 0.5
        assert torch.equal(unit.frames[unmasked], scene.frames[unmasked]), "what is kept is the clip itself"
        tells = tasks.TASKS[task].tells
        if "kept" not in tells:
            assert not unmasked.any()
        if set(tells) <= {"kept", "references", "boxes", "masks"} and task not in CONTROLLED:
            assert (unit.frames[~unmasked] == 0.5).all(), "no pixel of what is to be made is shown"
        assert set(truth.truths(tells, scene, unit)) == set(tells)


CONTROLLED = (
    "layout",
    "layout_track",
    "move",
    "reference_layout",
    "reference_layout_track",
    "references_layout",
)


@pytest.mark.parametrize("task", [name for name, task in tasks.TRAINING.items() if task.num_references])
def test_references_show_the_colors_of_what_the_clip_shows(task):
    palette = torch.tensor([shapes.COLORS[name] for name in shapes.COLORS])
    for seed in range(4):
        scene = scene_for(task, seed)
        unit = tasks.build_unit(task, scene, np.random.default_rng(seed))
        colors = []
        for image in unit.references:
            if task.startswith("face"):
                # A face brings its box's background along; in the middle there is nothing but the head.
                image = image[SIZE[1] // 3 : -SIZE[1] // 3, SIZE[2] // 3 : -SIZE[2] // 3]
            inked = image.amin(-1) < 0.98
            nearest = (palette - image[inked][:, None]).norm(dim=-1).argmin(-1).mode().values
            colors.append(list(shapes.COLORS)[int(nearest)])
        assert sorted(colors) == sorted(
            color for color, _ in truth.truths(("references",), scene, unit)["references"]
        )


def test_the_generator_leaves_nothing_else_open():
    for task in tasks.TRAINING:
        scene = scene_for(task)
        one, two = (tasks.build_unit(task, scene, np.random.default_rng(7)) for _ in range(2))
        assert one == two, task


@pytest.mark.parametrize("task", ["inpaint", "outpaint", "extend", "keyframes", "layout", "swap"])
def test_training_sees_many_forms_of_a_task(task):
    scene = tasks.draw_scene(2, "train", 0.0, (17, 64, 64))
    units = [tasks.build_unit(task, scene, np.random.default_rng(seed)) for seed in range(24)]
    different = {unit.masks.numpy().tobytes() + unit.frames.numpy().tobytes() for unit in units}
    assert len(different) >= {"swap": 3, "layout": 4, "extend": 8}.get(task, 12)


def test_regions_are_of_every_size():
    shares = [random_region(np.random.default_rng(seed), (5, 64, 64)).mean().item() for seed in range(200)]
    assert min(shares) < 0.05 and max(shares) == 1.0 and 0.15 < np.mean(shares) < 0.5


def test_tasks_of_one_index_share_a_scene_where_they_can():
    names = ["text", "depth", "pose", "inpaint", "references"]
    scenes = tasks.draw_scenes(names, 4, "train", 0.0, SIZE)
    assert scenes["text"] is scenes["depth"] is scenes["inpaint"]
    assert scenes["pose"].objects[0].shape == "stick figure" and len(scenes["references"].objects) == 2
    textured = tasks.draw_scenes(names, 4, "train", 1.0, SIZE)
    assert not textured["text"].objects and textured["depth"].objects


def test_scenes_without_what_a_task_needs_are_refused():
    texture = tasks.draw_scene(0, "train", 1.0, SIZE)
    tasks.build_unit("inpaint", texture, np.random.default_rng(0))
    for task in ("depth", "pose", "references"):
        with pytest.raises(ValueError, match="nothing drawn"):
            tasks.build_unit(task, texture)
    with pytest.raises(ValueError, match="needs a scene of the kind 'figure'"):
        tasks.build_unit("pose", scene_for("depth"))
    with pytest.raises(ValueError, match="unknown task"):
        tasks.build_unit("colorize", texture)
    with pytest.raises(ValueError, match="no drawn object"):
        _ = texture.depth


def test_reference_samples_put_the_references_latents_first(tiny_vae):
    group = CacheGroup(width=48, height=32, num_frames=13, num_clips=1, tasks=["reference"])
    (sample,) = encode.encode_clips(tiny_vae, tuple, group, range(3, 4), "shapes", bf16=False)
    scene = tasks.draw_scene(3, "train", 0.0, SIZE)
    unit = tasks.build_unit("reference", scene, np.random.default_rng([3, 13]))
    video = wan_vae.encode_video(tiny_vae, scene.frames[None])[0]
    reference = wan_vae.encode_video(tiny_vae, unit.references[0][None, None])[0]
    expected = torch.cat([reference, video], dim=1)
    torch.testing.assert_close(sample.latents.float(), expected, atol=5e-3, rtol=2e-3)
    assert sample.contexts.shape == (1, 96, 5, 4, 6)
    assert sample.num_reference_latents == 1 and sample.texts == tuple(scene.captions)
    assert not sample.contexts[0, 16:, 0].any(), "a reference has no reactive half and mask 0"


def test_a_wrong_cache_group_is_named():
    with pytest.raises(ValueError, match="multiples of 16"):
        CacheGroup(width=40, height=32, num_frames=9, num_clips=1, tasks=["text"])
    with pytest.raises(ValueError, match="split the group"):
        CacheGroup(width=48, height=32, num_frames=9, num_clips=1, tasks=["text"], extra=["reference"])
    with pytest.raises(ValueError, match="unknown task"):
        CacheGroup(width=48, height=32, num_frames=9, num_clips=1, tasks=["texts"])


def test_simple_scenes_show_what_is_needed_and_no_more():
    for index in range(12):
        scenes = tasks.draw_scenes(["text", "references"], index, "train", 0.0, SIZE, simple=True)
        assert {name: len(scene.objects) for name, scene in scenes.items()} == {"text": 1, "references": 2}
        assert {scene.background.split()[0] for scene in scenes.values()} <= set(tasks.SIMPLE)
