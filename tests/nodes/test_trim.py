"""References are cut off exactly once, whichever sampler and whichever wires a graph has."""

import copy
import importlib
import io

import pytest
import torch

from tests.nodes.test_sampler import SETTINGS


@pytest.fixture(scope="module", params=[1, 3])
def encoded(request, run, vae, text):
    """(positive, negative, latent, trim_latent) of a 9-frame clip with one or several references."""
    clip = torch.rand(9, 32, 48, 3)
    unit = run("VDOTControl", frames=clip, width=0, height=0, length=0).args[0]
    images = {f"image{index}": torch.rand(1, 32, 48, 3) for index in range(request.param)}
    unit = run("VDOTReference", images=images, width=48, height=32, length=9, unit=unit).args[0]
    return run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=1.0).args


@pytest.fixture(scope="module")
def trim(comfy):
    """ComfyUI's Trim Video Latent."""
    from comfy_extras.nodes_wan import TrimVideoLatent

    def call(latent, amount):
        with torch.inference_mode():
            return TrimVideoLatent.execute(latent, amount).args[0]

    return call


@pytest.fixture(scope="module")
def sampled(run, ours, encoded):
    return run("VDOTSampler", model=ours, positive=encoded[0], latent=encoded[2], seed=7, **SETTINGS)


def test_trim_video_latent_after_our_sampler_changes_nothing(sampled, encoded, trim, vae):
    video = sampled.args[0]
    trimmed = trim(video, encoded[3])
    assert torch.equal(trimmed["samples"], video["samples"])
    with torch.inference_mode():
        assert vae.decode(trimmed["samples"]).shape[-4] == 9
        assert torch.equal(vae.decode(trimmed["samples"]), vae.decode(video["samples"]))


def test_a_number_of_ones_own_still_cuts(sampled, trim):
    video = sampled.args[0]
    assert torch.equal(trim(video, 1)["samples"], video["samples"].clone()[:, :, 1:])
    assert trim(trim(video, 1), 1)["samples"].shape[2] == 1


def test_after_ksampler_the_number_cuts_the_references(ours, encoded, trim):
    import nodes

    positive, negative, latent, count = encoded
    (result,) = nodes.KSampler().sample(ours, 1, 1, 1.0, "euler", "simple", positive, negative, latent)
    trimmed = trim(result, count)["samples"]
    assert torch.equal(trimmed, result["samples"][:, :, int(count) :]) and trimmed.shape[2] == 3


@pytest.mark.parametrize("masked", [False, True])
def test_after_ksampler_and_the_cut_our_sampler_starts_from_the_video(run, ours, encoded, trim, masked):
    """As from a latent that knows of no references, with a noise mask by frame of the video too."""
    import nodes

    positive, negative, latent, count = encoded
    (result,) = nodes.KSampler().sample(ours, 1, 1, 1.0, "euler", "simple", positive, negative, latent)
    trimmed = trim(result, count)
    if masked:
        mask = torch.zeros(9, 32, 48)
        mask[5:, :, 24:] = 1
        trimmed = nodes.SetLatentNoiseMask().set_mask(trimmed, mask)[0]
    assert set(trimmed) - {"samples", "noise_mask"}, "the cut leaves VDOT Encode's numbers"
    plain = {key: trimmed[key] for key in ("samples", "noise_mask") if key in trimmed}
    settings = {"model": ours, "positive": positive, "seed": 7, "denoise": 0.5, **SETTINGS}
    refined, expected = (
        run("VDOTSampler", latent=start, **settings).args[0]["samples"] for start in (trimmed, plain)
    )
    assert refined.shape[2] == 3 and torch.equal(_reloaded(refined), _reloaded(expected))


def test_leftover_noise_whose_references_were_cut_is_not_continued(run, ours, encoded, trim):
    """References without noise in front of a video with noise are none of the sampler's states."""
    import nodes

    positive, negative, latent, count = encoded
    start = (ours, "enable", 1, 4, 1.0, "euler", "simple", positive, negative, latent, 0, 2, "enable")
    with torch.inference_mode():
        (left,) = nodes.KSamplerAdvanced().sample(*start)
    settings = {
        "model": ours,
        "positive": positive,
        "seed": 7,
        "start_step": 2,
        "add_noise": False,
        **SETTINGS,
    }
    trimmed = trim(left, count)
    for cut in (trimmed, {"samples": trimmed["samples"]}):
        with pytest.raises(ValueError, match=r"references? cut off.* remove Trim Video Latent .*add_noise"):
            run("VDOTSampler", latent=cut, **settings)
    whole = run("VDOTSampler", latent=left, **settings).args[0]["samples"]
    assert whole.shape[2] == 3


