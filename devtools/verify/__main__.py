"""`python -m devtools.verify IN ..`: the checks, printed one by one."""

import os
import sys
from argparse import Namespace

from devtools.verify.options import read_options


def main() -> int:
    """Run the checks; returns the exit status, 1 where one failed."""
    options = read_options(sys.argv[1:])
    try:
        return run(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError, OSError) as error:
        from vdot_core.out_of_memory import is_out_of_memory, sentence

        if not is_out_of_memory(error):
            raise
        print(f"error: {sentence(error, 'close other programs, or give --device cpu')}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def run(options: Namespace) -> int:
    """Check the file, then a step, unless the file is not as published."""
    from vdot_core.checkpoints.verify import verify
    from vdot_core.devices import check_device

    if options.device != "auto":
        check_device(options.device)  # before hours of reading
    passed = True
    checks = verify(options.path, vace=options.vace, values=not options.headers, sha256=options.sha256)
    for check in checks:
        print(check.line(), flush=True)
        passed &= check.passed
    if not passed:
        print("the step was not run: the file is not as published", file=sys.stderr)
        return 1
    check = _step(options)
    print(check.line(), flush=True)
    return 0 if check.passed else 1


def _step(options: Namespace):
    """Import ComfyUI, which chooses its device at that moment, and compare."""
    import torch

    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    sys.path.insert(0, os.environ["VDOT_COMFYUI"])
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import comfy.cli_args

    comfy.cli_args.args.cpu = device == "cpu"
    from devtools.verify.step import compare_step

    return compare_step(options.path, options.vace, device)


if __name__ == "__main__":
    sys.exit(main())
