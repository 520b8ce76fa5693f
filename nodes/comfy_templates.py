"""Templates by name: /workflow_templates/ComfyUI-VDOT/vdot_depth.json for an address of ComfyUI's page.

The page takes no title with spaces in `?template=vdot_depth&source=ComfyUI-VDOT`, and a file may hold several
tasks as optional groups.
"""

import json
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

ROOT = Path(__file__).parents[1]  # as ComfyUI names the pack, even where it is a link
TABLE = ROOT / "assets" / "templates.json"


def template(name: str) -> dict[str, Any]:
    """The workflow of a name: its file with the task's groups switched and its values set.

    Raises:
        KeyError: there is no such name.
    """
    entry = json.loads(TABLE.read_text("utf-8"))[name]
    workflow = json.loads((ROOT / "workflows" / f"{entry['file']}.json").read_text("utf-8"))
    workflow["nodes"] = [node | entry["changes"].get(str(node["id"]), {}) for node in workflow["nodes"]]
    return workflow


def serve_templates() -> None:
    """Serve every name where the page looks for a file; without a server, nothing.

    A path without a pattern precedes ComfyUI's own route of the folder.
    """
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is None:
        return
    for name in json.loads(TABLE.read_text("utf-8")):
        server.routes.get(f"/workflow_templates/{ROOT.name}/{name}.json")(_serve)


async def _serve(request: web.Request) -> web.Response:
    return web.json_response(template(request.path.rpartition("/")[2].removesuffix(".json")))
