"""Training the tiny VACE teacher by flow matching, on all tasks at once, with its text encoder.

x_t = (1 - sigma) x0 + sigma noise; the network predicts noise - x0; its timestep is 1000 sigma.
Letters: B batch, T latent frames, h w latents, L tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdot_core.checkpoints import save_network
from vdot_core.networks import PRESETS, WanVace

from .attention import batched_attention
from .config import CacheGroup, PretrainConfig, TeacherConfig
from .ema import AveragedWeights, cosine_lr, set_lr
from .latents import Samples, encode_clips, fill_cache, read_cache
from .muon import build_optimizers
from .parallel import World, average_gradients, compile_blocks
from .text import FILE_NAME as TEXT_FILE
from .text import (
    Tokenizer,
    build_encoder,
    embed,
    load_text_encoder,
    save_text_encoder,
    train_vocabulary,
    umt5_config,
)
from .vae import load_vae

logger = logging.getLogger("vdot")
TRANSFORMER_FILE = "vdot_tiny.safetensors"
# Embeddings, tables and output layers: AdamW's part of the weights.
NOT_MATRICES = ("shared", "embed_tokens", "relative_attention", "patch_embedding", "modulation", "head.head")


def draw_sigmas(count: int, settings: TeacherConfig, generator: torch.Generator) -> Tensor:
    """[count] noise levels in (0, 1]: logit-normal for a share, the rest uniform, shifted towards noise."""
    normal = torch.sigmoid(torch.randn(count, generator=generator))
    uniform = torch.rand(count, generator=generator)
    shift = settings.timestep_shift
    shifted = shift * uniform / (1 + (shift - 1) * uniform)
    pick = torch.rand(count, generator=generator) < settings.logit_normal_share
    return torch.where(pick, normal, shifted).clamp(1e-3, 1.0)


def sample_odds(
    groups: Sequence[CacheGroup], samples: Sequence[Samples], shares: Mapping[str, float]
) -> list[np.ndarray]:
    """How often each sample should be taken, so that every task has its share of them all.

    Within a task a sample's odds go with its group's weight.

    Args:
        groups: What the cache holds.
        samples: The samples of each group.
        shares: Task -> its share; tasks that are not named share the rest equally.

    Returns:
        For each group the odds of each of its samples; those of all groups sum to 1.

    Raises:
        ValueError: A named task has no sample, or no task has a share.
    """
    counts: dict[str, float] = {}
    for group, own in zip(groups, samples, strict=True):
        for task in own.tasks:
            counts[task] = counts.get(task, 0.0) + group.weight
    if missing := sorted(shares.keys() - counts.keys()):
        raise ValueError(f"task_shares names {missing}, which no group has; they have {sorted(counts)}")
    left = (1 - sum(shares.values())) / max(len(counts) - len(shares), 1)
    wanted = {task: shares.get(task, left) for task in sorted(counts)}
    total = sum(wanted.values())
    if total <= 0:
        raise ValueError(f"task_shares leaves nothing for any of {sorted(counts)}")
    logger.info("shares: %s", ", ".join(f"{task} {share / total:.1%}" for task, share in wanted.items()))
    return [
        np.array([wanted[task] / total * group.weight / counts[task] for task in own.tasks])
        for group, own in zip(groups, samples, strict=True)
    ]


def draw_caption(
    phrasings: Sequence[str], task: str, settings: TeacherConfig, rng: np.random.Generator
) -> str:
    """One of a sample's phrasings, or none as often as its task is to do without."""
    dropped = rng.random() < settings.task_text_drop.get(task, settings.text_drop)
    return "" if dropped else phrasings[int(rng.integers(len(phrasings)))]


class TextedNetwork(nn.Module):
    """The network and its text encoder, trained as one."""

    def __init__(self, network: WanVace, encoder: nn.Module) -> None:
        super().__init__()
        self.network, self.encoder = network, encoder

    def forward(self, x: Tensor, sigmas: Tensor, ids: Tensor, mask: Tensor, contexts: Tensor) -> Tensor:
        """Velocity of x [B, 16, T, h, w] at sigmas [B], for tokens [B, L] and contexts [B, 96, T, h, w]."""
        # The zero padding takes part in cross-attention, as in Wan; cutting it would change the result.
        text = embed(self.encoder, ids, mask)
        return self.network(x, 1000 * sigmas, text, contexts[:, None])


