"""VDOT in plain torch: the Wan-VACE network, the video condition unit, few-step sampling and checkpoints.

The package imports neither ComfyUI nor the trainer; both use it.
"""
