"""The plan of a run: what it says about the shipped configurations, and that its advice holds."""

import dataclasses
from pathlib import Path

import pytest
import torch

from training.distill import main as distill
from training.methods.programs import distill_parser
from training.plan import main, plan
from training.planning.arguments import PlanArguments, PlanOptions
from training.planning.budget import GIB, Machine
from training.planning.memory import FP32
from training.planning.plan import plan_budget, plan_text
from training.planning.remedies import enough_gpus, remedies, smallest_checkpoint_every
from vdot_core.networks import WanVace, default_taps

CONFIGS = Path(__file__).parents[3] / "training" / "configs"
ABLATIONS = {
    "dmd_only": {"losses.otd": False, "losses.gan": False},
    "no_gan": {"losses.gan": False},
    "no_otd": {"losses.otd": False},
    "no_accwaninit": {"model.acc_wan_init": None},
}
H200, H100 = ["--gpus", "4", "--memory", "140"], ["--gpus", "8", "--memory", "80"]
MACHINES = {
    f"wan_{size}_{run}": machine
    for size, machine in (("14b", H200), ("1_3b", ["--gpus", "4", "--memory", "80"]))
    for run in ("stage1", "stage2", *ABLATIONS)
}
ON_GPU = ["--parallel.cpu_offload", "false"]


def read(name, *overrides):
    """The configuration of a shipped file."""
    return distill_parser().read(["--config", str(CONFIGS / f"{name}.yaml"), *overrides])[0]


def on(machine):
    """The plan's arguments of options such as ["--gpus", "4"]."""
    names = [word.removeprefix("--") for word in machine[::2]]
    values = {
        name: type(getattr(PlanOptions, name))(value)
        for name, value in zip(names, machine[1::2], strict=True)
    }
    return PlanOptions(**values).arguments()


def budget_on(config, machine):
    """The budget on a machine given as arguments."""
    return plan_budget(config, on(machine))


def flat(config, prefix=""):
    """Dotted key -> value."""
    values = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        nested = dataclasses.is_dataclass(value)
        values |= flat(value, f"{prefix}{field.name}.") if nested else {prefix + field.name: value}
    return values


@pytest.mark.parametrize("name", list(MACHINES))
def test_shipped_configurations_fit_their_machine(name, capsys):
    config = read(name)
    assert plan(config, on(MACHINES[name])) == 0
    output = capsys.readouterr().out
    assert "fits" in output and "DOES NOT FIT" not in output
    budget = budget_on(config, MACHINES[name])
    network = WanVace(budget.network, device="meta")
    assert sum(p.numel() for p in network.parameters()) == budget.sizes.network
    assert bool(budget.network.vace_layers) == (config.stage == 2)
    # The four GPUs that the files are written for take the full global batch.
    assert config.data.batch_size == budget.micro_batch * config.data.accumulation * 4


@pytest.mark.parametrize("name", ["wan_14b", "wan_1_3b"])
def test_stages_have_the_published_constants(name):
    first, second = read(f"{name}_stage1"), read(f"{name}_stage2")
    assert (first.steps, second.steps) == (1500, 1200)
    assert (first.optim.generator_lr, second.optim.generator_lr) == (2e-6, 1e-6)
    assert first.model.text_only and not second.model.text_only
    assert first.losses.dmd and not first.losses.otd and not first.losses.gan
    assert second.losses.dmd and second.losses.otd and second.losses.gan
    assert second.model.acc_wan_init == f"{first.out_dir}/export/generator.safetensors"
    layers = budget_on(second, H200).network.num_layers
    assert tuple(second.model.taps) == default_taps(layers)
    for config in (first, second):
        optim, data = config.optim, config.data
        assert optim.critic_lr == 4e-7 and tuple(optim.betas) == (0, 0.999) and optim.clip == 5
        assert optim.weight_decay == 0.01 and optim.generator_every == 5 and config.losses.guidance == 3
        assert (config.rollout.steps, config.rollout.shift, config.rollout.noise_shift) == (4, 8, 8)
        assert (data.num_frames, data.max_pixels, data.batch_size, data.accumulation) == (
            81,
            480 * 832,
            12,
            3,
        )


@pytest.mark.parametrize("size", ["14b", "1_3b"])
@pytest.mark.parametrize("name", list(ABLATIONS))
def test_ablations_change_one_thing(name, size):
    full, ablated = flat(read(f"wan_{size}_stage2")), flat(read(f"wan_{size}_{name}"))
    changed = {key: value for key, value in ablated.items() if value != full[key]}
    assert changed.pop("out_dir") == f"runs/wan_{size}_{name}"
    assert changed == ABLATIONS[name]


