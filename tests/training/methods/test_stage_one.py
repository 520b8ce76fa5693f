"""Messages of a distillation about its stage, and about the file that it takes as stage 1 (AccWanInit)."""

import dataclasses
import shutil

import pytest
import torch

from tests.support.distill import NoiseSource, new_trainer, tiny_config, write_teacher
from training.distributed import world as processes
from training.engine.export import export
from training.methods.vdot import Vdot, export_metadata
from training.methods.vdot_checks import check_settings
from training.methods.vdot_networks import adapted_from
from vdot_core.checkpoints import inspect
from vdot_core.checkpoints.lora import save_factors

FIRST = {
    "stage": 1,
    "model__text_only": True,
    "losses__otd": False,
    "losses__gan": False,
    "model__adapters": {"rank": 2},
    "max_steps": 1,
    "optim__generator_every": 1,
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


@pytest.fixture(scope="module")
def exports(tmp_path_factory, teacher):
    """Exports of one step of each stage, as LoRA and merged: (stage, form) -> path."""
    folder, paths = tmp_path_factory.mktemp("exports"), {}
    for stage, changes in ((1, FIRST), (2, {**FIRST, "stage": 2, "model__text_only": False})):
        for form in ("lora", "merged"):
            changes = {**changes, "model__adapters": {"rank": 2, "export": form}}
            config = tiny_config(folder / str(stage), teacher, **changes)
            if form == "lora":
                new_trainer(config, NoiseSource(text_only=stage == 1)).run()
            path = folder / f"{stage}_{form}.safetensors"
            paths[stage, form] = export(config, path, export_metadata(config), adapted_from(config))
    return paths


def _second(folder, teacher, stage_one, **adapters):
    adapters = {"rank": 2, "export": "merged", **adapters}
    return tiny_config(folder, teacher, model__adapters=adapters, model__acc_wan_init=str(stage_one))


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("form", ["lora", "merged"])
def test_a_stage_2_is_refused_as_stage_1_in_every_form(tmp_path, teacher, exports, form, rank):
    config = _second(tmp_path, teacher, exports[2, form], rank=rank)
    with pytest.raises(ValueError, match=r"acc_wan_init is .* says that it is of stage 2; give stage 1's"):
        Vdot.check(config)


def test_a_lora_knows_its_base_by_content_at_any_path(tmp_path, teacher, exports):
    path = exports[1, "lora"]
    assert inspect(path).metadata["stage"] == "1" and inspect(path).metadata["base"] == teacher.name
    moved = shutil.copy(teacher, tmp_path / "moved.safetensors")
    for same in (teacher, moved):
        assert Vdot.check(_second(tmp_path, same, path)) == []
    (tmp_path / "same_name").mkdir()
    other = write_teacher(tmp_path / "same_name" / teacher.name, seed=1)
    (note,) = Vdot.check(_second(tmp_path, other, path))
    assert "made from a file of this name, teacher.safetensors, with other content" in note
    (note,) = Vdot.check(_second(tmp_path, other.rename(tmp_path / "other.safetensors"), path))
    assert "made from teacher.safetensors, and the model is other.safetensors" in note


def test_a_lora_of_another_program_is_compared_by_the_name_that_it_gives(tmp_path, teacher):
    path, factors = tmp_path / "lora.safetensors", {
        "blocks.0.ffn.0.weight": (torch.ones(16, 2), torch.ones(2, 12))
    }  # fmt: skip
    for metadata, noted in (({}, False), ({"ss_sd_model_name": "wan2.1.safetensors"}, True)):
        save_factors(path, factors, metadata)
        assert bool(Vdot.check(_second(tmp_path, teacher, path))) == noted


def test_the_log_says_that_a_lora_is_below_the_adapter(tmp_path, teacher, exports, caplog):
    config = _second(tmp_path, teacher, exports[1, "lora"])
    with caplog.at_level("INFO", "vdot"):
        Vdot(config, processes.start(config.parallel), NoiseSource().empty_text)
    assert (
        f"AccWanInit: below the generator's adapter is the LoRA of 20 layers from {exports[1, 'lora']}"
        in (caplog.text)
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stage": 1}, "set model.text_only true, losses.otd false, losses.gan false too"),
        ({**FIRST, "losses__gan": True}, "set losses.gan false too"),
        ({**FIRST, "stage": 2}, "metadata will say stage 2; set stage 1"),
        ({**FIRST, "model__text_only": False, "model__adapters": {}, "model__frozen": ["vace_"]}, None),
        (FIRST, None),
        ({}, None),
    ],
)
def test_a_stage_that_the_other_settings_do_not_train_is_noted(tmp_path, teacher, changes, words):
    notes = check_settings(tiny_config(tmp_path, teacher, **changes))
    assert len(notes) == (words is not None) and all(words in note for note in notes)


def test_stage_1_needs_a_branch_to_go_below(tmp_path, teacher, exports):
    config = _second(tmp_path, teacher, exports[1, "lora"])
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, text_only=True))
    with pytest.raises(ValueError, match="goes with a VACE branch"):
        Vdot.check(config)
