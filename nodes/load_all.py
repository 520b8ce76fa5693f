"""Model, text encoder, VAE and size in one node: the bundled demo, or files of ComfyUI's folders."""

from comfy_api.latest import io

from .comfy_bridge import report
from .comfy_files import MODEL_FOLDER, TEXT_FOLDER, VAE_FOLDER
from .comfy_loading import WEIGHT_DTYPES
from .guard import CheckedNode
from .inputs import FileChoice
from .known_files import DEMO, choices, missing_choice
from .sizes import CLASSES, SizeType

AUTO = "auto"
FOLDERS = {"model": MODEL_FOLDER, "text_encoder": TEXT_FOLDER, "vae": VAE_FOLDER}
TIPS = {
    "model": "A VDOT or VACE model of Wan 2.1 from models/diffusion_models; the likely ones come first.",
    "text_encoder": "For every model but the demo: umt5_xxl, from models/text_encoders.",
    "vae": "For every model but the demo: wan_2.1_vae, from models/vae.",
}


class VDOTLoad(CheckedNode):
    """All that a workflow needs of a model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDOTLoad",
            display_name="VDOT Load",
            category="VDOT/loaders",
            description=(
                "Loads a model with its text encoder and VAE, and gives the size at which it works best. The "
                "bundled demo runs on any computer, but knows only moving shapes at 64 x 64: for real videos "
                "choose files in all three menus. Of a file that is not there yet, it says where to get it."
            ),
            search_aliases=["loader", "checkpoint", "vace", "wan", "vdot_14b", "umt5", "demo"],
            inputs=[
                *(
                    FileChoice(name, options=choices(folder), default=DEMO, tooltip=TIPS[name])
                    for name, folder in FOLDERS.items()
                ),
                io.Combo.Input(
                    "size_class",
                    options=[AUTO, *CLASSES],
                    default=AUTO,
                    optional=True,
                    tooltip=(
                        "The size that the size output gives: auto is the model's own, 480p (832x480) for "
                        "Wan models; 720p (1280x720) takes about four times as long."
                    ),
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_DTYPES),
                    default="default",
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "How precisely the model's weights are kept in memory: fp8 halves the memory of a "
                        "bf16 file at a small cost in quality. default keeps quantized files as they are."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model, for VDOT Sampler."),
                io.Clip.Output(display_name="clip", tooltip="The text encoder, for CLIP Text Encode."),
                io.Vae.Output(display_name="vae", tooltip="The VAE, for VDOT Encode and VAE Decode."),
                SizeType.Output(
                    display_name="size",
                    tooltip="The size at which the model works best, for VDOT Load Clip and task nodes.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, model, text_encoder, vae) -> bool | str:
        names = {"model": model, "text_encoder": text_encoder, "vae": vae}
        problems = (missing_choice(FOLDERS[name], choice) for name, choice in names.items())
        return next(filter(None, problems), True)

    @classmethod
    def execute(cls, model, text_encoder, vae, size_class=AUTO, weight_dtype="default") -> io.NodeOutput:
        from .comfy_load_all import load_all

        loaded = load_all(model, text_encoder, vae, size_class, weight_dtype)
        return io.NodeOutput(loaded.model, loaded.clip, loaded.vae, loaded.size, ui=report(loaded.lines))
