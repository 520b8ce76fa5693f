"""Videos of ComfyUI's input folder and of other nodes, and ComfyUI's AUDIO and VIDEO."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from numbers import Real
from typing import Any

from comfy_api.latest import InputImpl, Types
from torch import Tensor

from ..vdot_core.excerpts import Excerpt, Span, cut_excerpt, read_excerpt
from ..vdot_core.sounds import Sound
from ..vdot_core.text import counted, described
from ..vdot_core.vcu import SIZES, VideoSize, snap_size
from ..vdot_core.vcu.canvas import to_unit_range
from .comfy_inputs import clip_path, scratch_folder
from .guard import CHECKS
from .sizes import AS_IT_IS, AUTO, small_line

MOST_FRAMES = SIZES["480p"].most_frames


def clip_span(start: float, length: int, resolution: str, fps: float, size: VideoSize | None) -> Span:
    """The node's inputs as a span; 0 stands for what the model or the clip has."""
    most = length or (size.most_frames if size else MOST_FRAMES)
    chosen = size if resolution == AUTO else SIZES.get(resolution)
    fit = chosen.fit if chosen and resolution != AS_IT_IS else snap_size
    return Span(start, fps or None, most, fit)


def load_clip(name: str, video: Any, span: Span) -> Excerpt:
    """A span of a file of the input folder, or of a VIDEO.

    Raises:
        ValueError: there is no such file, or it cannot be read.
    """
    if video is None:
        return read_excerpt(clip_path(name), span, scratch_folder())
    if not isinstance(video, InputImpl.VideoFromFile):
        frames, rate, audio = _parts(video.get_components())
        sound, lines = (None, []) if audio is None else first_sound(audio)
        clip = cut_excerpt(frames, rate, sound, span, scratch_folder())
        return replace(clip, notes=(*clip.notes, *lines))
    begin, seconds = getattr(video, "get_active_trim_window", lambda: (0.0, 0.0))()
    source = video.get_stream_source()
    most = span.most_frames
    if seconds:  # cut by Trim Video
        if span.start >= seconds:
            raise ValueError(
                f"the video is {seconds:.3g} seconds long, and start is {span.start:g}; give a smaller start"
            )
        rate = span.rate or float(video.get_frame_rate())
        most = max(1, min(most, round((seconds - span.start) * rate)))
    return read_excerpt(source, Span(begin + span.start, span.rate, most, span.fit), scratch_folder())


def describe(clip: Excerpt, size: VideoSize | None) -> list[str]:
    """Lines that the node shows about a clip."""
    num_frames, height, width = clip.frames.shape[:3]
    sound = "no sound" if clip.sound is None else f"sound of {clip.sound.rate} Hz"
    lines = [
        f"{width}x{height}, {counted(num_frames, 'frame')} at {clip.rate:.5g} fps "
        f"({clip.seconds:.2f} s), {sound}",
        *clip.notes,
    ]
    if size is not None and size.is_small(*clip.source_size):
        lines.append(small_line(size, clip.source_size))
    return lines


def as_audio(sound: Sound | None) -> dict | None:
    """ComfyUI's AUDIO."""
    return sound and {"waveform": sound.waveform[None], "sample_rate": sound.rate}


def as_video(frames: Tensor, audio: dict | None, rate: float) -> Any:
    """ComfyUI's VIDEO."""
    return InputImpl.VideoFromComponents(
        Types.VideoComponents(images=frames, audio=audio, frame_rate=Fraction(rate))
    )


def first_sound(audio: dict) -> tuple[Sound, list[str]]:
    """The sound of ComfyUI's AUDIO, which may hold several, and a note where others are left out."""
    wave, rate = audio["waveform"], audio["sample_rate"]
    if wave.ndim == 2:
        return Sound(wave, rate), []
    others = len(wave) - 1
    note = f"audio holds {counted(len(wave), 'sound')}: the first is used, {others} left out"
    return Sound(wave[0], rate), [note] if others else []


def _parts(parts: Any) -> tuple[Tensor, float, dict | None]:
    """Frames, frames per second, and AUDIO of a VIDEO that a node made.

    Raises:
        ValueError: one of them is none.
    """
    frames = CHECKS["IMAGE"](None, "the video's frames", getattr(parts, "images", None))
    frames, _ = to_unit_range(frames, "the video's frames")
    rate = getattr(parts, "frame_rate", None)
    if not isinstance(rate, Real) or not 0 < rate < math.inf:
        raise ValueError(
            f"the video's frame rate is {described(rate)}, expected a number above 0; look at the node that "
            "made it"
        )
    audio = getattr(parts, "audio", None)
    if audio is None or (isinstance(audio, dict) and audio.get("waveform") is None):
        return frames, float(rate), None
    audio = CHECKS["AUDIO"](None, "the video's sound", audio)
    return frames, float(rate), audio if audio["waveform"].numel() else None
