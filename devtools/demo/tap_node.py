"""A custom node of the demo's own ComfyUI: it shows the model's inputs. Run there, never imported here.

The pack's task nodes hand over a unit (frames, masks, references); this saves some moments of it as pictures.
"""

import os
import uuid

import folder_paths
from PIL import Image


class VDOTDemoTap:
    """Saves frames, masks and references of a unit to ComfyUI's temporary folder."""

    CATEGORY = "VDOT/demo"
    FUNCTION = "save"
    OUTPUT_NODE = True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - ComfyUI's name
        return {"required": {"unit": ("VDOT_VCU",), "indices": ("STRING",)}}

    def save(self, unit, indices):
        """Write the moments that `indices` ("0,3,6") names and all references; the output names the files."""
        moments = [int(index) for index in indices.split(",")]
        return {
            "ui": {
                "frames": [_save(unit.frames[i]) for i in moments],
                "masks": [_save(unit.masks[i, ..., None].expand(-1, -1, 3)) for i in moments],
                "references": [_save(picture) for picture in unit.references],
            }
        }


def _save(picture) -> dict:
    """Write one picture [H, W, 3] in [0, 1]; returns the file as /view wants it."""
    name = f"vdot_tap_{uuid.uuid4().hex}.png"
    folder = folder_paths.get_temp_directory()
    os.makedirs(folder, exist_ok=True)
    pixels = (picture.float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    Image.fromarray(pixels).save(os.path.join(folder, name))
    return {"filename": name, "subfolder": "", "type": "temp"}


NODE_CLASS_MAPPINGS = {"VDOTDemoTap": VDOTDemoTap}
