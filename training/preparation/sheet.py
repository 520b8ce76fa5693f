"""The contact sheet: one HTML page of what a preparation made, and of what it left out and why."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from vdot_core import vcu
from vdot_core.files import atomic_write, remove_abandoned
from vdot_core.text import shown

from ..data.bad_rows import BadRowError
from ..data.conditioning import build_unit, canonical
from ..data.config import DataConfig
from ..data.manifest import Row as ManifestRow
from ..data.rows import load_inputs
from ..data.video_files import Media
from .budget import StageTime
from .clip_files import decoded, to_bytes
from .config import PrepareConfig
from .make_rows import chosen_tasks, one_sided
from .pipeline import Clips
from .stage import Row, draw
from .store import Store

STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; } td, th { border-bottom: 1px solid var(--line);
padding: .3rem .6rem; text-align: left; vertical-align: top; } td.number, th.number { text-align: right; }
figure { margin: 0 0 1rem; } figcaption { font-size: .85rem; opacity: .8; overflow-wrap: anywhere; }
img { max-width: 100%; image-rendering: auto; } .grid { display: grid; gap: 1rem;
grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); } rect { fill: #4a7dbd; }
.samples { display: grid; gap: 0 1.5rem;
grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); }
text { font-size: 11px; fill: currentColor; }
"""
NUM_BARS = 24
NUM_REJECTED = 12
NUM_REASONS = 4


def write_sheet(
    path: Path,
    config: PrepareConfig,
    clips: Clips,
    store: Store,
    rows: Iterable[Row],
    times: Sequence[StageTime],
) -> None:
    """Write the page.

    Args:
        path: An .html file.
        config: All settings.
        clips: The clips.
        store: Results of the stages.
        rows: The manifest's rows.
        times: Work of the stages.
    """
    counts: Counter[str] = Counter()
    drawn: dict[str, list[tuple[float, Row]]] = {}
    for row in rows:
        task = row["task_name"]
        counts[task] += 1
        # The first rows of all tasks would be of one clip.
        own = [*drawn.get(task, []), (draw(config.tasks.seed, row["id"], "sheet"), row)]
        drawn[task] = sorted(own, key=lambda pair: pair[0])[: config.samples_per_task]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Prepared clips</title>",
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style><h1>Prepared clips</h1>",
        _summary(clips, counts, config),
        "<h2>Rows by task</h2>",
        _tasks_table(clips, store, counts, config),
        "<h2>Rejected</h2>",
        _rejected(clips, config),
        "<h2>Clips</h2><div class=grid>",
        *_histograms(clips, store),
        "</div><h2>Samples</h2><p>As the network is shown them: amber hatching is generated, dense where "
        "nothing is known; references follow the frames.</p>",
        *(
            f"<h3>{html.escape(task)}</h3><div class=samples>"
            f"{''.join(_sample(row, config) for _, row in samples)}</div>"
            for task, samples in sorted(drawn.items())
            if samples
        ),
        "<h2>Work</h2>",
        _work(times),
        "</html>",
    ]
    remove_abandoned(path)
    with atomic_write(path) as partial:
        partial.write_text("\n".join(parts), encoding="utf-8")


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    numeric = {"rows", "clips", "seconds", "seconds a row"}
    tags = [" class=number" if name in numeric else "" for name in head]
    lines = [
        "<table><tr>"
        + "".join(f"<th{t}>{html.escape(n)}</th>" for n, t in zip(head, tags, strict=True))
        + "</tr>"
    ]
    for row in rows:
        cells = (f"<td{t}>{html.escape(shown(c, 300))}</td>" for c, t in zip(row, tags, strict=True))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</table>"])


def _summary(clips: Clips, counts: Counter[str], config: PrepareConfig) -> str:
    used = clips.used()
    held_out = sum(clips.starts[clip_id]["held_out"] for clip_id in used)
    text = (
        f"{len(used)} of {len(clips.starts)} clips are used, {held_out} of them held out; "
        f"{sum(counts.values())} rows of {len(counts)} tasks."
    )
    notes = [f"{name}: {reason}" for name, reason in clips.absent.items()]
    notes += [
        f"{stage} of {row_id}: {reason}; run again to try it again" for stage, row_id, reason in clips.later
    ]
    notes = [f"Not run: {note}" for note in notes]
    if split := one_sided(clips.used_sources(), config.tasks):
        notes.append(f"Split: {split}.")
    return "".join(f"<p>{html.escape(shown(note, 300))}</p>" for note in (text, *notes))


def _tasks_table(clips: Clips, store: Store, counts: Counter[str], config: PrepareConfig) -> str:
    reasons: dict[str, Counter[str]] = {task: Counter() for task in chosen_tasks(config.tasks)}
    for clip_id in clips.used():
        if "tasks" in clips.keys[clip_id]:
            for task, reason in store.get("tasks", clip_id)["unsuitable"].items():
                reasons[task][_kind(reason)] += 1
    rows = []
    for task, why in reasons.items():
        text = "; ".join(f"{count} x {reason}" for reason, count in why.most_common(NUM_REASONS))
        rows.append((task, counts[task], text))
    return _table(("task", "rows", "clips that do not suit it"), rows)


def _kind(reason: str) -> str:
    """A reason without its numbers, by which reasons are counted."""
    return reason.split(" (")[0].split(":")[0]


