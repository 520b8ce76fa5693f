"""Patched MODELs, sampled: what other packs set on a model does the same on ours as on ComfyUI's own."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from tests.core.networks.helpers import relative
from tests.support import wan_patches

SETTINGS = {"preset": "released", "steps": 4, "shift": 16.0, "solver": "unipc", "seed": 7}
LIMIT = 1e-4


@pytest.fixture(scope="module")
def encoded(run, vae, text):
    """(positive, negative, latent) of two units, one with a reference."""
    clip = torch.rand(9, 32, 48, 3, generator=torch.Generator().manual_seed(3))
    unit = run("VDOTControl", frames=clip, width=0, height=0, length=0).args[0]
    other = run("VDOTControl", frames=clip.flip(0), width=0, height=0, length=0).args[0]
    inputs = {
        "positive": text,
        "negative": [[text[0][0] * 0.5, {}]],
        "vae": vae,
        "unit": unit,
        "strength": 0.8,
    }
    return run("VDOTEncode", **inputs, unit_2=other, strength_2=0.5).args


@pytest.fixture
def sample(run, encoded):
    """sample(model, cfg, **settings): the video's latents."""

    def call(model, cfg=1.0, **settings):
        inputs = {
            "model": model,
            "positive": encoded[0],
            "negative": encoded[1],
            "latent": encoded[2],
            "cfg": cfg,
        }
        return run("VDOTSampler", **inputs, **SETTINGS, **settings).args[0]["samples"]

    return call


@pytest.fixture(scope="module")
def with_lora(native_state):
    """with_lora(model): the model with a random LoRA on the parts that patches replace, in both branches."""
    import comfy.sd

    generator = torch.Generator().manual_seed(4)
    lora = {}
    for block in ("blocks.0", "blocks.3", "vace_blocks.1"):
        for part in ("self_attn.q", "cross_attn.v", "ffn.2"):
            rows, columns = native_state[f"{block}.{part}.weight"].shape
            name = f"diffusion_model.{block}.{part}"
            lora[f"{name}.lora_up.weight"] = torch.randn(rows, 4, generator=generator) * 0.1
            lora[f"{name}.lora_down.weight"] = torch.randn(4, columns, generator=generator) * 0.1
    return lambda model: comfy.sd.load_lora_for_models(model, None, lora, 0.7, 0)[0]


def patched(model, technique):
    """A clone of a MODEL with object patches, as a pack's node makes it."""
    clone = model.clone()
    network = clone.get_model_object("diffusion_model")
    for path, value in technique(network).items():
        clone.add_object_patch(f"diffusion_model.{path}", value)
    return clone


@pytest.mark.parametrize("cfg", [1.0, 2.0])
@pytest.mark.parametrize(
    "technique",
    [
        wan_patches.enhanced_self_attention,
        wan_patches.guided_cross_attention,
        wan_patches.stretched_positions,
    ],
    ids=lambda technique: technique.__name__,
)
def test_a_patched_model_with_a_lora(ours, native, sample, with_lora, technique, cfg):
    videos = [sample(patched(with_lora(model), technique), cfg) for model in (ours, native)]
    assert relative(*videos) <= LIMIT
    plain = sample(with_lora(ours), cfg)
    assert relative(videos[0], plain) > 1e-3
    assert relative(plain, sample(ours, cfg)) > 1e-3, "the LoRA has an effect"


def test_a_cache_that_replaces_the_forward_pass_while_it_runs(ours, native, sample, with_lora):
    """As TeaCache and MagCache nodes do: the method is swapped around every call of the model."""
    videos = []
    for model in (ours, native):
        clone = with_lora(model)
        network = clone.get_model_object("diffusion_model")

        def wrapper(apply_model, args, network=network):
            with wan_patches.applied(network, wan_patches.wrapped_forward):
                return apply_model(args["input"], args["timestep"], **args["c"])

        clone.set_model_unet_function_wrapper(wrapper)
        videos.append(sample(clone, 2.0))
    assert relative(*videos) <= LIMIT
    assert relative(videos[0], sample(with_lora(ours), 2.0)) > 1e-3


