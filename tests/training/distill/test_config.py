"""The configuration: typed, every key known and explained, recipes as defaults."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from training.distill import main
from training.distill_cli import build_parser, known_keys, make_config, parse_command
from training.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "values, message",
    [
        ({"losses": {"debbias": True}}, "losses.debbias; did you mean losses.debias"),
        ({"loses": {"eps": 0.1}}, "did you mean losses.eps"),
        ({"generator_lr": 1e-5}, "did you mean optim.generator_lr"),
        ({"losses": {"eps": "much"}}, "losses.eps"),
        ({"losses": {"eps": 0}}, "losses.eps is 0"),
        ({"losses": {"min_timestep": 990.0}}, "990.0..980.0"),
        ({"recipe": "fixed"}, "recipe is 'fixed'"),
        ({"losses": {"dmd": False, "otd": False, "gan": False}}, "all off"),
        ({"model": {"preset": "wan_99b"}}, "wan_vace_14b"),
    ],
)
def test_mistakes_are_refused_by_name(values, message):
    with pytest.raises(ValueError) as error:
        make_config(values)
    assert message in str(error.value)


def test_a_misspelt_key_on_the_command_line_or_in_a_file_ends_the_program(tmp_path, capsys):
    assert main(["--losses.debbias", "true"]) == 2
    assert "did you mean losses.debias" in capsys.readouterr().err
    (tmp_path / "run.yaml").write_text("optim: {generatr_lr: 1.0e-6}")
    assert main(["--config", str(tmp_path / "run.yaml")]) == 2
    said = capsys.readouterr().err
    assert "run.yaml: unknown key optim.generatr_lr; did you mean optim.generator_lr" in said


def test_recipes_are_defaults_that_keys_override(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"recipe": "released", "losses": {"eps": 0.3}}))
    config = parse_command(["--config", str(path), "--losses.debias", "true"]).config
    assert (config.losses.eps, config.losses.debias) == (0.3, True)
    assert (config.losses.otd_gradient, config.rollout.noise_shift) == ("unrolled", 16.0)
    assert parse_command(["--config", str(path), "--recipe", "corrected"]).config.rollout.noise_shift == 8.0
    for name, table in RECIPES.items():
        config = make_config({"recipe": name})
        for key, value in table.items():
            section, field = key.split(".")
            assert getattr(getattr(config, section), field) == value


def test_every_key_is_explained_with_its_default():
    text = build_parser().format_help()
    for action in build_parser()._actions:
        assert action.help and action.help.strip(), action.dest
    assert all(f"--{key}" in text for key in known_keys())


def test_groups_of_clips_are_typed():
    clips = {"width": 64, "height": 64, "num_frames": 5, "num_clips": 1, "tasks": ["depth"]}
    assert make_config({"data": {"groups": [clips]}}).data.groups[0].num_frames == 5
    with pytest.raises(ValueError, match="num_frams"):
        make_config({"data": {"groups": [{**clips, "num_frams": 5}]}})


def _runs() -> list[Path]:
    """The bundled files that are distillation runs: of the others' `model` is a name, or they have none."""
    paths = sorted((ROOT / "training/configs").glob("*.yaml"))
    return [path for path in paths if isinstance(yaml.safe_load(path.read_text()).get("model"), dict)]


@pytest.mark.parametrize("path", _runs(), ids=lambda path: path.stem)
def test_bundled_configurations_are_valid(path):
    make_config(yaml.safe_load(path.read_text()))


def test_the_entry_works_from_any_directory(tmp_path):
    """Prints a configuration that is read back to the same one."""
    command = [sys.executable, str(ROOT / "training/distill.py"), "--recipe", "released"]
    shown = subprocess.run(
        [*command, "--print_config"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    (tmp_path / "again.yaml").write_text(shown.stdout)
    again = parse_command(["--config", str(tmp_path / "again.yaml")]).config
    assert again == make_config({"recipe": "released"})
