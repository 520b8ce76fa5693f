"""VDOTSampler in the real ComfyUI: exact labels and noise, native models, canceling, previews."""

import base64
import io

import pytest
import torch

from tests.support.pack import submodule

SETTINGS = {"preset": "released", "steps": 4, "shift": 16.0, "solver": "unipc"}


@pytest.fixture
def sample(run, encoded):
    """sample(model, **changes): the sampler node on `encoded`."""

    def call(model, **changes):
        inputs = {"model": model, "positive": encoded[0], "latent": encoded[2], "seed": 7, **SETTINGS}
        return run("VDOTSampler", **{**inputs, **changes})

    return call


def watched(model):
    """A clone of a model that notes the timesteps and latents its network is called with."""
    import comfy.patcher_extension

    calls = []

    def wrapper(executor, x, timestep, *args, **kwargs):
        calls.append((timestep.clone(), x.clone()))
        return executor(x, timestep, *args, **kwargs)

    clone = model.clone()
    kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
    clone.add_wrapper_with_key(kind, "watch", wrapper)
    return clone, calls


def pixels(image):
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).float()


def test_our_network_is_chosen_by_metadata_only(ours, native):
    bridge = submodule("nodes.comfy_bridge")
    assert type(ours.model) is bridge.VDOTVaceModel
    assert type(ours.model.diffusion_model).__name__ == "ComfyWanVace"
    assert type(native.model.diffusion_model).__name__ == "VaceWanModel"


@pytest.mark.parametrize(
    ("preset", "labels"),
    [
        ("released", [999, 979, 941, 841]),
        ("sharp", [999, 918, 789, 555]),
        ("trained", [1000, 960, 888.8889, 727.2727]),
    ],
)
@pytest.mark.parametrize("which", ["ours", "native"])
def test_network_sees_the_published_labels(request, sample, preset, labels, which):
    model, calls = watched(request.getfixturevalue(which))
    sample(model, preset=preset)
    timesteps = torch.cat([timestep for timestep, _ in calls])
    if preset == "trained":
        torch.testing.assert_close(timesteps, torch.tensor(labels), atol=1e-3, rtol=0)
    else:
        assert timesteps.tolist() == labels, "exactly these integers"


def test_starts_from_comfyui_s_noise_unscaled(ours, sample, encoded):
    import comfy.sample

    model, calls = watched(ours)
    sample(model)
    noise = comfy.sample.prepare_noise(encoded[2]["samples"], 7)
    torch.testing.assert_close(calls[0][1], noise, atol=0, rtol=0)


def test_result_is_vdot_core_s_own(ours, sample, encoded):
    """The node = plain vdot_core: the same network called directly, without any of ComfyUI's sampling."""
    import comfy.sample

    core, network = submodule("vdot_core.sampling"), ours.model.diffusion_model
    extra = encoded[0][0][1]
    model = ours.model
    frames = [model.process_latent_in(part) for part in extra["vace_frames"][0].split(16, dim=1)]
    context = torch.cat([*frames, extra["vace_mask"][0]], dim=1)[:, None]
    noise = comfy.sample.prepare_noise(encoded[2]["samples"], 7)

    def velocity(x, timestep):
        return network(x, timestep, encoded[0][0][0], vace_context=context, vace_strength=[0.8])

    with torch.inference_mode():
        expected = core.sample(velocity, noise, core.released(), "unipc")
        expected = model.process_latent_out(expected)[:, :, 2:]
    out = sample(ours).args[0]
    torch.testing.assert_close(out["samples"], expected, atol=2e-4, rtol=2e-4)


def test_native_network_gives_the_same_in_our_sampler(ours, native, sample):
    for preset in ("released", "trained"):
        a, b = (sample(model, preset=preset).args[0]["samples"] for model in (ours, native))
        torch.testing.assert_close(a, b, atol=2e-3, rtol=2e-3)
        assert a.std() > 0.1


@pytest.mark.parametrize("sampler", ["euler", "uni_pc"])
def test_our_model_gives_the_same_in_comfyui_s_ksampler(ours, native, vae, text, sampler):
    from comfy_extras.nodes_wan import WanVaceToVideo

    import nodes as comfy_nodes

    clip, picture = torch.rand(9, 32, 48, 3), torch.rand(1, 32, 48, 3)
    with torch.inference_mode():
        positive, negative, latent, _ = WanVaceToVideo.execute(
            text, text, vae, 48, 32, 9, 1, 1.0, control_video=clip, reference_image=picture
        ).args
        results = [
            comfy_nodes.common_ksampler(model, 3, 3, 2.0, sampler, "simple", positive, negative, latent)[0][
                "samples"
            ]
            for model in (ours, native)
        ]
    torch.testing.assert_close(*results, atol=2e-3, rtol=2e-3)


