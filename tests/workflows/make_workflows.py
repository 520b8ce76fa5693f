"""Writes the workflows from the functions in this folder: one for each task, and some that need
more model files than the demo's. Their titles, which name the files, are in devtools/demo/titles.py.

    python -m tests.workflows.make_workflows [--out .] [--check]

The same files come out every time; a test holds the committed ones against this.
"""

import argparse
import logging
from pathlib import Path

from devtools.demo.titles import stem_of
from tests.workflows.blueprints import BLUEPRINTS
from tests.workflows.composite_tasks import COMPOSITE
from tests.workflows.graph import Workflow, to_json
from tests.workflows.more_tasks import MORE
from tests.workflows.native_tasks import NATIVE
from tests.workflows.single_tasks import SINGLE

ROOT = Path(__file__).resolve().parents[2]
FIRST_SEED, FIRST_NATIVE_SEED = 5, 101
# Of some seeds each, those whose video shows best what the text says.
CHOSEN_SEEDS = {
    "text": 45,
    "animate": 1,
    "crop": 2,
    "expand": 3028,
    "extend": 1040,
    "face": 3024,
    "firstlast": 1082,
    "flow": 1090,
    "inpaint": 2,
    "keyframes": 1120,
    "layout": 1140,
    "layout_track": 1151,
    "long": 46,
    "move": 3035,
    "reference": 1192,
    "reference_firstframe": 3042,
    "reference_flow": 1222,
    "reference_gray": 1231,
    "reference_inpaint": 3023,
    "reference_layout": 3014,
    "reference_outpaint": 3005,
    "removal": 1294,
    "replace": 3003,
    "scribble": 3005,
    "swap": 1326,
    "tryon": 1342,
}

_log = logging.getLogger("vdot")


def files() -> dict[str, str]:
    """The text of every workflow and blueprint by path; seeds count up where none was chosen."""
    contents = {}
    bundled = enumerate((*SINGLE, *COMPOSITE, *MORE), FIRST_SEED)
    native = enumerate(NATIVE, FIRST_NATIVE_SEED)
    for prefix, numbered in (("vdot", bundled), ("native", native)):
        for seed, task in numbered:
            name = task.__name__
            task_seed = CHOSEN_SEEDS.get(name, seed)
            contents[f"workflows/{stem_of(f'{prefix}_{name}')}.json"] = to_json(
                task(Workflow(name), task_seed)
            )
    contents |= {f"subgraphs/{name}.json": to_json(make()) for name, make in BLUEPRINTS.items()}
    return contents


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
