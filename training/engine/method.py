"""The interface between the engine and a training method.

The engine runs steps, optimizers, averages, checkpoints and logs; a method defines the networks and the
losses that update them. Letters: B batch, T latent frames, h w latents.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdot_core.networks import WanVaceConfig
from vdot_core.text import described

from ..data.batch import Batch
from .adapters import AdaptedFrom
from .draws import Draws


@dataclass(frozen=True)
class Losses:
    """A loss and its log values.

    Attributes:
        total: Scalar with a graph, a mean over the samples, so that all samples have equal weight.
        metrics: Name -> scalar tensor, each a mean over the samples.
    """

    total: Tensor
    metrics: dict[str, Tensor]


@dataclass(frozen=True)
class Update:
    """One optimizer step of a training step.

    Attributes:
        optimizer: Name of the optimizer that steps, a key of `Method.learning_rates`; the logged values begin
            with it.
        trained: Names of the networks whose weights get gradients, keys of `Method.networks`.
        loss: (micro-batch, its draws) -> losses.
    """

    optimizer: str
    trained: tuple[str, ...]
    loss: Callable[[Batch, Draws], Losses]


class Method(Protocol):
    """A training method.

    Attributes:
        sizes: Sizes of the transformers.
        networks: Name -> trained network; names and order are those of the checkpoint.
        frozen: Name of a network -> prefixes of its parameters that are not trained.
        learning_rates: Name of an optimizer -> name of a network -> its learning rate.
        averaged: Name of the network whose averaged weights are kept, shown and exported.
        needs_latents: True if every sample must have a real clip.
        empty_text: [1, L, D] embedding of the empty prompt.
    """

    sizes: WanVaceConfig
    networks: Mapping[str, nn.Module]
    frozen: Mapping[str, Sequence[str]]
    learning_rates: Mapping[str, Mapping[str, float]]
    averaged: str
    needs_latents: bool
    empty_text: Tensor

    def text_drop(self, task: str) -> float:
        """Probability that a sample of this task is trained without its caption."""

    def updates(self, step: int) -> Sequence[Update]:
        """The optimizer steps of a training step, in order."""

    def kinds_of_updates(self) -> Sequence[Update]:
        """Every kind of update that some step has, once, for validation."""

    def operations(self, step: int, batch: Batch) -> float:
        """Floating-point operations of a step on a micro-batch, without what recomputed blocks repeat."""

    def sample(self, batch: Batch, draws: Draws) -> Tensor:
        """[B, 16, T, h, w] latents by the averaged network, sampled as users do; references first."""

    def metadata(self) -> dict[str, str]:
        """Metadata of the exported network."""

    def adapted_from(self) -> AdaptedFrom | None:
        """The network that the averaged one changes, if it is an adapter; None if it is a full network."""


def trainable(module: nn.Module, frozen: Sequence[str] = ()) -> dict[str, nn.Parameter]:
    """Name -> parameter of a network, frozen prefixes left out; ValueError as `trained_names`."""
    parameters = dict(module.named_parameters())
    return {name: parameters[name] for name in trained_names(parameters, frozen)}


def trained_names(names: Collection[str], frozen: Sequence[str]) -> list[str]:
    """Leave the names out that begin with a frozen prefix.

    Raises:
        ValueError: A prefix fits no name, or none is left.
    """
    for prefix in frozen:
        if not prefix or not any(name.startswith(prefix) for name in names):
            # Beginnings of names: those of modules, and of numbered blocks.
            starts = sorted({re.match(r"[^.]+(\.\d+)?\.?", name)[0] for name in names})
            near = difflib.get_close_matches(prefix, starts, 3, 0.5) or starts[:8]
            raise ValueError(
                f"model.frozen has {described(prefix)}, with which no parameter's name begins; give a "
                f"beginning such as {', '.join(near)}, or remove it"
            )
    trained = [name for name in names if not name.startswith(tuple(frozen))] if frozen else list(names)
    if not trained:
        raise ValueError(f"model.frozen is {list(frozen)}, which leaves no parameter to train; remove some")
    return trained


def set_trained(method: Method, names: Sequence[str]) -> None:
    """Let gradients reach the weights of these networks, and only pass through the others."""
    for name, network in method.networks.items():
        network.requires_grad_(False)
        if name in names:
            for parameter in trainable(network, method.frozen.get(name, ())).values():
                parameter.requires_grad_(True)


def prepare(batch: Batch, draws: Draws, method: Method, device: torch.device, *, drop: bool = True) -> Batch:
    """Move a batch to the device, its text zero-padded to the network's length and dropped at random.

    Args:
        batch: From the source.
        draws: Of this micro-batch.
        method: Gives the text length, the empty prompt and the probabilities of dropping a caption.
        device: Destination.
        drop: False keeps every caption.

    Returns:
        The batch.
    """
    batch = batch.to(device)
    text = pad_text(batch.text, method.sizes.text_len)
    drops = torch.tensor([method.text_drop(task) for task in batch.tasks], device=device)
    if drop and any(method.text_drop(task) > 0 for task in batch.tasks):
        dropped = (draws.uniform("text drop", device) < drops)[:, None, None]
        text = torch.where(dropped, pad_text(method.empty_text.to(text), text.shape[1]), text)
    return dataclasses.replace(batch, text=text)


def pad_text(text: Tensor, length: int) -> Tensor:
    """[B, L, D] -> [B, max(L, length), D], padded with zeros as in Wan."""
    return F.pad(text, (0, 0, 0, max(0, length - text.shape[1])))
