"""Models for long videos: the tiny student, a stand-in for clips, and ComfyUI's context windows.

Shape letters: F pixel frames, H W pixels, T latent frames, h w latents.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tiny.clips.annotations import depth_map
from tiny.clips.shapes import OBJECT_COLORS, SPLITS, Clip, clip
from tiny.evaluation.config import SamplerConfig
from tiny.evaluation.generate import load_tiny, sample_latents
from tiny.evaluation.network import load_evaluator
from tiny.evaluation.observe import observe
from tiny.tasks import build_unit
from training.benchmark.reference import reference_identity
from training.data.wan_vae import decode_video, encode_video
from vdot_core import vcu
from vdot_core.sampling.long import chunk_seed
from vdot_core.vcu import VAE_STRIDE
from vdot_core.videos import open_video

ROOT = Path(__file__).resolve().parents[1]
SMALL = 64 * 80
"""Pixels of a frame; clips of 96 x 160 take half as long alone."""
SAMPLER = SamplerConfig(steps=4, shift=8.0, solver="renoise", labels="exact", guidance=1.0)


@cache
def student():
    """The tiny student with VAE and text encoder."""
    return load_tiny(ROOT / "assets", ROOT / "assets/vdot_tiny_student.safetensors")


def _doubled(batch: Tensor, num_pixels: int) -> Tensor:
    """A small clip twice: float32 convolutions over one take 2.5 times as long on a CPU as over two."""
    return torch.cat([batch, batch]) if len(batch) == 1 and num_pixels <= SMALL else batch


def encode(video: Tensor) -> Tensor:
    """[B, F, H, W, 3] -> latents, by the tiny VAE."""
    with torch.inference_mode():
        return encode_video(student().vae, _doubled(video, video[0, 0, ..., 0].numel()))[: len(video)]


def decode(latents: Tensor) -> Tensor:
    """Latents [B, 16, T, h, w] -> [B, F, H, W, 3]."""
    with torch.inference_mode():
        num_pixels = latents[0, 0, 0].numel() * VAE_STRIDE[1] * VAE_STRIDE[2]
        return decode_video(student().vae, _doubled(latents, num_pixels))[: len(latents)]


class Lockstep:
    """Calls of several threads, all with clips of one shape, as one batch: two cost a CPU as much as one.

    Args:
        function: `encode` or `decode`.
        num_threads: that make the same calls.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], num_threads: int):
        self.function, self.inputs, self.outputs = function, {}, {}
        self.barrier = threading.Barrier(num_threads, action=self._run)

    def __call__(self, clips: Tensor) -> Tensor:
        caller = threading.get_ident()
        self.inputs[caller] = clips
        self.barrier.wait()
        return self.outputs[caller]

    def _run(self) -> None:
        results = self.function(torch.cat(list(self.inputs.values())))
        parts = results.split([len(clips) for clips in self.inputs.values()])
        self.outputs = dict(zip(self.inputs, parts, strict=True))


def read_clip(path: Path, num_frames: int, width: int, height: int) -> Tensor:
    """Frames of a file at a size; a shorter one is played back and forth."""
    frames = []
    with open_video(path) as container:
        for frame in container.decode(video=0):
            frames.append(torch.from_numpy(frame.to_ndarray(format="rgb24")))
            if len(frames) == num_frames:
                break
    video = torch.stack(frames).float() / 255
    scale = max(width / video.shape[2], height / video.shape[1])
    size = [round(video.shape[1] * scale), round(video.shape[2] * scale)]
    small = F.interpolate(video.movedim(-1, 1), size, mode="bilinear", antialias=True)
    small = small.movedim(1, -1)[:, :height, :width]
    while len(small) < num_frames:
        small = torch.cat([small, small.flip(0)[1:]])
    return small[:num_frames].contiguous()


def scene(task: str, seed: int, num_frames: int) -> tuple[vcu.VCU, str, Clip]:
    """A drawn scene's unit, its caption, and the scene."""
    drawn = clip(SPLITS["evaluation"].start + seed, num_frames=num_frames)
    return build_unit(task, drawn), drawn.captions[-1], drawn


def gray_error(video: Tensor) -> Callable[[Tensor, slice], float]:
    """Mean difference of gray values from those of a clip, of frames in a place."""
    return lambda made, part: float((made.mean(-1) - video[part].mean(-1)).abs().mean())


