"""Turns tensors, gradients and draws into values that a JSON file holds and another run is compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

NUM_VALUES = 64
RANDOM = frozenset(
    "rand randn randint randperm rand_like randn_like randint_like normal bernoulli multinomial "
    "normal_ uniform_ random_ bernoulli_ exponential_".split()
)


def fingerprint() -> dict[str, str]:
    """The environment on which float bits depend."""
    return {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability()}


def sha256(*tensors: Tensor) -> str:
    """Hash of the bytes of tensors, one after the other."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def summary(tensor: Tensor, num_values: int = NUM_VALUES) -> dict[str, Any]:
    """Shape, hash and evenly spaced values of a tensor."""
    flat = tensor.detach().float().reshape(-1)
    places = torch.linspace(0, len(flat) - 1, min(num_values, len(flat)), dtype=torch.float64).long()
    return {
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype),
        "sha256": sha256(tensor),
        "values": [round_trip(value) for value in flat[places].tolist()],
    }


def round_trip(value: float) -> float:
    """The shortest decimal that is the same float32."""
    return float(f"{value:.9g}")


def sizes(tensors: Iterable[Tensor]) -> dict[str, Any]:
    """Hash and L1 norm of many tensors."""
    tensors = list(tensors)
    return {
        "sha256": sha256(*tensors),
        "l1": sum(tensor.detach().double().abs().sum().item() for tensor in tensors),
    }


class GradientWatch:
    """Notes the gradients of networks as they are accumulated: before clipping, before an update.

    Args:
        networks: By name. A parameter that gets no gradient in a step is left out of it.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self._gradients: dict[str, dict[str, Tensor]] = {network: {} for network in networks}
        for owner, network in networks.items():
            for name, parameter in network.named_parameters():
                parameter.register_post_accumulate_grad_hook(self._note(owner, name))

    def _note(self, owner: str, name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            # Called for each micro-batch; the last one sees the sum.
            self._gradients[owner][name] = parameter.grad.detach().clone()

        return hook

    def take(self) -> dict[str, dict[str, Any]]:
        """Network -> number of parameters, hash and L1 norm, of all gradients since the last call."""
        summaries = {}
        for network, gradients in self._gradients.items():
            if gradients:
                ordered = [gradients[name] for name in sorted(gradients)]
                summaries[network] = {"parameters": len(ordered), **sizes(ordered)}
            gradients.clear()
        return summaries


class DrawWatch(TorchFunctionMode):
    """Notes every random call of torch: a hash of its kind, shape and generator's state, and of its bits.

    The state is the same on every machine; the bits of a normal draw are not.
    """

    def __init__(self) -> None:
        super().__init__()
        self._draws: list[str] = []
        self._bits = hashlib.sha256()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name not in RANDOM:
            return function(*args, **kwargs)
        generator = kwargs.get("generator") or torch.default_generator
        state = generator.get_state()
        result = function(*args, **kwargs)
        key = hashlib.sha256(f"{name} {list(result.shape)} {result.dtype} ".encode())
        key.update(state.numpy().tobytes())
        self._draws.append(key.hexdigest()[:8])
        self._bits.update(sha256(result).encode())
        return result

    def take(self) -> dict[str, Any]:
        """The draws since the last call, in their order."""
        draws, self._draws = self._draws, []
        bits, self._bits = self._bits.hexdigest(), hashlib.sha256()
        return {"count": len(draws), "keys": " ".join(draws), "sha256": bits}
