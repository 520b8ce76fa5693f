"""Files of the released networks' real size, whose values are holes: gigabytes that take no room on disk."""

import json
import math
from pathlib import Path

import torch

from vdot_core.networks import WanVaceConfig, expected_shapes


def write_release(path: Path, config: WanVaceConfig, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Write a .pt as VDOT's release, `{"generator": {"model.NAME": tensor}}`, by torch's own writer.

    The tensors are reserved but never touched, nor is a byte of them written.
    """
    shapes = expected_shapes(config)
    tensors = {f"model.{name}": torch.empty(shape, dtype=dtype) for name, shape in shapes.items()}
    with torch.serialization.skip_data():
        torch.save({"generator": tensors}, path)
    return path


def write_header(path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]], metadata=None) -> Path:
    """Write a safetensors file of (format's name of the dtype, shape) whose values are a hole."""
    sizes, header, end = {"F8_E4M3": 1, "BF16": 2, "F16": 2, "F32": 4}, {}, 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + sizes[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    if metadata:
        header["__metadata__"] = metadata
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)
    with open(path, "wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        file.truncate(8 + len(content) + end)
    return path


# For scripts in a process of their own: the anonymous memory that a call adds, at its end and at its peak.
# Pages of a mapped file do not count, because the system can drop them at any time. A call that fills the
# machine's memory is ended before others are.
ANONYMOUS = '''
import os, threading

MOST_MB = 3000

def anonymous_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon:")) / 1024

def grown_mb(call):
    """(result, MB at its end, MB at its peak) of a call, as seen every millisecond."""
    before, peak, done = anonymous_mb(), [0.0], threading.Event()

    def watch():
        while not done.wait(0.001):
            peak[0] = max(peak[0], anonymous_mb())
            if peak[0] - before > MOST_MB:
                os.write(2, b"more than 3 GB")
                os._exit(3)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = call()
    finally:
        done.set()
        watcher.join()
    after = anonymous_mb()
    return result, after - before, max(peak[0], after) - before
'''
