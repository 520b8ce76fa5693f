"""The demo: a shipped workflow, run by a real ComfyUI through its HTTP API, and a contact sheet of it.

`options`, `flags`, `convert`, `links`, `loaders` and `graph` need the standard library alone; the rest runs
inside the environment that dev.py made and uses ComfyUI's packages: aiohttp, PyAV, Pillow.
"""
