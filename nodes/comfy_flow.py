"""RAFT weights of an input or of ComfyUI's model folders."""

from pathlib import Path

import comfy.model_management
import folder_paths

from ..vdot_core.text import shown
from .comfy_bridge import compute_device

FLOW_FOLDER = "optical_flow"


def choose_raft(estimator: str, patcher):
    """The RAFT network to use, or None for DIS, and in words where it comes from."""
    from ..vdot_core.signals import load_raft

    if patcher is not None:
        comfy.model_management.load_models_gpu([patcher])
        return patcher.model, "from the optical_flow input"
    if estimator == "dis":
        return None, "as chosen"
    path = _raft_file()
    if path is not None:
        return load_raft(path).to(compute_device()), shown(path.name)
    if estimator == "raft":
        raise ValueError(
            "no RAFT weights in models/optical_flow; put torchvision's raft_large_C_T_SKHT_V2-ff5fadd5.pth "
            "or the authors' raft-things.pth there, or choose the estimator dis"
        )
    return None, "no RAFT weights in models/optical_flow"


def _raft_file():
    """The first file of models/optical_flow named after RAFT, the large network before the small one."""
    if FLOW_FOLDER not in folder_paths.folder_names_and_paths:  # ComfyUI before it knew optical flow
        folder_paths.add_model_folder_path(FLOW_FOLDER, str(Path(folder_paths.models_dir) / FLOW_FOLDER))
    names = [
        name for name in folder_paths.get_filename_list(FLOW_FOLDER) if "raft" in Path(name).name.lower()
    ]
    names.sort(key=lambda name: ("small" in name.lower(), name))
    return Path(folder_paths.get_full_path_or_raise(FLOW_FOLDER, names[0])) if names else None
