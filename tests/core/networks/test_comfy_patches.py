"""Every technique by which other packs reach into ComfyUI's Wan networks has the same effect on ours."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from tests.core.networks.comfy_pairs import CONFIG, both, make_pair
from tests.core.networks.helpers import inputs, native_network, random_network, relative
from tests.support import wan_patches
from tests.support.wan_patches import TECHNIQUES, applied

LIMIT = 1e-4
CONTEXTS = {"num_contexts": 2, "strengths": [1.0, 0.5], "batch": 2}


def name_of(technique):
    return technique.__name__


def patched(networks, technique, calls=1, **kwargs):
    """(ours, native) of the last of several calls, both with the technique applied."""
    results = []
    for network in networks:
        with applied(network, technique):
            for _ in range(calls):
                result = both([network], **kwargs)[0]
        results.append(result)
    return results


@pytest.mark.parametrize("technique", TECHNIQUES, ids=name_of)
def test_a_technique_works_as_on_comfyui_s_network(networks, technique):
    plain = both(networks, **CONTEXTS)[0]
    ours, native = patched(networks, technique, **CONTEXTS)
    assert relative(ours, native) <= LIMIT
    assert relative(ours, plain) > 1e-3, "it has an effect"
    assert torch.equal(both(networks, **CONTEXTS)[0], plain), "and leaves nothing behind"


@pytest.mark.parametrize("technique", TECHNIQUES, ids=name_of)
def test_it_works_with_bfloat16_weights(bfloat16, technique):
    """Patched parts get the dtype that ComfyUI chose: their layers may take no other."""
    pair, exact = bfloat16
    ours, native = patched(pair, technique, dtype=torch.bfloat16)
    expected = patched(pair, technique)[1]
    assert ours.dtype == torch.bfloat16 and bool(ours.isfinite().all())
    assert relative(ours, expected) <= max(1.2 * relative(native, expected), 1e-2)
    assert relative(both(pair, dtype=torch.bfloat16)[0], exact) <= 2e-2


@pytest.fixture(scope="module")
def bfloat16(module):
    """Both networks with bf16 weights, without casting, and the result of their weights in float32."""
    import comfy.ops

    pair = make_pair(module, comfy.ops.manual_cast, torch.bfloat16)
    return pair, both(pair)[1]


def test_a_cache_reuses_what_the_blocks_did(networks):
    first = patched(networks, wan_patches.cached_forward)[1]
    ours, native = patched(networks, wan_patches.cached_forward, calls=2)
    assert relative(ours, native) <= LIMIT and relative(ours, first) > 1e-3


def test_classes_and_attributes_are_comfyui_s(networks, module):
    """Names of everything but weights, on every module; and what `isinstance` says of it."""
    ours, native = networks
    theirs = dict(native.named_modules())
    for path, part in ours.named_modules():
        assert path in theirs, f"{path} is not on ComfyUI's network"
        if path and type(theirs[path]).__module__ == "comfy.ldm.wan.model":
            assert isinstance(part, type(theirs[path])), path
        for name, value in vars(theirs[path]).items():
            if isinstance(value, (bool, int, float, str, tuple, dict, type(None))) and not name.startswith(
                "_"
            ):
                assert getattr(part, name) == value, (path, name)
    assert set(dict(ours.named_modules())) == set(theirs)
    assert isinstance(ours, type(native))
    text_only = {name: getattr(CONFIG, name) for name in ("dim", "ffn_dim", "num_heads", "num_layers")}
    network = module.ComfyWan(**text_only, operations=torch.nn, device="meta")
    assert isinstance(network, type(native).__mro__[1]) and not isinstance(network, type(native))


def test_strength_by_token(networks):
    """A tensor for each context that multiplies its hints, as ComfyUI's network takes it."""
    by_frame = torch.tensor([1.0, 0.3, 0.0]).repeat_interleave(6)[None, :, None]
    strengths = [by_frame, torch.full((1, 1, 1), 0.5)]
    ours, native, *_ = both(networks, num_contexts=2, strengths=strengths)
    assert relative(ours, native) <= LIMIT
    assert relative(ours, both(networks, num_contexts=2)[0]) > 1e-3


def test_the_attention_of_comfyui_s_wan_module_is_used(networks, monkeypatch):
    """Packs replace the name in comfy.ldm.wan.model, as for sage attention."""
    import comfy.ldm.wan.model as wan

    original, plain = wan.optimized_attention, both(networks)[0]
    monkeypatch.setattr(
        wan, "optimized_attention", lambda q, k, v, **kwargs: original(q, k * 0.5, v, **kwargs)
    )
    ours, native, *_ = both(networks)
    assert relative(ours, native) <= LIMIT and relative(ours, plain) > 1e-3


