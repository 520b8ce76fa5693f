"""Writes locales/en/nodeDefs.json from a running ComfyUI and says what locales/zh lacks.

python locales/sync.py [http://127.0.0.1:8188]
"""

import argparse
import json
import sys
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent


def entry(schema: dict) -> dict:
    """The texts of one node, from its part of /object_info."""
    inputs = schema["input"].get("required", {}) | schema["input"].get("optional", {})
    options = {name: (spec[1] if len(spec) > 1 else {}) for name, spec in inputs.items()}
    tooltips = schema.get("output_tooltips") or [None] * len(schema["output_name"])
    return {
        "display_name": schema["display_name"],
        "description": schema["description"],
        "inputs": {
            name: {"name": values.get("display_name") or name, "tooltip": values.get("tooltip")}
            for name, values in options.items()
        },
        "outputs": {
            str(index): {"name": name, "tooltip": tooltip}
            for index, (name, tooltip) in enumerate(zip(schema["output_name"], tooltips, strict=True))
        },
    }


def leaves(tree: dict, path: str = "") -> dict[str, str]:
    """Every text of a nested dictionary, by dotted path."""
    flat = {}
    for key, value in tree.items():
        flat |= leaves(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return flat


def main() -> int:
    """Write the English texts; 1 when a Chinese one is missing or left over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8188")
    with urllib.request.urlopen(f"{parser.parse_args().url}/object_info", timeout=60) as answer:
        info = json.loads(answer.read())
    nodes = {name: entry(schema) for name, schema in info.items() if name.startswith("VDOT")}
    english = HERE / "en" / "nodeDefs.json"
    before = leaves(json.loads(english.read_text("utf-8"))) if english.is_file() else {}
    english.write_text(json.dumps(nodes, indent=2, ensure_ascii=False) + "\n", "utf-8")
    after = leaves(nodes)
    chinese = leaves(json.loads((HERE / "zh" / "nodeDefs.json").read_text("utf-8")))
    changed = {key for key, text in after.items() if before.get(key, text) != text}
    lines = [f"missing in zh: {key} = {after[key]!r}" for key in after if key not in chinese]
    lines += [f"left over in zh: {key}" for key in chinese if key not in after]
    lines += [f"changed in en, look at zh: {key} = {after[key]!r}" for key in sorted(changed)]
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
