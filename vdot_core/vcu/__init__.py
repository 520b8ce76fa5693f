"""Video condition units: what to generate, what to keep, what to show; and their encoding for the network."""

from .canvas import cover, letterbox, snap_length, snap_size
from .compose import compose
from .encode import CONTEXT_CHANNELS, LATENT_CHANNELS, GreyCache, VCUContext, encode
from .extension import extend, keyframes
from .layout import layout, move
from .masks import EXPAND_RATIO, MASK_SHAPES, augment
from .repaint import inpaint, outpaint
from .tasks import NORMALISATIONS, control, depth, reference, text
from .unit import SIZE_MULTIPLE, VAE_STRIDE, VCU, num_latent_frames

__all__ = [
    "CONTEXT_CHANNELS",
    "EXPAND_RATIO",
    "LATENT_CHANNELS",
    "MASK_SHAPES",
    "NORMALISATIONS",
    "SIZE_MULTIPLE",
    "VAE_STRIDE",
    "VCU",
    "GreyCache",
    "VCUContext",
    "augment",
    "compose",
    "control",
    "cover",
    "depth",
    "encode",
    "extend",
    "inpaint",
    "keyframes",
    "layout",
    "letterbox",
    "move",
    "num_latent_frames",
    "outpaint",
    "reference",
    "snap_length",
    "snap_size",
    "text",
]
