"""Random and malformed calls of every builder: each gives a unit that encodes, or one sentence of refusal.

python -m tests.core.vcu.fuzz 10000
"""

import logging
import random
import sys
from collections import Counter

import numpy as np
import torch

from vdot_core import vcu

logging.getLogger("vdot").setLevel(logging.WARNING)
CURES = (
    "give", "expected", "use ", "needs", "make", "ask for", "mark", "move", "divide", "keep", "look at",
    "remove", "crop", "encode them", "convert", "change", "repaint the", "fill",
)  # fmt: skip
BUILDERS = {
    "text": vcu.text, "control": vcu.control, "depth": vcu.depth, "inpaint": vcu.inpaint,
    "outpaint": vcu.outpaint, "extend": vcu.extend, "keyframes": vcu.keyframes, "reference": vcu.reference,
    "layout": vcu.layout, "layout_masks": vcu.layout_masks, "move": vcu.move, "VCU": vcu.VCU,
}  # fmt: skip
# Words of which a refusal must hold one, where only this argument is malformed.
NAMES = {
    "frames": ("video", "control", "frames"),
    "mask": ("mask",),
    "masks": ("mask", "reference"),
    "images": ("reference", "keyframe", "images"),
    "image": ("image",),
    "indices": ("index", "indices", "keyframe"),
    "boxes": ("box",),
    "colors": ("color",),
    "mask_shape": ("mask shape",),
    "width": ("width", "height", "size", "video", "nothing to outpaint"),
    "height": ("width", "height", "size", "video", "nothing to outpaint"),
    "num_frames": ("num_frames", "length", "video", "frame"),
    "references": ("reference",),
    "kind": ("kind",),
    **{side: (side, "width", "height", "margins") for side in ("left", "right", "top", "bottom")},
    "feather_px": ("feather_px", "nothing to outpaint"),
    "aspect": ("aspect", "nothing to outpaint"),
    "first": ("first", "nothing to extend", "frames are given"),
    "last": ("last", "nothing to extend", "frames are given"),
}


SHAPES = [(), (0,), (3,), (4, 4), (5, 0, 8, 3), (5, 8, 8), (5, 8, 8, 2), (5, 3, 8, 8), (2, 5, 8, 8, 3)]


