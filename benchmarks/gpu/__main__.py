"""Runs one part: python -m benchmarks.gpu PART [--device cuda|cpu] [--out FILE]."""

import argparse
import importlib
import json
import sys
from pathlib import Path

# Part -> module and arguments of its function `measure(device, ...)`.
PARTS = {
    "machine": ("machine", ()),
    "tests": ("tests", ()),
    "transport": ("transport", ()),
    "sample_1_3b": ("sampling", ("wan_vace_1_3b",)),
    "sample_14b": ("sampling", ("wan_vace_14b",)),
    "train_1_3b": ("training", ("wan_vace_1_3b", "wan_1_3b_stage2.yaml")),
    "train_14b": ("training", ("wan_vace_14b", "wan_14b_stage2.yaml")),
    "lora_1_3b": ("training", ("wan_vace_1_3b", "wan_1_3b_lora_24gb.yaml")),
    "lora_14b": ("training", ("wan_vace_14b", "wan_14b_lora_1gpu.yaml")),
}


def main() -> int:
    """Measure, print the figures and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: very small sizes")
    parser.add_argument("--out", type=Path, help="file for the figures, as JSON")
    options = parser.parse_args()
    module, arguments = PARTS[options.part]
    measure = importlib.import_module(f"benchmarks.gpu.{module}").measure
    text = json.dumps(measure(options.device, *arguments), indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
