"""Typed configuration of an evaluation: rows, samplers and weights of scores."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from training.data.checks import is_plain, require_range
from training.engine.cli import RunParser
from vdot_core.choices import SOLVERS
from vdot_core.text import described

from ..clips.shapes import SPLITS

FAMILIES = ("text", "control", "keep", "reference", "composite")


@dataclass(frozen=True)
class SamplerConfig:
    """Sampling settings.

    Attributes:
        steps: Of the schedule.
        shift: Of its noise levels, toward high noise.
        solver: Of `vdot_core.sampling.SOLVERS`.
        labels: 'wan' or 'exact', as in `vdot_core.sampling.Schedule.shifted`.
        guidance: Classifier-free guidance against the empty prompt; 1 is none, at half the evaluations.
        task_guidance: Task -> its guidance; lower for tasks that keep given frames.
    """

    steps: int = 50
    shift: float = 5.0
    solver: str = "unipc"
    labels: Literal["wan", "exact"] = "wan"
    guidance: float = 3.0
    task_guidance: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_range(self, "samplers: ", 1, 1000, "steps")
        require_range(self, "samplers: ", 0.001, 1000, "shift")
        require_range(self, "samplers: ", 0, 1000, "guidance")
        if self.solver not in SOLVERS:
            raise ValueError(
                f"samplers: solver is {described(self.solver)}; expected one of {', '.join(SOLVERS)}"
            )

    def of(self, task: str) -> SamplerConfig:
        """This sampler with the task's own guidance."""
        return replace(self, guidance=self.task_guidance.get(task, self.guidance), task_guidance={})

    @property
    def evaluations(self) -> int:
        """Network evaluations a video."""
        return self.steps * (1 if self.guidance == 1 else 2)


@dataclass(frozen=True)
class TaskConfig:
    """One row of the results.

    Attributes:
        task: Name in `tiny.tasks.TASKS`.
        family: Group whose mean score counts: 'text', 'control', 'keep', 'reference', 'composite'; null: its
            figures are shown and do not count.
        prompt: 'full': the caption that names everything; 'none': the empty prompt, so that only the unit
            can tell.
        name: Of the row (null: the task's).
        held_out: Take only clips that show a color-shape pair which training never shows.
        clips: Number of clips (null: the evaluation's number, without which the row has no Frechet distance).
        seeds: Videos made of each clip; above 1 the row has a diversity.
    """

    task: str
    family: str | None = None
    prompt: Literal["full", "none"] = "full"
    name: str | None = None
    held_out: bool = False
    clips: int | None = None
    seeds: int = 1

    def __post_init__(self) -> None:
        require_range(self, "tasks: ", 1, 1_000_000, "clips", "seeds")
        if self.family is not None and self.family not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise ValueError(f"tasks: family is {described(self.family)}; expected null or one of {known}")

    @property
    def title(self) -> str:
        """Its name in files and tables."""
        return self.name or self.task