def test_easy_cache(ours, native, sample):
    from comfy_extras.nodes_easycache import EasyCacheNode

    settings = {"reuse_threshold": 0.9, "start_percent": 0.0, "end_percent": 1.0, "verbose": False}
    videos = [sample(EasyCacheNode.execute(model, **settings).args[0]) for model in (ours, native)]
    assert relative(*videos) <= LIMIT and relative(videos[0], sample(ours)) > 1e-3


STANDARD = "standard_static"
SCHEDULES = [
    STANDARD,
    *(
        pytest.param(name, marks=pytest.mark.full)
        for name in ("standard_uniform", "looped_uniform", "batched")
    ),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("retain", [False, True])
def test_context_windows(ours, native, sample, retain, schedule):
    """ComfyUI cuts our conditioning into windows of the video, and repeats a reference in each."""
    from comfy_extras.nodes_context_windows import WanContextWindowsManualNode

    inputs = WanContextWindowsManualNode.define_schema().inputs
    settings = {item.id: item.default for item in inputs if getattr(item, "default", None) is not None}
    settings |= {"context_length": 5, "context_overlap": 1, "retain_first_frame": retain}
    settings["context_schedule"] = schedule
    videos = [
        sample(WanContextWindowsManualNode.execute(model, **settings).args[0]) for model in (ours, native)
    ]
    assert relative(*videos) <= LIMIT and relative(videos[0], sample(ours)) > 1e-3


def attention_override(calls):
    """As KJNodes sets sage and flash attention: in half precision, never by the function that it replaces."""

    def attend(function, q, k, v, heads, mask=None, skip_reshape=False, **_):
        assert mask is None and not skip_reshape
        calls.append((*q.shape, k.shape[1], heads))
        halves = (part.half().unflatten(2, (heads, -1)).transpose(1, 2) for part in (q, k, v))
        return scaled_dot_product_attention(*halves).transpose(1, 2).flatten(2).to(v.dtype)

    return attend


@pytest.mark.parametrize(("cfg", "nag", "more"), [(2.0, 0.0, 0), (1.0, 5.0, 4 * 4)])
def test_an_attention_kernel_gets_every_attention(ours, native, sample, cfg, nag, more):
    """Self- and cross-attention of 4 blocks, and of 2 VACE blocks for 2 units, in 4 steps; NAG's, too."""
    videos, calls = [], {}
    for name, model in {"ours": ours, "native": native}.items():
        clone, calls[name] = model.clone(), []
        options = clone.model_options["transformer_options"]
        options["optimized_attention_override"] = attention_override(calls[name])
        videos.append(sample(clone, cfg, nag_scale=nag))
    assert relative(*videos) <= 1e-3  # half precision rounds apart what float32 has not
    assert calls["ours"] == calls["native"] and len(calls["ours"]) == 4 * 2 * (4 + 2 * 2) + more
    assert 0 < relative(videos[0], sample(ours, cfg, nag_scale=nag)) < 1e-2


def test_nothing_stays_on_the_model(ours, sample):
    plain = sample(ours)
    for technique in (wan_patches.rewritten_blocks, wan_patches.chunked_feed_forward):
        assert relative(sample(patched(ours, technique)), plain) > 1e-3
    assert torch.equal(sample(ours), plain)


def test_a_replaced_forward_pass_gets_a_context_in_steps_where_no_unit_acts(ours, native, run, vae, text):
    """Forward passes that other packs write out cannot do without."""
    clip = torch.rand(9, 32, 48, 3, generator=torch.Generator().manual_seed(3))
    unit = run("VDOTControl", frames=clip, width=0, height=0, length=0).args[0]
    unit = run("VDOTStepRange", unit=unit, start_percent=0.0, end_percent=0.5).args[0]
    encoded = run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=1.0).args
    inputs = dict(zip(("positive", "latent"), encoded[::2], strict=False))
    videos = [
        run("VDOTSampler", model=patched(model, wan_patches.cached_forward), **inputs, **SETTINGS).args[0]
        for model in (ours, native)
    ]
    assert relative(*(video["samples"] for video in videos)) <= LIMIT
