"""RAFT from a weights file: torchvision's, or the authors' (raft-things.pth, which VACE's annotator uses)."""

import re
from pathlib import Path

from torch import Tensor, nn

from ..text import shown
from ..torch_files import load_torch_file

STEM = "feature_encoder.convnormrelu.0.weight"

# The authors' names (princeton-vl/RAFT, core/extractor.py and update.py) -> torchvision's.
RENAMES = (
    (r"^(?:module\.)?fnet\.", "feature_encoder."),
    (r"^(?:module\.)?cnet\.", "context_encoder."),
    (r"^module\.", ""),
    (r"(encoder\.layer\d\.\d)\.conv(\d)\.", r"\1.convnormrelu\2.0."),
    (r"(encoder\.layer\d\.\d)\.norm(\d)\.", r"\1.convnormrelu\2.1."),
    (r"^(feature_encoder|context_encoder)\.conv1\.", r"\1.convnormrelu.0."),
    (r"^(feature_encoder|context_encoder)\.norm1\.", r"\1.convnormrelu.1."),
    (r"^(feature_encoder|context_encoder)\.conv2\.", r"\1.conv."),
    (r"^update_block\.encoder\.convc(\d)\.", r"update_block.motion_encoder.convcorr\1.0."),
    (r"^update_block\.encoder\.convf(\d)\.", r"update_block.motion_encoder.convflow\1.0."),
    (r"^update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
    (r"^update_block\.gru\.conv([zrq])(\d)\.", r"update_block.recurrent_block.convgru\2.conv\1."),
    (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
)
# A downsampling block of theirs holds its norm twice: as norm3 and as downsample.1.
TWICE = re.compile(r"\.layer\d\.0\.norm3\.")


def load_raft(path: str | Path) -> nn.Module:
    """Read RAFT weights; nothing but tensors is unpickled.

    Args:
        path: torchvision's raft_large_*.pth or raft_small_*.pth, or the authors' raft-*.pth (the large
            network), or either as .safetensors.

    Returns:
        torchvision's network in float32, in eval mode, on the CPU.

    Raises:
        ValueError: the file does not hold such weights; names what was found.
    """
    from torchvision.models.optical_flow import raft_large, raft_small

    path = Path(path)
    if path.suffix == ".safetensors":
        from ..checkpoints import read_tensors

        weights, _ = read_tensors(path, "RAFT weights")
    else:
        weights = load_torch_file(path)
    names = _torchvision_names(weights) if isinstance(weights, dict) else {}
    stem = names.get(STEM)
    if not isinstance(stem, Tensor) or stem.ndim != 4:
        first = (
            f"'{shown(next(iter(weights), ''), 80)}'" if isinstance(weights, dict) else type(weights).__name__
        )
        raise ValueError(
            f"{shown(path.name)} holds no RAFT weights (it begins with {first}; expected '{STEM}'); "
            "use torchvision's raft_large_C_T_SKHT_V2-ff5fadd5.pth or the authors' raft-things.pth"
        )
    network = (raft_small if stem.shape[0] == 32 else raft_large)(weights=None, progress=False)
    try:
        network.load_state_dict(names)
    except RuntimeError as error:
        raise ValueError(
            f"{shown(path.name, 80)} looks like RAFT, but does not fit torchvision's network "
            f"({shown(error)}); download it again"
        ) from error
    return network.float().eval().requires_grad_(False)


def _torchvision_names(weights: dict) -> dict:
    """The same tensors under torchvision's names; torchvision's own pass through unchanged."""
    if STEM in weights:
        return dict(weights)  # without the attribute by which torch would look up versions
    renamed = {}
    for name, tensor in weights.items():
        if TWICE.search(str(name)):
            continue
        new = str(name)
        for pattern, replacement in RENAMES:
            new = re.sub(pattern, replacement, new)
        renamed[new] = tensor
    return renamed
