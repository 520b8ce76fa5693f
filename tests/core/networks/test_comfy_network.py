"""ComfyWanVace does what ComfyUI's own VaceWanModel does, for everything ComfyUI asks of a network."""

from dataclasses import replace

import pytest
import torch

from tests.core.networks.helpers import SIZES, inputs, native_network, random_network, relative
from tests.support.pack import submodule

CONFIG = SIZES["narrow heads"]


@pytest.fixture(scope="module")
def module(comfy):
    return submodule("nodes.comfy_network")


@pytest.fixture(scope="module")
def networks(module):
    """(ours, ComfyUI's own) with the same random weights, both with ComfyUI's layers."""
    import comfy.ops

    return make_pair(module, comfy.ops.disable_weight_init)


def make_pair(module, operations, dtype=torch.float32, dress=lambda network: None):
    source = random_network(CONFIG)
    native = native_network(source, operations, dtype)
    sizes = {name: getattr(CONFIG, name) for name in ("dim", "ffn_dim", "num_heads", "num_layers")}
    sizes |= {"text_dim": CONFIG.text_dim, "freq_dim": CONFIG.freq_dim, "vace_layers": 2, "vace_in_dim": 96}
    detected = {
        "image_model": "wan2.1",
        "model_type": "vace",
        "in_dim": 16,
        "out_dim": 16,
        "window_size": (-1, -1),
    }
    ours = module.ComfyWanVace(**sizes, **detected, device="cpu", dtype=dtype, operations=operations)
    missing, unexpected = ours.load_state_dict(source.state_dict(), strict=False)
    assert not missing and not unexpected
    dress(ours), dress(native)
    return ours.requires_grad_(False), native


def both(networks, options=dict, num_contexts=1, strengths=None, batch=1, dtype=torch.float32, **kwargs):
    """Run both networks, each with options() of its own, for it may record; give both back."""
    size = {name: kwargs.pop(name) for name in ("frames", "height", "width") if name in kwargs}
    x, timestep, text, contexts = inputs(CONFIG, batch=batch, num_contexts=num_contexts, **size)
    contexts = kwargs.pop("vace_context", contexts)
    results, used = [], []
    for network in networks:
        given = options()
        used.append(given)
        with torch.no_grad():
            vace = {"vace_context": contexts.to(dtype), "vace_strength": strengths or [1.0] * num_contexts}
            conditions = (x.to(dtype), timestep, text.to(dtype))
            results.append(network(*conditions, transformer_options=given, **vace, **kwargs))
    return *results, *used


def assert_equal_but_changed(networks, options, **kwargs):
    """Both give the same with these options, and something else than without them."""
    ours, native, *used = both(networks, options, **kwargs)
    assert relative(ours, native) <= 1e-5
    assert relative(both(networks, **kwargs)[0], native) > 1e-3
    return used


@pytest.mark.parametrize("strengths", [[1.0, 1.0], [1.0, 0.25], [0.0, 1.7]])
def test_contexts_with_their_own_strengths(networks, strengths):
    ours, native, *_ = both(networks, num_contexts=2, strengths=strengths, batch=2)
    assert relative(ours, native) <= 1e-5


def test_strength_by_latent_frame(module, networks):
    frames, tokens_per_frame = 3, 2 * 3
    by_frame = [torch.tensor([1.0, 0.3, 0.0]), torch.tensor([0.5, 2.0, 1.0])]
    x, timestep, text, contexts = inputs(CONFIG, frames=frames, num_contexts=2)
    call = {"transformer_options": {}, "vace_context": contexts}
    with torch.no_grad():
        ours = networks[0](x, timestep, text, vace_strength=by_frame, **call)
        by_token = [row.repeat_interleave(tokens_per_frame)[None, :, None] for row in by_frame]
        native = networks[1](x, timestep, text, vace_strength=by_token, **call)
        assert relative(ours, native) <= 1e-5
        mixed = [module.ContextScale(layers=[1.0, 1.0], frames=by_frame[0].tolist()), [0.5, 0.5]]
        by_token[1] = 0.5
        ours = networks[0](x, timestep, text, vace_strength=mixed, **call)
        native = networks[1](x, timestep, text, vace_strength=by_token, **call)
        assert relative(ours, native) <= 1e-5


