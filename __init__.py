"""ComfyUI-VDOT: unified video creation and editing in four steps, as ComfyUI nodes.

Nothing of ComfyUI, torch or the pack's own code is imported until ComfyUI calls `comfy_entrypoint`.
"""

WEB_DIRECTORY = "./js"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint():
    """Give ComfyUI the pack's extension.

    Returns:
        The `VDOTExtension`, whose `get_node_list` lists the nodes.

    Raises:
        Exception: whatever stopped the import; ComfyUI logs one line of it, so the traceback is logged here.
    """
    import logging

    try:
        from .nodes import VDOTExtension
    except Exception:
        logging.getLogger("vdot").exception("ComfyUI-VDOT could not be loaded")
        raise
    return VDOTExtension()
