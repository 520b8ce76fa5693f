"""Measures the forms in which a network can be stored: size, loss, and the cost of making them.

    python dev.py bench forms [--parts student random making] [--layers N] [--llama_quantize PROGRAM]

Student: the relative difference of the tiny student's velocity from that of the file that it was made from,
over the steps of drawn clips, in float32; safetensors run in ComfyUI as its loader reads them. Sizes at 14B
follow from shapes. Random: the same of one step of 1.3B with random weights, opened as VDOT Load Model does,
and the memory that loading takes. Making: a sparse file of 14B's width and N blocks. Prints tables.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.core.checkpoints.helpers import SUBPROCESS_ENV, write_header_only  # noqa: E402
from tests.scale.random_weights import write_random  # noqa: E402
from tests.scale.sparse import ANONYMOUS  # noqa: E402
from tiny.clips.shapes import SPLITS, clip  # noqa: E402
from tiny.evaluation.config import SamplerConfig  # noqa: E402
from tiny.evaluation.generate import UnitEncoder, load_tiny, sample_latents  # noqa: E402
from tiny.tasks import build_unit  # noqa: E402
from vdot_core.checkpoints import convert, convert_to_gguf, load_network  # noqa: E402
from vdot_core.checkpoints.forms import FORMS, form_specs, is_block_matrix  # noqa: E402
from vdot_core.checkpoints.ggml_types import num_packed_bytes  # noqa: E402
from vdot_core.checkpoints.gguf_write import GGUF_TYPES, K_TYPES, format_of  # noqa: E402
from vdot_core.checkpoints.tensor_files import TensorSpec  # noqa: E402
from vdot_core.networks import WanVaceConfig, expected_shapes, wan_vace_1_3b, wan_vace_14b  # noqa: E402

STUDENT = ROOT / "assets" / "vdot_tiny_student.safetensors"
SAMPLER = SamplerConfig(steps=4, shift=8.0, solver="renoise", labels="exact", guidance=1.0)
TASKS = ("text", "depth", "inpainting", "reference")
KINDS = ("bf16", *FORMS, *GGUF_TYPES)
# One process per form, because a peak cannot be reset.
MAKE = """
import re, sys
from vdot_core.checkpoints.__main__ import main
import gguf
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
before = peak()
status = main(sys.argv[1:])
print("peak", peak() - before)
sys.exit(status)
"""
# The anonymous memory of a load, pages of the mapped file not counted, and one step's velocity: one process
# with ComfyUI imported forks one child per file.
LOAD = """
import json, os, sys
MOST_MB = 12_000
small, sys.argv[1:] = sys.argv[1], []
import torch
from safetensors.torch import save_file
torch.set_num_threads(1)
from tests.scale.test_real_width import inputs
from tests.support.pack import submodule
loading = submodule("nodes.comfy_loading")

def load():
    model = loading.load_model(path)
    model.load(torch.device("cpu"), full_load=True)
    return model.model.diffusion_model

loading.load_model(small)
for line in sys.stdin:
    path, out = json.loads(line)
    if os.fork() == 0:
        with torch.inference_mode():
            network, _, peak = grown_mb(load)
            noise, options = inputs()
            save_file({"velocity": network(noise, torch.tensor([999.0]), **options).contiguous()}, out)
        print("peak", peak, flush=True)
        os._exit(0)
    if os.wait()[1]:
        sys.exit(1)
"""
PARTS = ("student", "random", "making")
Call = tuple[torch.Tensor, ...]  # x, timestep, text, contexts
Velocity = Callable[[Call], torch.Tensor]


def arguments_of(kind: str, target: Path) -> list[str]:
    """Options of the convert command that make a kind, and the file to write."""
    if kind in GGUF_TYPES:
        return [str(target.with_suffix(".gguf")), "--type", kind]
    return [str(target.with_suffix(".safetensors")), "--dtype", kind]


def bytes_at_14b(kind: str) -> int:
    """Size of 14B's bf16 network in a kind, from shapes alone."""
    total = 0
    for name, shape in expected_shapes(wan_vace_14b()).items():
        spec = TensorSpec(tuple(shape), torch.bfloat16)
        if kind in GGUF_TYPES:
            total += num_packed_bytes(format_of(name, spec, kind), spec.num_elements)
        elif kind in FORMS and is_block_matrix(name, spec):
            total += sum(part.num_bytes for part in form_specs(kind, name, spec).values())
        else:
            total += spec.num_bytes
    return total


def student_calls(num_clips: int) -> list[Call]:
    """Inputs of the student's network in its four steps, over clips of several tasks."""
    model, calls = load_tiny(ROOT / "assets", STUDENT), []
    encoder = UnitEncoder(model)
    handle = model.network.register_forward_pre_hook(lambda _, inputs: calls.append(inputs))
    clips = [clip(SPLITS["evaluation"].start + index) for index in range(num_clips)]
    for task in TASKS:
        contexts, _ = encoder([build_unit(task, one) for one in clips])
        sample_latents(model, contexts, [one.captions[-1] for one in clips], SAMPLER, range(num_clips))
    handle.remove()
    return calls


def our_velocity(path: Path) -> Velocity:
    network = load_network(path, dtype=torch.float32)
    return lambda call: network(*call)


