"""The inputs of VDOT Long Video."""

from comfy_api.latest import io

from .inputs import MAX_LENGTH, VCUType
from .sample_inputs import cfg_input, model_inputs, nag_inputs, preset_inputs, preview_input, seed_input
from .sizes import size_input
from .vcu_region import match_colors_input

ScheduleType = io.Custom("VDOT_SCHEDULE")
PREFIX = "video/VDOT_long"


def long_inputs() -> list[io.Input]:
    """All inputs, in their order."""
    return [
        io.Model.Input("model", tooltip="The VDOT (or any VACE-Wan 2.1) model."),
        io.Conditioning.Input("positive", tooltip="What the video shows, from CLIP Text Encode."),
        io.Vae.Input("vae", tooltip="The Wan 2.1 VAE."),
        VCUType.Input(
            "unit", tooltip="The task, of the length of the full video, from a VDOT task node or Compose."
        ),
        io.Int.Input(
            "chunk",
            default=81,
            min=0,
            max=MAX_LENGTH,
            step=4,
            tooltip="Most frames made at once, 4n+1. 0: what the model was trained on, by size (else 81).",
        ),
        io.Int.Input(
            "overlap",
            default=17,
            min=0,
            max=MAX_LENGTH,
            step=4,
            tooltip=(
                "Frames, 4n+1, that a chunk repeats of the one before. More: smoother motion, more time. "
                "0: a fifth of the chunk."
            ),
        ),
        seed_input("Picks the noise of all chunks. Set it to fixed to resume an interrupted video."),
        *preset_inputs(),
        *_join_inputs(),
        *_file_inputs(),
        *_guidance_inputs(),
        *model_inputs(),
        *nag_inputs(),
        io.Boolean.Input(
            "loop",
            default=False,
            optional=True,
            tooltip="The video's end leads to its beginning, so that it can be played in a circle.",
        ),
        io.Boolean.Input(
            "paste_back",
            default=True,
            optional=True,
            tooltip=(
                "Kept pixels are the clip's own, bit for bit, and fade into generated ones over 8 pixels. "
                "Off: as the VAE decodes them. A start picture always is, since it would stand out."
            ),
        ),
        size_input("it decides chunk where that is 0."),
        match_colors_input(),
    ]


def _join_inputs() -> list[io.Input]:
    return [
        io.Boolean.Input(
            "drift",
            default=True,
            optional=True,
            tooltip=(
                "Correct each chunk's colors, contrast and sharpness by the frames that it shares with the "
                "one before; kept pixels stay. Off: each chunk as the model makes it."
            ),
        ),
        io.Boolean.Input(
            "fade", default=True, optional=True, tooltip="Cross-fade the frames that two chunks share."
        ),
        ScheduleType.Input(
            "schedule", optional=True, tooltip="Other prompts or references later on, from VDOT From Frame."
        ),
    ]


def _file_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "fps",
            default=16.0,
            min=1.0,
            max=240.0,
            step=0.01,
            optional=True,
            tooltip="Frames per second of the file: those of the clip. Wan makes 16.",
        ),
        io.Audio.Input("audio", optional=True, tooltip="Sound of the file, from the clip's start."),
        io.String.Input(
            "filename_prefix",
            default=PREFIX,
            optional=True,
            tooltip="Name of the file in ComfyUI's output folder. Finished chunks are added as they come.",
        ),
        io.Boolean.Input(
            "resume",
            default=False,
            optional=True,
            tooltip=(
                "Continue the newest unfinished video of this name: finished chunks are not made again. All "
                "else must be as it was."
            ),
        ),
        io.Boolean.Input(
            "all_frames",
            default=True,
            optional=True,
            advanced=True,
            tooltip=(
                "On: images holds the full video in memory. Off: only the last chunk's frames, for a video "
                "longer than memory; the file has all."
            ),
        ),
    ]


def _guidance_inputs() -> list[io.Input]:
    return [
        io.Conditioning.Input(
            "negative", optional=True, tooltip="What to avoid. Only used with cfg or nag_scale."
        ),
        cfg_input("Guidance. Leave at 1: the distilled model needs none. Else needs the negative input."),
        preview_input("Show a moving preview of the chunk in progress on this node."),
    ]
