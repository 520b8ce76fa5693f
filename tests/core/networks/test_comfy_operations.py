"""ComfyUI's casting and fp8 layers work in our network as in its own; so do its strengths per context."""

import pytest
import torch

from tests.core.networks.comfy_pairs import CONFIG, both, make_pair
from tests.core.networks.helpers import inputs, relative


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
    assert relative(ours, exact) <= 0.8 * relative(native, exact)


@pytest.mark.parametrize("kind", ["attn2_patch", "double_block"])
def test_patches_see_the_dtype_that_comfyui_chose(module, kind):
    """Their layers may take no other; a patch that changes nothing costs no precision."""
    import comfy.ops

    pair = make_pair(module, comfy.ops.manual_cast, torch.bfloat16)
    exact, plain = both(pair)[1], both(pair, dtype=torch.bfloat16)[0]

    def options(factor):
        def patch(args):
            name = "x" if kind == "attn2_patch" else "img"
            assert args[name].dtype == args.get("vec", args[name]).dtype == torch.bfloat16
            tokens = args[name] if factor == 1 else args[name] * factor
            return tokens if kind == "attn2_patch" else {"img": tokens}

        return {"patches": {kind: [patch]}}

    assert torch.equal(both(pair, lambda: options(1), dtype=torch.bfloat16)[0], plain)
    ours, native, *_ = both(pair, lambda: options(1.1), dtype=torch.bfloat16)
    assert relative(ours, exact) > 1e-2 and relative(ours, native) <= 2e-2


def test_replaced_blocks_see_it_too(module):
    import comfy.ops

    pair = make_pair(module, comfy.ops.manual_cast, torch.bfloat16)
    plain = both(pair, dtype=torch.bfloat16)[0]

    def options(replacement):
        def replaced(args, extra):
            assert all(args[name].dtype == torch.bfloat16 for name in ("img", "vec", "txt"))
            return replacement(args, extra["original_block"])

        return {"patches_replace": {"dit": {("double_block", 1): replaced}}}

    same = both(pair, lambda: options(lambda args, block: block(args)), dtype=torch.bfloat16)[0]
    assert torch.equal(same, plain)
    for replacement in (
        lambda args, block: {"img": args["img"]},
        lambda args, block: {"img": block({**args, "img": args["img"] * 0.9})["img"] + args["img"]},
    ):
        ours, native, *_ = both(pair, lambda: options(replacement), dtype=torch.bfloat16)  # noqa: B023
        assert relative(ours, plain) > 3e-2 and relative(ours, native) <= 2e-2


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
        layer = native.vace_layers_mapping.pop(2)
        try:
            assert relative(by_layer, native(x, timestep, text, vace_strength=[1.0], **call)) <= 1e-5
        finally:
            native.vace_layers_mapping[2] = layer


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
