"""README's Python example runs as it stands."""

import re
from pathlib import Path

import torch

from vdot_core.checkpoints import save_network
from vdot_core.networks import WanVace, vdot_tiny

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_example_makes_latents_without_a_graph(tmp_path):
    (source,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    network = WanVace(vdot_tiny())
    network.initialize_weights(torch.Generator().manual_seed(0))
    save_network(tmp_path / "tiny.safetensors", network)
    # The example's own size is for a GPU; nothing else of it is changed.
    assert source.count('"width": 832, "height": 480, "num_frames": 81') == 1
    source = source.replace(
        '"width": 832, "height": 480, "num_frames": 81', '"width": 64, "height": 48, "num_frames": 9'
    )
    example: dict = {}
    exec(compile(source, str(README), "exec"), example)  # noqa: S102 - our own README

    def vae_encode(video):
        batch, num_frames, height, width, _ = video.shape
        return torch.randn(batch, 16, (num_frames - 1) // 4 + 1, height // 8, width // 8)

    arguments = (
        tmp_path / "tiny.safetensors",
        torch.rand(9, 50, 70),
        torch.rand(30, 20, 3),
        torch.randn(1, 7, 128),
    )
    latents = example["make_video"](*arguments, vae_encode, device="cpu", dtype=torch.float32)
    assert latents.shape == (1, 16, 3, 6, 8) and latents.isfinite().all() and not latents.requires_grad