def test_forward_hooks_see_what_comfyui_s_show(networks):
    """Outputs kept by listeners are not overwritten by later blocks."""
    seen = []
    for network in networks:
        outputs = []
        blocks, keep = network.blocks, lambda _, args, output, to=outputs: to.append(output)
        parts = [blocks[1], blocks[3], blocks[0].ffn, blocks[2].cross_attn]
        handles = [part.register_forward_hook(keep) for part in parts]
        both([network])
        for handle in handles:
            handle.remove()
        seen.append(outputs)
    assert len(seen[0]) == len(seen[1]) == 4
    for ours, native in zip(*seen, strict=True):
        assert relative(ours, native) <= LIMIT


SWAPPED = ("blocks.1", "blocks.2", "vace_blocks.0", "text_embedding", "patch_embedding", "head")


@pytest.mark.parametrize("swapped", [(), SWAPPED], ids=["none", "some"])
def test_weights_on_another_device_than_tokens(module, swapped):
    """As block swap nodes leave them; `meta` stands for a GPU, and refuses what mixes devices."""
    import comfy.ops
    from comfy.ldm.modules.attention import attention_pytorch

    attend = {"optimized_attention_override": lambda _, *args, **kwargs: attention_pytorch(*args, **kwargs)}
    x, timestep, text, contexts = (value.to("meta") for value in inputs(CONFIG, batch=2, num_contexts=2))
    for network in make_pair(module, comfy.ops.manual_cast):
        parts = {name: deepcopy(network.get_submodule(name)) for name in swapped}
        network.to("meta")
        for name, part in parts.items():
            network.set_submodule(name, part)
        vace = {"vace_context": contexts, "vace_strength": [1.0, 0.5]}
        result = network(x, timestep, text, transformer_options=dict(attend), **vace)
        assert result.is_meta and result.shape == x.shape


@pytest.mark.full
def test_blocks_compile_one_by_one(networks):
    """As TorchCompileModel nodes for blocks do it; with an attention that compilers can trace on a CPU."""
    from comfy.ldm.modules.attention import attention_pytorch

    def options():
        return {"optimized_attention_override": lambda _, *args, **kwargs: attention_pytorch(*args, **kwargs)}

    def compiled(network):
        blocks = network.blocks
        return {f"blocks.{n}": torch.compile(blocks[n], backend="eager", fullgraph=True) for n in (0, 1)}

    plain = both(networks, options)[0]
    with applied(networks[0], compiled):
        assert relative(both(networks, options)[0], plain) <= LIMIT
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["blocks.2.norm1", "vace_blocks.1.norm2", "head.norm"])
def test_patched_norms_are_refused_by_name(networks, name):
    with applied(networks[0], lambda _: {f"{name}.forward": lambda x: x}):
        with pytest.raises(ValueError, match=rf"{name}.*network to 'comfyui' in VDOT Load Model"):
            both(networks[:1])


def test_a_timestep_for_each_frame_is_refused(networks):
    ours = networks[0]
    e = torch.zeros(1, 3, 6, CONFIG.dim)
    tokens = torch.zeros(1, 6, CONFIG.dim)
    with pytest.raises(ValueError, match="3 timesteps, one for each latent frame"):
        ours.blocks[0](tokens, e=e, freqs=ours.rope_encode(1, 4, 6), context=tokens)


@pytest.fixture(scope="module")
def pair(module):
    """(ours, ComfyUI's) of a text-only network."""
    import comfy.ops

    config = replace(CONFIG, vace_layers=())
    source = random_network(config)
    ours = module.ComfyWan(**module.config_to_unet(config), operations=comfy.ops.disable_weight_init)
    ours.load_state_dict(source.state_dict())
    return ours.requires_grad_(False), native_network(source)


class TestTextOnly:
    """ComfyUI's text-to-video network shows the timestep with an axis for frames."""

    def results(self, pair, **options):
        x, timestep, text, _ = inputs(CONFIG, batch=2)
        with torch.no_grad():
            return [network(x, timestep, text, transformer_options=options) for network in pair]

    def test_patches_see_the_same(self, pair):
        shapes = []

        def replaced(args, extra):
            shapes.append(args["vec"].shape)
            return extra["original_block"]({**args, "vec": args["vec"] * 1.2})

        def after(args):
            shapes.append(args["vec"].shape)
            return {"img": args["img"] + args["vec"]}

        options = {"patches": {"double_block": [after]}}
        options["patches_replace"] = {"dit": {("double_block", 1): replaced}}
        ours, native = self.results(pair, **options)
        assert relative(ours, native) <= LIMIT and shapes[:5] == shapes[5:]

    @pytest.mark.parametrize(
        "technique",
        [wan_patches.rewritten_blocks, wan_patches.changed_head, wan_patches.enhanced_self_attention],
        ids=name_of,
    )
    def test_techniques(self, pair, technique):
        plain, results = self.results(pair)[0], []
        for network in pair:
            with applied(network, technique):
                results += self.results([network])
        assert relative(*results) <= LIMIT and relative(results[0], plain) > 1e-3
