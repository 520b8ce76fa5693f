"""A budget as text, in GiB per GPU."""

from __future__ import annotations

from collections.abc import Sequence

from vdot_core.memory import GIB

from .budget import Budget
from .outputs import outputs, sample_bytes
from .phases import counted_steps, sample_flops, update_costs
from .remedies import Cluster, Remedy

_UPDATES = {
    "generator_matching": "generator, matching",
    "generator_gan": "generator, GAN",
    "critic_matching": "critic, flow matching",
    "critic_gan": "critic, GAN",
}


def _row(name: str, size: float, note: str = "") -> str:
    return f"  {name:<44}{_gib(size):>9}  {note}".rstrip()


def _gib(size: float) -> str:
    """GiB, with more digits for what is small."""
    value = size / GIB
    return f"{value:.1f}" if value >= 1 or value == 0 else f"{value:.3f}"


def run_lines(budget: Budget, notes: Sequence[str]) -> list[str]:
    """The run and its machine, and notes of `check_settings`."""
    config, clip, sizes = budget.config, budget.clip, budget.sizes
    frames, height, width = clip.latent_shape
    patch = budget.network.patch_size
    tokens = frames // patch[0] * -(-height // patch[1]) * -(-width // patch[2])
    adapters, copies = config.model.adapters, "three of them"
    if adapters.rank:
        roles = " and ".join(role.replace("_", " ") for role in adapters.roles)
        copies = f"{roles} are adapters of {sizes.adapter:,}, rank {sizes.rank}, on the real score's"
    lines = [
        f"Plan: stage {config.stage}, recipe {config.recipe}, {config.steps} steps on "
        f"{budget.machine.gpus} x {budget.machine.memory_gib:g} GiB",
        f"  transformer {sizes.network:,} parameters ({copies}), discriminator {sizes.discriminator:,}",
        f"  clip {clip.num_frames} x {clip.height} x {clip.width}, {clip.num_references} references, "
        f"latents {frames} x {height} x {width}, {tokens:,} tokens, {clip.num_contexts} contexts",
        f"  micro-batch {budget.micro_batch} x accumulation {config.data.accumulation} x "
        f"{budget.machine.gpus} GPUs; states spread over {budget.shards}",
    ]
    if budget.batch != config.data.batch_size:
        lines.append(
            f"  ! data.batch_size {config.data.batch_size} does not divide into accumulation "
            f"{config.data.accumulation} x {budget.machine.gpus} GPUs; planned with {budget.batch}: set "
            f"--data.batch_size {budget.batch}"
        )
    return lines + [f"  ! {note}" for note in notes]


def memory_lines(budget: Budget) -> list[str]:
    """The budget of one GPU, component by component."""
    where = "CPU memory, per GPU" if budget.offloaded else "GPU"
    lines = ["Memory, GiB per GPU", f" always ({where})"]
    for name, size in budget.states.parts.items():
        lines.append(_row(name, size / budget.shards))
    lines.append(_row("gradients (of one update at a time), fp32", budget.states.gradients / budget.shards))
    lines.append(_row("sum", budget.states.total / budget.shards))
    lines.append(f" by update, in addition (checkpoint_every {budget.config.parallel.checkpoint_every})")
    for peak in budget.peaks:
        note = f"graph {_gib(peak.graphs)} + working {_gib(peak.working)}"
        lines.append(_row(peak.name, peak.total, note))
    lines += [
        _row("optimizer step, no activations", budget.optimizer),
        " at the worst moment",
        _row("states on the GPU", budget.resident),
        _row(f"activations: {budget.worst.name}", budget.worst.total),
        _row("gathered weights and gradients of blocks", budget.gathered),
        _row("context and fragmentation", budget.overhead),
        _row("NEEDED", budget.total, f"of {budget.machine.memory_gib:g}: {verdict(budget)}"),
    ]
    if budget.host:
        note = f"of it {_gib(budget.staged)} while a checkpoint is written (log.asynchronous)"
        lines.append(_row("CPU memory of a node", budget.host, note if budget.staged else ""))
    return lines


def disk_lines(budget: Budget) -> list[str]:
    """Disk space of a run's files and of its cache."""
    config, keep = budget.config, budget.config.log.keep
    sizes = outputs(budget.sizes, budget.states.saved, config)
    return [
        "Disk, GiB",
        _row(f"checkpoints: {keep} kept (log.keep), one being written", (keep + 1) * sizes.checkpoint),
        _row(f"export, {config.export_dtype}", sizes.export),
        _row("cache, 1,000 samples of this size, at most", 1000 * sample_bytes(budget.network, budget.clip)),
    ]


def verdict(budget: Budget) -> str:
    """The verdict in words: fits or not."""
    headroom = budget.machine.memory_gib - budget.total / GIB
    return f"fits, {headroom:.1f} left" if budget.fits else f"DOES NOT FIT, {-headroom:.1f} too much"


def time_lines(budget: Budget) -> list[str]:
    """Operations and time of a step."""
    config, rates, time = budget.config, budget.machine.rates, budget.time
    costs, counts = update_costs(budget.network, budget.clip, config), counted_steps(config)
    one = sample_flops(budget.network, budget.clip).forward
    lines = [
        f"Time, at {rates.utilization:.0%} of {rates.tflops:g} TFLOP/s",
        f"  one forward pass of a sample {one / 1e12:,.6g} TFLOP",
    ]
    for name, count in counts.items():
        flops = costs[name].flops / 1e12
        lines.append(f"  {_UPDATES[name]:<24}{flops:>14,.5g} TFLOP a sample, {count:.2f} times a step")
    hours = time.total * config.steps / 3600
    hours = round(hours) if hours >= 10 else hours
    lines.append(
        f"  step {time.total:.3g} s (compute {time.compute:.3g}, communication {time.communication:.3g}, "
        f"offload {time.offload:.3g}); {config.steps} steps {hours:,.6g} h"
    )
    return lines


def remedy_lines(fixes: list[Remedy], enough: Cluster | None, memory_gib: float, most: int = 6) -> list[str]:
    """Changes with which the run fits, exact ones first."""
    lines = ["Settings that make it fit" if fixes else "No change of settings makes it fit"]
    for remedy in fixes[:most]:
        words = " ".join(option.words for option in remedy.options)
        budget = remedy.budget
        note = "" if remedy.exact else "; changes the training result"
        host = f", {budget.host / GIB:.0f} GiB of CPU memory a node" if budget.host else ""
        lines.append(
            f"  {words}\n      {budget.total / GIB:.1f} GiB, {budget.time.total:.3g} s a step{host}{note}"
        )
    if enough is not None:
        lines.append(
            f"  {enough.gpus} GPUs of {memory_gib:g} GiB with --parallel.checkpoint_every "
            f"{enough.checkpoint_every}, nothing offloaded"
        )
    return lines