def test_strength_by_layer_silences_a_layer(networks):
    ours, native = networks
    x, timestep, text, contexts = inputs(CONFIG)
    call = {"transformer_options": {}, "vace_context": contexts}
    with torch.no_grad():
        by_layer = ours(x, timestep, text, vace_strength=[[1.0, 0.0]], **call)
        kept = native.vace_layers_mapping.pop(2)
        try:
            assert relative(by_layer, native(x, timestep, text, vace_strength=[1.0], **call)) <= 1e-5
        finally:
            native.vace_layers_mapping[2] = kept


def test_strength_errors(networks):
    x, timestep, text, contexts = inputs(CONFIG, num_contexts=2)
    call = {"transformer_options": {}, "vace_context": contexts}
    with pytest.raises(ValueError, match="1 entries for 2 contexts"):
        networks[0](x, timestep, text, vace_strength=[1.0], **call)
    with pytest.raises(ValueError, match=r"\[2\] by VACE layer or \[3\] by latent frame"):
        networks[0](x, timestep, text, vace_strength=[1.0, [1.0] * 5], **call)
    x, timestep, text, contexts = inputs(CONFIG, frames=2)
    with pytest.raises(ValueError, match=r"ContextScale\(layers"):
        networks[0](
            x, timestep, text, vace_context=contexts, vace_strength=[[1.0, 0.5]], transformer_options={}
        )


def test_attention_patches(networks):
    def options():
        seen = []

        def after_self(args):
            assert set(args) == {"x", "q", "k", "transformer_options"}
            seen.append(
                (tuple(args["q"].shape), tuple(args["k"].shape), args["transformer_options"]["block_index"])
            )
            return args["x"] * 0.9 + args["q"].flatten(2) * 0.05 + args["k"].flatten(2) * 0.02

        def after_cross(args):
            assert set(args) == {"x", "transformer_options"}
            seen.append((tuple(args["x"].shape), args["transformer_options"]["block_type"]))
            return args["x"] * 1.1

        return {
            "patches": {"attn1_patch": [after_self], "attn2_patch": [after_cross, after_cross]},
            "seen": seen,
        }

    ours, native = assert_equal_but_changed(networks, options, num_contexts=2, strengths=[1.0, 0.5], batch=2)
    assert ours["seen"] == native["seen"]


def test_double_block_patches(networks):
    def options():
        seen = []

        def patch(args):
            assert args["img_offset"] == 0
            assert args["transformer_options"]["block_index"] == args["block_index"]
            seen.append((args["block_index"], args["x"].clone(), args["vec"].clone()))
            return {"img": args["img"] * 0.8 + args["vec"].unsqueeze(1)}

        return {"patches": {"double_block": [patch]}, "seen": seen}

    ours, native = assert_equal_but_changed(networks, options, height=5, **odd(5, 6))
    assert [entry[0] for entry in ours["seen"]] == [entry[0] for entry in native["seen"]] == [0, 1, 2, 3]
    for mine, theirs in zip(ours["seen"], native["seen"], strict=True):
        assert relative(mine[1], theirs[1]) == 0 and relative(mine[2], theirs[2]) <= 1e-5


def _scaled(args, extra):
    out = extra["original_block"]({**args, "img": args["img"] * 0.9, "vec": args["vec"] * 1.2})
    return {"img": out["img"] + args["img"]}


def _skipped(args, extra):
    return {"img": args["img"]}


def _repositioned(args, extra):
    return extra["original_block"]({**args, "pe": args["pe"].flip(1), "txt": args["txt"][:, :4]})


def _with_other_options(args, extra):
    patch = {"attn2_patch": [lambda given: given["x"] * 0.7]}
    return extra["original_block"](
        {**args, "transformer_options": {**args["transformer_options"], "patches": patch}}
    )


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("replacement", [_scaled, _skipped, _repositioned, _with_other_options])
def test_replaced_blocks(networks, replacement, index):
    options = lambda: {"patches_replace": {"dit": {("double_block", index): replacement}}}  # noqa: E731
    assert_equal_but_changed(networks, options, strengths=[0.7])


