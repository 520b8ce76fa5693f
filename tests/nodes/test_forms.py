"""Quantized forms of our converter in ComfyUI's own loader, and against comfy-kitchen's own quantization."""

from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from tests.nodes.test_load import inputs  # noqa: F401  (a fixture)
from tests.support.pack import submodule

# Largest relative difference of the velocity from the unquantized network's; int8 rounds layers' inputs too.
# int8: 0.052 was seen on a processor with AVX2 alone.
FORMS = {"fp8_scaled": ("QuantizedTensor", 0.08), "int8": ("QuantizedTensor", 0.07)}


def velocity(load, inputs):  # noqa: F811
    """A model's output, loaded and run in inference mode, as in a node; and the model."""
    import comfy.model_management

    with torch.inference_mode():
        model = load()
        comfy.model_management.load_models_gpu([model])
        dtype = model.model.get_dtype_inference()
        floats = ("x", "context", "vace_context")
        cast = {key: value.to(dtype) if key in floats else value for key, value in inputs.items()}
        return model.model.diffusion_model(**cast).float(), model


def load_by_comfyui(path):
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(path))


@pytest.fixture(scope="module")
def converted(pack, models_dir, tmp_path_factory):
    """A file of each form, made from one of our own layout."""
    from vdot_core.checkpoints import convert

    submodule("nodes.comfy_bridge").register_network()
    folder, source = tmp_path_factory.mktemp("forms"), models_dir / "vdot_meta.safetensors"
    return {form: convert(source, folder / f"{form}.safetensors", form=form).path for form in FORMS}


@pytest.fixture(scope="module")
def reference(comfy, models_dir, inputs):  # noqa: F811
    return velocity(lambda: load_by_comfyui(models_dir / "plain_vace.safetensors"), inputs)[0]


@pytest.mark.parametrize("form", FORMS)
def test_comfyuis_loader_runs_a_form_as_it_is(comfy, converted, inputs, reference, form):  # noqa: F811
    result, model = velocity(lambda: load_by_comfyui(converted[form]), inputs)
    network, (kind, tolerance) = model.model.diffusion_model, FORMS[form]
    assert type(network).__name__ == "ComfyWanVace"
    for layer in (
        network.blocks[0].ffn[0],
        network.vace_blocks[1].after_proj,
        network.blocks[3].cross_attn.o,
    ):
        assert type(layer.weight.data).__name__ == kind
    assert type(network.head.head.weight.data) is torch.Tensor
    error = (result - reference).norm() / reference.norm()
    assert 0 < error < tolerance


@pytest.mark.parametrize("form", FORMS)
def test_stored_numbers_are_comfy_kitchens(comfy, converted, models_dir, form):
    from comfy_kitchen.backends.eager import quantization as kitchen

    stored, weights = load_file(converted[form]), load_file(models_dir / "vdot_meta.safetensors")
    for name in ("blocks.0.ffn.0.weight", "vace_blocks.0.before_proj.weight", "blocks.2.self_attn.q.weight"):
        weight, scale = weights[name], stored[name.replace(".weight", ".weight_scale")]
        if form == "int8":
            expected, expected_scale = kitchen.quantize_int8_convrot_weight(weight, _group(stored, name))
            assert (stored[name].float() - expected.float()).abs().max() <= 1
            assert (stored[name] == expected).float().mean() > 0.999
            torch.testing.assert_close(scale, expected_scale)
        else:
            expected = kitchen.quantize_per_tensor_fp8(weight, scale, torch.float8_e4m3fn)
            assert (stored[name].float() == expected.float()).float().mean() > 0.999
            torch.testing.assert_close(scale, weight.abs().max() / 448)


def _group(stored, name: str) -> int:
    import json

    settings = json.loads(stored[name.replace(".weight", ".comfy_quant")].numpy().tobytes())
    return settings["convrot_groupsize"]


def test_our_loader_opens_them(converted, models_dir, inputs, reference, tmp_path):  # noqa: F811
    """And GGUF, decoded."""
    from vdot_core.checkpoints import convert_to_gguf

    loading = submodule("nodes.comfy_loading")
    gguf = convert_to_gguf(models_dir / "vdot_meta.safetensors", tmp_path / "w.gguf", "Q8_0").path
    for path, tolerance in ((converted["fp8_scaled"], 0.08), (gguf, 0.03)):
        result, _ = velocity(partial(loading.load_model, path), inputs)
        error = (result - reference).norm() / reference.norm()
        assert 0 < error < tolerance, path
