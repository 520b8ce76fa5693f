"""Training's tasks are the nodes' units, and the cache holds what encoding them gives."""

import numpy as np
import pytest
import torch

from training import latents, tasks, vae
from training.config import CacheGroup
from vdot_core import vcu

SIZE = (9, 32, 48)


@pytest.fixture(scope="module")
def scene():
    return tasks.draw_scene(5, "validation", 0.0, SIZE)


@pytest.fixture(scope="module")
def tiny_vae():
    network = vae.build_vae(4)
    vae.initialize_vae(network, torch.Generator().manual_seed(0))
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("task", tasks.TASKS)
def test_every_task_makes_a_unit_of_the_scenes_size(scene, task):
    for seed in range(6):
        unit = tasks.build_unit(task, scene, np.random.default_rng(seed))
        assert isinstance(unit, vcu.VCU)
        assert unit.frames.shape == scene.frames.shape
        assert bool(unit.references) == task.startswith("reference")
        kept = (unit.masks < 0.5)[..., None] & torch.ones(3, dtype=torch.bool)
        if task in ("inpaint", "outpaint", "extend"):
            assert torch.equal(unit.frames[kept], scene.frames[kept]), "what is kept is the clip itself"
            assert (unit.frames[~kept] == 0.5).all() and (~kept).any()
        else:
            assert not kept.any(), "a control keeps nothing"


def test_textures_serve_only_the_tasks_they_have_annotations_for():
    scene = tasks.draw_scene(0, "train", 1.0, SIZE)
    tasks.build_unit("inpaint", scene, np.random.default_rng(0))
    with pytest.raises(ValueError, match="drawn scene"):
        tasks.build_unit("depth", scene, np.random.default_rng(0))
    with pytest.raises(ValueError, match="unknown task"):
        tasks.build_unit("pose", scene, np.random.default_rng(0))


def test_cached_samples_are_what_encode_gives(tiny_vae, tmp_path):
    group = CacheGroup(width=48, height=32, num_frames=9, num_clips=2, tasks=["text", "depth", "gray"])
    samples = latents.cached_group(tiny_vae, group, 0, tmp_path, bf16=False, start=3)
    again = latents.cached_group(None, group, 0, tmp_path, bf16=False, start=3)
    assert torch.equal(samples.contexts, again.contexts) and samples.captions == again.captions
    assert samples.tasks == ["text", "depth", "gray"] * 2


def test_reference_samples_put_the_references_latents_first(tiny_vae):
    group = CacheGroup(width=48, height=32, num_frames=9, num_clips=1, tasks=["reference"])
    samples = latents.encode_clips(tiny_vae, group, "train", 3, 1, bf16=False)
    scene = tasks.draw_scene(3, "train", 0.0, SIZE)
    video = vae.encode_video(tiny_vae, scene.frames[None])[0]
    canvas = vcu.letterbox(scene.references[-1], 48, 32)
    reference = vae.encode_video(tiny_vae, canvas[None, None])[0]
    expected = torch.cat([reference, video], dim=1)
    torch.testing.assert_close(samples.latents[0].float(), expected, atol=5e-3, rtol=2e-3)
    assert samples.contexts.shape == (1, 96, 4, 4, 6)
    assert not samples.contexts[0, 16:, 0].any(), "a reference has no reactive half and mask 0"


def test_a_wrong_cache_group_is_named():
    with pytest.raises(ValueError, match="multiples of 16"):
        CacheGroup(width=40, height=32, num_frames=9, num_clips=1, tasks=["text"])
    with pytest.raises(ValueError, match="split the group"):
        CacheGroup(width=48, height=32, num_frames=9, num_clips=1, tasks=["text"], extra=["reference"])
