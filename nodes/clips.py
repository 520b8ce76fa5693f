"""A video file -> the frames that the model takes, with their sound and frame rate."""

from comfy_api.latest import io

from .guard import CheckedNode
from .inputs import MAX_LENGTH, FileChoice
from .sizes import AS_IT_IS, AUTO, CLASSES, size_input

RESOLUTIONS = (AUTO, *CLASSES, AS_IT_IS)
MAX_SECONDS = 86400.0
NOT_CONNECTED = object()


class VDOTLoadClip(CheckedNode):
    """A span of a video, ready for the model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        from .comfy_inputs import list_clips

        return io.Schema(
            node_id="VDOTLoadClip",
            display_name="VDOT Load Clip",
            category="VDOT/loaders",
            description=(
                "Loads a part of a video in the form that the model takes: its size, 16 frames a second and "
                "at most its number of frames. The sound is cut to the same part: connect audio and fps to "
                "Create Video, so that the result keeps its sound and lasts as long."
            ),
            search_aliases=["load video", "upload video", "video input", "vhs", "trim", "resample"],
            inputs=[
                FileChoice(
                    "file",
                    options=list_clips(),
                    upload=io.UploadType.video,
                    tooltip="A video in ComfyUI's input folder; the button uploads one.",
                ),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=MAX_SECONDS,
                    step=0.1,
                    tooltip="Where the part begins, in seconds.",
                ),
                io.Int.Input(
                    "length",
                    default=0,
                    min=0,
                    max=MAX_LENGTH,
                    tooltip=(
                        "Most frames to take, rounded down to 4n+1. 0: as many as the model was made for (81 "
                        "without a size), or the rest of the clip where that is shorter."
                    ),
                ),
                io.Combo.Input(
                    "resolution",
                    options=list(RESOLUTIONS),
                    default=AUTO,
                    tooltip=(
                        "auto: the model's own in the shape of the clip where size is connected, else the "
                        "clip's. 480p, 720p: these classes in the clip's shape. as it is: the clip's, in "
                        "multiples of 16."
                    ),
                ),
                io.Float.Input(
                    "fps",
                    default=16.0,
                    min=0.0,
                    max=120.0,
                    step=1.0,
                    tooltip=(
                        "Frames per second. 16 is what the model knows: of other clips the frame nearest in "
                        "time is taken. 0 keeps every frame; motion then looks slower to the model."
                    ),
                ),
                io.Video.Input(
                    "video", optional=True, tooltip="A video from another node, instead of the file."
                ),
                size_input(
                    "the model's own number of pixels and frames. 1920x1080 becomes 832x480 with 81 frames."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="frames", tooltip="The clip's frames, for a task node."),
                io.Audio.Output(
                    display_name="audio", tooltip="Its sound, for Create Video. Nothing where it has none."
                ),
                io.Float.Output(display_name="fps", tooltip="Its frames per second, for Create Video."),
                io.Video.Output(
                    display_name="video", tooltip="Frames and sound as one video, to save or preview."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, file, video=NOT_CONNECTED) -> bool | str:
        """Only the page knows at this point whether `video` is connected: its value is not made yet."""
        from .comfy_inputs import missing_clip

        return (missing_clip(file) if video is NOT_CONNECTED else "") or True

    @classmethod
    def fingerprint_inputs(cls, file, **others) -> object:
        from .comfy_inputs import clip_version

        return clip_version(file)

    @classmethod
    def execute(cls, file, start, length, resolution=AUTO, fps=16.0, video=None, size=None) -> io.NodeOutput:
        from .comfy_bridge import report
        from .comfy_clips import as_audio, as_video, clip_span, describe, load_clip

        clip = load_clip(file, video, clip_span(start, length, resolution, fps, size))
        audio = as_audio(clip.sound)
        trimmed = as_video(clip.frames, audio, clip.rate)
        return io.NodeOutput(clip.frames, audio, clip.rate, trimmed, ui=report(describe(clip, size)))