class CheckingVae:
    """Refuses what a VAE must never be given."""

    def __call__(self, video):
        assert video.ndim == 5 and video.shape[-1] == 3 and video.shape[1] % 4 == 1
        assert video.is_floating_point() and 0 <= video.min() and video.max() <= 1
        batch, frames, height, width, _ = video.shape
        return torch.zeros(batch, 16, (frames - 1) // 4 + 1, height // 8, width // 8)


def clip(rng, frames=None, height=None, width=None, channels=3):
    shape = (frames or rng.choice([1, 2, 5, 7, 9]), height or rng.randint(1, 40), width or rng.randint(1, 40))
    tensor = torch.rand(*shape, channels, generator=torch.Generator().manual_seed(rng.randrange(2**31)))
    return rng.choice([tensor, tensor, tensor.half(), (tensor * 255).byte(), tensor.double(), tensor.numpy()])


def malformed(rng):
    """Anything that is not what was asked for."""
    shape = rng.choice(SHAPES)
    noise = torch.rand(shape)
    return rng.choice([
        None, True, -1, 0, 1, 3.5, 10**12, 2**70, 1e30, float("nan"), float("inf"), -float("inf"), "abc", "",
        b"x", [], {}, (), object(), [None], ["a", 1], [[1, 2], [3]], {"a": 1}, {0: None}, [float("nan")],
        {10**9: [0, 0, 1, 1]}, noise, noise * 255, noise - 5, noise * float("nan"), noise / 0.0, noise > 0.5,
        (noise * 9).long(), noise.to(torch.complex64), noise.numpy(), np.array(["x", object()], dtype=object),
        [[]], [noise, noise], torch.rand(5, 8, 8, 3) * 3, torch.full((5, 16, 16, 3), float("nan")),
        torch.rand(5, 16, 16, 4), torch.rand(16, 16, 3), torch.rand(1, 1, 1, 3), torch.rand(6, 24, 40, 1),
        torch.rand(5, 16, 16, 3).requires_grad_(),
    ])  # fmt: skip


def arguments(rng, name):
    """Fitting arguments of a builder, some of the optional ones left out."""
    width, height, frames = rng.choice([16, 30, 48]), rng.choice([16, 25, 64]), rng.choice([1, 4, 5, 9, 13])
    size = {"width": width, "height": height, "num_frames": frames}
    fit = {key: value for key, value in size.items() if rng.random() < 0.4}
    strength = {"strength": rng.choice([0.0, 1, 0.7, 2.0])} if rng.random() < 0.3 else {}
    span = (
        {"start": rng.choice([None, 0, 0.2]), "end": rng.choice([None, 1.0, 0.9])}
        if rng.random() < 0.3
        else {}
    )
    masks = {"mask_shape": rng.choice(vcu.MASK_SHAPES), "expand": rng.choice([0.0, 0.3])}
    box = [1.0, 2.0, 12, 13]
    boxes = rng.choice([[box], {0: box, -1: box}, [{0: box}, [box, box]], torch.tensor([box])])
    source = clip(rng)
    height_in, width_in = source.shape[1:3]
    mask = (torch.rand(source.shape[0], height_in, width_in) > 0.5).float()
    if name == "text":
        return size
    if name == "control":
        region = {"region": rng.choice([mask, mask[0]])} if rng.random() < 0.3 else {}
        return {"frames": source, **fit, **region, **strength, **span}
    if name == "depth":
        gray = torch.as_tensor(source)[..., 0]
        return {"depth": gray, "normalization": rng.choice(["frame", "clip"]), **fit, **strength, **span}
    if name == "inpaint":
        more = {"grow_px": rng.randint(-3, 3), "blur_px": rng.choice([0, 1.5]), "still": rng.random() < 0.5}
        return {"frames": source, "mask": mask, **masks, **more, **fit, **strength}
    if name == "outpaint":
        sides = {side: rng.choice([3, 16, 0.25, 0]) for side in ("left", "right", "top", "bottom")}
        margin = rng.choice(
            [sides, sides, {"aspect": rng.choice(["16:9", 0.5])}, {"width": 64, "height": 32}]
        )
        return {"frames": source, "feather_px": rng.choice([0, 0, 2]), **fit, **margin, **strength}
    if name == "extend":
        return {"first": clip(rng, 1), "last": rng.choice([None, clip(rng, 2)]), **fit, "num_frames": 9}
    if name == "keyframes":
        return {
            "images": [clip(rng, 1), clip(rng, 2)],
            "indices": [0, -1],
            **fit,
            "num_frames": 13,
            **strength,
        }
    if name == "reference":
        images = [clip(rng, 1, channels=rng.choice([3, 4]))[0] for _ in range(rng.randint(1, 3))]
        cut = [torch.ones(image.shape[:2]) for image in images]
        return {"images": images, "masks": rng.choice([None, cut]), "margin": rng.choice([0.0, 0.3]), **size}
    if name == "layout":
        return {"boxes": boxes, **size, **strength, **span}
    if name == "layout_masks":
        return {"masks": torch.ones(5, 16, 16), **masks, **fit, **strength, **span}
    if name == "move":
        return {"image": clip(rng, 1), "boxes": boxes, **fit, "num_frames": 9, **strength}
    frames = torch.rand(5, 16, 32, 3)
    kind = rng.choice(["repaint", "control", "extension", "generate"])
    extra = {"references": (torch.rand(8, 9, 3),)} if rng.random() < 0.3 else {}
    return {
        "frames": frames,
        "masks": (torch.rand(5, 16, 32) > 0.5).float(),
        "kind": kind,
        **extra,
        **strength,
    }


def one_call(rng, earlier):
    """Build, compose and encode something; returns the unit's kind or raises what was raised."""
    name = rng.choice(list(BUILDERS))
    values = arguments(rng, name)
    wrong = rng.sample(sorted(values), k=min(len(values), rng.choice([0, 0, 0, 1, 1, 1, 2])))
    named = len(wrong) == 1 and builds(name, values)
    values.update({key: malformed(rng) for key in wrong})
    try:
        unit = BUILDERS[name](**values)
        if rng.random() < 0.3:
            unit = unit.scaled(rng.choice([0.5, 0, 2, malformed(rng)]))
        if rng.random() < 0.3 and earlier:
            others = [rng.choice(earlier) for _ in range(rng.randint(1, 2))]
            unit = vcu.compose(unit, *others, *([malformed(rng)] if rng.random() < 0.1 else []))
        units = [unit] + ([rng.choice(earlier)] if earlier and rng.random() < 0.2 else [])
        context = vcu.encode(units, CheckingVae())
        assert context.contexts.shape[3] == unit.num_latent_frames + context.num_reference_latents
        assert torch.isfinite(context.contexts).all() and len(context.context_scale.frames) == len(units)
        assert unit.num_frames % 4 == 1 and unit.width % 16 == 0 and unit.height % 16 == 0
        unknown = (unit.masks > 0.5) & (unit.kind in ("repaint", "extension") and name != "VCU")
        if not unit.parts:
            assert (unit.frames[unknown] == 0.5).all()
    except ValueError as refusal:
        return check_refusal(str(refusal), name, wrong, named)
    earlier.append(unit)
    del earlier[:-12]
    return "built"


def builds(name, values):
    """True if a call is valid."""
    try:
        return BUILDERS[name](**values) is not None
    except ValueError:
        return False


def check_refusal(sentence, name, wrong, named):
    """A refusal names what is wrong and says what to do."""
    call = f"{name} with {wrong}: {sentence}"
    assert 25 < len(sentence) < 700 and any(cure in sentence.lower() for cure in CURES), call
    # A feather that leaves nothing of the clip is named as such, whichever size made the clip that small.
    if named and not any(word in sentence for word in ("unit ", "factor", "feather_px is")):
        names = NAMES.get(wrong[0], (wrong[0],))
        assert any(word in sentence for word in names), call
    return "refused"


def run(count, seed):
    """Make so many calls; Counter of what came of them. Anything but a ValueError is raised."""
    results: Counter = Counter()
    earlier: list = []
    for number in range(count):
        rng = random.Random(seed * 1_000_003 + number)
        torch.manual_seed(rng.randrange(2**31))
        try:
            results[one_call(rng, earlier)] += 1
        except Exception as error:
            raise AssertionError(f"call {number} of seed {seed}: {type(error).__name__}: {error}") from error
    return results


if __name__ == "__main__":
    print(run(int(sys.argv[1]), seed=int(sys.argv[2]) if len(sys.argv) > 2 else 1))
