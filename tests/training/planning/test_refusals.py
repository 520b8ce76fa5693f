"""A plan and a rehearsal refuse, in the same words, all that a run refuses at its start."""

import dataclasses
import re
from typing import get_type_hints

import pytest
import torch

from tests.support.distill import SIZES, tiny_config, tiny_values, write_teacher
from training.engine import run as runs
from training.engine.cli import RunParser
from training.methods.flow_matching_config import FineTuneConfig
from training.methods.programs import distill_config
from training.methods.vdot import Vdot
from training.methods.vdot_config import DistillConfig
from training.plan import main
from training.planning.arguments import PlanOptions
from training.planning.budget import Machine
from training.planning.dry_run import dry_run
from training.planning.memory import peaks, states
from training.planning.plan import PlanArguments, plan_text
from training.planning.sizes import Sizes
from training.planning.workload import Clip
from training.preparation.config import PrepareConfig
from training.sweeps.config import SweepConfig
from vdot_core.checkpoints.lora import save_factors
from vdot_core.networks import vdot_tiny


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


REFUSALS = {
    "nothing to offload": {"parallel__cpu_offload": True},
    "replicas that do not divide": {"parallel__hsdp_replicas": 2},
    "a tap that is no block": {"model__taps": [99]},
    "a tap twice": {"model__taps": [1, 1]},
    "too shallow for taps of its own": {"model__taps": None},
    "no teacher": {"model__real_score": None, "model__preset": "vdot_tiny"},
    "a teacher of other sizes": {"model__preset": "vdot_tiny"},
    "a target that is no module": {"model__adapters": {"rank": 2, "targets": ["self_atn"]}},
    "the same of the fake score": {
        "model__adapters": {"rank": 2, "targets": ["self_atn"], "roles": ["fake_score"]}
    },
    "a frozen name that there is not": {"model__frozen": ["head_"]},
    "a frozen name that an adapter lacks": {"model__adapters": {"rank": 2}, "model__frozen": ["patch_emb"]},
    "stage 1 without a branch": {"model__text_only": True, "model__acc_wan_init": "none.safetensors"},
    "groups that micro-batches do not fit": {"data__accumulation": 1, "data__group_size": 3},
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSALS)
def test_the_plan_and_the_rehearsal_refuse_what_the_run_refuses(tmp_path, teacher, monkeypatch, caplog, kind):
    monkeypatch.setattr(runs, "build_source", lambda config, **named: pytest.fail("data is encoded"))
    config = tiny_config(tmp_path, teacher, **REFUSALS[kind])
    assert runs.run(config, Vdot, {}) == 2
    message = re.escape(caplog.messages[-1])
    with pytest.raises(ValueError, match=f"^{message}$"):
        plan_text(config, PlanArguments(Machine(gpus=1)))
    with pytest.raises(ValueError, match=f"^{message}$"):
        dry_run(config)
    assert not list(tmp_path.glob("dry_run*"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model__adapters": {"rank": 2, "base": "fp8"}, "parallel__fsdp": True}, "in bf16 only"),
        ({"model__discriminator_width": 15}, "the width a multiple of the heads"),
        ({"log__memory_snapshot": True}, "give the number of steps to record"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_none(tmp_path, teacher, changes, words):
    """All three programs read it."""
    with pytest.raises(ValueError, match=words):
        tiny_config(tmp_path, teacher, **changes)


def test_a_plan_of_other_gpus_counts_theirs(tmp_path, teacher):
    config = distill_config({**tiny_values(tmp_path, teacher), "parallel.cpu_offload": True})
    with pytest.raises(ValueError, match="set fsdp true, or cpu_offload false"):
        plan_text(config, PlanArguments(Machine(gpus=1)))
    assert "fits" in plan_text(config, PlanArguments(Machine(gpus=2)))


def test_a_plan_needs_no_file_and_does_not_fit_a_batch_that_does_not_divide(tmp_path, capsys):
    none = tmp_path / "none"
    words = [f"--{key}={value}" for key, value in {
        "model.preset": "vdot_tiny", "model.real_score": none, "model.acc_wan_init": none, "stage": 1,
        "model.adapters.rank": 300, "data.batch_size": 3, "data.accumulation": 1,
    }.items()]  # fmt: skip
    assert main([*words, "--gpus", "1"]) == 0
    text = capsys.readouterr().out
    assert "! model.adapters.rank is 300, and some layers that it adapts are 128 wide" in text
    assert ", rank 128, on the real score's" in text and "adapter of rank 128, fp32" in text
    assert "! stage is 1, which alone changes nothing" in text
    assert main([*words, "--gpus", "2"]) == 1
    assert "! data.batch_size 3 does not divide" in capsys.readouterr().out


def test_a_rank_beyond_the_width_takes_no_more_than_the_width():
    base = {"model.preset": "vdot_tiny", "model.real_score": "none", "data.width": 64, "data.height": 64}
    capped, wide = (distill_config({**base, "model.adapters.rank": rank}) for rank in (128, 5000))
    network, clip = vdot_tiny(), Clip(64, 64, 17)
    assert Sizes.of(network, capped) == Sizes.of(network, wide)
    assert peaks(network, clip, 1, capped) == peaks(network, clip, 1, wide)


def test_a_lora_of_stage_1_is_counted_as_one(tmp_path, teacher):
    """A dense one is a second base; where the file is not there, the export tells which of them it can be."""
    path = tmp_path / "lora.safetensors"
    save_factors(path, {"blocks.0.ffn.0.weight": (torch.ones(16, 5), torch.ones(5, 12))})
    values = {**tiny_values(tmp_path, teacher), "model.acc_wan_init": str(path)}

    def parts(**adapters):
        config = distill_config({**values, "model.adapters": {"rank": 2, **adapters}})
        named = states(Sizes.of(SIZES, config), config).parts
        return {name: size for name, size in named.items() if name.startswith("stage 1")}

    assert parts() == {"stage 1, LoRA, fp32 weights": 4 * 5 * (16 + 12)}
    path.unlink()
    (name,) = parts()
    assert name == "stage 1, LoRA, fp32 weights"
    (name,) = parts(export="merged")
    assert name.endswith("weights (base of the generator)")
    write_teacher(path, vace_layers=())
    assert list(parts()) == [name]


def test_options_are_named_as_they_are_typed(caplog):
    for option in dataclasses.fields(PlanOptions):
        with pytest.raises(ValueError, match=rf"^--{option.name} is -1; expected"):
            PlanOptions(**{option.name: -1})
    words = ["--model.preset", "vdot_tiny", "--model.real_score", "none"]
    assert main([*words, "--interconnect", "0"]) == 2 and "--interconnect is 0;" in caplog.text
    assert main([*words, "--memory", "1e400"]) == 2 and "memory is inf; expected a finite" in caplog.text


@pytest.mark.parametrize("config_class", [DistillConfig, FineTuneConfig, PrepareConfig, SweepConfig])
def test_no_number_is_infinite(config_class):
    parser = RunParser(config_class)
    for key, kind in _numbers(config_class):
        value = {"float": ".inf", "list": "[.1, .inf]", "tuple": "[0.0, .inf]", "dict": "{text: .inf}"}[kind]
        with pytest.raises(ValueError, match=rf"^{key}(\.text)? is inf; expected a finite number"):
            parser.read([f"--{key}={value}"])


def _numbers(config_class, prefix=""):
    """Dotted keys of floats, and of lists and tables of them."""
    for name, kind in get_type_hints(config_class).items():
        if dataclasses.is_dataclass(kind):
            yield from _numbers(kind, f"{prefix}{name}.")
        elif "float" in str(kind):
            yield f"{prefix}{name}", next((k for k in ("tuple", "dict", "list") if k in str(kind)), "float")
