"""ComfyWanVace does what ComfyUI's own VaceWanModel does, for everything ComfyUI asks of a network."""

from dataclasses import replace

import pytest
import torch

from tests.core.networks.comfy_pairs import CONFIG, both
from tests.core.networks.helpers import inputs, native_network, random_network, relative


def assert_equal_but_changed(networks, options, **kwargs):
    """Both give the same with these options, and something else than without them."""
    ours, native, *used = both(networks, options, **kwargs)
    assert relative(ours, native) <= 1e-5
    assert relative(both(networks, **kwargs)[0], native) > 1e-3
    return used


def test_attention_patches(networks):
    def options():
        calls = []

        def after_self(args):
            assert set(args) == {"x", "q", "k", "transformer_options"}
            calls.append(
                (tuple(args["q"].shape), tuple(args["k"].shape), args["transformer_options"]["block_index"])
            )
            return args["x"] * 0.9 + args["q"].flatten(2) * 0.05 + args["k"].flatten(2) * 0.02

        def after_cross(args):
            assert set(args) == {"x", "transformer_options"}
            calls.append((tuple(args["x"].shape), args["transformer_options"]["block_type"]))
            return args["x"] * 1.1

        return {
            "patches": {"attn1_patch": [after_self], "attn2_patch": [after_cross, after_cross]},
            "seen": calls,
        }

    ours, native = assert_equal_but_changed(networks, options, num_contexts=2, strengths=[1.0, 0.5], batch=2)
    assert ours["seen"] == native["seen"]


def test_double_block_patches(networks):
    def options():
        calls = []

        def patch(args):
            assert args["img_offset"] == 0
            assert args["transformer_options"]["block_index"] == args["block_index"]
            calls.append((args["block_index"], args["x"].clone(), args["vec"].clone()))
            return {"img": args["img"] * 0.8 + args["vec"].unsqueeze(1)}

        return {"patches": {"double_block": [patch]}, "seen": calls}

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
    patch = {"attn2_patch": [lambda entries: entries["x"] * 0.7]}
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
        tokens = []

        def keep(args):
            tokens.append(args["img"])
            return {"img": args["img"]}

        return {"patches": {"double_block": [keep]}, "kept": tokens}

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


def test_a_replaced_rope_embedder_is_used(networks):
    """As with packs that stretch positions: they replace the network's embedder."""

    class Stretched(torch.nn.Module):
        def __init__(self, embedder):
            super().__init__()
            self.embedder = embedder

        def forward(self, ids):
            return self.embedder(ids * 0.5)

    plain = [network.rope_embedder for network in networks]
    for name in ("dim", "theta", "axes_dim"):
        assert getattr(plain[0], name) == getattr(plain[1], name), name
    expected = both(networks)[1]
    try:
        for network in networks:
            network.rope_embedder = Stretched(network.rope_embedder)
        ours, native, *_ = both(networks)
    finally:
        for network, embedder in zip(networks, plain, strict=True):
            network.rope_embedder = embedder
    assert relative(ours, native) <= 1e-5 and relative(ours, expected) > 1e-3


def test_names_that_packs_read(networks):
    """Sizes and settings are called the same on every module that has weights."""
    theirs = dict(networks[1].named_modules())
    for path, module in networks[0].named_modules():
        if isinstance(module, torch.nn.Identity) or not any(True for _ in module.parameters()):
            continue
        for name, value in vars(theirs[path]).items():
            plain = isinstance(value, (bool, int, float, str, tuple, dict)) and not name.startswith("_")
            if plain and name not in ("window_size", "training"):
                assert getattr(module, name) == value, (path, name)


def test_time_dim_concat(networks):
    extra = torch.randn(1, 16, 2, 5, 6)
    contexts = odd(5, 6, frames=5)
    ours, native, mine, theirs = both(networks, height=5, time_dim_concat=extra, **contexts)
    assert ours.shape == (1, 16, 3, 5, 6)
    assert relative(ours, native) <= 1e-5
    assert mine["grid_sizes"] == theirs["grid_sizes"] == torch.Size((5, 3, 3))


def test_options_that_patches_read(networks):
    def options():
        calls = []

        def attend(function, q, k, v, heads, **kwargs):
            calls.append(
                {name: kwargs["transformer_options"][name] for name in ("block_index", "block_type")}
            )
            calls.append(
                (tuple(q.shape), tuple(k.shape), heads, kwargs["transformer_options"]["total_blocks"])
            )
            return function(q, k * 0.9, v, heads, **kwargs)

        return {"optimized_attention_override": attend, "seen": calls}

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

        wrapped = {"calls": calls}
        extension.add_wrapper(extension.WrappersMP.DIFFUSION_MODEL, wrapper, wrapped)
        return wrapped

    ours, native = assert_equal_but_changed(networks, options, clip_fea=None, control=None)
    assert ours["calls"] == native["calls"] == [["control", "vace_context", "vace_strength"]]


def test_text_only(module):
    import comfy.ops

    plain = {
        name: getattr(CONFIG, name) for name in ("dim", "ffn_dim", "num_heads", "num_layers", "text_dim")
    }
    ours = module.ComfyWan(**plain, freq_dim=CONFIG.freq_dim, operations=comfy.ops.disable_weight_init)
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
    for layers in ((0, 2, 4), ()):
        config = replace(module.config_from_unet(sizes), vace_layers=layers, out_channels=17)
        assert module.config_from_unet(module.config_to_unet(config)) == config
    with pytest.raises(ValueError, match="vace_layers is 9"):
        module.config_from_unet({**sizes, "vace_layers": 9})
    with pytest.raises(ValueError, match="ffn_dim"):
        module.config_from_unet({"dim": 64, "num_heads": 2, "num_layers": 2})


def test_in_context_references_are_refused(networks):
    x, timestep, text, _ = inputs(CONFIG)
    with pytest.raises(ValueError, match="context_latents"):
        networks[0](x, timestep, text, transformer_options={}, context_latents=[x])