def test_the_sampler_says_what_it_cut(sampled, encoded, run, ours, vae, text):
    count = encoded[3]
    cut = "1 reference was cut off" if count == 1 else f"{count} references were cut off"
    assert any(cut in line for line in sampled.ui["text"])
    unit = run("VDOTText", width=48, height=32, length=5).args[0]
    plain = run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=1.0).args
    out = run("VDOTSampler", model=ours, positive=plain[0], latent=plain[2], seed=7, **SETTINGS)
    assert not any("cut off" in line for line in out.ui["text"])


def _between(name, latent):
    """A latent as one of ComfyUI's nodes returns it."""
    # First, since it and nodes_latent import each other.
    importlib.import_module("comfy_extras.nodes_post_processing")
    from comfy_extras import nodes_latent

    import nodes

    def upscaled(method):
        return nodes.LatentUpscaleBy().upscale(latent, method, 2.0)[0]

    with torch.inference_mode():
        return {
            "repeat": lambda: nodes.RepeatLatentBatch().repeat(latent, 2)[0],
            "pick": lambda: nodes.LatentFromBatch().frombatch(latent, 0, 1)[0],
            "nearest": lambda: upscaled("nearest-exact"),
            "bislerp": lambda: upscaled("bislerp"),
            "multiply": lambda: nodes_latent.LatentMultiply.execute(latent, 0.5).args[0],
            "concat": lambda: nodes_latent.LatentConcat.execute(latent, latent, "t").args[0],
            "cut": lambda: nodes_latent.LatentCut.execute(latent, "t", 1, 2).args[0],
            "blend": lambda: nodes_latent.LatentInterpolate.execute(latent, latent, 0.5).args[0],
        }[name]()


NAMES = ("repeat", "pick", "nearest", "bislerp", "multiply", "concat", "cut", "blend")


@pytest.mark.parametrize("name", NAMES)
def test_nodes_between_our_sampler_and_the_cut_change_nothing(sampled, encoded, trim, name):
    latent = _between(name, sampled.args[0])
    assert torch.equal(trim(latent, encoded[3])["samples"], latent["samples"])


def test_a_number_changed_on_its_way_cuts_what_was_added(sampled, encoded, trim):
    latent, count = sampled.args[0], encoded[3]
    for same in (count + 0, 0 + count, count * 1, count - 1, copy.deepcopy(count)):
        assert trim(latent, same)["samples"].shape[2] == 3
    assert trim(latent, count + 1)["samples"].shape[2] == 2
    assert count + 1 == int(count) + 1 and 5 - count == 5 - int(count) and count / 1 == float(count)


def test_references_put_in_front_again_are_cut(sampled, encoded, trim):
    samples, count = sampled.args[0]["samples"], encoded[3]
    front = torch.zeros_like(samples[:, :, :1]).repeat(1, 1, int(count), 1, 1)
    joined = torch.cat([front, samples], dim=2)
    assert torch.equal(trim({"samples": joined}, count)["samples"], samples)


def test_the_latents_are_otherwise_a_plain_tensor(sampled):
    samples = sampled.args[0]["samples"]
    plain = _reloaded(samples)
    assert type(plain) is torch.Tensor and torch.equal(plain, samples)
    for value in (copy.deepcopy(samples), samples.clone(), samples.to(torch.float32), samples + 0):
        assert torch.equal(value, plain)
    weight = torch.ones(8, samples.shape[1], 1, 1, 1)
    features = torch.nn.functional.conv3d(samples, weight)
    assert type(features) is torch.Tensor and type(samples.sum()) is torch.Tensor
    changed = samples.clone()
    changed.mul_(2)[:, :, 0] = 0
    assert not changed[:, :, 0].any() and torch.equal(changed[:, :, 1:], plain[:, :, 1:] * 2)
    assert [part.shape[2] for part in samples.chunk(3, dim=2)] == [1, 1, 1]


def test_the_latents_go_with_other_tensor_classes(sampled):
    class Other(torch.Tensor):
        """As packs that quantize define them."""

    samples = sampled.args[0]["samples"]
    assert torch.equal(samples * torch.ones(1).as_subclass(Other), samples * 1)


def test_networks_get_a_plain_tensor(sampled):
    samples = sampled.args[0]["samples"]
    for value in (samples.to(samples.device), (samples * 2).cpu(), samples[:1].to(torch.float16)):
        assert type(value) is torch.Tensor


def _reloaded(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)
