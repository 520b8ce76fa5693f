"""Values for every type of input that nodes have: mostly fitting ones, and what else may come over a link."""

import math
import random
from types import SimpleNamespace

import torch

from tests.support.pack import submodule

SIDES, LENGTHS = (16, 32, 33, 48, 64), (1, 2, 5, 9)
JUNK = [
    None, True, -1, 5, 2.5, math.nan, math.inf, 10**400, "", "/etc/", "x" * 200_000, "\ud800", b"x", [], {},
    [[]], [None], object(), torch.zeros(()), torch.zeros(0), torch.zeros(2, 3), {"samples": None}, {"a": 1},
]  # fmt: skip
TEXTS = {
    "boxes": [
        "0: 4, 4, 20, 20\n-1: 8, 8, 30, 30", "10, 10\n20, 20", '[{"x": 4, "y": 5}, {"x": 9, "y": 9}]',
        "1,2,3,4",
        "0: 4, 4, 20, 20\n\n2: 5, 5", "0: 4, 4, 4, 4", "5: nan, 0, 1, 1", "[" * 100_000, "9" * 400, "[]",
        "[[]]",
        '[{"x": 1e400, "y": 0}]', "1,2\n\n" * 300, "-900000, -900000, 900000, 900000", ":",
        "0: 1 2 3 4\n" * 2000, "\ufeff0: 4, 4, 20, 20", "0: 4, 4, 20, 20\r\n\r\n0: 8, 8, 9, 9", "\uff14, 5",
    ],
    "curve": ["\u0663: \uff11", "0: 1\r\n4: 0\r\n", "\ufeff0: 1", "0: 1_0", "0: 0,5", "\u22121: 1",
        "0: 1.0, -1: 0", "0: 0.5", "3: 2; 1: 1", "1" * 100_000 + "x", "0: 99999999999", "-1: 1, -1: 2"],
    "filename_prefix": ["a", "a/b", "../x", "", "a/", "x" * 300, "a\0b", "/etc/x", "%year%"],
    "positions": ["\u0663, \uff11", "0;4", "0\t4", "1_0", "+1", "\u22121", "0x1", "1e3",
        "0, -1", "0", "0, 4", "-1, 0, 1", "99999", "9" * 400, ",,,", "1.5", "-900"],
    "colors": ["red", "#fff, black", "rgb(300, 0, 0)", "hsl(0,0%,0%)", "red," * 50_000, "nope",
        "#" + "f" * 99],
    "aspect": ["\uff11\uff16:9", "16/9", "16x9", "16 : 9", "1e3:1", "16:9:",
        "16:9", "1:1", "2.39", "0:0", "9" * 400 + ":1", "nan:1", "1:1:1", "64:1", "-1:2"],
}  # fmt: skip


def pick(rng: random.Random, *weighted):
    """One of (weight, value) pairs; a callable is called."""
    weights, values = zip(*weighted, strict=True)
    value = rng.choices(values, weights)[0]
    return value() if callable(value) else value


