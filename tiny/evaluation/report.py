"""docs/RESULTS.md from the JSON files of the evaluations: tables, plots, contact sheets and the bars."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from .curves import plot_curves, read_curves
from .score import counted_rows, family_scores
from .sheets import join_animations
from .tables import against_teacher, bar_lines, held_out_table, row_tables, score_table

RESULTS_FILE = "results.json"
PICTURED_ROWS = ("text", "depth", "layout", "inpainting", "reference")
CEILINGS = ("truth", "vae")
# What a clip-by-clip file holds that the page does not need.
DROPPED = ("fingerprint", "measured_with", "row")

Results = dict[str, dict[str, dict]]

INTRODUCTION = """# Results

Made by `python tiny/evaluate.py --config tiny/configs/tiny_evaluation.yaml`, which evaluates every
model that it plans; do not edit. The figures are in `results.json` beside this.

Held-out clips of the drawn shapes (`tiny/clips/shapes.py`, seeds of the split `evaluation`), 64 x 64,
17 frames, seen through an evaluation network that shares neither seeds nor weights with the models
(`tiny/configs/tiny_evaluator.yaml`). Metrics, clips, seeds, rows and weights are those of
`tiny/configs/tiny_evaluation.yaml`. `truth` are the drawn clips themselves and `vae` their
reconstructions: the best that any model over this VAE could do, and the measure of the network's own errors.

- colour, shape, pair (that shape in that colour), size, motion: share of the objects that the prompt names;
- extra: objects that nobody asked for, mean a video; no extra: share of videos without any;
- IoU of objects and of their boxes, depth error (0 .. 1), flow error (pixels a frame): against the drawing;
- kept, gray: PSNR of what was given, and how far that is from the VAE's own reconstruction;
- reference: share of the references whose colour and shape both show;
- smooth: PSNR between each frame and its neighbours' mean, minus the drawn clip's: below 0 it flickers, above
  it is smoother or softer than the drawing (compare with `vae`);
