"""Trains the tiny text encoder to extract every fact of a caption, by object.

Trained with the transformer alone, from the video's loss, words bind to their objects only slowly; real
models start from a pretrained text encoder. Letters: B captions, L tokens, Q facts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.data.umt5 import Tokenizer, embed
from training.engine.average import AveragedWeights
from training.engine.muon import split_optimizers

from .clips.backgrounds import BACKGROUNDS
from .clips.captions import DIRECTIONS, motion_phrase
from .clips.shapes import COLORS, OBJECT_COLORS, SIZES, SPLITS, Clip, clip, figure_clip
from .config import PretrainConfig
from .evaluation.accuracy import background_words
from .evaluation.network import SEEN_SHAPES
from .learning import cosine_lr, set_lr
from .text import FILE_NAME, TEXT_LEN, build_encoder, save_text_encoder, train_vocabulary, umt5_config

UNSAID = "unsaid"
MOTIONS = ("still", "linear", "bounce", "circle", "walk", "run", "wave", "jump")
GOING = ("linear", "walk", "run")
OBJECT_FACTS = {
    "color": OBJECT_COLORS,
    "shape": SEEN_SHAPES,
    "size": tuple(SIZES),
    "motion": MOTIONS,
    "direction": DIRECTIONS,
    "spin": ("False", "True"),
}
SCENE_FACTS = {"background": tuple(COLORS), "kind": BACKGROUNDS, "drift": DIRECTIONS}
# Fact -> its values; objects are counted from the farthest.
FACTS = {
    **{f"{name} {slot}": (UNSAID, *values) for slot in range(2) for name, values in OBJECT_FACTS.items()},
    **{name: (UNSAID, *values) for name, values in SCENE_FACTS.items()},
}
FIGURE_EVERY = 8


def facts(scene: Clip, caption: str) -> dict[str, str]:
    """The facts that a caption states of its clip.

    Args:
        scene: The clip.
        caption: One of its captions.

    Returns:
        Each of `FACTS`; `UNSAID` where this caption is silent.
    """
    labels = dict.fromkeys(FACTS, UNSAID)
    for slot, track in enumerate(scene.objects):
        spin = getattr(track, "spin", False)
        name, values = f"{track.color} {track.shape}", {"color": track.color, "shape": track.shape}
        if f"{track.size_name} {name}" in caption:
            values["size"] = track.size_name
        moves = [motion_phrase(track.path, track.direction, spin, finite=finite) for finite in (True, False)]
        if any(phrase in caption for phrase in moves):
            values |= {"motion": track.path, "spin": str(bool(spin))}
            if track.path in GOING:
                values["direction"] = track.direction
        labels |= {f"{fact} {slot}": value for fact, value in values.items()}
    if scene.background in caption:
        labels["kind"], labels["background"] = background_words(scene)
    drift = caption.partition("the background drifts ")[2].removeprefix("to the ")
    return labels | {"drift": drift or UNSAID}


def read_captions(split: str, count: int) -> tuple[list[str], Tensor]:
    """Captions of a split's first clips, and [B, Q] indices of their facts."""
    captions, targets = [], []
    for number in range(count):
        draw = figure_clip if number % FIGURE_EVERY == FIGURE_EVERY - 1 else clip
        scene = draw(SPLITS[split][number], height=16, width=16, num_frames=1)
        for caption in scene.captions:
            labels = facts(scene, caption)
            captions.append(caption)
            targets.append([values.index(labels[fact]) for fact, values in FACTS.items()])
    return captions, torch.tensor(targets)


class Reader(nn.Module):
    """An encoder and, for every fact, a query that looks for it among the caption's embeddings."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.queries = nn.Parameter(torch.randn(len(FACTS), width) * 0.1)
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.answers = nn.ModuleList(nn.Linear(width, len(values)) for values in FACTS.values())

    def forward(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """[B, L] tokens -> for each fact [B, number of its values] logits."""
        hidden = embed(self.encoder, ids, mask)
        scores = self.queries @ self.key(hidden).transpose(1, 2) / hidden.shape[-1] ** 0.5
        weights = scores.masked_fill(mask[:, None] == 0, float("-inf")).softmax(-1)
        read = weights @ self.value(hidden)
        return [answer(read[:, number]) for number, answer in enumerate(self.answers)]


class TextTask:
    """The text encoder in training; see `tiny.pretrain.Task`."""

    def __init__(self, config: PretrainConfig, device: torch.device) -> None:
        self.config, self.settings, self.device = config, config.text, device
        self.num_steps = self.settings.steps
        self.tokenizer = Tokenizer(train_vocabulary(), TEXT_LEN)
        self.text_config = umt5_config(self.settings.layers, len(self.tokenizer))
        encoder = build_encoder(self.text_config, config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.reader = Reader(encoder, self.text_config["d_model"]).train().to(device)
        self.ema = AveragedWeights(self.reader, config.ema)
        self.optimizers = split_optimizers(
            self.reader.named_parameters(),
            excluded=("shared", "embed_tokens", "relative_attention", "queries", "answers"),
            betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
        )
        self.captions, self.said = read_captions("train", self.settings.num_clips)

    def _tokens(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Tokens without padding that no caption of the batch needs."""
        ids, mask = self.tokenizer(captions)
        longest = int(mask.sum(1).max())
        return ids[:, :longest].to(self.device), mask[:, :longest].to(self.device)

    def train_step(self, step: int) -> dict[str, float]:
        """One step; returns the loss, the share of right facts and the learning rate."""
        settings = self.settings
        lr = cosine_lr(step, settings.steps, settings.lr, settings.lr_end, settings.warmup)
        set_lr(self.optimizers, lr)
        rng = np.random.default_rng([self.config.seed, step, 29])
        picks = rng.integers(len(self.captions), size=self.settings.batch)
        logits = self.reader(*self._tokens([self.captions[pick] for pick in picks]))
        targets = self.said[torch.from_numpy(picks)].to(self.device)
        losses = [F.cross_entropy(scores, targets[:, number]) for number, scores in enumerate(logits)]
        loss = torch.stack(losses).mean()
        self.reader.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.reader.parameters(), self.config.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self.ema.update(self.reader)
        right = torch.stack([scores.argmax(-1) for scores in logits], 1) == targets
        return {"loss": loss.item(), "right": right.float().mean().item(), "grad": norm.item(), "lr": lr}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Share of right facts of held-out captions, by kind, with averaged weights."""
        captions, targets = read_captions("validation", self.settings.num_validation)
        self.ema.swap(self.reader)
        logits = [scores.cpu() for scores in self.reader(*self._tokens(captions))]
        self.ema.swap(self.reader)
        right: dict[str, list[Tensor]] = {}
        for number, (fact, scores) in enumerate(zip(FACTS, logits, strict=True)):
            mentioned = targets[:, number] > 0
            kind = fact.split()[0]
            right.setdefault(kind, []).append(scores.argmax(-1)[mentioned] == targets[mentioned, number])
        return {kind: torch.cat(parts).float().mean().item() for kind, parts in right.items()}

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Write the averaged encoder and its vocabulary as the nodes read them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.ema.swap(self.reader)
        save_text_encoder(self.reader.encoder, self.text_config, self.tokenizer, folder / FILE_NAME)
        self.ema.swap(self.reader)

    def state_dict(self) -> dict:
        """Weights, averages and optimizers; vocabulary and captions follow from the code."""
        return {
            "reader": self.reader.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore `state_dict`'s."""
        self.reader.load_state_dict(state["reader"])
        self.ema.load_state_dict(state["ema"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