@dataclass(frozen=True)
class PlannedRun:
    """A model among those that an evaluation compares; its keys are `EvaluationConfig`'s.

    Attributes:
        run, transformer, made_by, use, only: Override the evaluation's own.
    """

    run: str
    transformer: str | None = None
    made_by: str | None = None
    use: list[str] = field(default_factory=list)
    only: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class EvaluationConfig:
    """One evaluation, of one model or of all that are planned.

    Attributes:
        assets: Folder with the transformer, text encoder and VAE.
        transformer: Another transformer file than the folder's (null: its own).
        made_by: The command that makes this transformer, shown if the file is missing.
        evaluator: The evaluation network's file.
        out_dir: A folder for each run is made here.
        run: The model's name in the results; null: every planned run, and then the report.
        plan: The runs that the report compares.
        samplers: Name -> sampling settings.
        use: Names of the samplers to run (empty: all); 'truth' and 'vae' score the drawn clips themselves
            and their reconstructions: what a perfect model would get.
        tasks: The rows.
        only: Titles of rows to run (empty: all).
        split: Whose seeds.
        clips: Number of clips in a row.
        first: Index of the first clip.
        seed: Of the noise.
        batch: Videos made together.
        trainings: Name -> `out_dir` of distillations whose curves the report shows.
        score: Metric -> weight in a row's score; metrics that a row lacks are left out of its mean.
        pictures: Rows of a contact sheet.
        bf16: Network and VAE compute under bfloat16 autocast: true, false, or auto: where the device has it
            in hardware.
        compile: Compile the network's blocks and the VAE's decoder: some minutes at the start, network
            evaluations a fifth faster, decoding a third.
        device: 'cpu' or 'cuda'.
        threads: CPU threads of torch.
    """

    assets: str = "assets"
    transformer: str | None = None
    made_by: str | None = None
    evaluator: str = "assets/vdot_tiny_evaluator.safetensors"
    out_dir: str = "runs/evaluation"
    run: str | None = None
    plan: list[PlannedRun] = field(default_factory=list)
    samplers: dict[str, SamplerConfig] = field(default_factory=dict)
    use: list[str] = field(default_factory=list)
    tasks: list[TaskConfig] = field(default_factory=list)
    only: list[str] = field(default_factory=list)
    split: str = "evaluation"
    clips: int = 200
    first: int = 0
    seed: int = 0
    batch: int = 20
    trainings: dict[str, str] = field(default_factory=dict)
    score: dict[str, float] = field(default_factory=dict)
    pictures: int = 6
    bf16: bool | Literal["auto"] = "auto"
    compile: bool = False
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        titles = [task.title for task in self.tasks]
        if len(set(titles)) < len(titles):
            raise ValueError(f"two rows share a name: {titles}; give one of them another `name`")
        samplers = {*self.samplers, "truth", "vae"}
        for part in (self, *self.plan):
            if unknown := sorted(set(part.only) - set(titles)):
                raise ValueError(f"only names {unknown}; the rows are {titles}")
            if unknown := sorted(set(part.use) - samplers):
                raise ValueError(f"use names {unknown}; the samplers are {sorted(samplers)}")
        tasks = {task.task for task in self.tasks}
        for name, sampler in self.samplers.items():
            if unknown := sorted(sampler.task_guidance.keys() - tasks):
                raise ValueError(
                    f"samplers.{name}.task_guidance names {unknown}; the rows' tasks are {sorted(tasks)}"
                )
        if self.run is None and not self.plan:
            raise ValueError("neither run nor plan is given; name the model, as with --run teacher")
        if self.run is None and (self.transformer or self.use or self.only):
            raise ValueError(
                "transformer, use and only are of one model, and run is null: every planned one is evaluated "
                "with its own; give --run NAME too"
            )
        runs = [part.run for part in (self, *self.plan) if part.run is not None]
        for key, names in (("run", runs), ("samplers", self.samplers), ("tasks", titles)):
            if wrong := [name for name in names if not is_plain(name)]:
                raise ValueError(
                    f"{key} has {described(wrong[0])}; give a plain word: it is a name in out_dir"
                )
        require_range(self, "", 1, 1_000_000, "clips")
        require_range(self, "", 1, 4096, "batch")
        require_range(self, "", 0, 2**40, "first", "seed")
        require_range(self, "", 0, 1000, "pictures")
        require_range(self, "", 1, 1024, "threads")
        if self.split not in SPLITS:
            raise ValueError(f"split is {described(self.split)}; expected one of {', '.join(SPLITS)}")
        if negative := [name for name, weight in self.score.items() if weight < 0]:
            raise ValueError(f"score.{negative[0]} is {self.score[negative[0]]}; expected 0 or more")


def parse_config(argv: Sequence[str] | None = None) -> tuple[EvaluationConfig, bool]:
    """Read `--config FILE`, overrides such as `--clips 20`, and `--report`.

    Args:
        argv: Command line without the program's name; None reads the process's own.

    Returns:
        The configuration, and whether only the report is asked for.

    Raises:
        ValueError: A key is unknown, or a value is wrong.
    """
    run = RunParser(
        EvaluationConfig, prog="python tiny/evaluate.py", description="Score a model on held-out clips."
    )
    run.parser.add_argument(
        "--report", type=bool, nargs="?", const=True, default=False, help="only write the report"
    )
    config, values = run.read(sys.argv[1:] if argv is None else argv)
    return config, bool(values.report)
