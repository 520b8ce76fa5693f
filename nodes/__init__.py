"""The pack's table of contents: its nodes in the order in which a video is made."""

import logging

from comfy_api.latest import ComfyExtension, io


class VDOTExtension(ComfyExtension):
    """The extension through which ComfyUI gets the nodes."""

    async def on_load(self) -> None:
        """Let ComfyUI recognize VDOT files; copy examples to its input folder; serve templates by name."""
        from .comfy_bridge import register_network
        from .comfy_inputs import install_examples
        from .comfy_templates import serve_templates

        register_network()
        install_examples()
        serve_templates()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The nodes in pipeline order: load, draw controls, describe the task, encode, sample."""
        try:
            return _nodes()
        except Exception:
            # ComfyUI logs only one line of an error here.
            logging.getLogger("vdot").exception("ComfyUI-VDOT could not load its nodes")
            raise


def _nodes() -> list[type[io.ComfyNode]]:
    from . import (
        annotate,
        clips,
        encode,
        load,
        load_all,
        long,
        sample,
        signals,
        signals_flow,
        vcu,
        vcu_edit,
        vcu_layout,
        vcu_reference,
        vcu_region,
    )

    return [
        load_all.VDOTLoad,
        load.VDOTLoadModel,
        load.VDOTLoadDemo,
        clips.VDOTLoadClip,
        signals.VDOTGray,
        signals.VDOTLines,
        signals_flow.VDOTFlow,
        signals.VDOTNormalizeDepth,
        annotate.VDOTPose,
        annotate.VDOTMatte,
        annotate.VDOTFace,
        signals.VDOTDrawPose,
        vcu_region.VDOTBoxMask,
        vcu_region.VDOTCrop,
        vcu.VDOTText,
        vcu.VDOTControl,
        vcu.VDOTDepth,
        vcu_layout.VDOTLayout,
        vcu_edit.VDOTMask,
        vcu_edit.VDOTOutpaint,
        vcu_edit.VDOTExtend,
        vcu_edit.VDOTKeyframes,
        vcu_layout.VDOTMove,
        vcu_reference.VDOTReference,
        vcu.VDOTCompose,
        vcu.VDOTStrength,
        vcu.VDOTStepRange,
        vcu.VDOTPreviewUnit,
        encode.VDOTEncode,
        sample.VDOTSampler,
        long.VDOTFromFrame,
        long.VDOTLongVideo,
        vcu_region.VDOTPasteBack,
        vcu_region.VDOTStitch,
    ]
