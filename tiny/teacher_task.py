"""Training a VACE transformer by flow matching, on all tasks at once: the tiny teacher, or a released one on.

x_t = (1 - sigma) x0 + sigma noise; the network predicts noise - x0; its timestep is 1000 sigma. On drawn
clips the tiny text encoder may learn too; real clips come with their captions' embeddings.
Letters: B batch, K contexts, T latent frames, h w latents, L tokens, D text width.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.data.umt5 import Tokenizer, embed, load_umt5
from training.distributed.precision import uses_bf16
from training.distributed.world import World, average_gradients, compile_blocks
from training.engine.attention import batched_attention
from training.engine.average import AveragedWeights, cosine_lr, set_lr
from training.engine.muon import split_optimizers
from training.engine.networks import read_transformer
from vdot_core.checkpoints import save_network
from vdot_core.networks import PRESETS, WanVace

from .config import PretrainConfig, TeacherConfig
from .teacher_data import Clips, DrawnClips, RealClips, TeacherBatch
from .text import FILE_NAME as TEXT_FILE
from .text import TEXT_LEN, build_encoder, save_text_encoder, train_vocabulary, umt5_config

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


class TextedNetwork(nn.Module):
    """The network and, where captions are read here, the text encoder."""

    def __init__(self, network: WanVace, encoder: nn.Module | None) -> None:
        super().__init__()
        self.network, self.encoder = network, encoder

    def forward(
        self, x: Tensor, sigmas: Tensor, text: Tensor | tuple[Tensor, Tensor], contexts: Tensor, **scale
    ) -> Tensor:
        """Velocity of x [B, 16, T, h, w] at sigmas [B].

        Args:
            x, sigmas: As above.
            text: Embeddings [B, L, D], or tokens and their mask, [B, L] each.
            contexts: [B, K, 96, T, h, w].
            **scale: The network's `context_scale`.
        """
        # The zero padding takes part in cross-attention, as in Wan; cutting it would change the result.
        text = text if isinstance(text, Tensor) else embed(self.encoder, *text)
        return self.network(x, 1000 * sigmas, text, contexts, **scale)


class TeacherTask:
    """The teacher in training; see `tiny.pretrain.Task`."""

    def __init__(self, config: PretrainConfig, world: World) -> None:
        self.config, self.world = config, world
        bf16 = uses_bf16(config.teacher.bf16, world.device, "teacher.bf16")
        settings = self.settings = replace(config.teacher, bf16=bf16)
        if bool(settings.groups) == bool(settings.clips):
            raise ValueError(
                f"teacher.groups has {len(settings.groups)} groups and teacher.clips is {settings.clips}; "
                "give either groups of drawn clips, or a folder that training/cache.py has filled"
            )
        self.num_steps = settings.steps
        clips = RealClips if settings.clips else DrawnClips
        self.clips: Clips = clips(settings, config.seed, world)
        encoder = None
        if not settings.clips:
            encoder, self.tokenizer, self.text_config = self._text_encoder()
        self.model = TextedNetwork(self._network(), encoder)
        self.model.train().requires_grad_(True).to(world.device)
        self.model.network.gradient_checkpointing(settings.checkpoint_every)
        if settings.compile:
            compile_blocks(self.model.network)
        self.ema = AveragedWeights(self.model, config.ema)
        self.optimizers = split_optimizers(
            self.model.named_parameters(),
            excluded=NOT_MATRICES,
            betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
        )
        self._held_out: list[tuple[str, TeacherBatch]] | None = None

    def _network(self) -> WanVace:
        """Fresh weights from the seed, or a finished run's or file's."""
        settings = self.settings
        config, weights = PRESETS[settings.preset](), None
        given = getattr(self.clips, "text_dim", config.text_dim)
        if given != config.text_dim:
            raise ValueError(
                f"the captions of teacher.clips were encoded to width {given}, the network takes "
                f"{config.text_dim}; encode them with the network's own text encoder"
            )
        if settings.start_from:
            finished = Path(settings.start_from) / f"{settings.preset}.safetensors"
            start = finished if finished.is_file() else settings.start_from
            weights = read_transformer(start, config, "teacher.start_from")
        slow = self.world.device.type == "cpu" and settings.bf16
        network = WanVace(config, attention=batched_attention if slow else None)
        if weights is None:
            network.initialize_weights(torch.Generator().manual_seed(self.config.seed))
        else:
            network.load_state_dict(weights)
        return network

    def _text_encoder(self) -> tuple[nn.Module, Tokenizer, dict]:
        """The configured file's, the finished run's, or a fresh one."""
        settings = self.settings
        path = settings.text_encoder
        if not path and settings.start_from and (Path(settings.start_from) / TEXT_FILE).is_file():
            path = Path(settings.start_from) / TEXT_FILE
        if path:
            file = load_umt5(path)
            return file.encoder, file.tokenizer, file.config
        tokenizer = Tokenizer(train_vocabulary(), TEXT_LEN)
        config = umt5_config(settings.text_layers, len(tokenizer))
        return build_encoder(config, self.config.seed), tokenizer, config

    def _loss(self, batch: TeacherBatch, generator: torch.Generator) -> Tensor:
        """Flow-matching loss of each sample; what is drawn is drawn for the batch of all processes."""
        device, own = self.world.device, slice(batch.first, batch.first + len(batch))
        x0, text = batch.latents, batch.text
        sigmas = draw_sigmas(batch.total, self.settings, generator)[own]
        noise = torch.randn((batch.total, *x0.shape[1:]), generator=generator)[own]
        text = text if isinstance(text, Tensor) else self.tokenizer(text)
        text = text.to(device) if isinstance(text, Tensor) else tuple(part.to(device) for part in text)
        x0, noise, sigmas, contexts = (v.to(device) for v in (x0, noise, sigmas, batch.contexts))
        level = sigmas.view(-1, 1, 1, 1, 1)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.settings.bf16):
            x = (1 - level) * x0 + level * noise
            velocity = self.model(x, sigmas, text, contexts, context_scale=batch.scale)
        return F.mse_loss(velocity.float(), noise - x0, reduction="none").mean((1, 2, 3, 4))

    def train_step(self, step: int) -> dict[str, float]:
        """One step; returns the loss, the gradient's norm and the learning rate."""
        given = self.settings
        lr = cosine_lr(step, given.steps, given.lr, given.lr_end, given.warmup)
        set_lr(self.optimizers, lr)
        if self.model.encoder is not None:
            self.model.encoder.requires_grad_(step < given.freeze_text_after)
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        loss = self._loss(self.clips.batch(step), generator).mean()
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
        if self._held_out is None:
            self._held_out = list(self.clips.held_out())
        self.ema.swap(self.model)
        losses: dict[str, list[float]] = {}
        for number, (task, one) in enumerate(self._held_out):
            generator = torch.Generator().manual_seed(number)
            latents, contexts = (x.expand(4, *x.shape[1:]) for x in (one.latents, one.contexts))
            loss = self._loss(TeacherBatch(latents, contexts, list(one.text) * 4, 0, 4), generator)
            losses.setdefault(task, []).append(loss.mean().item())
        self.ema.swap(self.model)
        return {f"loss_{task}": sum(v) / len(v) for task, v in sorted(losses.items())}

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Write the averaged transformer, and the text encoder if it is ours, as the nodes read them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.ema.swap(self.model)
        weights = {name: w.half() for name, w in self.model.network.state_dict().items()}
        if self.model.encoder is not None:
            save_text_encoder(self.model.encoder, self.text_config, self.tokenizer, folder / TEXT_FILE)
        self.ema.swap(self.model)
        network = WanVace(self.model.network.config, device="meta", dtype=torch.float16)
        network.load_state_dict(weights, assign=True)
        path = folder / f"{self.settings.preset}.safetensors"
        save_network(path, network, metadata={"trained_by": "tiny/pretrain.py"})

    def state_dict(self) -> dict:
        """Weights, averages, optimisers and vocabulary."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            **({"vocabulary": self._vocabulary()} if self.model.encoder is not None else {}),
        }

    def _vocabulary(self) -> Tensor:
        return torch.frombuffer(bytearray(self.tokenizer.model), dtype=torch.uint8)

    def load_state_dict(self, state: dict) -> None:
        """Restore `state_dict`'s."""
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if self.model.encoder is not None:
            self.tokenizer = Tokenizer(state["vocabulary"].numpy().tobytes(), TEXT_LEN)