def test_14b_on_four_h200_needs_the_options_it_names():
    config = read("wan_14b_stage2", *ON_GPU)
    budget = budget_on(config, H200)
    assert not budget.fits
    # Moments twice, as Adam's usual betas keep them, would by themselves be 130 GB a GPU.
    usual = read("wan_14b_stage2", *ON_GPU, "--optim.betas", "[0.9, 0.999]")
    more = budget_on(usual, H200).states.total - budget.states.total
    sizes = budget.sizes
    assert more == FP32 * (2 * sizes.network + sizes.discriminator)
    trained = {k: v for k, v in budget_on(usual, H200).states.parts.items() if k[:4] in ("gene", "fake")}
    assert (sum(trained.values()) + 2 * FP32 * sizes.network) / 4 / GIB == pytest.approx(129.2, abs=0.1)
    text = plan_text(config, on(H200))
    assert "DOES NOT FIT" in text and "--parallel.cpu_offload true" in text and "8 GPUs of 140" in text


def _fits(config, machine):
    """False also for what a run refuses, as offloading without shards."""
    try:
        return budget_on(config, machine).fits
    except ValueError:
        return False


@pytest.mark.parametrize("machine", [H200, H100, ["--gpus", "1", "--memory", "80"]])
@pytest.mark.parametrize("name", ["wan_14b_stage2", "wan_1_3b_stage2"])
def test_every_remedy_fits_as_it_is_typed(name, machine):
    loose = [*ON_GPU, "--parallel.checkpoint_every", "0", "--losses.batch_guidance", "true"]
    budget = budget_on(read(name, *loose), machine)
    results = remedies(budget, lambda changed: budget_on(changed, machine))
    assert not budget.fits
    for remedy in results:
        words = [word for option in remedy.options for word in option.words.split()]
        typed = budget_on(read(name, *loose, *words), machine)
        assert typed.fits and typed.total == remedy.budget.total
        for option in remedy.options:  # nothing superfluous is asked for
            fewer = [w for other in remedy.options if other is not option for w in other.words.split()]
            assert not _fits(read(name, *loose, *fewer), machine)
    if machine != ["--gpus", "1", "--memory", "80"]:
        assert results and results[0].exact
    order = [(not r.exact, r.budget.time.total) for r in results]
    assert order == sorted(order)


def test_offloading_without_shards_is_no_remedy():
    """Alone it would be refused; with `--parallel.fsdp auto` it is a remedy."""
    replicated = read("wan_14b_stage2", *ON_GPU, "--parallel.fsdp", "false")
    results = remedies(budget_on(replicated, H200), lambda changed: budget_on(changed, H200))
    words = [{option.words for option in remedy.options} for remedy in results]
    assert any("--parallel.cpu_offload true" in flags for flags in words)
    assert all("--parallel.fsdp auto" in flags for flags in words)


def test_one_gpu_offloads_with_shards():
    """One process shards only with `fsdp true`, and offloads only what is sharded."""
    machine = ["--gpus", "1", "--memory", "24"]
    config = read("wan_1_3b_stage2", *ON_GPU, "--data.accumulation", "12")
    parallel = dataclasses.replace(config.parallel, cpu_offload=True)
    with pytest.raises(ValueError, match="shards nothing and ignores it"):
        budget_on(dataclasses.replace(config, parallel=parallel), machine)
    results = remedies(budget_on(config, machine), lambda changed: budget_on(changed, machine))
    assert {"--parallel.fsdp true", "--parallel.cpu_offload true"} <= {o.words for o in results[0].options}
    assert all(remedy.budget.offloaded and remedy.budget.time.offload > 0 for remedy in results)


def test_enough_gpus_are_the_fewest():
    config = read("wan_14b_stage2", *ON_GPU)

    def on(changed, gpus):
        return budget_on(changed, ["--gpus", str(gpus), "--memory", "80"])

    cluster = enough_gpus(on(config, 8), on)
    groups = {size: read("wan_14b_stage2", *ON_GPU, "--parallel.checkpoint_every", str(size))
              for size in range(1, 9)}  # fmt: skip
    assert cluster.gpus % 8 == 0 and on(groups[cluster.checkpoint_every], cluster.gpus).fits
    assert not any(on(grouped, cluster.gpus - 8).fits for grouped in groups.values())
    assert enough_gpus(on(config, 8), on, most=cluster.gpus - 8) is None


def test_groups_that_take_least():
    """More graphs at once favor larger groups; four to a group, the default, is near the best for 14B."""
    best = {}
    for name in ("wan_14b_stage1", "wan_14b_stage2"):
        config = read(name, *ON_GPU)
        parallel = [dataclasses.replace(config.parallel, checkpoint_every=size) for size in range(10)]
        needed = [budget_on(dataclasses.replace(config, parallel=one), H200).total for one in parallel]
        best[name] = smallest_checkpoint_every(config, lambda changed: budget_on(changed, H200))
        assert needed[best[name]] == min(needed)
        assert needed[4] < needed[best[name]] + 13 * GIB and needed[0] > 2 * needed[4]
    assert best["wan_14b_stage1"] < best["wan_14b_stage2"] <= 4


