"""The shipped ablation: its runs have known keys, and its table is of what the evaluation writes."""

import dataclasses
import json
from pathlib import Path

from tiny.evaluation.config import parse_config
from training.engine.cli import RunParser
from training.methods.programs import distill_parser
from training.sweeps.config import SweepConfig
from training.sweeps.table import read_numbers

ROOT = Path(__file__).parents[2]


def read_sweep(argv):
    """The settings of a command line."""
    return RunParser(SweepConfig).read(argv)[0]


def jobs_of(sweep):
    """Folder of a job -> its commands."""
    return {folder: commands for run in sweep.runs for folder, commands in sweep.jobs_of(run).items()}


def test_the_shipped_ablation_is_of_known_keys():
    sweep = read_sweep(["--config", str(ROOT / "tiny/configs/tiny_ablation.yaml")])
    jobs = jobs_of(sweep)
    assert len(jobs) == 15
    changed = {}
    for folder, commands in jobs.items():
        words = list(commands[0])
        words[words.index("--config") + 1] = str(ROOT / sweep.base)
        config = distill_parser().read(words[2:])[0]
        assert f"seed{config.seed}" == folder.name and config.out_dir == str(folder)
        losses = config.losses
        changed[folder.parent.name] = (losses.dmd, losses.otd, losses.gan, bool(config.model.acc_wan_init))
    assert changed == {
        "full": (True, True, True, True), "dmd_only": (True, False, False, True),
        "no_gan": (True, True, False, True), "no_otd": (True, False, True, True),
        "no_acc_wan_init": (True, True, True, False),
    }  # fmt: skip
    student = distill_parser().read(["--config", str(ROOT / "tiny/configs/vdot_tiny_student.yaml")])[0]
    full = distill_parser().read([*_absolute(next(iter(jobs.values()))[0], sweep.base)[2:]])[0]
    assert dataclasses.replace(full, out_dir=student.out_dir) == student


def test_the_shipped_ablations_table_is_of_what_its_evaluation_writes(tmp_path, monkeypatch):
    sweep = read_sweep(["--config", str(ROOT / "tiny/configs/tiny_ablation.yaml")])
    folder = Path(sweep.out_dir) / "no_gan" / "seed1"
    (command,) = jobs_of(sweep)[folder][1:]
    words = _absolute(command, "tiny/configs/tiny_evaluation.yaml")
    config, _ = parse_config(words[2:])
    assert config.transformer == str(folder / "export" / "generator.safetensors")
    monkeypatch.chdir(tmp_path)
    rows = [row for row in config.tasks if row.title in config.only]
    for row in rows:
        file = Path(config.out_dir) / config.run / config.use[0] / f"{row.title}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        diverse = {"diversity_ratio": 0.3} if row.seeds > 1 else {}
        file.write_text(json.dumps({"score": 0.5, "metrics": {"frechet_distance": 20.0, **diverse}}))
    assert len(rows) == len(config.only) and set(sweep.table) <= set(read_numbers(folder, sweep.metrics))


def _absolute(command, config):
    """A command's words, its configuration's path from the root."""
    return [str(ROOT / word) if word == config else word for word in command]