class TeacherTask:
    """The teacher in training; see `training.pretrain.Task`."""

    def __init__(self, config: PretrainConfig, world: World) -> None:
        self.config, self.settings, self.world = config, config.teacher, world
        settings = self.settings
        if not settings.groups:
            raise ValueError("teacher.groups is empty; give at least one cache group")
        self.num_steps = settings.steps
        self.model, self.tokenizer, self.text_config = self._build()
        if settings.compile:
            compile_blocks(self.model.network)
        self.ema = AveragedWeights(self.model, config.ema)
        self.optimizers = build_optimizers(
            self.model.named_parameters(),
            excluded=NOT_MATRICES,
            betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
        )
        self.train_groups, self.held_out = self._encode_data()
        odds = sample_odds(settings.groups, self.train_groups, settings.task_shares)
        self.group_odds = np.array([own.sum() for own in odds])
        self.choices = [own / max(own.sum(), 1e-12) for own in odds]

    def _build(self) -> tuple[TextedNetwork, Tokenizer, dict]:
        """Fresh weights from the seed, or a finished run's."""
        settings = self.settings
        if settings.start_from:
            from vdot_core.checkpoints import load_network

            folder = Path(settings.start_from)
            trained = load_network(folder / TRANSFORMER_FILE, dtype=torch.float32)
            network = WanVace(trained.config, attention=batched_attention)
            network.load_state_dict(trained.state_dict())
        else:
            network = WanVace(PRESETS[settings.preset](), attention=batched_attention)
            network.initialize_weights(torch.Generator().manual_seed(self.config.seed))
        encoder, tokenizer, text_config = self._text_encoder()
        return TextedNetwork(network, encoder).train().requires_grad_(True), tokenizer, text_config

    def _text_encoder(self) -> tuple[nn.Module, Tokenizer, dict]:
        """The configured file's, the finished run's, or a fresh one."""
        settings = self.settings
        if settings.text_encoder:
            return load_text_encoder(settings.text_encoder)
        if settings.start_from:
            return load_text_encoder(Path(settings.start_from) / TEXT_FILE)
        tokenizer = Tokenizer(train_vocabulary())
        config = umt5_config(settings.text_layers, len(tokenizer))
        return build_encoder(config, self.config.seed), tokenizer, config

    def _encode_data(self) -> tuple[list[Samples], list[Samples]]:
        settings = self.settings
        vae = load_vae(settings.vae)
        start, train, held_out = 0, [], []
        folder = Path(settings.cache_dir)
        for number, group in enumerate(settings.groups):
            share = {"rank": self.world.rank, "world_size": self.world.size}
            fill_cache(vae, group, number, folder, bf16=settings.bf16, start=start, **share)
            start += group.num_clips
        self.world.barrier()
        for number, group in enumerate(settings.groups):
            train.append(read_cache(group, number, folder))
            if number == 0:
                count = settings.num_validation
                held_out.append(encode_clips(vae, group, "validation", 0, count, bf16=settings.bf16))
        return train, held_out

    def _batch(self, step: int) -> tuple[Tensor, Tensor, list[str]]:
        """x0 [B, 16, T, h, w], contexts [B, 96, T, h, w] and captions, of one group."""
        settings, rng = self.settings, np.random.default_rng([self.config.seed, step, 17])
        number = int(rng.choice(len(self.train_groups), p=self.group_odds / self.group_odds.sum()))
        samples = self.train_groups[number]
        tokens = samples.latents[0, 0].numel() / self.train_groups[0].latents[0, 0].numel()
        size = self.world.size
        count = size * max(1, round(settings.batch / tokens / size))
        picks = rng.choice(len(samples.tasks), size=count, p=self.choices[number])
        captions = [draw_caption(samples.captions[i], samples.tasks[i], settings, rng) for i in picks]
        index = torch.from_numpy(picks)
        return samples.latents[index].float(), samples.contexts[index].float(), captions

    def _loss(
        self,
        samples: tuple[Tensor, Tensor, list[str]],
        generator: torch.Generator,
        part: slice = slice(None),
    ) -> Tensor:
        """Flow-matching loss of each sample of a part of the batch; what is drawn is drawn for the whole."""
        x0, contexts, captions = samples
        sigmas = draw_sigmas(len(captions), self.settings, generator)[part]
        noise = torch.randn(x0.shape, generator=generator)[part]
        x0, contexts, captions = x0[part], contexts[part], captions[part]
        level = sigmas.view(-1, 1, 1, 1, 1)
        ids, mask = self.tokenizer(captions)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bf16):
            velocity = self.model((1 - level) * x0 + level * noise, sigmas, ids, mask, contexts)
        return F.mse_loss(velocity.float(), noise - x0, reduction="none").mean((1, 2, 3, 4))

    def train_step(self, step: int) -> dict[str, float]:
        """One step; returns the loss, the gradient's norm and the learning rate."""
        given = self.settings
        lr = cosine_lr(step, given.steps, given.lr, given.lr_end, given.warmup)
        set_lr(self.optimizers, lr)
        self.model.encoder.requires_grad_(step < self.settings.freeze_text_after)
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        samples = self._batch(step)
        own = len(samples[2]) // self.world.size
        part = slice(self.world.rank * own, (self.world.rank + 1) * own)
        loss = self._loss(samples, generator, part).mean()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}; lower the learning rate")
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.model.parameters(), self.world)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self.ema.update(self.model)
        return {"loss": loss.item(), "grad": norm.item(), "lr": lr}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Flow-matching loss by task on held-out clips, averaged weights, the same noise every time."""
        self.ema.swap(self.model)
        losses: dict[str, list[float]] = {}
        for samples in self.held_out:
            for i, task in enumerate(samples.tasks):
                generator = torch.Generator().manual_seed(i)
                x0, contexts = samples.latents[i : i + 1].float(), samples.contexts[i : i + 1].float()
                one = [x.expand(4, -1, -1, -1, -1) for x in (x0, contexts)]
                loss = self._loss((*one, [samples.captions[i][-1]] * 4), generator)
                losses.setdefault(task, []).append(loss.mean().item())
        self.ema.swap(self.model)
        return {f"loss_{task}": sum(v) / len(v) for task, v in sorted(losses.items())}

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Write the averaged transformer and text encoder as the nodes read them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.ema.swap(self.model)
        network = WanVace(self.model.network.config)
        network.load_state_dict(self.model.network.state_dict())
        save_text_encoder(self.model.encoder, self.text_config, self.tokenizer, folder / TEXT_FILE)
        self.ema.swap(self.model)
        save_network(
            folder / TRANSFORMER_FILE, network.half(), metadata={"trained_by": "training/pretrain.py"}
        )

    def state_dict(self) -> dict:
        """Weights, averages, optimisers and vocabulary."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "vocabulary": torch.frombuffer(bytearray(self.tokenizer.model), dtype=torch.uint8),
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore `state_dict`'s."""
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.tokenizer = Tokenizer(state["vocabulary"].numpy().tobytes())
