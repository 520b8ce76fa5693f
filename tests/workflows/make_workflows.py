"""Writes the workflows from the functions in this folder: one for each family of tasks, and some that need
more model files than the demo's. Their titles, which name the files, are in devtools/demo/titles.py; a table
of the tasks' names says what to switch on in which file.

    python -m tests.workflows.make_workflows [--out .] [--check]

The same files come out every time; a test holds the committed ones against this.
"""

import argparse
import json
import logging
from pathlib import Path

from devtools.demo.titles import TITLES, stem_of
from tests.workflows.blueprints import BLUEPRINTS
from tests.workflows.composite_tasks import COMPOSITE
from tests.workflows.graph import Workflow, to_json
from tests.workflows.more_tasks import MORE
from tests.workflows.native_tasks import NATIVE
from tests.workflows.single_tasks import SINGLE
from tests.workflows.variants import VARIANTS

ROOT = Path(__file__).resolve().parents[2]
TABLE = "assets/templates.json"
TASKS = (*SINGLE, *COMPOSITE, *MORE, *NATIVE)
CHANGING = ("mode", "widgets_values")
# Of some seeds each, those whose video shows best what the text says.
SEEDS = {
    "vdot_text": 45,
    "vdot_depth": 6,
    "vdot_pose": 8,
    "vdot_scribble": 3005,
    "vdot_gray": 10,
    "vdot_flow": 1090,
    "vdot_firstframe": 15,
    "vdot_lastframe": 16,
    "vdot_firstlast": 1082,
    "vdot_keyframes": 1120,
    "vdot_extend": 1040,
    "vdot_long": 46,
    "vdot_inpaint": 2,
    "vdot_removal": 1294,
    "vdot_outpaint": 14,
    "vdot_crop": 2,
    "vdot_layout": 1140,
    "vdot_layout_track": 1151,
    "vdot_move": 3035,
    "vdot_reference": 1192,
    "vdot_face": 3024,
    "vdot_swap": 1326,
    "vdot_tryon": 1342,
    "vdot_reference_inpaint": 3023,
    "vdot_reference_outpaint": 3005,
    "vdot_reference_firstframe": 3042,
    "vdot_reference_depth": 21,
    "vdot_reference_pose": 22,
    "vdot_pose_clip": 23,
    "vdot_face_pose": 32,
    "vdot_reference_flow": 1222,
    "vdot_reference_gray": 1231,
    "vdot_reference_scribble": 35,
    "vdot_reference_layout": 3014,
    "vdot_animate": 1,
    "vdot_expand": 3028,
    "vdot_replace": 3003,
    "native_depth_anything": 101,
    "native_sdpose": 102,
    "native_sam3_inpaint": 103,
    "native_face_sdpose": 104,
    "native_replace_character": 105,
    "vdot_long_extend": 41,
    "vdot_long_replace": 42,
}

_log = logging.getLogger("vdot")


def files() -> dict[str, str]:
    """The text of every workflow and blueprint, and of the table of names, by path."""
    graphs = {name: build(name) for name in (*TITLES, *VARIANTS)}
    bases = {name: f"{name.partition('_')[0]}_{variant.of}" for name, variant in VARIANTS.items()}
    table = {}
    for name, graph in graphs.items():
        base = bases.get(name, name)
        table[name] = {"file": stem_of(base), "changes": changes(graphs[base], graph)}
    contents = {f"workflows/{stem_of(name)}.json": to_json(graphs[name]) for name in TITLES}
    contents |= {f"subgraphs/{name}.json": to_json(make()) for name, make in BLUEPRINTS.items()}
    lines = [f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in table.items()]
    return {**contents, TABLE: "{\n" + ",\n".join(lines) + "\n}\n"}


def build(name: str) -> dict:
    """The workflow of a name."""
    task, variant = name.partition("_")[2], VARIANTS.get(name)
    make = next(made for made in TASKS if made.__name__ == (variant.of if variant else task))
    return make(Workflow(task, variant), SEEDS[name])


def changes(base: dict, graph: dict) -> dict[str, dict]:
    """Node number -> what of its mode and values is different."""
    assert base["links"] == graph["links"], "a variant has other links than its base"
    pairs = zip(base["nodes"], graph["nodes"], strict=True)
    return {
        str(new["id"]): changed
        for old, new in pairs
        if (changed := {key: new[key] for key in CHANGING if key in new and new[key] != old[key]})
    }


def main() -> int:
    """Write the files, or with --check only say which differ; 1 where some do."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT)
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    options = parser.parse_args()
    different = 0
    for name, text in files().items():
        path = options.out / name
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        different += 1
        _log.info("%s %s", "differs:" if options.check else "wrote", path)
        if not options.check:
            path.write_text(text, "utf-8")
    return 1 if options.check and different else 0


if __name__ == "__main__":
    raise SystemExit(main())
