"""Reads LoRA files in the usual forms: each parameter's change, for a network that is known.

Forms: factors as lora_up / lora_down or lora_B / lora_A, with or without alpha; `.diff`, `.diff_b`; modules
under Wan's names, diffusers', or joined by underscores. See `names`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ...text import described, listed, parse_json, shown
from ..open_tensors import open_tensor_file
from ..tensor_files import TensorFile, TensorSpec
from .names import is_unread, module_names, parse_key

_PEFT_METADATA = "lora_adapter_metadata"  # diffusers' own, in the header of files that it saves


@dataclass(frozen=True)
class Update:
    """The change of one parameter: a product of factors, or a tensor in full.

    Args:
        file: the LoRA file.
        up, down: the factors' keys; empty where the change is in full.
        full: the key of the complete change; empty where it is a product.
        scale: of the change: alpha / rank of a product.
    """

    file: TensorFile
    up: str = ""
    down: str = ""
    full: str = ""
    scale: float = 1.0

    def add_to(self, weight: torch.Tensor, strength: float) -> None:
        """Add the change, times `strength`, to the parameter's contiguous float32 values in place."""
        factor = strength * self.scale
        if self.full:
            weight.add_(_load(self.file, self.full).to(weight).reshape(weight.shape), alpha=factor)
            return
        up, down = (tensor.to(weight) for tensor in self.factors())
        weight.view(len(weight), -1).addmm_(up, down, alpha=factor)

    def factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Read up [out, R] and down [R, in] of a product; the scale is not in them."""
        up, down = (_load(self.file, key).flatten(1) for key in (self.up, self.down))
        return up, down


@dataclass(frozen=True)
class Lora:
    """A LoRA file, matched with a network.

    Args:
        path: the file.
        updates: Wan's parameter name -> its change.
        unknown: keys that belong to no parameter of the network.
        metadata: strings of the file's header.
    """

    path: Path
    updates: dict[str, Update]
    unknown: tuple[str, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_lora(path: str | Path, specs: Mapping[str, TensorSpec]) -> Lora:
    """Read a LoRA file's keys and match them with a network's parameters.

    Args:
        path: a `.safetensors` or `.pt` file.
        specs: Wan's name -> shape and dtype of every parameter of the network.
    Returns:
        The changes, none of their values read yet.
    Raises:
        ValueError: not a readable file, no LoRA, one of another network, a form that is not read, a factor
            without its partner, or a shape that does not fit; the message names the key.
    """
    file = open_tensor_file(path)
    parts, unknown = _sorted_keys(file, specs)
    if not parts:
        raise ValueError(
            f"{shown(path)} has no key of this network's layers, but {listed(unknown) or 'no tensors'}; give "
            "a LoRA of Wan 2.1 of the same size"
        )
    alpha = default_alpha(file.path, file.metadata)
    updates: dict[str, Update] = {}
    for module, roles in parts.items():
        updates |= _updates_of(file, module, roles, specs, alpha)
    return Lora(Path(path), updates, tuple(unknown), file.metadata)


def _sorted_keys(
    file: TensorFile, specs: Mapping[str, TensorSpec]
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """(Wan's module -> role -> key, keys that belong to no parameter)."""
    modules = module_names(specs)
    parts: dict[str, dict[str, str]] = {}
    unknown = []
    for key in file.specs:
        if is_unread(key):
            raise ValueError(
                f"{shown(file.path)} holds '{shown(key, 80)}', an update of a kind that is not read (DoRA, "
                "LoHa, LoKr, Tucker); give a LoRA of lora_up and lora_down, lora_A and lora_B, or .diff"
            )
        parsed = parse_key(key)
        module = modules.get(parsed.module) if parsed else None
        if module is None or (parsed.role == "bias" and f"{module}.bias" not in specs):
            unknown.append(key)
            continue
        roles = parts.setdefault(module, {})
        if parsed.role in roles:
            both = f"'{shown(roles[parsed.role], 60)}' and '{shown(key, 60)}'"
            raise ValueError(f"{shown(file.path)}: {both} are the same change; remove one")
        roles[parsed.role] = key
    return parts, unknown


def _updates_of(
    file: TensorFile,
    module: str,
    roles: Mapping[str, str],
    specs: Mapping[str, TensorSpec],
    default_alpha: float | None,
) -> dict[str, Update]:
    """The changes of one module's parameters."""
    weight = f"{module}.weight" if f"{module}.weight" in specs else module
    updates: dict[str, Update] = {}
    pair = [role for role in ("up", "down") if role in roles]
    if len(pair) == 1 or ("alpha" in roles and not pair and "full" not in roles):
        missing = " and ".join(f"lora_{role}" for role in ("up", "down") if role not in roles)
        key = roles[pair[0]] if pair else roles["alpha"]
        raise ValueError(
            f"{shown(file.path)}: '{shown(key, 80)}' lacks its {missing}; download the file again"
        )
    if pair and "full" in roles:
        raise ValueError(
            f"{shown(file.path)} has both factors and '{shown(roles['full'], 80)}' of one weight; remove one"
        )
    scale = _scale(file, roles, default_alpha) if pair else 1.0
    if pair:
        updates[weight] = Update(file, up=roles["up"], down=roles["down"], scale=scale)
        _check_factors(updates[weight], weight, specs[weight])
    for role, name in (("full", weight), ("bias", f"{module}.bias")):
        if role in roles:
            of_factor = ".lora_B." in roles[role]  # PEFT scales the bias of its second factor with it
            updates[name] = Update(file, full=roles[role], scale=scale if of_factor else 1.0)
            _check_full(updates[name], name, specs[name])
    return updates


def _check_factors(update: Update, name: str, weight: TensorSpec) -> None:
    up, down = (update.file.specs[key] for key in (update.up, update.down))
    fits = all(len(spec.shape) >= 2 for spec in (up, down, weight))
    if fits:
        outer = (up.shape[0], math.prod(down.shape[1:]))
        fits = outer == (weight.shape[0], math.prod(weight.shape[1:]))
        fits = fits and math.prod(up.shape[1:]) == down.shape[0]
    if not fits:
        raise ValueError(
            f"{shown(update.file.path)}: '{shown(update.up, 80)}' {shown(list(up.shape), 40)} times its "
            f"partner {shown(list(down.shape), 40)} does not fit {name} {shown(list(weight.shape), 40)}; "
            "give a LoRA of this network's size"
        )
    _check_dtypes(update.file, update.up, update.down)


def _check_full(update: Update, name: str, expected: TensorSpec) -> None:
    spec = update.file.specs[update.full]
    # Axes of size 1 may be missing, and a convolution may be stored as a matrix; a transposed matrix has as
    # many values, but is another change.
    sides = [side for side in expected.shape if side != 1]
    as_matrix = [expected.shape[0], expected.num_elements // expected.shape[0]]
    if [side for side in spec.shape if side != 1] != sides and list(spec.shape) != as_matrix:
        raise ValueError(
            f"{shown(update.file.path)}: '{shown(update.full, 80)}' is {shown(list(spec.shape), 40)}, {name} "
            f"{shown(list(expected.shape), 40)}; give a LoRA of this network's size"
        )
    _check_dtypes(update.file, update.full)


def _check_dtypes(file: TensorFile, *keys: str) -> None:
    for key in keys:
        if not file.specs[key].dtype.is_floating_point:
            raise ValueError(
                f"{shown(file.path)}: '{shown(key, 80)}' is {file.specs[key].dtype}; give a LoRA of floating "
                "point numbers"
            )


def _scale(file: TensorFile, roles: Mapping[str, str], default_alpha: float | None) -> float:
    """alpha / rank; 1 where the file has no alpha."""
    rank = file.specs[roles["down"]].shape[0] if file.specs[roles["down"]].shape else 0
    alpha = default_alpha
    if "alpha" in roles:
        if file.specs[roles["alpha"]].num_elements != 1:
            raise ValueError(
                f"{shown(file.path)}: '{shown(roles['alpha'], 80)}' is "
                f"{shown(list(file.specs[roles['alpha']].shape), 40)}; expected one number"
            )
        alpha = float(_load(file, roles["alpha"]).reshape(()))
        if not math.isfinite(alpha) or not alpha:
            what = "" if alpha else ", by which the LoRA changes nothing"
            raise ValueError(
                f"{shown(file.path)}: '{shown(roles['alpha'], 80)}' is {alpha:g}{what}; download it again"
            )
    return 1.0 if alpha is None or not rank else alpha / rank


def default_alpha(path: Path, metadata: Mapping[str, str]) -> float | None:
    """The alpha of all layers that diffusers keeps in the header; None where there is none.

    Args:
        path: of the file, for errors.
        metadata: the header's strings.
    Raises:
        ValueError: it is not readable, or of a kind that one number does not say.
    """
    text = metadata.get(_PEFT_METADATA)
    if text is None:
        return None
    try:
        settings = parse_json(text)
    except ValueError as error:
        raise ValueError(
            f"{shown(path)}: its {_PEFT_METADATA} is not readable ({shown(error, 120)}); download it again"
        ) from error
    if not isinstance(settings, dict):
        raise ValueError(
            f"{shown(path)}: its {_PEFT_METADATA} is {described(settings, 40)}, expected a table of "
            "settings; download it again"
        )
    values = {key.removeprefix("transformer."): value for key, value in settings.items()}
    if values.get("use_rslora") or values.get("alpha_pattern") or values.get("use_dora"):
        raise ValueError(
            f"{shown(path)} was saved with rsLoRA, DoRA or an alpha for each layer, which are not read; "
            "save it with alpha tensors"
        )
    alpha = values.get("lora_alpha")
    if alpha is not None and (type(alpha) not in (int, float) or not math.isfinite(alpha) or not alpha):
        other = "" if alpha else " other than 0, by which it changes nothing"
        raise ValueError(
            f"{shown(path)}: its lora_alpha is {described(alpha, 40)}, expected a number{other}; save it "
            "again"
        )
    return alpha


def _load(file: TensorFile, key: str) -> torch.Tensor:
    return file.load(key) if file.load else file.read()[key]