def colors_of(image: Tensor) -> Callable[[Tensor], float]:
    """Share of the colors of a picture's middle that a place of a clip shows."""
    height, width = image.shape[:2]
    subject = image[height // 4 : height - height // 4, width // 4 : width - width // 4]
    return lambda made: reference_identity(made, [subject])


@cache
def _evaluator():
    return load_evaluator(ROOT / "assets/vdot_tiny_evaluator.safetensors")


def subjects_of(drawn: Clip, count: int) -> Callable[[Tensor], float]:
    """Chance, by the evaluation network, that 17 frames show the scene's nearest objects, by their colors."""
    colors = [OBJECT_COLORS.index(track.color) for track in drawn.objects[-count:]]
    return lambda made: float(observe(_evaluator(), made[None])[0].presence[colors].mean())


def depth_error(drawn: Clip) -> Callable[[Tensor, slice], float]:
    """Mean difference of a scene's depth from that of the objects which the evaluation network sees."""

    def error(made: Tensor, part: slice) -> float:
        labels = observe(_evaluator(), made[None])[0].labels
        masks = torch.stack([labels == 1 + OBJECT_COLORS.index(track.color) for track in drawn.objects])
        seen = depth_map([track.nearness for track in drawn.objects], masks.float())
        return float((seen - drawn.depth[part]).abs().mean())

    return error


def task_of(video: Tensor, task: str) -> vcu.VCU:
    """A unit of a real clip [F, H, W, 3]: 'gray' as control, or 'outpaint' of its middle."""
    if task == "gray":
        return vcu.control(video.mean(-1, keepdim=True).expand_as(video).contiguous())
    mask = torch.ones(video.shape[:3])
    rows, columns = video.shape[1] // 8, video.shape[2] // 6
    mask[:, rows:-rows, columns:-columns] = 0
    return vcu.inpaint(video, mask)


class Student:
    """The tiny student as a sampler of chunks."""

    def __init__(self, prompt: str, seed: int):
        self.prompt, self.seed = prompt, seed

    def __call__(self, context, span, prompt) -> Tensor:
        seeds = [chunk_seed(self.seed, span.index)]
        return sample_latents(student(), context.contexts, [self.prompt], SAMPLER, seeds)


class Continuer:
    """A stand-in for a model that drifts: the wanted clip in the colors and contrasts of its overlap.

    Args:
        video: the wanted clip.
        bias: its own error a chunk, added to each channel of the latents (seeded signs).
    """

    def __init__(self, video: Tensor, bias: float):
        self.video, self.wanted, self.lock = video, {}, threading.Lock()
        signs = torch.randn(1, 16, 1, 1, 1, generator=torch.Generator().manual_seed(1)).sign()
        self.bias = bias * signs

    def __call__(self, context, span, prompt) -> Tensor:
        with self.lock:
            if span not in self.wanted:
                self.wanted[span] = encode(self.video[None, span.start : span.stop])
        wanted = self.wanted[span]
        if not span.overlap:
            return wanted
        overlap = context.contexts[:, 0, :16, 1 : 1 + (span.overlap - 1) // 4]
        own = wanted[:, :, 1 : 1 + overlap.shape[2]]
        dims = (2, 3, 4)
        gain = overlap.std(dims, keepdim=True) / own.std(dims, keepdim=True)
        mean = own.mean(dims, keepdim=True)
        return (wanted - mean) * gain + overlap.mean(dims, keepdim=True) + self.bias


def windows(unit: vcu.VCU, prompt: str, seed: int, chunk: int, overlap: int) -> Tensor:
    """The unit at once by ComfyUI's context windows, with its own defaults but for their length and overlap.

    Returns:
        [F, H, W, 3] float in [0, 1].
    """
    from tests.support import pack

    nodes = pack.load_nodes()
    from comfy_extras.nodes_context_windows import WanContextWindowsManualNode

    inputs = WanContextWindowsManualNode.define_schema().inputs
    settings = {item.id: item.default for item in inputs if getattr(item, "default", None) is not None}
    settings |= {"context_length": chunk, "context_overlap": overlap}
    same = pack.submodule("vdot_core.vcu").VCU(unit.frames, unit.masks, unit.references, unit.kind)
    model, clip_, vae = pack.run_node(nodes["VDOTLoadDemo"]).args
    with torch.inference_mode():
        text = clip_.encode_from_tokens_scheduled(clip_.tokenize(prompt))
        model = WanContextWindowsManualNode.execute(model, **settings).args[0]
        encoded = pack.run_node(nodes["VDOTEncode"], positive=text, vae=vae, unit=same, strength=1.0).args
        sampler = {
            "preset": "custom",
            "steps": SAMPLER.steps,
            "shift": SAMPLER.shift,
            "solver": SAMPLER.solver,
        }
        latent = pack.run_node(
            nodes["VDOTSampler"], model=model, positive=encoded[0], latent=encoded[2], seed=seed, **sampler
        ).args[0]
        return decode(pack.submodule("nodes.comfy_long").to_network_space(latent["samples"]))[0].clamp(0, 1)
