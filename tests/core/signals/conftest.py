"""Clips with known content, the real clip, and a meter for peak memory."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

MIB = 2**20


def textured(height: int, width: int, *, cells: int = 12, seed: int = 1) -> Tensor:
    """A smooth random color texture [H, W, 3] in [0, 1]."""
    noise = torch.rand(
        1, 3, height // cells + 2, width // cells + 2, generator=torch.Generator().manual_seed(seed)
    )
    image = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic", align_corners=True)
    return image[0].permute(1, 2, 0).clamp(0, 1)


BAD_CLIPS = {
    "alpha": (torch.rand(2, 32, 32, 4), "alpha"),
    "one image": (torch.rand(32, 32, 3), r"\[F, H, W, 3\]"),
    "channels first": (torch.rand(2, 3, 32, 32), "32 channels, expected red"),
    "no frames": (torch.rand(0, 32, 32, 3), "empty"),
    "no pixels": (torch.rand(2, 0, 32, 3), "empty"),
    "NaN": (
        torch.rand(2, 32, 32, 3).index_fill(1, torch.tensor([3]), float("nan")),
        "NaN or infinite values in frame 0",
    ),
    "infinity": (torch.stack([torch.zeros(32, 32, 3), torch.full((32, 32, 3), float("inf"))]), "in frame 1"),
    "8 bit": (torch.rand(2, 32, 32, 3) * 255, "divide 8-bit images by 255"),
    "integers": (torch.zeros(2, 32, 32, 3, dtype=torch.uint8), "uint8 numbers, expected float"),
    "no tensor": (np.zeros((2, 32, 32, 3), dtype=np.float32), "ndarray"),
}


@pytest.fixture(params=BAD_CLIPS.values(), ids=BAD_CLIPS.keys())
def bad_clip(request):
    """(clip, pattern of the message that refuses it)."""
    return request.param


@pytest.fixture(scope="session")
def real_clip(shared_data) -> Tensor:
    """81 real frames at 480p, [81, 480, 832, 3]."""
    import av

    with av.open(str(shared_data / "test.mp4")) as container:
        frames = [
            frame.reformat(832, 480, format="rgb24", interpolation="AREA").to_ndarray()
            for frame in container.decode(video=0)
        ]
    return torch.from_numpy(np.stack(frames)).float() / 255


@pytest.fixture
def peak_mib() -> Callable[[Callable], float]:
    """Calls a function and says by how many MiB this process's memory peaked above its start (Linux)."""
    clear, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")

    def field(name: str) -> float:
        line = next(line for line in status.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) / 1024

    def measure(function: Callable) -> float:
        try:
            clear.write_text("5")  # resets the high-water mark
        except OSError:
            pytest.skip("this system does not let a process reset its memory high-water mark")
        before = field("VmRSS")
        result = function()
        peak = field("VmHWM") - before
        del result
        return peak

    return measure
