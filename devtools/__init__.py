"""The implementation of dev.py: environments, ComfyUI, the demo; standard library only, but for the demo."""
