"""Ridges and the color wheel against the libraries that do the same more slowly."""

import pytest
import torch
from kornia.filters import spatial_gradient
from torchvision.utils import flow_to_image

from vdot_core.signals import flow_to_frames
from vdot_core.signals.lines import _is_crest, _sobel


def test_gradients_are_sobels():
    image = torch.rand(2, 33, 47)
    across, down = spatial_gradient(image[:, None], normalized=False)[:, 0].unbind(1)
    for ours, expected in zip(_sobel(image), (across, down), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)


def test_a_crest_is_stronger_than_both_pixels_across_it():
    """Pixel by pixel, by the definition; of two equal pixels across a step the left or upper one is kept."""
    generator = torch.Generator().manual_seed(0)
    across, down = (torch.randint(-2, 3, (1, 9, 11), generator=generator).float() for _ in range(2))
    strength = (across**2 + down**2 + 1e-6).sqrt()
    crest = _is_crest(strength, across, down, outside=1e-3)[0]
    padded = torch.nn.functional.pad(strength[0], (1, 1, 1, 1), value=1e-3)
    for y in range(9):
        for x in range(11):
            eighths = round(float(torch.atan2(down[0, y, x], across[0, y, x]) * 4 / torch.pi)) % 4
            dy, dx = ((0, 1), (1, 1), (1, 0), (1, -1))[eighths]
            ahead, behind = padded[y + 1 + dy, x + 1 + dx], padded[y + 1 - dy, x + 1 - dx]
            own = strength[0, y, x]
            expected = own > behind and (own >= ahead if eighths in (0, 2) else own > ahead)
            assert bool(crest[y, x]) == bool(expected), (y, x)


@pytest.mark.parametrize("scale", [0.0, 5.0])
def test_the_color_wheel_is_torchvisions(scale):
    flow = torch.randn(3, 2, 20, 30) * 4
    flow[0] = 0
    ours = flow_to_frames(flow, scale="clip" if scale == 0 else "frame", still_px=scale * 10)
    peak = max(float(flow.norm(dim=1).max()), scale * 10)
    column = torch.zeros(3, 2, 20, 1)
    column[:, 0] = peak
    expected = flow_to_image(torch.cat([flow, column], 3))[..., :-1].permute(0, 2, 3, 1) / 255
    torch.testing.assert_close(ours, expected, atol=1.01 / 255, rtol=0)
    assert (ours == expected).float().mean() > 0.999
