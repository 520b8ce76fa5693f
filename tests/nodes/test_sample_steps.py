"""Parts of the steps, partial denoising and two models in VDOT Sampler, against ComfyUI's KSampler."""

import pytest
import torch

from tests.nodes.test_sampler import SETTINGS, watched
from tests.support.pack import submodule

SOLVERS = {
    "unipc": SETTINGS,
    "renoise": {**SETTINGS, "preset": "trained"},
    "euler": {"preset": "custom", "steps": 4, "shift": 5.0, "solver": "euler"},
}


@pytest.fixture(scope="module")
def video(vae):
    """A clip's latent as VAE Encode gives it: without references."""
    clip = torch.rand(9, 32, 48, 3, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        return {"samples": vae.encode(clip)}


@pytest.fixture(scope="module")
def other(ours):
    """The same network with other weights of its head."""
    model = ours.clone()
    weight = model.model.diffusion_model.head.head.weight
    change = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.05
    model.add_patches({"diffusion_model.head.head.weight": ("diff", (change,))})
    return model


@pytest.fixture
def sample(run, ours, encoded):
    """sample(**changes): output of the sampler node on `encoded`."""

    def call(**changes):
        inputs = {"model": ours, "positive": encoded[0], "latent": encoded[2], "seed": 7, **SETTINGS}
        return run("VDOTSampler", **{**inputs, **changes})

    return call


def samples_of(output):
    return output.args[0]["samples"]


@pytest.mark.parametrize("solver", SOLVERS)
def test_two_samplers_give_what_one_gives(sample, ours, solver):
    settings = SOLVERS[solver]
    expected = samples_of(sample(**settings))
    for step in (1, 3):
        first = sample(**settings, end_step=step)
        assert first.args[0]["samples"].shape[2] == 5, "references stay for the next sampler"
        assert any("with noise left" in line for line in first.ui["text"])
        for start in (0, step):
            model, calls = watched(ours)
            second = sample(model=model, latent=first.args[0], start_step=start, **settings)
            assert torch.equal(samples_of(second), expected) and len(calls) == 4 - step
            assert second.args[0].keys() == {"samples"}
    assert any(f"resumes at step {step + 1} of 4" in line for line in second.ui["text"])


def test_a_noise_mask_holds_across_samplers(sample, encoded):
    latent = {**encoded[2], "samples": torch.randn(encoded[2]["samples"].shape)}
    latent["noise_mask"] = torch.zeros(1, 1, 5, 4, 6)
    latent["noise_mask"][..., :3] = 1
    first = sample(latent=latent, end_step=2)
    second = sample(latent=first.args[0])
    assert torch.equal(samples_of(second), samples_of(sample(latent=latent)))


def test_a_seed_of_the_second_sampler_changes_fresh_noise_only(sample):
    for solver, same in (("unipc", True), ("renoise", False)):
        first = sample(**SOLVERS[solver], end_step=2).args[0]
        videos = [samples_of(sample(latent=first, **SOLVERS[solver], seed=seed)) for seed in (7, 8)]
        assert torch.equal(*videos) is same


@pytest.fixture
def ksampler(ours, encoded):
    """ksampler(latent, ..): ComfyUI's euler on given sigmas, as KSamplerAdvanced calls it."""
    import comfy.sample

    def call(latent, sigmas, seed=7, disable_noise=False, **steps):
        noise = comfy.sample.prepare_noise(latent, seed)
        noise = torch.zeros_like(noise) if disable_noise else noise
        texts = encoded[0], encoded[1]
        with torch.inference_mode():
            return comfy.sample.sample(
                ours, noise, len(sigmas) - 1, 1.0, "euler", "simple", *texts, latent, sigmas=sigmas, **steps
            )

    return call


@pytest.fixture
def run_plan(ours, encoded):
    """run_plan(latent, schedule, start, end, source): our sampler on a schedule of its own, with euler."""

    def call(latent, schedule, start, end, source):
        plan = submodule("nodes.sample_steps").StepPlan(schedule, "euler", start, end, end, source)
        with torch.inference_mode():
            texts = {"positive": encoded[0]}
            return submodule("nodes.comfy_sampling").run_plan(plan, [ours], texts, latent, seed=7)[0]

    return call


def close(a, b):
    assert float((a - b).norm() / b.norm()) < 1e-4


def test_steps_are_those_of_ksampler_advanced(ksampler, run_plan, encoded):
    """Our leftover noise in ComfyUI's sampler and the other way round, and an end without noise."""
    core = submodule("vdot_core.sampling")
    sigmas = core.Schedule.shifted(5, 3.0, labels="exact", denoise=0.9).sigmas
    schedule = core.Schedule(sigmas, sigmas[:-1] * 1000)
    content = torch.randn(encoded[2]["samples"].shape, generator=torch.Generator().manual_seed(2))
    latent = {**encoded[2], "samples": content}
    theirs = ksampler(content, sigmas.clone(), start_step=1, last_step=3)
    ours = run_plan(latent, schedule, 1, 3, "content")
    close(ours, theirs)
    full = ksampler(content, sigmas.clone(), start_step=1)
    close(run_plan({**latent, "samples": theirs}, schedule, 3, 5, "leftover"), full)
    close(ksampler(ours, sigmas.clone(), disable_noise=True, start_step=3), full)
    clean = ksampler(content, sigmas.clone(), start_step=1, last_step=3, force_full_denoise=True)
    close(run_plan(latent, schedule.ending(3), 1, 3, "content"), clean)


def test_denoise_starts_from_the_video_behind_its_references(sample, ours, encoded, video):
    import comfy.sample

    model, calls = watched(ours)
    output = sample(model=model, latent=video, denoise=0.3)
    assert samples_of(output).shape == video["samples"].shape and len(calls) == 4
    sigma = float(submodule("vdot_core.sampling").released(denoise=0.3).sigmas[0])
    content = torch.cat([encoded[0][0][1]["vace_frames"][0][:, :16, :2], video["samples"]], dim=2)
    noise = comfy.sample.prepare_noise(content, 7)
    expected = sigma * noise + (1 - sigma) * ours.model.process_latent_in(content)
    torch.testing.assert_close(calls[0][1], expected, atol=1e-5, rtol=1e-5)
    assert any(f"at noise level {sigma:.3g}" in line for line in output.ui["text"])


def test_the_lower_denoise_the_closer_to_the_video(sample, video):
    distances = [
        float((samples_of(sample(latent=video, denoise=denoise)) - video["samples"]).norm())
        for denoise in (0.02, 0.1, 0.5, 0.99)
    ]
    assert distances == sorted(distances)
    plain = samples_of(sample(denoise=1.0))
    assert torch.equal(plain, samples_of(sample()))


def test_start_step_starts_from_the_video_at_the_presets_own_level(sample, ours, video):
    model, calls = watched(ours)
    out = sample(model=model, latent=video, start_step=2)
    assert torch.cat([timestep for timestep, _ in calls]).tolist() == [941, 841]
    assert samples_of(out).shape == video["samples"].shape


def test_a_noise_mask_of_a_video_keeps_its_place_behind_references(sample, video):
    mask = torch.ones(9, 32, 48)
    mask[:, :, 24:] = 0
    masked = {**video, "noise_mask": mask.reshape(-1, 1, 32, 48)}
    out = samples_of(sample(latent=masked, denoise=0.8))
    torch.testing.assert_close(out[..., 3:], video["samples"][..., 3:], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(out[..., :3], video["samples"][..., :3], atol=0.1)


@pytest.mark.parametrize("form", ["masks", "as Set Latent Noise Mask gives it"])
@pytest.mark.parametrize("count", [0, 2])
def test_a_noise_mask_of_frames_keeps_their_latent_frames(form, count):
    """Of 9 frames: the first is kept, and of the rest what is black in all four of a latent frame."""
    fitted = submodule("nodes.sample_latent").with_mask_of_latents
    mask = torch.ones(9, 4, 6)
    mask[0], mask[5:], mask[3, :, 3:] = 0, 0, 0
    given = mask if form == "masks" else mask.reshape(-1, 1, 4, 6)
    latent = {"samples": torch.zeros(1, 16, 3 + count, 4, 6), "noise_mask": given}
    latent |= {"vdot_num_reference_latents": count} if count else {}
    made = fitted(latent)["noise_mask"]
    assert made.shape == (1, 1, 3 + count, 4, 6) and bool((made[0, 0, :count] == 1).all())
    assert [bool(frame.any()) for frame in made[0, 0, count:]] == [False, True, False]
    assert bool((made[0, 0, count + 1] == 1).all()), "frame 1 is white there"
    for other in (given[:1], given[:7], torch.ones(1, 1, 3 + count, 4, 6)):
        assert fitted({**latent, "noise_mask": other})["noise_mask"] is other


def test_a_first_frame_under_a_black_mask_is_kept(sample, video):
    mask = torch.ones(9, 1, 32, 48)
    mask[0] = 0
    out = samples_of(sample(latent={**video, "noise_mask": mask}, denoise=0.8))
    torch.testing.assert_close(out[:, :, :1], video["samples"][:, :, :1], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(out[:, :, 1:], video["samples"][:, :, 1:], atol=0.1)


def test_two_models_are_two_samplers(sample, ours, other):
    settings = SOLVERS["unipc"]
    first = sample(**settings, end_step=3)
    expected = samples_of(sample(model=other, latent=first.args[0], **settings))
    together = sample(**settings, second_model=other, switch_step=3)
    assert torch.equal(samples_of(together), expected)
    assert any("second model from step 4 of 4" in line for line in together.ui["text"])
    by_level = sample(**settings, second_model=other)
    assert torch.equal(samples_of(by_level), expected), "labels 999, 979, 941 are above 875"
    assert not torch.allclose(expected, samples_of(sample(**settings)), atol=1e-2)
    same = sample(**settings, second_model=ours.clone(), switch_step=1)
    assert torch.equal(samples_of(same), samples_of(sample(**settings)))


def test_a_second_model_that_takes_no_step_or_all_is_reported(sample, other):
    none = sample(second_model=other, switch_sigma=0.1)
    assert any("second model has no step" in line for line in none.ui["text"])
    assert torch.equal(samples_of(none), samples_of(sample()))
    every = sample(second_model=other, switch_sigma=1.0)
    assert any("second model takes every step" in line for line in every.ui["text"])
    assert torch.equal(samples_of(every), samples_of(sample(model=other)))
    alone = sample(switch_step=2)
    assert "switch_step is 2, but nothing is connected to second_model" in alone.ui["text"]


def test_progress_counts_the_steps_of_both_models(sample, other, monkeypatch):
    import latent_preview

    steps = []

    def prepare(model, total):
        return lambda step, x0, x, num_steps: steps.append((step, num_steps, total))

    monkeypatch.setattr(latent_preview, "prepare_callback", prepare)
    sample(second_model=other, switch_step=2, start_step=0, end_step=3, leftover_noise=False)
    assert steps == [(0, 3, 3), (1, 3, 3), (2, 3, 3)]


def test_an_early_end_without_noise_is_clean(sample, ours):
    output = sample(end_step=2, leftover_noise=False)
    assert output.args[0].keys() == {"samples"} and samples_of(output).shape[2] == 3
    assert any("stopped after step 2 of 4, without noise" in line for line in output.ui["text"])


def test_settings_that_contradict_are_refused(sample, encoded, video):
    first = sample(end_step=2).args[0]
    for changes, words in (
        ({"denoise": 0.5}, "denoise is 0.5, but the latent is empty; connect a video's latent"),
        ({"start_step": 1}, "start_step is 1, but the latent is empty"),
        ({"latent": video, "add_noise": False}, "add_noise is off, but start_step is 0"),
        (
            {"latent": video, "start_step": 4},
            "the run starts after 4 steps and ends after 4",
        ),
        ({"latent": video, "start_step": 2, "end_step": 1}, "starts after 2 steps and ends after 1"),
        (
            {"latent": first, "start_step": 1},
            "stopped after 2 steps; set start_step to 0 or 2",
        ),
        (
            {"latent": first, "preset": "sharp"},
            "noise of level 0.9411, and this sampler's steps start",
        ),
        ({"latent": first, "end_step": 2}, "starts after 2 steps and ends after 2 of 4"),
    ):
        with pytest.raises(ValueError, match=words):
            sample(**changes)


def test_leftover_noise_that_another_node_changed_is_not_resumed(sample, encoded):
    first = sample(end_step=2).args[0]
    changed = {**first, "samples": first["samples"] * 2}
    output = sample(latent=changed)
    assert any("was changed since" in line for line in output.ui["text"])
    assert torch.equal(samples_of(output), samples_of(sample()))
    told = sample(latent={**first, "samples": first["samples"] + 0.0}, start_step=2)
    assert torch.equal(samples_of(told), samples_of(sample()))
    close_enough = sample(
        latent={**first, "samples": first["samples"] * (1 + 1e-6)}, start_step=2, add_noise=False
    )
    drift = (samples_of(close_enough) - samples_of(sample())).norm() / samples_of(sample()).norm()
    assert drift < 0.2, "the solver starts again at order one"