def test_references_are_cut_off(ours, sample, encoded):
    out = sample(ours).args[0]
    assert encoded[2]["samples"].shape[2] == 5 and out["samples"].shape == (1, 16, 3, 4, 6)
    assert "vdot_num_reference_latents" not in out


def test_seed_decides(ours, sample):
    first, again, other = (sample(ours, seed=seed).args[0]["samples"] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.allclose(first, other, atol=0.1)


def test_renoise_noise_follows_the_seed_and_differs_from_the_first(ours, sample):
    import comfy.patcher_extension

    velocities = []

    def keep(executor, *args, **kwargs):
        velocities.append(executor(*args, **kwargs).clone())
        return velocities[-1]

    model, calls = watched(ours)
    kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
    model.add_wrapper_with_key(kind, "keep", keep)
    first = sample(model, preset="trained").args[0]["samples"]
    assert torch.equal(first, sample(ours, preset="trained").args[0]["samples"])
    sigmas = submodule("vdot_core.sampling").trained().sigmas
    noises = [calls[0][1]]
    for (_, x), v, (_, following), sigma, lower in zip(
        calls, velocities, calls[1:], sigmas, sigmas[1:], strict=False
    ):
        noises.append((following - (1 - lower) * (x - sigma * v)) / lower)
    flat = torch.stack([noise.flatten() for noise in noises])
    torch.testing.assert_close(flat.std(1), torch.ones(4), atol=0.1, rtol=0)
    assert torch.corrcoef(flat).fill_diagonal_(0).abs().max() < 0.1, "the same noise twice"


def test_custom_settings(ours, sample):
    model, calls = watched(ours)
    out = sample(model, preset="custom", steps=3, shift=5.0, solver="euler")
    assert len(calls) == 3 and "custom: 3 steps, euler" in out.ui["text"][0]
    custom = sample(ours, preset="custom", steps=4, shift=8.0, solver="renoise").args[0]["samples"]
    assert torch.equal(custom, sample(ours, preset="trained").args[0]["samples"])
    assert any("only used with" in line for line in sample(ours, steps=9).ui["text"])


def test_many_steps_at_low_noise_stay_finite(ours, sample):
    out = sample(ours, preset="custom", steps=30, shift=0.1, solver="euler").args[0]["samples"]
    assert bool(out.isfinite().all())


def with_text(negative):
    """A negative as VDOT Encode gives it when a text is connected."""
    return [[tokens, {k: v for k, v in extra.items() if k != "vdot_zero_text"}] for tokens, extra in negative]


def test_cfg_uses_the_negative(ours, sample, encoded):
    model, calls = watched(ours)
    plain = sample(model).args[0]["samples"]
    assert [len(x) for _, x in calls] == [1] * 4, "no second pass without guidance"
    guided = sample(ours, cfg=3.0, negative=with_text(encoded[1])).args[0]["samples"]
    assert not torch.allclose(plain, guided, atol=1e-2)
    assert torch.equal(plain, sample(ours, cfg=1.0, negative=encoded[1]).args[0]["samples"])


def test_noise_mask_keeps_the_rest(ours, sample, encoded):
    latent = {**encoded[2], "samples": torch.randn(encoded[2]["samples"].shape)}
    mask = torch.zeros(1, 1, 5, 4, 6)
    mask[..., :3] = 1
    out = sample(ours, latent={**latent, "noise_mask": mask}).args[0]["samples"]
    content = latent["samples"][:, :, 2:, :, 3:]
    torch.testing.assert_close(out[..., 3:], content, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(out[..., :3], latent["samples"][:, :, 2:, :, :3], atol=0.1)
    assert any("not empty" in line for line in sample(ours, latent=latent).ui["text"])


def test_a_soft_noise_mask_blends_once(ours, sample, encoded):
    latent = {**encoded[2], "samples": torch.randn(encoded[2]["samples"].shape)}
    one_step = {"preset": "custom", "steps": 1, "solver": "euler"}
    free = sample(ours, latent=latent, **one_step).args[0]["samples"]
    mask = torch.full((1, 1, 5, 4, 6), 0.5)
    out = sample(ours, latent={**latent, "noise_mask": mask}, **one_step).args[0]["samples"]
    torch.testing.assert_close(out, (free + latent["samples"][:, :, 2:]) / 2, atol=5e-3, rtol=5e-3)


def test_a_noise_mask_of_bytes_is_refused(ours, sample, encoded):
    for value in (255.0, -1.0, float("nan")):
        mask = torch.full((1, 1, 5, 4, 6), value)
        with pytest.raises(ValueError, match=r"noise mask holds values from .* expected 0 to 1"):
            sample(ours, latent={**encoded[2], "noise_mask": mask})


def test_an_empty_latent_of_another_node_has_the_contexts_references(ours, sample, encoded):
    empty = {"samples": torch.zeros_like(encoded[2]["samples"])}
    out = sample(ours, latent=empty)
    assert torch.equal(out.args[0]["samples"], sample(ours).args[0]["samples"])
    assert any("2 references were cut off" in line for line in out.ui["text"])


def test_cancel_stops_at_once(ours, sample):
    import comfy.model_management
    import comfy.patcher_extension

    calls = []

    def press_stop(executor, *args, **kwargs):
        calls.append(1)
        comfy.model_management.interrupt_current_processing()
        return executor(*args, **kwargs)

    model = ours.clone()
    kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
    model.add_wrapper_with_key(kind, "stop", press_stop)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(model)
    assert len(calls) == 1
    assert bool(sample(ours).args[0]["samples"].isfinite().all()), "the next run is not affected"


def test_progress_and_stock_preview_show_the_video(ours, sample, encoded, monkeypatch):
    import latent_preview

    timesteps = []

    def prepare(model, steps, x0_output_dict=None):
        return lambda step, x0, x, total: timesteps.append((step, tuple(x0.shape), total))

    monkeypatch.setattr(latent_preview, "prepare_callback", prepare)
    sample(ours)
    assert timesteps == [(step, (1, 16, 3, 4, 6), 4) for step in range(4)]


def test_preview_message(comfy):
    import comfy.latent_formats
    from PIL import Image

    sampling = submodule("nodes.comfy_preview")
    latents = torch.randn(1, 16, 3, 4, 6)
    message = sampling.preview_message(latents, 2, 4, comfy.latent_formats.Wan21())
    assert (message["step"], message["num_steps"], message["num_frames"]) == (2, 4, 3)
    picture = Image.open(io.BytesIO(base64.b64decode(message["frames"][0])))
    assert picture.size == (message["width"], message["height"]) == (6, 4) and message["fps"] == 4
    large = sampling.preview_message(torch.randn(1, 16, 101, 90, 160), 1, 4, comfy.latent_formats.Wan21())
    assert large["num_frames"] == 32 and max(large["width"], large["height"]) == 128
    assert sum(map(len, large["frames"])) < 256 * 1024
    assert abs(large["num_frames"] / large["fps"] - 101 / 4) < 1e-6, "the duration stays"


def test_preview_first_frame_is_comfyui_s(comfy):
    """The animated preview's colors are the stock preview's."""
    import comfy.latent_formats
    import latent_preview
    from PIL import Image

    wan = comfy.latent_formats.Wan21()
    stock = latent_preview.Latent2RGBPreviewer(wan.latent_rgb_factors, wan.latent_rgb_factors_bias)
    latents = torch.nn.functional.interpolate(torch.randn(1, 16, 2, 2, 2), size=(2, 32, 32), mode="trilinear")
    expected = pixels(stock.decode_latent_to_preview(latents))
    message = submodule("nodes.comfy_preview").preview_message(latents, 1, 4, wan)
    picture = Image.open(io.BytesIO(base64.b64decode(message["frames"][0])))
    assert (pixels(picture) - expected).abs().mean() < 4


def test_bad_inputs_say_what_to_do(ours, sample, encoded, text):
    from comfy_extras.nodes_model_advanced import ModelSamplingAuraFlow

    import nodes as comfy_nodes

    with pytest.raises(ValueError, match="connect it, or set cfg to 1"):
        sample(ours, cfg=2.0)
    with pytest.raises(ValueError, match=r"5 latent frames, the latent is .* 3 latent frames"):
        sample(ours, latent={"samples": torch.zeros(1, 16, 3, 4, 6)})
    with pytest.raises(ValueError, match="5 dimensions"):
        sample(ours, latent=comfy_nodes.EmptyLatentImage().generate(64, 64)[0])
    with pytest.raises(ValueError, match="ModelSamplingSD3"):
        sample(ModelSamplingAuraFlow().patch_aura(ours, 1.0)[0])
    lines = sample(ours, positive=text).ui["text"]
    assert any("put VDOT Encode between" in line for line in lines)


def test_other_models_are_refused(comfy):
    import comfy.model_base

    class OtherModel(torch.nn.Module):
        latent_format = comfy.latent_formats.SDXL()

    patcher = comfy.model_patcher.ModelPatcher(OtherModel(), torch.device("cpu"), torch.device("cpu"))
    with pytest.raises(ValueError, match=r"OtherModel.*needs a Wan 2\.1"):
        submodule("nodes.comfy_checks").check_model(patcher)


def test_network_sigmas_come_back_as_labels(pack):
    sigmas = submodule("nodes.comfy_sampling").network_sigmas(torch.arange(1.0, 1001.0))
    labels = torch.arange(1.0, 1001.0)
    torch.testing.assert_close(sigmas * 1000, labels, atol=0, rtol=2**-23)
    for preset in ("released", "sharp"):
        schedule = submodule("vdot_core.sampling").PRESETS[preset].schedule()
        sigmas = submodule("nodes.comfy_sampling").network_sigmas(schedule.timesteps)
        assert torch.equal(sigmas * 1000, schedule.timesteps)


def test_references_are_cut_off_once(ours, run, vae, text, encoded, sample):
    """Native KSampler and Trim Video Latent keep the latent's notes; a second pass must not cut again."""
    from comfy_extras.nodes_wan import TrimVideoLatent

    import nodes

    latent, trim = encoded[2], encoded[3]
    (first,) = nodes.KSampler().sample(ours, 1, 2, 1.0, "euler", "simple", encoded[0], encoded[1], latent)
    trimmed = TrimVideoLatent.execute(first, trim).args[0]
    assert trimmed["samples"].shape[2] == latent["samples"].shape[2] - trim
    clip = torch.rand(9, 32, 48, 3)
    unit = run("VDOTControl", frames=clip, width=0, height=0, length=0).args[0]
    plain = run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=1.0).args
    out = sample(ours, positive=plain[0], latent=trimmed)
    assert out.args[0]["samples"].shape == trimmed["samples"].shape
    assert any("nothing is cut off" in line for line in out.ui["text"])


def test_more_references_than_frames_are_refused(ours, sample, encoded):
    latent = {**encoded[2], "vdot_num_reference_latents": encoded[2]["samples"].shape[2]}
    with pytest.raises(ValueError, match="straight from VDOT Encode"):
        sample(ours, latent=latent)


def test_another_models_text_is_refused_before_sampling(ours, sample, encoded):
    model, calls = watched(ours)
    wide = [[torch.zeros(1, 512, 77), encoded[0][0][1]]]
    with pytest.raises(ValueError, match=r"77 numbers wide, this model reads .* Load CLIP"):
        sample(model, positive=wide)
    with pytest.raises(ValueError, match="positive is empty"):
        sample(model, positive=[])
    assert not calls


def test_guidance_needs_a_real_negative_text(ours, sample, encoded):
    with pytest.raises(ValueError, match="has no text: connect CLIP Text Encode"):
        sample(ours, cfg=3.0, negative=encoded[1])
    assert sample(ours, cfg=3.0, negative=with_text(encoded[1])).args[0]["samples"].isfinite().all()


def test_unused_settings_are_reported(ours, sample, encoded):
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    def lines(model, **changes):
        return " ".join(sample(model, **changes).ui["text"])

    assert "only used" not in lines(ours) and "not used" not in lines(ours, negative=encoded[1])
    assert "negative has a text, which is not used at cfg 1" in lines(ours, negative=with_text(encoded[1]))
    masked = {**encoded[2], "noise_mask": torch.zeros(1, 32, 48)}
    assert "nothing is generated" in lines(ours, latent=masked)
    masked["noise_mask"][:, :8] = 1
    assert "keeps a part of it, but it is empty" in lines(ours, latent=masked)
    assert "only used" in lines(ours, solver="euler")
    assert "only used" in lines(ours, steps=7)
    assert "only used" not in lines(ours, preset="custom", solver="euler", steps=2)
    (shifted,) = ModelSamplingSD3().patch(ours, 3.0)
    assert "not used" in lines(shifted)


def test_changing_strength_in_context_windows_is_refused(ours, run, vae, text, sample):
    from comfy_extras.nodes_context_windows import WanContextWindowsManualNode

    unit = run("VDOTControl", frames=torch.rand(9, 32, 48, 3), width=0, height=0, length=0).args[0]
    unit = unit.replace(strength=(1.0, 0.5, 0.0))
    positive, _, latent, _ = run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=1.0).args
    windowed = WanContextWindowsManualNode.execute(ours, **_defaults(WanContextWindowsManualNode)).args[0]
    with pytest.raises(ValueError, match="Context Windows"):
        sample(windowed, positive=positive, latent=latent)


def _defaults(node) -> dict:
    """A V3 node's widget defaults."""
    inputs = node.define_schema().inputs
    return {item.id: item.default for item in inputs if getattr(item, "default", None) is not None}


def test_a_weight_that_is_no_number_is_named(ours, sample):
    """Loading maps the file and does not read it: the first step finds it."""
    weight = ours.model.diffusion_model.blocks[3].ffn[0].weight.data
    before = weight.clone()
    weight[0, 0] = float("nan")
    try:
        with pytest.raises(ValueError, match=r"after step 1 of 4 .*blocks\.3\.ffn\.0\.weight .*download"):
            sample(ours)
    finally:
        weight.copy_(before)
