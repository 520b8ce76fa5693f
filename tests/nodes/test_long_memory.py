"""Nodes from VDOT Load Clip to VDOT Long Video take the memory of a chunk, for a clip of any length."""

import ctypes

import av
import numpy as np
import pytest
import torch

from tests.core.sampling.test_long import vae_decode, vae_encode
from tests.core.sampling.test_long_memory import LONG, M_MMAP_THRESHOLD, SHORT, noisy_clip
from tests.support.memory import STATUS, AnonymousPeak
from tests.support.pack import submodule

SIZE, CHUNK, OVERLAP = (320, 192), 33, 9
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not STATUS.exists(), reason="only Linux tells the memory of a process by kind"),
]


def moving_mask(path, num_frames, width, height):
    """A white box that moves to and fro."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(num_frames):
            left = round((0.3 + 0.2 * np.sin(number / 8)) * width)
            pixels = np.zeros((height, width, 3), np.uint8)
            pixels[height // 4 : -height // 4, left : left + width // 4] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def folder(comfy, tmp_path, monkeypatch):
    """ComfyUI's input, output and temporary folder."""
    import folder_paths

    for kind in ("input", "output", "temp"):
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path))
    return tmp_path


@pytest.fixture
def stand_ins(pack, monkeypatch):
    """A VAE that averages blocks, and a network that shows its control."""
    run = submodule("nodes.long_run")
    monkeypatch.setattr(run, "vae_encoder", lambda vae: vae_encode)
    monkeypatch.setattr(run.comfy_long, "vae_decoder", lambda vae: vae_decode)
    monkeypatch.setattr(run.Job, "_sampled", lambda job, context, index, text: context.contexts[:, 0, 16:32])


def replaced(run, models, num_frames):
    """The nodes of *Replace a person through a long clip*; (frames, the file's)."""
    numbers = {"start": 0.0, "length": num_frames, "resolution": "as it is", "fps": 16.0}
    clip, mask = (run("VDOTLoadClip", file=f"{name}.mp4", **numbers).args[0] for name in ("clip", "mask"))
    size = {"width": 0, "height": 0, "length": 0}
    shape = {"mask_shape": "box", "expand": 0.3}
    place = run("VDOTMask", frames=clip, mask=mask[..., 0], **shape, **size).args[0]
    pose = run("VDOTControl", frames=clip, **size).args[0]
    unit = run("VDOTCompose", units={"unit0": place, "unit1": pose}).args[0]
    size = {"width": unit.width, "height": unit.height, "length": num_frames}
    unit = run("VDOTReference", images={"image0": clip[:1]}, **size, unit=unit).args[0]
    settings = {"preset": "custom", "steps": 2, "shift": 8.0, "solver": "renoise"}
    chunks = {"chunk": CHUNK, "overlap": OVERLAP, "seed": 0}
    return run("VDOTLongVideo", **models, unit=unit, **chunks, **settings, match_colors=True).args


def test_801_frames_take_the_memory_of_81(run, ours, vae, text, folder, stand_ins, monkeypatch):
    """Clips lie in files; their pages are left out: the system takes them back whenever memory is short."""
    monkeypatch.setattr(submodule("vdot_core.scratch"), "IN_MEMORY", 0)
    # Else glibc raises the size from which freed memory goes back to the system: its holes would be measured.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)
    noisy_clip(folder / "clip.mp4", LONG, *SIZE)
    moving_mask(folder / "mask.mp4", LONG, *SIZE)
    models = {"model": ours, "vae": vae, "positive": text}
    replaced(run, models, 41)
    before, grown = AnonymousPeak().peak, {}
    for length, times in ((SHORT, 3), (LONG, 1)):
        with AnonymousPeak() as memory:
            for _ in range(times):
                frames, video = replaced(run, models, length)
        grown[length] = memory.peak - before
        assert len(frames) == length and isinstance(frames, torch.Tensor)
        with av.open(video.get_stream_source()) as container:
            assert sum(1 for _ in container.decode(video=0)) == length
        del frames, video
    print({length: f"{size / 1e6:.0f} MB" for length, size in grown.items()})
    frame = SIZE[0] * SIZE[1] * 12
    assert grown[LONG] == pytest.approx(grown[SHORT], rel=0.1), grown
    assert CHUNK * frame < grown[LONG] < LONG * frame, "a chunk, and no video"
