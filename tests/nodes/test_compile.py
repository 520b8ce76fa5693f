"""TorchCompileModel on our MODEL with the real compiler: the same video, compiled once for all steps."""

import json
import os
import re
import shutil

import pytest
import torch
from safetensors.torch import save_file

SETTINGS = {"preset": "released", "steps": 4, "shift": 16.0, "solver": "unipc", "seed": 0}
COMPILERS = (os.environ.get("CXX", "g++"), "g++", "clang++", "cl")


@pytest.fixture(scope="module")
def small(node_classes, models_dir, native_state):
    """A MODEL of one block and one VACE block: compiling takes time for each."""
    import comfy.sd

    state = {name: value for name, value in native_state.items() if not re.match(r".*blocks\.[1-9]", name)}
    config = {"dim": 128, "ffn_dim": 256, "num_heads": 1, "num_layers": 1, "vace_layers": [0]}
    config |= {"image_model": "wan2.1", "vdot": 1}
    metadata = {"format": "pt", "vdot_format": "1", "config": json.dumps({"transformer": config})}
    save_file(state, models_dir / "one_block.safetensors", metadata=metadata)
    return comfy.sd.load_diffusion_model(str(models_dir / "one_block.safetensors"))


@pytest.fixture(scope="module")
def traceable(small):
    """Our MODEL with an attention that compilers can trace on a CPU.

    ComfyUI's own for CPUs reads /proc/meminfo at every call, which cannot be traced; on a GPU it is torch's.
    """
    from comfy.ldm.modules.attention import attention_pytorch

    model = small.clone()
    override = {"optimized_attention_override": lambda _, *args, **kwargs: attention_pytorch(*args, **kwargs)}
    model.model_options["transformer_options"].update(override)
    return model


@pytest.mark.full
@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="inductor needs a C++ compiler on a CPU")
def test_inductor_compiles_our_network_once_and_changes_nothing(traceable, run, vae, text):
    from comfy_extras.nodes_torch_compile import TorchCompileModel

    clip = torch.rand(5, 32, 32, 3)
    unit = run("VDOTControl", frames=clip, width=0, height=0, length=0).args[0]
    positive, _, latent, _ = run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=0.8).args
    (compiled,) = TorchCompileModel.execute(traceable, "inductor").args
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    plain, fast = (
        run("VDOTSampler", model=model, positive=positive, latent=latent, **SETTINGS).args[0]["samples"]
        for model in (traceable, compiled)
    )
    torch.testing.assert_close(fast, plain, atol=1e-3, rtol=1e-3)
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 1, "one graph, compiled once for four steps"
    assert not counters["graph_break"] and counters["inductor"], "nothing breaks the graph"
    again = run("VDOTSampler", model=compiled, positive=positive, latent=latent, **{**SETTINGS, "seed": 1})
    assert counters["stats"]["unique_graphs"] == 1 and again.args[0]["samples"].isfinite().all()
    torch._dynamo.reset()
