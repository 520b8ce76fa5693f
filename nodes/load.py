"""Checkpoint -> MODEL, and the bundled demo -> MODEL, CLIP, VAE."""

from comfy_api.latest import io

from ..vdot_core.text import shown
from .comfy_bridge import report
from .comfy_files import checkpoint_path, list_checkpoints, list_loras, lora_path
from .comfy_loading import NETWORKS, WEIGHT_DTYPES, add_loras, describe_model, load_model
from .guard import CheckedNode

SAME_FILE = "in the same file"
NO_LORA = "none"
NUM_LORAS = 3


class VDOTLoadModel(CheckedNode):
    """Any VDOT or VACE-Wan 2.1 checkpoint as a native MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        names = list_checkpoints()
        return io.Schema(
            node_id="VDOTLoadModel",
            display_name="VDOT Load Model",
            category="VDOT/loaders",
            description=(
                "Loads a VDOT or VACE-Wan 2.1 model from models/diffusion_models (or models/unet), in any "
                "of the ways it is published: the authors' .pt file, ComfyUI's or diffusers' safetensors, "
                "fp8_scaled, int8, nvfp4 or GGUF, one file or a folder of parts, the VACE blocks in it or in "
                "a separate file. LoRA loaders and the other model nodes work on the result."
            ),
            search_aliases=["vace loader", "wan loader", "vdot_14b", "load diffusion model"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=names,
                    tooltip="The model file. Names that end in / are folders of one model in several parts.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_DTYPES),
                    default="default",
                    tooltip=(
                        "How precisely the weights are kept in memory. default keeps quantized files as they "
                        "are and lets ComfyUI choose for others; fp8 halves the memory of the 14B model "
                        "(about 17 GB instead of 35) at a small cost in quality."
                    ),
                ),
                io.Combo.Input(
                    "vace_name",
                    options=[SAME_FILE, *names],
                    default=SAME_FILE,
                    optional=True,
                    advanced=True,
                    tooltip="For models published in two files: the one that holds the VACE blocks.",
                ),
                io.Combo.Input(
                    "network",
                    options=list(NETWORKS),
                    default="vdot",
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "vdot: this pack's network. comfyui: ComfyUI's own. Both give the same video; of "
                        "int8 files, whose layers round their input too, two that are equally good."
                    ),
                ),
                *_lora_inputs(),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model, for VDOT Sampler or any sampler.")
            ],
        )

    @classmethod
    def execute(cls, model_name, weight_dtype, vace_name=SAME_FILE, network="vdot", **loras) -> io.NodeOutput:
        path = checkpoint_path(model_name)
        vace_path = None if vace_name == SAME_FILE else checkpoint_path(vace_name)
        paths = _chosen_loras(loras)
        model = load_model(path, vace_path, weight_dtype, network)
        lines = add_loras(model, paths, path.name)
        return io.NodeOutput(
            model, ui=report([f"{shown(model_name)}: {describe_model(model)}, network {network}", *lines])
        )


def _lora_inputs() -> list[io.Input]:
    """Name and strength of each LoRA."""
    inputs = []
    for number in range(1, NUM_LORAS + 1):
        inputs += [
            io.Combo.Input(
                f"lora_{number}",
                options=[NO_LORA, *list_loras()],
                default=NO_LORA,
                optional=True,
                advanced=True,
                tooltip="A LoRA for Wan 2.1, from models/loras. Refused where nothing of it fits the model.",
            ),
            io.Float.Input(
                f"lora_{number}_strength",
                default=1.0,
                min=-10.0,
                max=10.0,
                step=0.05,
                optional=True,
                advanced=True,
                tooltip="1: as it was trained. 0: off.",
            ),
        ]
    return inputs


def _chosen_loras(values: dict) -> list[tuple]:
    """File and strength of each LoRA that is chosen."""
    names = {number: values.get(f"lora_{number}", NO_LORA) for number in range(1, NUM_LORAS + 1)}
    return [
        (lora_path(name), values.get(f"lora_{number}_strength", 1.0))
        for number, name in names.items()
        if name != NO_LORA
    ]


class VDOTLoadDemo(CheckedNode):
    """The tiny model that comes with the pack."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDOTLoadDemo",
            display_name="VDOT Load Demo",
            category="VDOT/loaders",
            description=(
                "Loads the tiny demo model that comes with this pack, with its own text encoder and VAE. It "
                "only knows moving shapes at 64 x 64, but runs in seconds on any computer and shows that "
                "everything works. VDOT Load does the same and also loads real models: for real videos use "
                "that, or VDOT Load Model, Load CLIP (umt5_xxl, type wan) and Load VAE (wan_2.1_vae)."
            ),
            search_aliases=["vdot tiny", "example model"],
            inputs=[],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="The demo model, for VDOT Sampler (preset auto or trained).",
                ),
                io.Clip.Output(display_name="clip", tooltip="The demo's text encoder, for CLIP Text Encode."),
                io.Vae.Output(display_name="vae", tooltip="The demo's VAE, for VDOT Encode and VAE Decode."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        from .comfy_demo import load_demo

        model, clip, vae = load_demo()
        return io.NodeOutput(
            model, clip, vae, ui=report([f"demo: {describe_model(model)}; knows moving shapes at 64x64"])
        )
