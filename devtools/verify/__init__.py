"""The part of `dev.py verify` that runs inside the environment, with ComfyUI."""
