"""Bytes per GPU: what is always there (weights, moments, averages), and what each kind of update adds.

The rules are those of `training/engine/networks.py`, `trainer.py` and `distributed/world.py`: trained
networks have float32 master weights; under FSDP a block's weights are gathered in bf16 and its gradients
reduced in float32; the optimizer keeps a second moment, in 32 or 8 bits, and a first one only where beta1 is
above 0; generator and critic never hold gradients at the same time.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from vdot_core.memory import GIB
from vdot_core.networks import WanVaceConfig
from vdot_core.transport import working_bytes
from vdot_core.vcu import LATENT_CHANNELS

from ..methods.vdot_config import DistillConfig
from .activations import GraphActivations, graph_activations
from .adapters import adapter_rank
from .sizes import Sizes, tapped
from .workload import Clip, Workload

FP32, BF16 = 4, 2
CUDA_CONTEXT = 2 * GIB
"""Driver, NCCL's buffers and cuBLAS workspaces of one process."""
FRAGMENTATION = 0.05
"""Share of activations and buffers that an allocator's gaps cost."""
EIGHT_BIT_STEP = 53
"""Bytes per element of one weight while its 8-bit moment is read, updated and written."""
TRANSPORT_COPIES = 6
"""Clouds of a matching update around the solver: pooled predictions, the gradient in its shapes and units."""
GATHERED_BLOCKS = 2
"""Unsharded blocks on a GPU at once: the running one, and the next, prefetched."""


@dataclass(frozen=True)
class States:
    """Bytes of persistent state, by component, over all GPUs of one shard group.

    Attributes:
        parts: Component -> bytes of one unsharded copy.
        gradients: Bytes of the gradients of the largest update, unsharded.
    """

    parts: dict[str, int]
    gradients: int

    @property
    def saved(self) -> int:
        """Bytes of a checkpoint: all but frozen weights and the gradients."""
        frozen = ("real score", "stage 1")
        return sum(size for name, size in self.parts.items() if not name.startswith(frozen))

    @property
    def total(self) -> int:
        """Bytes of one unsharded copy of everything, gradients included."""
        return sum(self.parts.values()) + self.gradients


def element_bytes(config: DistillConfig) -> int:
    """Bytes of a number that networks compute with; `auto` is bf16, which the GPUs of a plan have."""
    return FP32 if config.parallel.precision == "fp32" else BF16


def states(sizes: Sizes, config: DistillConfig, shards: int = 1) -> States:
    """Memory of the networks and their optimizers.

    Args:
        sizes: numbers of parameters.
        config: the run.
        shards: GPUs that share one copy.

    Returns:
        The bytes, before they are divided among GPUs.
    """
    moments, adapters = 2 if config.optim.betas[0] > 0 else 1, config.model.adapters
    element = element_bytes(config)
    full, trained, head = (moments * size for size in sizes.moments)
    named = _moments(moments, config.optim.state_bits)
    kind = "bf16" if element == BF16 else "fp32"
    packed = adapters.base != "bf16"
    if packed:
        kind = f"{adapters.base} and {kind}"

    def base(wan_only: bool) -> int:
        count = sizes.wan if wan_only else sizes.network
        return element * (count - packed * sizes.matrices[wan_only]) + packed * sizes.packed[wan_only]

    second_base = adapters.adapts("generator") and config.model.acc_wan_init and not sizes.stage_one
    parts, gradients = {}, {}
    for role, moment, learned in (("generator", trained, sizes.trained), ("fake_score", full, sizes.network)):
        name, count = role.replace("_", " "), sizes.network
        weights = "fp32 master weights"
        if adapters.adapts(role):
            count = learned = sizes.adapter
            moment, weights = moments * sizes.adapter_moments, f"adapter of rank {sizes.rank}, fp32"
        parts |= {f"{name}, {weights}": FP32 * count, f"{name}, {named}": moment}
        gradients[role] = learned
        if role == "generator":
            average = FP32 * count
    parts["discriminator, weights and moments"] = FP32 * sizes.discriminator + head
    shared = " (base of the adapters)" if adapters.rank else ""
    parts[f"real score, {kind} weights{shared}"] = base(False)
    if sizes.stage_one:
        parts["stage 1, LoRA, fp32 weights"] = FP32 * sizes.stage_one
    if second_base:
        # Sharded, the VACE branch is not shared between the two.
        parts[f"stage 1, {kind} weights (base of the generator)"] = base(shards == 1)
    parts["averaged generator (EMA), fp32"] = average
    critic = gradients["fake_score"] + sizes.discriminator
    return States(parts, FP32 * max(gradients["generator"], critic))


def _moments(count: int, bits: int) -> str:
    return ("second moment" if count == 1 else "first and second moment") + (", 8 bits" if bits == 8 else "")