def _rejected(clips: Clips, config: PrepareConfig) -> str:
    kinds = Counter(_kind(reason) for _, reasons in clips.rejected.values() for reason in reasons)
    kinds_table = _table(("reason", "clips"), kinds.most_common())
    figures = []
    for row_id, (_, reasons) in list(clips.rejected.items())[:NUM_REJECTED]:
        start = clips.starts.get(row_id)
        name = row_id if start else shown(clips.names[row_id], 120)
        caption = html.escape(f"{name}: {'; '.join(reasons)}")
        picture = _thumbnail(start, config) if start else ""
        figures.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")
    return f"{kinds_table}<div class=grid style='margin-top:1rem'>{''.join(figures)}</div>"


def _thumbnail(start: Row, config: PrepareConfig) -> str:
    """The frame in a clip's middle."""
    from PIL import Image

    rate = config.clips.frame_rate
    try:
        frame = next(decoded(start["path"], rate, start["start"] + start["num_frames"] / 2 / rate, 1), None)
    except BadRowError:
        return ""
    if frame is None:
        return ""
    picture, file = Image.fromarray(frame), io.BytesIO()
    picture.thumbnail((300, 200))
    picture.save(file, "WEBP", quality=70)
    return _image(file.getvalue(), "frame")


def _image(webp: bytes, text: str) -> str:
    return f"<img alt='{html.escape(text)}' src='data:image/webp;base64,{base64.b64encode(webp).decode()}'>"


def _sample(row: Row, config: PrepareConfig) -> str:
    """A row's unit, built as the trainer builds it, above its real clip."""
    from PIL import Image

    caption = html.escape(f"{row['id']}: {shown(row['prompt'], 300)}")
    folder = Path(config.out_dir)

    def media(column: str) -> Media | None:
        return None if row.get(column) is None else Media(str(folder / row[column]))

    references = tuple(Media(str(folder / name)) for name in row.get("ref_image_path") or ())
    clips = (media("src_video_path"), media("mask_video_path"), references, media("target_video_path"))
    entry = ManifestRow(row["id"], row["id"], row["task_name"], (row["prompt"],), *clips)
    data = DataConfig(
        frame_rate=config.clips.frame_rate,
        num_frames=config.clips.num_frames,
        min_frames=config.clips.min_frames,
        max_pixels=max(width * height for width, height in config.clips.buckets),
    )
    try:
        inputs = load_inputs(entry, data)
        pictures = [vcu.strip(build_unit(canonical(row["task_name"]), inputs)).webp]
    except ValueError as error:  # a row that the trainer would leave out, too
        return f"<figure><figcaption>{caption}: <b>{html.escape(shown(error, 300))}</b></figcaption></figure>"
    indices = np.unique(np.linspace(0, len(inputs.target) - 1, 5).round().astype(int))
    row_of_frames = np.concatenate([to_bytes(inputs.target[index]) for index in indices], axis=1)
    target, file = Image.fromarray(row_of_frames), io.BytesIO()
    target.thumbnail((480, 120))
    target.save(file, "WEBP", quality=75)
    pictures.append(file.getvalue())
    tags = "<br>".join(
        _image(picture, text) for picture, text in zip(pictures, ("unit", "target"), strict=True)
    )
    return f"<figure>{tags}<figcaption>{caption}</figcaption></figure>"


def _histograms(clips: Clips, store: Store) -> Iterable[str]:
    measures = (
        ("quality", "brightness", "brightness"),
        ("quality", "sharpness", "sharpness, squared levels"),
        ("quality", "change", "change a frame"),
        ("quality", "niqe", "NIQE"),
        ("quality", "text", "part under text"),
        ("quality", "aesthetic", "aesthetic score"),
        ("motion", "mean_px", "motion, px a frame"),
        ("trim", "num_frames", "frames"),
    )
    for stage, name, title in measures:
        values = []
        for clip_id, keys in clips.keys.items():
            if stage in keys:
                value = store.get(stage, clip_id).get(name)
                values += [value] if value is not None else []
        if values:
            yield _histogram(values, title)


def _histogram(values: Sequence[float], title: str) -> str:
    counts, _ = np.histogram(values, NUM_BARS)
    heights = 88 * counts / counts.max()
    bars = "".join(
        f"<rect x='{12 * number}' y='{90 - height:.1f}' width='10' height='{height:.1f}'/>"
        for number, height in enumerate(heights)
    )
    low, high = min(values), max(values)
    places = [(0, "start", low), (286, "end", high)] if low < high else [(143, "middle", low)]
    labels = "".join(
        f"<text x='{x}' y='106' text-anchor='{anchor}'>{value:.3g}</text>" for x, anchor, value in places
    )
    return (
        f"<figure><svg viewBox='0 0 290 110' role=img aria-label='{html.escape(title)}'>{bars}{labels}</svg>"
        f"<figcaption>{html.escape(title)}, {len(values)} clips</figcaption></figure>"
    )


def _work(times: Sequence[StageTime]) -> str:
    rows = ((t.name, t.rows, f"{t.seconds:.1f}", f"{t.seconds / max(1, t.rows):.3f}") for t in times)
    return _table(("stage", "rows", "seconds", "seconds a row"), rows)
