"""Absurd sizes are refused with both figures, before memory is filled."""

from pathlib import Path

import pytest
import torch

from tests.support.memory import Resident
from vdot_core import memory, signals, vcu

LARGE = 8192
LIMIT = 100_000_000
FIT = {"width": LARGE, "height": LARGE}
CLIP, IMAGE, MASK = torch.rand(5, 32, 32, 3), torch.rand(32, 32, 3), torch.zeros(5, 32, 32)
LONG = torch.rand(1, 1, 1, 1).expand(9, 1024, 1024, 3)  # holds one number
MASK[:, 8:20, 8:20] = 1
BOX = [10, 10, 90, 90]
PERSON = {"people": [{"pose_keypoints_2d": [0.5, 0.5, 1.0] * 18}], "canvas_width": 64, "canvas_height": 64}


def unit(**fields):
    """A large unit that holds one pixel."""
    frames = torch.full((1, 1, 1, 1), 0.5).expand(1, LARGE, LARGE, 3)
    masks = torch.zeros(1, 1, 1).expand(1, LARGE, LARGE)
    return vcu.VCU(frames, masks, **fields)


def vae(video):
    raise AssertionError("the VAE must not be reached")


CASES = {
    "inpaint": lambda: vcu.inpaint(CLIP, MASK, width=LARGE),
    "inpaint tall": lambda: vcu.inpaint(torch.rand(1, 16, 1024, 3), torch.ones(16, 1024), **FIT),
    "inpaint longer": lambda: vcu.inpaint(CLIP, MASK, num_frames=8193, width=64),
    "control": lambda: vcu.control(CLIP, height=LARGE),
    "depth": lambda: vcu.depth(CLIP[..., 0], **FIT),
    "outpaint pixels": lambda: vcu.outpaint(CLIP, left=LARGE, top=LARGE),
    "outpaint size": lambda: vcu.outpaint(CLIP, width=LARGE, height=4096),
    "outpaint sides and size": lambda: vcu.outpaint(CLIP, left=64, width=LARGE),
    "extend": lambda: vcu.extend(IMAGE, num_frames=5, **FIT),
    "extend longer": lambda: vcu.extend(IMAGE, num_frames=65537),
    "keyframes": lambda: vcu.keyframes([IMAGE, IMAGE], [0, -1], num_frames=5, **FIT),
    "layout": lambda: vcu.layout(BOX, num_frames=5, **FIT),
    "layout_masks": lambda: vcu.layout_masks(MASK, **FIT),
    "move": lambda: vcu.move(IMAGE, BOX, num_frames=5, **FIT),
    "reference": lambda: vcu.reference([IMAGE], num_frames=5, **FIT),
    "many references": lambda: vcu.reference([IMAGE] * 500, num_frames=5, width=512, height=512),
    "reference's margin": lambda: vcu.reference(
        torch.rand(512, 512, 3), masks=torch.ones(1, 512, 512), margin=4.0, width=64, height=64, num_frames=1
    ),
    "compose": lambda: vcu.compose(unit(), unit(kind="extension")),
    "crop_region": lambda: vcu.crop_region(CLIP, MASK, **FIT),
    "box_masks": lambda: vcu.box_masks([], width=LARGE, height=LARGE, num_frames=9),
    "encode": lambda: vcu.encode(vcu.text(LARGE, LARGE, 29), vae),
    "encode halves": lambda: vcu.encode(unit(), vae),
    "preview": lambda: vcu.preview(
        vcu.VCU(CLIP[:1], MASK[:1], references=(IMAGE[:1, :1].expand(16, 16, 3),) * 2000)
    ),
    "to_gray": lambda: signals.to_gray(LONG),
    "draw_lines": lambda: signals.draw_lines(LONG),
    "flow_video": lambda: signals.flow_video(LONG),
    "normalize_depth": lambda: signals.normalize_depth(LONG[..., 0]),
    "draw_pose": lambda: signals.draw_pose([PERSON], **FIT),
    "draw_pose flat": lambda: signals.draw_pose([PERSON], width=LARGE, height=1),
}


@pytest.mark.parametrize("name", CASES)
def test_extreme_sizes_are_refused_before_memory_is_filled(name, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: LIMIT)
    resident = Resident()
    resident.start()
    with pytest.raises(
        ValueError, match=r"needs [\d.]+ GB of memory, .* 0\.1 GB that are free; give"
    ) as error:
        CASES[name]()
    assert resident.grown_bytes() < 1.5 * LIMIT
    assert len(str(error.value)) <= 400


def test_ordinary_sizes_are_not(monkeypatch):
    """A clip of 480p takes some times its own size, and no more is asked for."""
    clip = torch.rand(9, 240, 416, 3)
    monkeypatch.setattr(memory, "available_bytes", lambda: 5 * clip.numel() * 4)
    small = {"width": 320, "height": 192}
    assert vcu.inpaint(clip, torch.ones(1, 240, 416), **small).width == 320
    assert vcu.control(clip).num_frames == vcu.outpaint(clip, left=16).num_frames == 9
    vcu.encode(vcu.inpaint(clip, torch.ones(1, 240, 416)), lambda v: torch.zeros(1, 16, 3, 30, 52))


def test_a_container_counts_with_its_own_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CONTAINER", tmp_path)
    machine = memory.available_bytes()
    assert machine > 2**28
    for name, text in {"max": "3000", "current": "2500", "stat": "anon 9\ninactive_file 400\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory.available_bytes() == 900
    (tmp_path / "memory.max").write_text("max")
    assert memory.available_bytes() > 2**28


def test_every_system_says_what_is_free(monkeypatch):
    psutil = pytest.importorskip("psutil")
    linux = memory._machine_bytes()
    monkeypatch.setattr(memory, "Path", lambda name: Path("/nowhere") / name.lstrip("/"))
    assert memory._machine_bytes() == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    assert linux == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_a_large_video_is_scaled_a_frame_at_a_time():
    assert memory.chunk_length(480 * 832, 8) == 8
    assert memory.chunk_length(LARGE * LARGE, 8) == 1


def test_the_figure_is_one_of_the_machine(monkeypatch):
    monkeypatch.setattr(memory, "_machine_bytes", lambda: 10e9)
    monkeypatch.setattr(memory, "_container_bytes", lambda: float("inf"))
    memory.check_size(8.9e9, "it", "give less")
    with pytest.raises(ValueError, match=r"it needs 9\.1 GB of memory, .* 9\.0 GB that are free; give less"):
        memory.check_size(9.1e9, "it", "give less")