def test_memory_moves_the_right_way():
    config = read("wan_14b_stage2", *ON_GPU)
    base = budget_on(config, H200)
    totals = [budget_on(config, ["--gpus", str(n)]).resident for n in (1, 4, 8, 64)]
    assert totals == sorted(totals, reverse=True) and totals[1] == totals[0] / 4
    for more in (["--data.num_frames", "161"], ["--parallel.checkpoint_every", "4"], ["--losses.r1", "1"],
                 ["--parallel.hsdp_replicas", "2"], ["--parallel.precision", "fp32"]):  # fmt: skip
        assert budget_on(read("wan_14b_stage2", *ON_GPU, *more), H200).total > base.total, more
    automatic = read("wan_14b_stage2", *ON_GPU, "--parallel.precision", "auto")
    counted = dataclasses.replace(budget_on(automatic, H200), config=config)
    assert counted == base, "GPUs have bfloat16"
    assert budget_on(config, [*H200, "--references", "2"]).total > base.total
    for less in (["--losses.gan", "false"], ["--model.frozen", "[vace_]"], ["--data.num_frames", "41"]):
        assert budget_on(read("wan_14b_stage2", *ON_GPU, *less), H200).total < base.total, less
    offloaded = budget_on(read("wan_14b_stage2"), H200)
    assert offloaded.resident == 0 and offloaded.host - base.host == base.states.total
    # A checkpoint holds master weights and moments of both trained networks, and the averages.
    assert base.host == pytest.approx(5 * FP32 * base.sizes.network, rel=0.01)
    at_once = budget_on(read("wan_14b_stage2", "--log.asynchronous", "false"), H200)
    assert at_once.host == base.states.total
    assert offloaded.time.total > base.time.total


def test_a_batch_that_does_not_divide_is_named():
    text = plan_text(read("wan_14b_stage2"), PlanArguments(Machine(8, 80)))
    assert "! data.batch_size 12 does not divide" in text and "--data.batch_size 24" in text
    assert "!" not in plan_text(read("wan_14b_stage2"), PlanArguments(Machine(4, 140)))


def test_command_line(capsys):
    path = str(CONFIGS / "wan_14b_stage2.yaml")
    assert main(["--config", path, *H200]) == 0
    first = capsys.readouterr().out
    for line in (
        "generator, second moment",
        "critic, GAN",
        "NEEDED",
        "CPU memory of a node",
        "TFLOP",
        "step",
    ):
        assert line in first
    assert "first and second moment" not in first and "1.735e+" not in first
    assert main(["--config", path, *H200, *ON_GPU]) == 1
    assert main(["--config", path, "--gpus", "many"]) == 2
    assert main(["--config", path, "--gpus", "0"]) == 2
    assert main(["--config", path, *H200, "--parallel.hsdp_replicas", "3"]) == 2
    assert main(["--config", path, "--gpu_count", "4"]) == 2
    assert not torch.cuda.is_initialized()


def test_the_program_plans_with_every_option_that_the_plan_has(capsys):
    """One list of options for both commands; each of them changes what is said."""
    config_args = ["--config", str(CONFIGS / "wan_14b_stage2.yaml"), "--data.batch_size", "24"]
    assert distill([*config_args, "--plan"]) == 0
    plain = capsys.readouterr().out
    values = {"gpus": 8, "memory": 300, "gpus_per_node": 2, "references": 2, "contexts": 3, "tflops": 500,
              "utilization": 0.2, "interconnect": 1, "host": 1, "host_memory": 1}  # fmt: skip
    assert set(values) == {field.name for field in dataclasses.fields(PlanOptions)}
    for name, value in values.items():
        assert distill([f"--{name}", str(value), *config_args, "--plan"]) == 0
        assert capsys.readouterr().out != plain, name
    words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    status, output = distill([*words, *config_args, "--plan"]), capsys.readouterr().out
    assert status == main([*config_args, *words]) and capsys.readouterr().out == output
    with pytest.raises(SystemExit):
        distill(["--plan", "--help"])
    output = capsys.readouterr().out
    assert all(f"--{name} " in output for name in values) and "GiB of memory of each GPU" in output
    for name in ("tflops", "utilization", "host"):
        assert distill([*config_args, "--plan", f"--{name}", "0"]) == 2
    assert distill([*config_args, "--plan", "--utilization", "1.5"]) == 2
    assert "--utilization is 1.5; expected a share" in capsys.readouterr().err
    assert distill([*config_args, "--gpus=8"]) == 2 and "unknown key gpus" in capsys.readouterr().err
