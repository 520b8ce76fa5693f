"""1.3B with random weights: our network against ComfyUI's own, each loaded from the same file.

ComfyUI computes in float32 on a CPU, at any dtype of the file.
"""

import statistics
import time

import pytest
import torch

from tests.scale.random_weights import SLICE, write_lora, write_random
from tests.support.pack import submodule
from vdot_core.checkpoints import convert
from vdot_core.networks import wan_vace_1_3b

LIMIT = 5e-6
SLOWER = 1.05
ROUNDS = 16
FORMS = ("bf16", "fp8_scaled")


def write_files(folder, config):
    """A file of each form, and a LoRA."""
    source = write_random(folder / "bf16.safetensors", config)
    convert(source, folder / "fp8_scaled.safetensors", form="fp8_scaled")
    write_lora(folder / "lora.safetensors", config)
    return folder


@pytest.fixture(scope="module")
def files(comfy, tmp_path_factory):
    """Files of two blocks of 1.3B."""
    folder = write_files(tmp_path_factory.mktemp("slice"), SLICE)
    yield folder
    remove(folder)


@pytest.fixture(scope="module")
def whole(comfy, tmp_path_factory):
    """Files of 1.3B: 6.6 GB."""
    folder = write_files(tmp_path_factory.mktemp("whole"), wan_vace_1_3b())
    yield folder
    remove(folder)


def remove(folder):
    for path in folder.iterdir():
        path.unlink()


def inputs(latent_frames=2, side=8):
    """Latents, and the other arguments of a Wan network."""
    generator = torch.Generator().manual_seed(1)
    shape = (latent_frames, side, side)
    return torch.randn(1, 16, *shape, generator=generator), {
        "context": torch.randn(1, 12, 4096, generator=generator),
        "vace_context": torch.randn(1, 1, 96, *shape, generator=generator),
        "vace_strength": [1.0],
    }


def loaded(path, network, lora=None, part=1.0):
    """A MODEL by the loading node's own functions, with a part of its weights on the device."""
    loading = submodule("nodes.comfy_loading")
    model = loading.load_model(path, network=network)
    loading.add_loras(model, [(lora, 1.0)] if lora else [])
    memory = int(part * model.model_size())
    model.load(torch.device("cpu"), lowvram_model_memory=memory, full_load=part == 1)
    return model


def four_steps(model):
    """Velocity of the first step, and latents after the fourth."""
    sampling, velocities = submodule("vdot_core.sampling"), []
    noise, options = inputs()

    def velocity(x, timestep):
        velocities.append(model.model.diffusion_model(x, timestep, **options))
        return velocities[-1]

    latents = sampling.sample(velocity, noise, sampling.released(), "unipc")
    return {"one step": velocities[0], "four steps": latents}


def one_step(model):
    noise, options = inputs()
    return model.model.diffusion_model(noise, torch.tensor([999.0]), **options)


def relative(value, expected):
    return float((value - expected).norm() / expected.norm())


def compare(ours, native):
    """Check the relative differences of two networks' results."""
    differences = {name: relative(ours[name], native[name]) for name in native}
    print(differences)
    assert all(0.1 < value.std() < 10 for value in native.values())
    assert max(differences.values()) <= LIMIT


def steps_of(path, network):
    with torch.inference_mode():
        return four_steps(loaded(path, network))


def test_one_step_and_four_equal_comfyui_s(files):
    compare(*(steps_of(files / "bf16.safetensors", network) for network in ("vdot", "comfyui")))


def lora_results(folder, form, network):
    """Name -> result with a LoRA, with all and with half of the weights on the device."""
    path, lora, values = folder / f"{form}.safetensors", folder / "lora.safetensors", {}
    with torch.inference_mode():
        for part in (1.0, 0.5):
            values[f"LoRA, {part:.0%} loaded"] = one_step(loaded(path, network, lora, part))
    return values


@pytest.mark.full
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("blocks", ["files", "whole"])
def test_a_lora_on_all_and_on_half_of_the_weights(request, blocks, form):
    folder = request.getfixturevalue(blocks)
    with torch.inference_mode():
        plain = one_step(loaded(folder / f"{form}.safetensors", "vdot"))
    changed, natively_changed = (lora_results(folder, form, network) for network in ("vdot", "comfyui"))
    compare(changed, natively_changed)
    assert all(relative(value, plain) > 0.02 for value in changed.values())
    everything, half = changed.values()
    # A LoRA in fp8 weights is rounded with them, one that is applied at use is not.
    assert relative(half, everything) < (1e-5 if form == "bf16" else 0.1)


@pytest.mark.full
@pytest.mark.parametrize("form", FORMS)
def test_all_thirty_blocks(whole, form):
    compare(*(steps_of(whole / f"{form}.safetensors", network) for network in ("vdot", "comfyui")))


@pytest.mark.full
@pytest.mark.parametrize("form", FORMS)
def test_a_step_takes_no_longer_than_comfyui_s(files, form):
    """Both in memory, alternating; processor time, as the machine may be busy."""
    noise, options = inputs(3, 16)
    times = {"vdot": [], "comfyui": []}
    with torch.inference_mode():
        models = {network: loaded(files / f"{form}.safetensors", network) for network in times}
        for number in range(ROUNDS):
            for network in sorted(models, reverse=bool(number % 2)):
                start = time.process_time()
                models[network].model.diffusion_model(noise, torch.tensor([999.0]), **options)
                times[network].append(time.process_time() - start)
    ratio = statistics.median(a / b for a, b in zip(times["vdot"][2:], times["comfyui"][2:], strict=True))
    print(f"{form}: {statistics.median(times['vdot']):.2f} s a step, {ratio:.3f} of ComfyUI's")
    assert ratio <= SLOWER
