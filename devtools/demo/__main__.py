"""`python -m devtools.demo OPTIONS_JSON`: the part of `dev.py demo` that runs inside the environment."""

import os
import signal
import sys

from devtools.demo.options import DemoOptions
from devtools.errors import DevError


def main() -> int:
    """Run the demo and show an error as one message."""
    # Imported here: these need the environment's packages.
    from devtools.demo.run import run_demo

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = DemoOptions.from_json(sys.argv[1])
    try:
        run_demo(options, os.environ["VDOT_DEMO_COMFYUI"], float(os.environ.get("VDOT_DEMO_SETUP", "0")))
    except DevError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
