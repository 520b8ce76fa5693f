"""placeholder until the real one lands"""
import os
from pathlib import Path


def find_comfyui():
    for p in (os.environ.get("COMFYUI_PATH"), Path.home() / ".cache/vdot/comfyui-0.30.0"):
        if p and Path(p).is_dir():
            return Path(p)
    return None
