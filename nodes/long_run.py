"""One run of VDOT Long Video: chunks from vdot_core, sampled by ComfyUI, written to a file.

Shape letters: F pixel frames, H W pixels, T latent frames, h w latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from ..vdot_core.sampling.long import (
    Chunk,
    Joining,
    Record,
    changes_begin,
    check_changes,
    chunk_seed,
    digest_of,
    generate,
    plan_chunks,
)
from ..vdot_core.scratch import new_frames
from ..vdot_core.text import counted
from ..vdot_core.video_writing import open_writer
from . import comfy_inputs, comfy_long
from .comfy_checks import vace_contexts
from .comfy_clips import first_sound
from .comfy_sampling import shifted
from .comfy_vae import check_vae, vae_encoder
from .encode import conditioned, encode_options
from .sample import prepared
from .sample_inputs import Settings


class Job:
    """The checked inputs of a run.

    Args:
        model, positive, vae, unit, chunk, overlap, seed, fps: the node's inputs.
        settings: the sampler's.
        negative, cfg, schedule, drift, fade, loop, paste_back, match_colors, audio, resume,
            all_frames, preview: the node's inputs.

    Raises:
        ValueError: they do not fit each other.
    """

    def __init__(
        self,
        model,
        positive,
        vae,
        unit,
        chunk: int,
        overlap: int,
        seed: int,
        settings: Settings,
        fps: float,
        *,
        negative=None,
        cfg: float = 1.0,
        schedule=(),
        drift: bool = True,
        fade: bool = True,
        loop: bool = False,
        paste_back: bool = True,
        match_colors: bool = False,
        audio: dict | None = None,
        resume: bool = False,
        all_frames: bool = True,
        preview: bool = True,
    ):
        check_vae(vae)
        texts = [change.prompt for change in schedule if change.prompt is not None]
        for name, text in [("positive", positive), ("negative", negative)] + [("schedule", t) for t in texts]:
            if vace_contexts(text or [], name):
                raise ValueError(
                    f"{name} comes from VDOT Encode, but this node encodes; connect CLIP Text Encode to it"
                )
        self.model, self.positive, self.negative, self.vae, self.unit = model, positive, negative, vae, unit
        self.seed, self.settings, self.cfg, self.fps = seed, settings, cfg, fps
        self.schedule, self.audio = tuple(schedule), audio
        self.resume, self.all_frames, self.preview = resume, all_frames, preview
        self.joining = Joining(drift, fade, paste_back, match_colors)
        self.spans = plan_chunks(unit.num_frames, chunk, overlap, loop)
        self.lines = self._schedule_lines() + check_changes(self.schedule, unit)
        self.images = self._allocated() if all_frames else None

    def run(self, prefix: str) -> tuple[torch.Tensor, Path]:
        """Make the video.

        Returns:
            (frames [F, H, W, 3], of the full video or of the last chunk; the file).
        """
        unit = self.unit
        find = comfy_long.unfinished_paths if self.resume else comfy_long.new_paths
        file, folder = find(prefix, unit.width, unit.height)
        record = Record(folder, self._facts(), self.resume)
        if record.num_finished:
            self.lines.append(f"resumed after {counted(record.num_finished, 'chunk')}")
        try:
            images = self._written(file, record)
        except BaseException:
            if not record.num_finished:  # a mistake in the inputs leaves nothing behind
                record.remove()
                file.unlink(missing_ok=True)
            raise
        record.remove()
        return images, file

    def _written(self, file: Path, record: Record) -> torch.Tensor:
        """The frames, after all chunks were written to the file."""
        sound, rate = self._sound()
        images = self.images
        with (
            comfy_long.only_interrupts(),
            open_writer(file, self.fps, self.unit.width, self.unit.height, sound, rate) as writer,
        ):
            for chunk in self._chunks(record):
                writer.write(chunk.frames)
                images = self._gathered(images, chunk)
        return images

    def _allocated(self) -> torch.Tensor:
        unit, cure = self.unit, "turn all_frames off and use the file"
        size = unit.num_frames, unit.width, unit.height
        images, notes = new_frames(*size, comfy_inputs.scratch_folder(), cure)
        self.lines += notes
        return images

    def _schedule_lines(self) -> list[str]:
        """A line on each VDOT From Frame: the chunk's first frame, where it acts, or why it never does."""
        lines = []
        begins = changes_begin(self.schedule, self.spans)
        for change, begin in zip(self.schedule, begins, strict=True):
            if begin is not None:
                lines.append(f"the change at frame {change.frame} acts from frame {begin} on")
            elif change.frame >= self.unit.num_frames:
                length = counted(self.unit.num_frames, "frame")
                lines.append(
                    f"the change at frame {change.frame} is never reached: the video has {length}; give an "
                    "earlier frame"
                )
            else:
                lines.append(
                    f"the change at frame {change.frame} acts in no chunk: another comes before the next "
                    "chunk, or the video ends; give an earlier frame or a smaller chunk"
                )
        return lines

    def preview_of(self, file: Path) -> dict:
        """The finished file as the node shows it."""
        return {"images": [comfy_long.described_file(file)], "animated": (True,)}

    def _gathered(self, images: torch.Tensor | None, chunk: Chunk) -> torch.Tensor:
        if not self.all_frames:
            return chunk.frames
        images[chunk.start : chunk.start + len(chunk.frames)] = chunk.frames
        return images

    def _chunks(self, record: Record) -> Iterator[Chunk]:
        options = encode_options(self.vae)
        cache = options.pop("cache")
        return generate(
            self.unit,
            self.spans,
            vae_encode=vae_encoder(self.vae),
            vae_decode=comfy_long.vae_decoder(self.vae),
            sample=self._sampler(record),
            joining=self.joining,
            changes=self.schedule,
            cache=cache,
            encode_options=options,
        )

    def _sampler(self, record: Record) -> Callable:
        def sample(context, span, prompt):
            latents = record.load(span.index)
            if latents is None:
                latents = self._sampled(context, span.index, self.positive if prompt is None else prompt)
                record.keep(span.index, latents)
            return latents

        return sample

    def _sampled(self, context, index: int, text) -> torch.Tensor:
        """Latents [1, 16, T, h, w] of a chunk in the network's space, references included."""
        positive, negative, latent = conditioned(context, text, self.negative)
        negative = None if self.negative is None else negative  # no text is no guidance
        run = prepared(self.model, positive, negative, latent, self.cfg, self.settings)
        self.lines += [line for line in (*run.lines, *run.warnings) if line not in self.lines]
        steps = run.plan.num_steps
        total = steps * len(self.spans)
        seed = chunk_seed(self.seed, index)
        callback = run.callback(self.preview, seed, total)
        samples, _ = run.sample(seed, shifted(callback, index * steps, total))
        return comfy_long.to_network_space(samples)

    def _facts(self) -> dict[str, str]:
        """All that decides the video, by the name that a message calls it."""
        second = self.settings.second_model
        changes = [(change.frame, change.references, _tensors(change.prompt)) for change in self.schedule]
        joining, spans = self.joining, [(span.start, span.stop) for span in self.spans]
        settings = {k: v for k, v in vars(self.settings).items() if k != "second_model"}
        return {
            "seed": str(self.seed),
            "unit": digest_of(self.unit),
            "chunk, overlap or loop": digest_of(spans),
            "positive": digest_of(_tensors(self.positive)),
            "negative": digest_of(_tensors(self.negative)),
            "schedule": digest_of(changes),
            "model": comfy_long.identity_of(self.model),
            "second_model": "none" if second is None else comfy_long.identity_of(second),
            "vae": comfy_long.identity_of(self.vae.patcher),
            "sampler setting": digest_of(sorted(settings.items()), self.cfg),
            "drift, fade, paste_back or match_colors": " ".join(
                str(value) for value in vars(joining).values()
            ),
        }

    def _sound(self) -> tuple[torch.Tensor | None, int]:
        if self.audio is None:
            return None, 1
        if not self.audio["waveform"].numel():
            self.lines.append("audio is empty, or its clip has no sound: the file has none")
            return None, 1
        sound, lines = first_sound(self.audio)
        num_channels = len(sound.waveform)
        if num_channels > 2:
            lines.append(f"audio has {num_channels} channels: the first two are written; mix it down before")
        self.lines += lines
        return sound.waveform, sound.rate


def _tensors(conditioning) -> list:
    """A conditioning's texts; ComfyUI's further keys have no stable form."""
    return [tokens for tokens, _ in conditioning or []]
