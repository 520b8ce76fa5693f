"""The project's one command: `python dev.py demo | test | comfy | bench | lint`.

Runs on a bare Python: each command sets up what it needs (see devtools/). This file itself stays readable
by very old Pythons, so that they print an error message and not a syntax error.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - the very case this line is for
    sys.exit(
        "dev.py needs Python 3.10 or newer, this is {0}.{1}: run it as python3.12 dev.py ...".format(  # noqa: UP030
            *sys.version_info
        )
    )


def find_comfyui():
    """ComfyUI's folder: $COMFYUI_PATH, else the copy that dev.py installed, else None."""
    from devtools.comfyui import find_comfyui as find

    return find()


if __name__ == "__main__":
    from devtools.cli import main

    sys.exit(main(sys.argv[1:]))