def test_tokens_kept_by_a_patch_are_changed_in_place_as_natively(networks):
    def options():
        kept = []

        def keep(args):
            kept.append(args["img"])
            return {"img": args["img"]}

        return {"patches": {"double_block": [keep]}, "kept": kept}

    *_, ours, native = both(networks, options)
    for mine, theirs in zip(ours["kept"], native["kept"], strict=True):
        assert relative(mine, theirs) <= 1e-5


@pytest.mark.parametrize(
    "rope_options",
    [
        {"scale_t": 0.5, "shift_t": 1.25},
        {"scale_x": 2.0, "scale_y": 0.75, "shift_x": -1.0, "shift_y": 3.0},
        {"scale_x": 1.5, "scale_y": 1.5, "scale_t": 1.0, "shift_x": 0.0, "shift_y": 0.0, "shift_t": 40.0},
    ],
)
def test_rope_options(networks, rope_options):
    assert_equal_but_changed(
        networks, lambda: {"rope_options": dict(rope_options)}, height=7, width=5, **odd(7, 5)
    )


def odd(height, width, num_contexts=1, frames=3):
    """Contexts padded for ComfyUI's network, which pads only the latents."""
    contexts = inputs(CONFIG, frames=frames, height=height, width=width, num_contexts=num_contexts)[3]
    pad = (0, width % 2, 0, height % 2, 0, 0)
    padded = torch.nn.functional.pad(contexts.flatten(0, 1), pad, mode="circular")
    return {"vace_context": padded.unflatten(0, (1, num_contexts)), "num_contexts": num_contexts}


@pytest.mark.parametrize(("height", "width"), [(5, 6), (4, 7), (3, 3)])
def test_odd_sizes(networks, height, width):
    ours, native, *_ = both(networks, height=height, width=width, **odd(height, width, 2))
    assert relative(ours, native) <= 1e-5
    x, timestep, text, contexts = inputs(CONFIG, height=height, width=width, num_contexts=2)
    with torch.no_grad():
        unpadded = networks[0](x, timestep, text, vace_context=contexts, vace_strength=[1.0, 1.0])
    assert relative(unpadded, native) <= 1e-5


def test_rope_encode_is_comfyuis(networks):
    ours, native = networks
    for kwargs in ({}, {"t_start": 3, "steps_t": 4}, {"steps_h": 5, "steps_w": 2}, {"dtype": torch.bfloat16}):
        assert relative(ours.rope_encode(3, 7, 8, **kwargs), native.rope_encode(3, 7, 8, **kwargs)) <= 1e-6


def test_time_dim_concat(networks):
    extra = torch.randn(1, 16, 2, 5, 6)
    contexts = odd(5, 6, frames=5)
    ours, native, mine, theirs = both(networks, height=5, time_dim_concat=extra, **contexts)
    assert ours.shape == (1, 16, 3, 5, 6)
    assert relative(ours, native) <= 1e-5
    assert mine["grid_sizes"] == theirs["grid_sizes"] == torch.Size((5, 3, 3))


def test_options_that_patches_read(networks):
    def options():
        seen = []

        def attend(function, q, k, v, heads, **kwargs):
            seen.append({name: kwargs["transformer_options"][name] for name in ("block_index", "block_type")})
            seen.append(
                (tuple(q.shape), tuple(k.shape), heads, kwargs["transformer_options"]["total_blocks"])
            )
            return function(q, k * 0.9, v, heads, **kwargs)

        return {"optimized_attention_override": attend, "seen": seen}

    ours, native = assert_equal_but_changed(networks, options, num_contexts=2, strengths=[1.0, 0.5], batch=2)
    assert ours["seen"] == native["seen"] and len(ours["seen"]) > 0
    for name in ("grid_sizes", "total_blocks", "block_index", "block_type"):
        assert ours[name] == native[name], name


def test_wrappers(networks):
    import comfy.patcher_extension as extension

    def options():
        calls = []

        def wrapper(executor, x, timestep, context, clip_fea, time_dim_concat, transformer_options, **kwargs):
            assert executor.class_obj in networks
            calls.append(sorted(kwargs))
            return (
                executor(x * 1.1, timestep, context, clip_fea, time_dim_concat, transformer_options, **kwargs)
                + 1
            )

        given = {"calls": calls}
        extension.add_wrapper(extension.WrappersMP.DIFFUSION_MODEL, wrapper, given)
        return given

    ours, native = assert_equal_but_changed(networks, options, clip_fea=None, control=None)
    assert ours["calls"] == native["calls"] == [["control", "vace_context", "vace_strength"]]