- CPU s a video: mean processor time of these runs, encoding what is given, decoding and compiling included,
  in batches; it is over the rows that a run has, so it says what the evaluation cost. How fast models sample
  is in [BENCHMARKS.md](BENCHMARKS.md#the-tiny-student), side by side on the same clips;
- FD: Frechet distance of the network's features to the drawn clips'. It falls with the number of clips, so it
  stands only where a row has as many as all others: not in short rows, nor with several seeds of a clip;
- diversity: distance between seeds of one prompt, as a share of the distance between different drawn clips.

Rows of held-out pairs, and short ones, which have fewer clips than the others, are shown without counting
in any family's score.
"""


def read_results(folder: Path) -> Results:
    """All rows under `folder/run/sampler/*.json`: 'run / sampler' -> row -> its summary.

    Raises:
        ValueError: There is no row, one is of an older version of this program, or rows were scored by
            different evaluation networks, over different clips or VAEs.
    """
    results: Results = {}
    first: tuple[Path, str] | None = None
    for path in sorted(Path(folder).glob("*/*/*.json")):
        row = json.loads(path.read_text())
        if "cpu_seconds" not in row:
            raise ValueError(f"{path} is of an older evaluation; evaluate it again, or delete its folder")
        first = first or (path, row["measured_with"])
        if row["measured_with"] != first[1]:
            raise ValueError(
                f"{path} and {first[0]} were scored with different evaluation networks, VAEs, text "
                "encoders, clips or versions of the clips and cannot be compared; evaluate the older one "
                "again, or delete its folder"
            )
        name = f"{row['run']} / {row['sampler']}"
        results.setdefault(name, {})[path.stem] = {k: v for k, v in row.items() if k not in DROPPED}
    if not results:
        raise ValueError(f"no results in {folder}; run `python tiny/evaluate.py --config ..` first")
    return results


def _without_double_ceilings(results: Results) -> Results:
    """Samplers first, then the ceilings, which do not depend on a model: one of each VAE is enough."""
    ordered: Results = {name: rows for name, rows in results.items() if name.split(" / ")[1] not in CEILINGS}
    return {**ordered, **{name: rows for name, rows in results.items() if name not in ordered}}


def _plot(results: Results, path: Path) -> None:
    """Grouped bars of the family scores of the models that have every counted row."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    most = max(map(counted_rows, results.values()))
    scores = {name: family_scores(rows) for name, rows in results.items() if counted_rows(rows) == most}
    families = list(dict.fromkeys(family for means in scores.values() for family in means))
    figure, axes = pyplot.subplots(figsize=(9, 3.6), layout="constrained")
    width = 0.8 / max(len(scores), 1)
    for number, (name, means) in enumerate(scores.items()):
        places = [i + number * width for i in range(len(families))]
        axes.bar(places, [means.get(family, 0) for family in families], width, label=name)
    axes.set_xticks([i + 0.4 - width / 2 for i in range(len(families))], families)
    axes.set_ylim(0, 1)
    axes.set_ylabel("score")
    axes.legend(fontsize=8, ncols=2)
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _plot_steps(results: Results, path: Path) -> bool:
    """Score against network evaluations over the rows that all have, models of one counted row left out.

    Returns:
        False, and no picture, with fewer than two points.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = {
        name: rows
        for name, rows in results.items()
        if next(iter(rows.values()))["evaluations"] and counted_rows(rows) > 1
    }
    shared = set.intersection(*(set(rows) for rows in models.values())) if models else set()
    lines: dict[str, list[tuple[int, float]]] = {}
    for name, rows in models.items():
        overall = family_scores({row: rows[row] for row in shared}).get("overall")
        if overall is not None:
            evaluations = next(iter(rows.values()))["evaluations"]
            kind = name.rstrip("0123456789")
            lines.setdefault(kind, []).append((evaluations, overall))
    if sum(map(len, lines.values())) < 2:
        return False
    figure, axes = pyplot.subplots(figsize=(6, 3.4), layout="constrained")
    for name, points in lines.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
    axes.set_xscale("log")
    axes.set_xlabel("network evaluations a video")
    axes.set_ylabel(f"score over {len(shared)} rows")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return True


def _copy_sheets(folder: Path, images: Path, results: Results) -> list[str]:
    """Bring the sheets of the main rows beside the page; returns the page's lines for them."""
    lines = []
    for name in results:
        run, sampler = name.split(" / ")
        if sampler in CEILINGS:
            continue
        for row in PICTURED_ROWS:
            source = Path(folder) / run / sampler / f"{row}.jpg"
            if not source.is_file():
                continue
            shutil.copyfile(source, images / f"{run}-{sampler}-{row}.jpg")
            lines += [f"**{name}, {row}**", "", f"![{row}](images/results/{run}-{sampler}-{row}.jpg)", ""]
    return (
        [
            "## Pictures",
            "The drawn clip, what the model is given (references, frames), what it makes.",
            "",
            *lines,
        ]
        if lines
        else []
    )


def _join_sides(folder: Path, images: Path, results: Results) -> list[str]:
    """Animations of the main rows with what every fully scored model made; the page's lines for them."""
    most = max(len(rows) for rows in results.values())
    names = [name for name in results if name.split(" / ")[1] not in CEILINGS and len(results[name]) == most]
    for row in PICTURED_ROWS:
        paths = [Path(folder) / name.replace(" / ", "/") / f"{row}.webp" for name in names]
        if len(names) > 1 and all(path.is_file() for path in paths):
            join_animations(paths, images / f"{row}.webp")
    found = [row for row in PICTURED_ROWS if (images / f"{row}.webp").is_file()]
    if not found:
        return []
    lines = ["## Side by side", f"From the left: drawn, given (references, frames), {', '.join(names)}.", ""]
    for row in found:
        lines += [f"**{row}**", "", f"![{row}](images/results/{row}.webp)", ""]
    return lines


def write_report(
    folder: Path,
    docs: Path,
    *,
    trainings: Mapping[str, Path] | None = None,
    plot: Callable[[Results, Path], None] = _plot,
) -> Path:
    """Make the page.

    Args:
        folder: The evaluations' `out_dir`.
        docs: Where RESULTS.md, results.json and images/results/ are written, in place of those of before.
        trainings: Name -> `out_dir` of distillations whose curves are shown, if they have a log.
        plot: Draws the figure of scores.

    Returns:
        The page's path.

    Raises:
        ValueError: There is no result at all, or results that cannot be compared.
    """
    results = _without_double_ceilings(read_results(folder))
    images = docs / "images" / "results"
    # Pictures of models that are no longer in the page would look like its own.
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir(parents=True)
    plot(results, images / "scores.png")
    lines = [INTRODUCTION, *bar_lines(results), "## Scores", "", *score_table(results), ""]
    lines += against_teacher(results)
    lines += ["![scores by family](images/results/scores.png)", ""]
    if _plot_steps(results, images / "steps.png"):
        lines += ["![score against evaluations](images/results/steps.png)", ""]
    curves = images / "distillation.png"
    if plot_curves(read_curves(trainings or {}), curves):
        lines += [
            "## Distillation",
            "From the logs of the runs.",
            "",
            f"![curves](images/results/{curves.name})",
            "",
        ]
    lines += ["## Held-out pairs", "", *held_out_table(results), "", *row_tables(results)]
    lines += _join_sides(folder, images, results)
    lines += _copy_sheets(folder, images, results)
    (docs / RESULTS_FILE).write_text(json.dumps(results, indent=1) + "\n")
    page = docs / "RESULTS.md"
    page.write_text("\n".join(lines).rstrip() + "\n")
    return page