@dataclass(frozen=True)
class Peak:
    """The worst moment of one kind of update, in bytes on a GPU in addition to the states.

    Attributes:
        name: The update.
        graphs: Tensors kept by autograd.
        working: Working memory of the largest layer, or of the optimizer.
    """

    name: str
    graphs: int
    working: int

    @property
    def total(self) -> int:
        """Graphs and working memory."""
        return self.graphs + self.working


def gather_bytes(sizes: Sizes, config: DistillConfig, shards: int) -> int:
    """Unsharded weights and gradients of the running blocks; unsharded, autocast's copies of all weights, and
    the expanded matrices of the blocks that are recomputed at once."""
    element, adapters = element_bytes(config), config.model.adapters
    roles = len(adapters.roles) if adapters.rank else 0
    if shards == 1:
        # Replicated fp32 weights compute in bf16 through converted copies, kept for the backward pass.
        copies = element * (sizes.network if roles < 2 else sizes.adapter) if element == BF16 else 0
        expanded = sizes.block * (config.parallel.checkpoint_every or sizes.network // sizes.block)
        return copies + element * expanded * (adapters.base != "bf16")
    share = sizes.block / sizes.network  # of the adapters, a block's
    unsharded = sizes.block + share * (roles * sizes.adapter + sizes.stage_one)
    trained = sizes.block if roles < 2 else share * sizes.adapter
    weights = element * (GATHERED_BLOCKS * unsharded + sizes.root)
    return int(weights + (element + FP32) * trained)


def peaks(network: WanVaceConfig, clip: Clip, batch: int, config: DistillConfig) -> list[Peak]:
    """The activations of every kind of update that a run has.

    Args:
        network: sizes of the transformers.
        clip: what a sample is.
        batch: samples of one micro-batch on one GPU.
        config: the run.

    Returns:
        One peak for each kind.
    """
    losses, adapters = config.losses, config.model.adapters
    work = Workload.of(network, clip, batch)

    def graph(role: str, samples: int = 1, *, trained: bool = True, taps: int = 0) -> GraphActivations:
        return graph_activations(
            network,
            dataclasses.replace(work, batch=samples * batch),
            checkpoint_every=config.parallel.checkpoint_every,
            element_bytes=element_bytes(config),
            trained=trained,
            rank=adapter_rank(network, adapters) if trained and adapters.adapts(role) else 0,
            taps=taps,
        )

    plain, fake = graph("generator"), graph("fake_score")
    guided = graph("real_score", 2 if losses.batch_guidance and losses.guides else 1)
    results = [Peak("critic, flow matching", fake.saved, max(fake.working, plain.inference))]
    if losses.dmd or losses.otd:
        saved = plain.saved
        if losses.otd and losses.otd_through == "xt":
            saved += graph("fake_score", trained=False).saved
        working = max(plain.working, guided.inference, transport_bytes(clip, batch, config))
        results.append(Peak("generator, matching", saved, working))
    if losses.gan:
        taps = len(tapped(network, config))
        through = graph("fake_score", trained=False, taps=taps)
        # The fake score's graph is gone when the generator's blocks run again.
        back = Peak("generator, GAN", plain.saved + through.saved, through.working)
        results.append(max(back, Peak(back.name, plain.saved, plain.working), key=lambda peak: peak.total))
        looks = 2 + (losses.r1 > 0) + (losses.r2 > 0)
        judged = graph("fake_score", taps=taps)
        saved = judged.saved if losses.gan_trains_score else judged.tapped
        working = judged.working if losses.gan_trains_score else judged.inference
        results.append(Peak("critic, GAN", looks * saved, max(working, plain.inference)))
    return results


def transport_bytes(clip: Clip, batch: int, config: DistillConfig) -> int:
    """Working memory of the transport on a GPU: the solver's, or the unrolled matrices of one frame.

    Args:
        clip: what a sample is.
        batch: samples of one micro-batch on one GPU.
        config: the run.

    Returns:
        The bytes; 0 without a transport.
    """
    losses = config.losses
    if not losses.otd:
        return 0
    frames, height, width = clip.latent_shape
    points = -(-height // losses.otd_pool) * -(-width // losses.otd_pool)
    if losses.otd_gradient == "unrolled":
        return (3 * losses.iterations + 3) * points**2 * FP32
    frames = batch * (frames - clip.num_references)
    # The backend is chosen where the run is: the one that is always there takes more.
    solve = working_bytes(
        frames, points, points, LATENT_CHANNELS, device="cuda", backend="torch",
        cost=losses.cost, debias=losses.debias,
    )  # fmt: skip
    return solve + TRANSPORT_COPIES * frames * points * LATENT_CHANNELS * FP32