def comfyui_velocity(path: Path) -> Velocity:
    """The network as ComfyUI's loader reads it, computing in float32."""
    from tests.support.comfy import import_comfy
    from tests.support.pack import load_pack, submodule

    import_comfy()
    load_pack()
    submodule("nodes.comfy_bridge").register_network()
    import comfy.model_management
    import comfy.sd

    model = comfy.sd.load_diffusion_model(str(path))
    comfy.model_management.load_models_gpu([model])
    network = model.model.diffusion_model

    def velocity(call: Call) -> torch.Tensor:
        x, timestep, text, contexts = call
        return network(x, timestep, text, vace_context=contexts, vace_strength=[1.0])

    return velocity


@torch.inference_mode()
def loss_rows(num_clips: int) -> Iterator[str]:
    """A table row per kind: size at 14B, the student's size, and the difference of its velocity."""
    calls = student_calls(num_clips)
    reference = [our_velocity(STUDENT)(call) for call in calls]
    norm = torch.stack([value.norm() for value in reference]).norm()
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            target = Path(folder, kind)
            if kind in GGUF_TYPES:
                path = convert_to_gguf(STUDENT, target.with_suffix(".gguf"), kind).path
            else:
                form = {"form": kind} if kind in FORMS else {"dtype": torch.bfloat16}
                path = convert(STUDENT, target.with_suffix(".safetensors"), **form).path
            velocity = our_velocity(path) if kind in GGUF_TYPES else comfyui_velocity(path)
            errors = [(velocity(call) - value).norm() for call, value in zip(calls, reference, strict=True)]
            error = torch.stack(errors).norm() / norm
            yield f"| {kind} | {bytes_at_14b(kind) / 1e9:.1f} GB | {path.stat().st_size:,} | {error:.4f} |"


def random_rows(num_layers: int, llama_quantize: str | None) -> Iterator[str]:
    """A table row per kind: 1.3B's size, memory to load, and the difference of one step's velocity."""
    config = wan_vace_1_3b()
    layers = tuple(layer for layer in config.vace_layers if layer < num_layers)
    config = replace(config, num_layers=num_layers, vace_layers=layers)
    k_types = K_TYPES if llama_quantize else ()
    command = [sys.executable, "-c", ANONYMOUS + LOAD, str(STUDENT)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, cwd=ROOT, env=SUBPROCESS_ENV, **pipes) as process,
    ):
        source, out = write_random(Path(folder, "bf16.safetensors"), config), Path(folder, "out.safetensors")
        for kind in ("bf16", *FORMS, *GGUF_TYPES, *k_types):
            path = source
            if kind in FORMS:
                path = convert(source, Path(folder, f"{kind}.safetensors"), form=kind).path
            elif kind != "bf16":
                target = Path(folder, f"{kind}.gguf")
                path = convert_to_gguf(source, target, kind, llama_quantize=llama_quantize).path
            process.stdin.write(json.dumps([str(path), str(out)]) + "\n")
            process.stdin.flush()
            answer = next((line for line in process.stdout if line.startswith("peak ")), None)
            if answer is None:
                raise RuntimeError(f"{kind} could not be measured; its error is above")
            velocity = load_file(out)["velocity"]
            size, peak = path.stat().st_size, float(answer.split()[1]) * 2**20
            if path == source:
                reference = velocity
            else:
                path.unlink()
            error = (velocity - reference).norm() / reference.norm()
            yield (
                f"| {kind} | {size / 1e9:.2f} GB | {peak / 1e9:.2f} GB | {peak / size:.2f} | {error:.4f} |"
            )


def making_rows(num_layers: int) -> Iterator[str]:
    """A table row per kind: peak memory and time of the convert command, and a copy's time."""
    config: WanVaceConfig = replace(wan_vace_14b(), num_layers=num_layers, vace_layers=(0,))
    with tempfile.TemporaryDirectory() as folder:
        source = write_header_only(Path(folder, "source.safetensors"), expected_shapes(config))
        for kind in KINDS:
            options = [str(source), *arguments_of(kind, Path(folder, "out")), "--overwrite"]
            command = [sys.executable, "-c", MAKE, "convert", *options]
            run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            peak = int(re.search(r"^peak (\d+)$", run.stdout, re.M)[1])
            size, seconds, copy = re.search(r"([\d.]+) GB in (\d+) s; .* takes (\d+) s", run.stderr).groups()
            yield f"| {kind} | {peak / 1e9:.2f} GB | {size} GB | {seconds} s | {copy} s |"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=2, help="drawn clips of each task (default: 2)")
    parser.add_argument("--layers", type=int, default=2, help="blocks of the sparse file (default: 2)")
    parser.add_argument("--blocks", type=int, default=30, help="random blocks of 1.3B (default: 30)")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)"
    )
    parser.add_argument(
        "--llama_quantize", metavar="PROGRAM", help="measures the random network's K types too"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    tables = {
        "student": (
            "| form | 14B | tiny student, bytes | difference of its velocity |\n|---|---|---|---|",
            lambda: loss_rows(options.clips),
        ),
        "random": (
            "| form | 1.3B | anonymous memory to load | over the file's size | difference of its velocity |\n"
            "|---|---|---|---|---|",
            lambda: random_rows(options.blocks, options.llama_quantize),
        ),
        "making": (
            "| form | peak memory | from | time | a copy of the source |\n|---|---|---|---|---|",
            lambda: making_rows(options.layers),
        ),
    }
    for part in options.parts:
        head, rows = tables[part]
        print(f"\n{head}")
        for row in rows():
            print(row, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
