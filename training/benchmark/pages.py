"""The gallery, and the blind page: plain files that ask no server for anything."""

from __future__ import annotations

import base64
import hashlib
import random
import secrets
from pathlib import Path
from typing import Any

from vdot_core.files import atomic_write, remove_abandoned
from vdot_core.text import shown

from ..engine.files import read_json, write_json
from .config import EvaluateConfig
from .generate import video_path
from .index import Sample
from .study import COLUMNS, CRITERIA
from .tables import Results, difference_cell, head, mean_cell
from .views import link, place, plays, show

TEMPLATES = Path(__file__).parent / "templates"
GALLERY, BLIND, KEY = "gallery.html", "blind", "blind_key.json"
NAME_LENGTH = 20
PLAYERS = "players.js"


def write_gallery(results: Results) -> Path:
    """Write the page of all videos, and what it shows that is not in `out_dir` yet; returns the page."""
    config = results.config
    page = Path(config.out_dir) / GALLERY
    rows = [_row(results, sample, page) for sample in results.benchmark.samples]
    tables = {
        kind: [
            (
                group.name,
                model,
                [mean_cell(group, name, model, m.digits) for name, m in results.measures.items()],
            )
            for group in results.groups
            if group.kind == kind
            for model in results.models
            if any(model in means for means in group.means.values())
        ]
        for kind in ("all", "family", "task")
    }
    differences = [
        (group.name, model, [difference_cell(group, n, model, m.digits) for n, m in results.measures.items()])
        for group in results.groups
        for model in results.models[1:]
    ]
    values = {
        "results": results,
        "heads": [head(measure) for measure in results.measures.values()],
        "tables": tables,
        "differences": [row for row in differences if any(cell != "-" for cell in row[2])],
        "rows": rows,
    }
    return _write(page, "gallery.html", values, (PLAYERS, "gallery.js"))


def _row(results: Results, sample: Sample, page: Path) -> dict[str, Any]:
    config = results.config
    videos = []
    for model in config.models:
        path = video_path(config, model, sample)
        if sample.name not in results.values[model.name]:
            continue
        if not plays(path):
            path = show(
                path, page.parent / "views" / model.name / sample.name, config.frame_rate, config.num_frames
            )
        own = results.values[model.name].get(sample.name, {})
        scores = [
            (measure.title, f"{own[name]:.{measure.digits}f}")
            for name, measure in results.measures.items()
            if name in own
        ]
        videos.append((model.name, link(path, page) if path else None, scores))
    return {
        "name": sample.name,
        "task": sample.task,
        "prompt": sample.prompt,
        "inputs": _inputs(config, sample, page, page.parent / "inputs" / sample.name),
        "videos": videos,
    }


def _inputs(config: EvaluateConfig, sample: Sample, page: Path, target: Path) -> list[tuple[str, str, bool]]:
    """(Title, address, is a video) of what a model is shown."""
    files = [("source", sample.source), ("mask, white: generate", sample.mask)]
    files += [("reference", path) for path in sample.references]
    shown = []
    for number, (title, path) in enumerate(files):
        if path is None:
            continue
        place_ = target.with_name(f"{target.name}_{number}")
        if view := show(path, place_, config.frame_rate, config.num_frames):
            shown.append((title, link(view, page), view.suffix == ".mp4"))
    return shown


def write_blind_page(results: Results) -> Path:
    """Write the page for raters, in a folder in which no file tells its model; returns the page.

    The key stays in `out_dir`, outside of that folder.
    """
    config = results.config
    folder = Path(config.out_dir)
    page = folder / BLIND / "index.html"
    secret = _secret(folder / KEY)
    key: dict[str, list[str]] = {}
    rows = []
    for sample in results.benchmark.chosen([], config.blind_per_task).samples:
        videos = [(model.name, video_path(config, model, sample)) for model in config.models]
        if not all(sample.name in results.values[model] for model, _ in videos):
            continue  # a row that one model lacks, or has a broken video of, compares nothing
        random.Random(f"{config.seed} {secret} {sample.name}").shuffle(videos)
        names = []
        for model, path in videos:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            name = hashlib.sha256(f"{secret} {model} {sample.name} {content}".encode()).hexdigest()[
                :NAME_LENGTH
            ]
            if plays(path):
                place(path, page.parent / f"{name}.mp4")
            else:
                show(path, page.parent / name, config.frame_rate, config.num_frames)
            key[name] = [model, sample.name]
            names.append(name)
        number = len(rows)
        inputs = _inputs(config, sample, page, page.parent / "inputs" / f"{number:05d}")
        rows.append({"prompt": sample.prompt, "inputs": inputs, "videos": names})
    write_json({"secret": secret, "videos": key}, folder / KEY)
    for path in page.parent.glob("*.mp4"):
        if path.stem not in key:
            path.unlink()
    data = {
        "rows": rows,
        "columns": COLUMNS,
        "criteria": CRITERIA,
        "study": hashlib.sha256(secret.encode()).hexdigest()[:12],
    }
    return _write(page, "blind.html", {"data": data}, (PLAYERS, "blind.js"))


def read_key(path: Path) -> dict[str, list[str]]:
    """Video of the blind page -> its model and row.

    Raises:
        ValueError: The file is missing or damaged.
    """
    cure = "run the evaluation again; if it stays damaged, remove it and the folder blind"
    videos = read_json(path, dict, cure).get("videos")
    pairs = videos.values() if isinstance(videos, dict) else [None]
    if not all(isinstance(pair, list) and list(map(type, pair)) == [str, str] for pair in pairs):
        raise ValueError(f"{shown(path)} is damaged (it does not name the videos); {cure}")
    return videos


def _secret(path: Path) -> str:
    """What names are made from, so that nobody can try models; it stays for the life of a study."""
    if path.is_file():
        cure = "remove it and the folder blind; ratings so far are then lost"
        secret = read_json(path, dict, cure).get("secret")
        if not isinstance(secret, str) or not secret:
            raise ValueError(f"{shown(path)} is damaged (it holds no secret); {cure}")
        return secret
    return secrets.token_hex(16)


def _write(page: Path, template: str, values: dict[str, Any], scripts: tuple[str, ...]) -> Path:
    """Render a template; text is escaped, and the page may run its own script alone."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    script = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "media-src 'self' file:; img-src 'self' file: data:; base-uri 'none'; form-action 'none'"
    )
    text = environment.get_template(template).render(script=Markup(script), policy=policy, **values)
    page.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(page)
    with atomic_write(page) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
    return page