def test_manual_cast_and_weight_functions(module):
    """Weights stored in bf16 and fp8, cast at use, and patched by a function as ComfyUI's LoRA does."""
    import comfy.ops

    def dress(network):
        for layer in (network.blocks[1].self_attn.q, network.vace_blocks[0].ffn[0], network.blocks[2].norm3):
            layer.weight_function = [lambda weight: weight * 1.5]

    for storage in (torch.bfloat16, torch.float8_e4m3fn):
        plain = make_pair(module, comfy.ops.manual_cast, storage)
        patched = make_pair(module, comfy.ops.manual_cast, storage, dress)
        assert plain[0].blocks[0].modulation.dtype == plain[0].blocks[0].ffn[0].weight.dtype == storage
        assert plain[0].patch_embedding.weight.dtype == torch.float32
        ours, native, *_ = both(patched, num_contexts=2)
        assert relative(ours, native) <= 1e-5
        assert relative(both(plain, num_contexts=2)[0], native) > 1e-3


def test_fp8_operations(module):
    import comfy.ops

    ours, native, *_ = both(make_pair(module, comfy.ops.fp8_ops, torch.float8_e4m3fn), dtype=torch.bfloat16)
    exact = both(make_pair(module, comfy.ops.manual_cast, torch.float8_e4m3fn))[1]
    assert relative(ours.float(), native.float()) <= 0.1
    # fp8 multiplications are coarse; ours may not be coarser than ComfyUI's.
    assert relative(ours.float(), exact) <= 1.1 * relative(native.float(), exact)


def test_bfloat16_is_as_exact_as_comfyuis(module):
    import comfy.ops

    pair = make_pair(module, comfy.ops.manual_cast, torch.bfloat16)
    exact = both(pair, num_contexts=2, strengths=[1.0, 0.5])[1]
    ours, native, *_ = both(pair, num_contexts=2, strengths=[1.0, 0.5], dtype=torch.bfloat16)
    assert ours.dtype == torch.bfloat16
    assert relative(ours, native) <= 2e-2
    assert relative(ours, exact) <= 1.05 * relative(native, exact)


def test_text_only(module):
    import comfy.ops

    plain = {
        name: getattr(CONFIG, name) for name in ("dim", "ffn_dim", "num_heads", "num_layers", "text_dim")
    }
    ours = module.ComfyWanVace(**plain, freq_dim=CONFIG.freq_dim, operations=comfy.ops.disable_weight_init)
    source = random_network(replace(CONFIG, vace_layers=()))
    ours.load_state_dict(source.state_dict())
    x, timestep, text, _ = inputs(CONFIG, height=5)
    with torch.no_grad():
        expected = native_network(source)(x, timestep, text, transformer_options={})
        assert relative(ours(x, timestep, text, transformer_options={}), expected) <= 1e-5


def test_sizes_from_unet_config(module):
    sizes = {"dim": 64, "ffn_dim": 96, "num_heads": 2, "num_layers": 7, "in_dim": 16, "vace_in_dim": 96}
    assert module.config_from_unet({**sizes, "vace_layers": 3}).vace_layers == (0, 2, 4)
    assert module.config_from_unet({**sizes, "vace_layers": [0, 5]}).vace_layers == (0, 5)
    assert module.config_from_unet({**sizes, "vace_layers": None}).vace_layers == ()
    with pytest.raises(ValueError, match="vace_layers is 9"):
        module.config_from_unet({**sizes, "vace_layers": 9})
    with pytest.raises(ValueError, match="ffn_dim"):
        module.config_from_unet({"dim": 64, "num_heads": 2, "num_layers": 2})


def test_in_context_references_are_refused(networks):
    x, timestep, text, _ = inputs(CONFIG)
    with pytest.raises(ValueError, match="context_latents"):
        networks[0](x, timestep, text, transformer_options={}, context_latents=[x])
