"""What dev.py does: environments, ComfyUI, the demo. Only the standard library, except for devtools.demo."""
