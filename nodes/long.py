"""A unit of any length -> a video, chunk by chunk; and what changes from a frame on."""

from comfy_api.latest import InputImpl, io

from ..vdot_core.text import counted
from .comfy_bridge import report
from .guard import CheckedNode
from .inputs import MAX_LENGTH, VCUType
from .long_inputs import PREFIX, ScheduleType, long_inputs
from .sample_inputs import Settings
from .sizes import chunking

JOB_OPTIONS = (
    *("negative", "cfg", "schedule", "drift", "fade", "loop", "paste_back", "match_colors"),
    *("audio", "resume", "all_frames", "preview"),
)
"""Inputs of VDOT Long Video that are not the sampler's."""


class VDOTFromFrame(CheckedNode):
    """Another prompt or other references from a frame on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDOTFromFrame",
            display_name="VDOT From Frame",
            category="VDOT/sampling",
            description=(
                "From a frame on, VDOT Long Video uses another prompt, other references, or both. Connect "
                "several in a row through schedule. A change takes effect where the nearest chunk begins."
            ),
            search_aliases=["prompt travel", "prompt schedule", "reference schedule", "second scene"],
            inputs=[
                io.Int.Input(
                    "frame",
                    default=81,
                    min=0,
                    max=MAX_LENGTH,
                    tooltip="The first frame of the change; 16 frames are a second.",
                ),
                io.Conditioning.Input(
                    "positive", optional=True, tooltip="The prompt from there on, from CLIP Text Encode."
                ),
                VCUType.Input(
                    "references",
                    optional=True,
                    tooltip="A VDOT Reference whose pictures replace those of the task from there on.",
                ),
                ScheduleType.Input(
                    "schedule", optional=True, tooltip="Earlier changes, from another VDOT From Frame."
                ),
            ],
            outputs=[
                ScheduleType.Output(display_name="schedule", tooltip="The changes, for VDOT Long Video.")
            ],
        )

    @classmethod
    def execute(cls, frame, positive=None, references=None, schedule=()) -> io.NodeOutput:
        from ..vdot_core.sampling.long import Change

        if positive is None and references is None:
            raise ValueError(
                "VDOT From Frame changes nothing; connect a prompt to positive or a unit to references"
            )
        change, lines = Change(frame, prompt=positive), []
        if references is not None:
            settings = references.strength, references.step_range
            change = Change(frame, references.references, positive, *settings)
            lines = _reference_lines(references, frame)
        return io.NodeOutput((*schedule, change), ui=report(lines))


def _reference_lines(unit, frame: int) -> list[str]:
    """Lines on a unit that brings no pictures, or more than these."""
    lines = []
    if not unit.references:
        lines.append(
            f"references holds no picture: from frame {frame} on the video has none; connect a VDOT Reference"
        )
    if unit.kind != "generate":
        lines.append(
            f"of references only the pictures are used, not its frames ({unit.kind}); the task of VDOT Long "
            "Video holds for the full length"
        )
    return lines


class VDOTLongVideo(CheckedNode):
    """The sampler for videos of any length."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDOTLongVideo",
            display_name="VDOT Long Video",
            category="VDOT/sampling",
            description=(
                "Makes a video of any length in chunks, each of which continues the end of the one before. "
                "Takes any task's unit, encodes, samples and decodes it, keeps colors from drifting, and "
                "writes finished chunks to a file that can be played, and resumed after an interruption."
            ),
            search_aliases=["extend", "infinite", "chunks", "windows", "loop", "long", "resume"],
            is_output_node=True,
            inputs=long_inputs(),
            outputs=[
                io.Image.Output(display_name="images", tooltip="All frames; or those of the last chunk."),
                io.Video.Output(
                    display_name="video", tooltip="The file that was written, with its frame rate and sound."
                ),
            ],
        )

    @classmethod
    def execute(
        cls, model, positive, vae, unit, chunk, overlap, seed, fps=16.0, filename_prefix=PREFIX, **settings
    ) -> io.NodeOutput:
        from .long_run import Job

        chunk, overlap = chunking(settings.pop("size", None), chunk, overlap)
        options = {name: settings.pop(name) for name in JOB_OPTIONS if name in settings}
        job = Job(model, positive, vae, unit, chunk, overlap, seed, Settings(**settings), fps, **options)
        images, file = job.run(filename_prefix)
        chunks = f"{counted(len(job.spans), 'chunk')} of {chunk} ({overlap} shared)"
        lines = [f"{counted(unit.num_frames, 'frame')} in {chunks}: {file.name}"]
        shown = {**report([*lines, *job.lines]), **job.preview_of(file)}
        return io.NodeOutput(images, InputImpl.VideoFromFile(str(file)), ui=shown)