class Values:
    """Draws values for one call after another; what earlier calls returned is used again."""

    def __init__(self, model, clip, vae):
        self.model, self.vae = model, vae
        tokens = clip.encode_from_tokens_scheduled(clip.tokenize("a red circle"))
        self.pool = {
            "VDOT_VCU": [],
            "VDOT_CROP": [],
            "VDOT_SCHEDULE": [()],
            "CONDITIONING": [tokens],
            "LATENT": [],
        }
        self.start(random.Random(0))

    def start(self, rng: random.Random) -> None:
        """Begin a call: images and masks of it are mostly alike."""
        self.rng = rng
        self.noise = torch.Generator().manual_seed(rng.randrange(2**31))
        self.size = rng.choice(LENGTHS), rng.choice(SIDES), rng.choice(SIDES)

    def keep(self, kind: str, value) -> None:
        if kind in self.pool:
            self.pool[kind] = [*self.pool[kind][-15:], value]

    def draw(self, entry):
        """A value for an input of a schema."""
        if self.rng.random() < 0.02:
            return self.rng.choice(JUNK)
        return getattr(self, f"draw_{entry.get_io_type().lower()}")(entry)

    def draw_int(self, entry):
        low, high = entry.min, entry.max
        return pick(
            self.rng, (6, entry.default), (2, low), (2, high),
            (3, lambda: self.rng.randint(low, min(high, 128))),
            (1, lambda: self.rng.randint(low, high)), (0.2, lambda: torch.tensor(max(low, 1))),
            (0.2, float(low)),
            (0.1, low - 1), (0.1, high + 1), (0.1, math.nan), (0.1, True),
        )  # fmt: skip

    def draw_float(self, entry):
        low, high = entry.min, entry.max
        return pick(
            self.rng, (5, entry.default), (1, low), (1, high), (3, lambda: self.rng.uniform(low, high)),
            (0.1, math.nan), (0.1, -math.inf), (0.1, True), (0.1, high * 2 + 1),
        )  # fmt: skip

    def draw_boolean(self, entry):
        return self.rng.choice([True, False, True, False, 1, 0, 2])

    def draw_combo(self, entry):
        return self.rng.choice([*entry.options, *entry.options, "../x/"])

    def draw_string(self, entry):
        return pick(self.rng, (3, entry.default), (7, lambda: self.rng.choice(TEXTS[entry.id])))

    def draw_image(self, entry):
        length, height, width = self._shape()
        channels = pick(self.rng, (20, 3), (1, 1), (1, 2), (1, 4))
        image = torch.rand(length, height, width, channels, generator=self.noise)
        if self.rng.random() < 0.15:
            image = image[..., :1].expand_as(image).clone()
        return self._odd(image)

    def draw_mask(self, entry):
        length, height, width = self._shape()
        mask = torch.zeros(self.rng.choice([1, length, length]), height, width)
        top, left = self.rng.randrange(height), self.rng.randrange(width)
        mask[:, top : top + height // 2 + 1, left : left + width // 2 + 1] = 1
        first = mask.amax(0) if len(mask) else mask
        return self._odd(pick(self.rng, (8, mask), (1, first), (1, mask * 0), (1, mask * 0 + 1)))

    def draw_latent(self, entry):
        shape = pick(
            self.rng, (5, (1, 16, 2, 8, 8)), (1, (1, 4, 8, 8)), (1, (1, 48, 2, 4, 4)), (1, (2, 16, 1, 4, 6)),
            (1, (1, 16, 0, 8, 8)), (1, (1, 16, 1, 1, 1)), (0.5, (1, 16, 8, 8)), (0.5, (0, 16, 1, 8, 8)),
        )  # fmt: skip
        samples = self._odd(torch.zeros(shape))
        latent = {"samples": samples}
        if self.rng.random() < 0.3:
            side = self.rng.choice([8, 64, 5])
            latent["noise_mask"] = self._odd(
                torch.ones(self.rng.choice([(1, side, side), (2, 3, side, side), (side,)]))
            )
        if self.rng.random() < 0.1:
            latent["samples"] = self._nested(samples)
        if self.rng.random() < 0.1:
            latent["vdot_num_reference_latents"] = self.rng.choice([1, 99, -1, None, "x"])
        if self.rng.random() < 0.1:
            latent["batch_index"] = self.rng.choice([[0], [5, 5], "x", [10**12]])
        return self._from_pool("LATENT", latent)

    def draw_conditioning(self, entry):
        width = self.pool["CONDITIONING"][0][0][0].shape[-1]
        frames, mask = torch.zeros(1, 32, 2, 8, 8), torch.zeros(1, 64, 2, 8, 8)
        vace = {"vace_frames": [frames], "vace_mask": [mask], "vace_strength": [1.0]}
        others = [
            [], [[torch.zeros(1, 77, 768), {"pooled_output": torch.zeros(1, 768)}]],
            [[torch.zeros(1, 5, width), {}]],
            [[torch.zeros(2, 5, width), dict(vace)]], [[torch.zeros(1, 5, width), vace | {"vace_mask": []}]],
            [[torch.zeros(1, 5, width), {"vace_frames": "x"}]], [[torch.zeros(5, width), {}]],
            [[torch.full((1, 5, width), math.nan), {}]], [[torch.zeros(1, 0, width), {}]], [["text", {}]],
        ]  # fmt: skip
        return self._from_pool("CONDITIONING", self.rng.choice([self.pool["CONDITIONING"][0], *others]))

    def draw_model(self, entry):
        return pick(
            self.rng,
            (20, self.model),
            (1, SimpleNamespace(model=None, model_options={})),
            (1, lambda: self.vae),
        )

    def draw_vae(self, entry):
        other = SimpleNamespace(first_stage_model=torch.nn.Identity(), latent_channels=4)
        return pick(self.rng, (20, lambda: self.vae), (1, other), (1, lambda: self.model))

    def draw_vdot_vcu(self, entry):
        return self._from_pool("VDOT_VCU", None)

    def draw_vdot_crop(self, entry):
        return self._from_pool("VDOT_CROP", None)

    def draw_vdot_size(self, entry):
        kind = submodule("vdot_core.vcu").VideoSize
        sizes = ("48p", 64, 48, 9), ("demo", 64, 64, 17), ("tiny", 16, 16, 1), ("tall", 16, 128, 5)
        return kind(*self.rng.choice(sizes))

    def draw_video(self, entry):
        length, height, width = self._shape()
        frames = self._odd(
            torch.rand(length, height, width, self.rng.choice([3, 3, 1, 4]), generator=self.noise)
        )
        rate = self.rng.choice([16, 16.0, 30, 29.97, 0, -1, None, math.nan, 1e9, 1e-9, True])
        parts = SimpleNamespace(images=frames, frame_rate=rate, audio=self.draw_audio(entry))
        made = SimpleNamespace(get_components=lambda: parts)
        return pick(
            self.rng, (9, made), (1, None), (1, SimpleNamespace(get_components=None)), (1, lambda: self.model)
        )

    def draw_vdot_schedule(self, entry):
        return self._from_pool("VDOT_SCHEDULE", ())

    def draw_audio(self, entry):
        shape = self.rng.choice([1, 1, 2]), self.rng.choice([1, 2, 6]), self.rng.choice([0, 1, 9000, 9000])
        wave = self._odd(torch.rand(shape, generator=self.noise))
        rate = self.rng.choice([8000, 44100, 44100, 7, 0, "x"])
        return pick(self.rng, (3, {"waveform": wave, "sample_rate": rate}), (1, {"waveform": wave}), (1, {}))

    def draw_optical_flow(self, entry):
        return pick(self.rng, (20, None), (1, SimpleNamespace(model=None)))

    def draw_pose_keypoint(self, entry):
        number = pick(
            self.rng, (8, lambda: self.rng.uniform(0, 64)), (1, 1e9), (1, -5.0), (1, math.nan), (1, 10**400)
        )
        points = [number, self.rng.uniform(0, 64), self.rng.choice([0.0, 1.0, 1.0])] * pick(
            self.rng, (9, 18), (1, 25), (1, 7)
        )
        person = {
            "pose_keypoints_2d": points,
            "face_keypoints_2d": points[: 3 * 6],
            "hand_left_keypoints_2d": None,
        }
        frame = {
            "people": [person] * self.rng.randint(0, 3),
            "canvas_width": 64,
            "canvas_height": self.rng.choice([64, 64, 0, 10**400]),
        }
        wrong = [
            [],
            [{}],
            [5],
            {"people": []},
            [{"people": 5}],
            [{"people": ["x"]}],
            [{"people": [{"face_keypoints_2d": ["x"]}]}],
        ]
        return pick(
            self.rng, (9, lambda: [frame] * self.rng.randint(1, 5)), (2, lambda: self.rng.choice(wrong))
        )

    def draw_bounding_box(self, entry):
        box = {
            "x": self.rng.uniform(-9, 40),
            "y": 3,
            "width": self.rng.choice([9, 0, 1e5]),
            "height": 9,
            "score": 1,
        }
        wrong = [
            [5],
            {"x": 1},
            [{**box, "x": math.nan}],
            [[box], 5],
            "box",
            [{**box, "width": -1}],
            [{**box, "x": 10**400}],
            None,
        ]
        return pick(
            self.rng,
            (4, box),
            (4, lambda: [box, box]),
            (4, lambda: [[box]] * self.size[0]),
            (3, lambda: self.rng.choice(wrong)),
        )

    def _from_pool(self, kind: str, otherwise):
        """A value that a node returned earlier, the newest more often."""
        cached = self.pool[kind]
        if not cached or self.rng.random() < 0.25:
            return otherwise
        return cached[-1] if self.rng.random() < 0.5 else self.rng.choice(cached)

    def _shape(self) -> tuple[int, int, int]:
        if self.rng.random() < 0.85:
            return self.size
        return pick(
            self.rng, (1, (1, 1, 1)), (1, (5, 1, 64)), (1, (0, 16, 16)), (1, (3, 40, 24)), (1, (2, 300, 2))
        )

    def _odd(self, tensor: torch.Tensor) -> torch.Tensor:
        """Mostly the tensor itself."""
        changes = [
            torch.Tensor.half, torch.Tensor.double, torch.Tensor.bfloat16, torch.Tensor.bool,
            torch.Tensor.long,
            lambda t: t * math.nan, lambda t: t * 255, lambda t: t - 5, lambda t: t / 0, lambda t: t[None],
            lambda t: t * 1.05, lambda t: (t * 255).byte(), lambda t: t.to(torch.complex64),
            lambda t: t.numpy(),
            lambda t: t.clone().requires_grad_() if t.is_floating_point() else t,
        ]  # fmt: skip
        return self.rng.choice(changes)(tensor) if self.rng.random() < 0.08 else tensor

    def _nested(self, tensor):
        from comfy.nested_tensor import NestedTensor

        return NestedTensor([tensor, tensor])
