"""ComfyUI's nodes for conditioning, latents and models, on our MODEL and in our sampler.

ComfyUI's own network with the same weights is the reference.
"""

import pytest
import torch

SETTINGS = {"preset": "released", "steps": 4, "shift": 16.0, "solver": "unipc", "seed": 7}


@pytest.fixture(scope="module")
def encoded(run, vae, text):
    """(positive, latent) of a control clip with a reference."""
    clip = torch.rand(5, 32, 48, 3, generator=torch.Generator().manual_seed(3))
    unit = run("VDOTControl", frames=clip, width=0, height=0, length=0).args[0]
    size = {"width": 48, "height": 32, "length": 5}
    unit = run("VDOTReference", images={"image0": clip[:1]}, **size, unit=unit).args[0]
    positive, _, latent, _ = run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=1.0).args
    return positive, latent


@pytest.fixture(scope="module")
def other(encoded):
    """The same conditioning with another text."""
    (tokens, extra), *_ = encoded[0]
    return [[tokens.flip(-1) * 0.7, dict(extra)]]


@pytest.fixture
def sample(run, encoded):
    """sample(model, **changes): latents of the sampler node."""

    def call(model, **changes):
        inputs = {"model": model, "positive": encoded[0], "latent": encoded[1], **SETTINGS}
        return run("VDOTSampler", **{**inputs, **changes}).args[0]["samples"]

    return call


@pytest.fixture
def agree(ours, native, sample):
    """agree(**changes): both networks give one video; returns it."""

    def call(**changes):
        a, b = (sample(model, **changes) for model in (ours, native))
        torch.testing.assert_close(a, b, atol=2e-3, rtol=2e-3)
        return a

    return call


def count_calls(model):
    """A clone of a model, and the batch sizes that its network is called with."""
    import comfy.patcher_extension

    sizes = []

    def wrapper(executor, x, *args, **kwargs):
        sizes.append(len(x))
        return executor(x, *args, **kwargs)

    clone = model.clone()
    kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
    clone.add_wrapper_with_key(kind, "count", wrapper)
    return clone, sizes


def test_two_videos_at_once(ours, sample, agree, encoded):
    """A batch of latents is a batch of videos; the first is the one that a batch of 1 gives."""
    latent = {**encoded[1], "samples": encoded[1]["samples"].repeat(2, 1, 1, 1, 1)}
    both = agree(latent=latent)
    alone = sample(ours)
    assert both.shape == (2, *alone.shape[1:])
    torch.testing.assert_close(both[:1], alone, atol=2e-3, rtol=2e-3)
    assert not torch.allclose(both[0], both[1], atol=0.1), "each has its own noise"


def test_combined_conditionings_are_averaged(ours, sample, agree, encoded, other):
    import nodes

    (combined,) = nodes.ConditioningCombine().combine(encoded[0], other)
    mixed = agree(positive=combined)
    assert not torch.allclose(mixed, sample(ours), atol=1e-2)
    (only_first,) = nodes.ConditioningCombine().combine(
        encoded[0], nodes.ConditioningSetAreaStrength().append(other, 0.0)[0]
    )
    torch.testing.assert_close(agree(positive=only_first), sample(ours), atol=2e-3, rtol=2e-3)
    (same,) = nodes.ConditioningCombine().combine(encoded[0], encoded[0])
    torch.testing.assert_close(agree(positive=same), sample(ours), atol=2e-3, rtol=2e-3)


def test_strength_of_a_conditioning_weighs_it(agree, sample, ours, encoded, other):
    import nodes

    results = []
    for strength in (0.2, 5.0):
        weak = nodes.ConditioningSetAreaStrength().append(other, strength)[0]
        results.append(agree(positive=nodes.ConditioningCombine().combine(encoded[0], weak)[0]))
    near, far = ((result - sample(ours)).norm() for result in results)
    assert near < far, "the heavier the other text, the further from this one's video"


def test_mask_limits_a_conditioning_to_a_region(agree, sample, ours, encoded, other):
    """The masked entry counts on its side only; in one step the other side is the first text's alone."""
    import nodes

    mask = torch.zeros(1, 4, 6)
    mask[..., :3] = 1
    (masked,) = nodes.ConditioningSetMask().append(other, mask, "default", 8.0)
    (both,) = nodes.ConditioningCombine().combine(encoded[0], masked)
    one_step = {"preset": "custom", "steps": 1, "solver": "euler", "shift": 1.0}
    difference = (agree(positive=both, **one_step) - sample(ours, **one_step)).abs()
    assert difference[..., 3:].max() < 1e-3 < difference[..., :3].mean()


def test_timestep_range_of_a_conditioning(ours, sample, agree, encoded, other):
    """The second text takes over for the later half of the schedule."""
    import nodes

    set_range = nodes.ConditioningSetTimestepRange().set_range
    early, late = set_range(encoded[0], 0.0, 0.5)[0], set_range(other, 0.5, 1.0)[0]
    (switched,) = nodes.ConditioningCombine().combine(early, late)
    settings = {"preset": "custom", "steps": 4, "solver": "euler", "shift": 1.0}
    result = agree(positive=switched, **settings)
    for alone in (encoded[0], other):
        assert not torch.allclose(result, sample(ours, positive=alone, **settings), atol=1e-2)
    model, sizes = count_calls(ours)
    sample(model, positive=switched, **settings)
    assert sizes == [1, 1, 1, 1], "one text at a time"


def test_easycache_skips_the_same_steps_on_both_networks(ours, native, sample):
    from comfy_extras.nodes_easycache import EasyCacheNode

    settings = {"preset": "custom", "steps": 12, "solver": "euler", "shift": 3.0}
    results, counts = [], []
    for model in (ours, native):
        model, sizes = count_calls(model)
        (cached,) = EasyCacheNode.execute(model, 0.5, 0.1, 0.95, False).args
        results.append(sample(cached, **settings))
        counts.append(len(sizes))
    torch.testing.assert_close(*results, atol=2e-3, rtol=2e-3)
    assert torch.isfinite(results[0]).all() and counts[0] == counts[1]
    torch.testing.assert_close(sample(ours, **settings), sample(native, **settings), atol=2e-3, rtol=2e-3)
