"""Model and LoRA files in ComfyUI's folders, by the names that nodes offer."""

import re
from pathlib import Path

import folder_paths

from ..vdot_core.text import listed, shown

MODEL_FOLDER = "diffusion_models"
GGUF_FOLDER = "unet_gguf"  # as ComfyUI-GGUF registers it
LORA_FOLDER = "loras"
TEXT_FOLDER = "text_encoders"
VAE_FOLDER = "vae"

KINDS = {MODEL_FOLDER: "model", TEXT_FOLDER: "text encoder", VAE_FOLDER: "VAE"}

_SHARD = re.compile(r"^(?P<folder>.+)[/\\][^/\\]*-\d{5}-of-\d{5}\.safetensors$")
_DIFFUSERS = re.compile(r"^(?P<folder>.+)[/\\]diffusion_pytorch_model\.safetensors$")


def list_checkpoints() -> list[str]:
    """Names to offer: single files as ComfyUI lists them; folders (shards, diffusers layout) as `name/`."""
    files, folders = [], set()
    for name in folder_paths.get_filename_list(MODEL_FOLDER):
        match = _SHARD.match(name) or _DIFFUSERS.match(name)
        if match:
            folders.add(match["folder"].replace("\\", "/") + "/")
        else:
            files.append(name)
    return sorted(folders) + files + [name for name in _gguf_names() if name not in files]


def checkpoint_path(name: str) -> Path:
    """The file or folder of a name from `list_checkpoints`.

    Raises:
        ValueError: nothing of that name is in ComfyUI's model folders.
    """
    path = None
    # A name that is not offered, such as ../x/, may leave the model folders: it is not even looked for.
    is_offered = name in list_checkpoints()
    if is_offered and name.endswith("/"):
        roots = [Path(root, name) for root in folder_paths.get_folder_paths(MODEL_FOLDER)]
        path = next((path for path in roots if path.is_dir()), None)
    elif is_offered:
        folder = GGUF_FOLDER if name in _gguf_names() else MODEL_FOLDER
        path = folder_paths.get_full_path(folder, name)
    return _existing(path, "model", name, MODEL_FOLDER)


def list_loras() -> list[str]:
    """Names of LoRA files, as ComfyUI lists them."""
    return folder_paths.get_filename_list(LORA_FOLDER)


def lora_path(name: str) -> Path:
    """The file of a name from `list_loras`.

    Raises:
        ValueError: nothing of that name is in ComfyUI's LoRA folders.
    """
    path = folder_paths.get_full_path(LORA_FOLDER, name) if name in list_loras() else None
    return _existing(path, "LoRA", name, LORA_FOLDER)


def list_files(folder: str) -> list[str]:
    """Names of the files of one of ComfyUI's folders; `list_checkpoints` for models."""
    return list_checkpoints() if folder == MODEL_FOLDER else folder_paths.get_filename_list(folder)


def file_path(folder: str, name: str) -> Path:
    """The file of a name from `list_files`.

    Raises:
        ValueError: nothing of that name is in ComfyUI's folders of this kind.
    """
    if folder == MODEL_FOLDER:
        return checkpoint_path(name)
    path = folder_paths.get_full_path(folder, name) if name in list_files(folder) else None
    return _existing(path, KINDS[folder], name, folder)


def _existing(path: str | Path | None, kind: str, name: str, folder: str) -> Path:
    """The path, or a ValueError that says where the file should be."""
    if path is None:
        roots = listed(folder_paths.get_folder_paths(folder))
        raise ValueError(
            f"no {kind} '{shown(name)}' in {roots}; put the file there and refresh the page (key R)"
        )
    return Path(path)


def _gguf_names() -> list[str]:
    """Names of GGUF files, which ComfyUI itself does not list."""
    table = folder_paths.folder_names_and_paths
    table.setdefault(GGUF_FOLDER, (table[MODEL_FOLDER][0], {".gguf"}))
    return folder_paths.get_filename_list(GGUF_FOLDER)
