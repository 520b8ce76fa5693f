"""Values that come over a link are checked as typed ones are: ComfyUI looks only at the latter."""

import math
import re

import pytest
import torch

from tests.support.pack import run_node, submodule

NAMES = ["/etc/", "../../x/", "", "x" * 10**6, "\ud800", 5, None, True, ["vdot"], b"x", torch.zeros(3), {}]
NO_NUMBERS = [math.nan, math.inf, -math.inf, 10**400, -(10**5000), "1", None, [1], torch.zeros(2), 1j]
OTHERS = {
    "COMBO": NAMES,
    "INT": [*NO_NUMBERS, 0.5, True, 2**70],
    "FLOAT": [*NO_NUMBERS, True],
    "BOOLEAN": [2, "no", None, torch.zeros(2), math.nan],
    "STRING": [5, b"x", ["a"], "x" * 1_000_001, torch.zeros(3)],
    "IMAGE": [5, "x" * 10**6, torch.rand(5, 16, 16), torch.rand(0, 16, 16, 3), torch.rand(5, 16, 16, 2), {}],
    "MASK": [5, "x" * 10**6, torch.rand(1, 1, 5, 16, 16), torch.rand(0, 16, 16), []],
    "LATENT": [5, torch.rand(1, 16, 1, 8, 8), {}, {"samples": None}, []],
    "CONDITIONING": [5, "text", [5], [[torch.rand(1, 5, 8)]], [[torch.rand(3), {}]], {"a": 1}, None],
    "MODEL": [5, "model", {}],
    "VAE": [5, "vae", {}],
    "OPTICAL_FLOW": [5, "raft", {}],
    "VDOT_VCU": [5, torch.rand(5, 16, 16, 3), {}],
    "VDOT_CROP": [5, (0, 0, 16, 16), {}],
}


def ports(node):
    """(input, the values by which a node is called with one value of it), growing inputs included."""
    inputs = node.define_schema().inputs
    # A node looks at its files' names itself, so that it is called with the rest too.
    rest = {entry.id: entry.default for entry in inputs if getattr(entry, "default", None) is not None}
    for entry in inputs:
        if hasattr(entry, "template"):
            name = f"{entry.template.input.id}0"
            yield entry.template.input, name, lambda value, e=entry, n=name: {e.id: {n: value}}
        else:
            others = rest if getattr(entry, "takes_others", False) else {}
            yield entry, entry.id, lambda value, e=entry, others=others: {**others, e.id: value}


def wrong_values(entry):
    """Values that an input must refuse; None is how an optional one is left out."""
    yield from (value for value in OTHERS.get(entry.get_io_type(), []) if value is not None)
    if entry.get_io_type() in ("INT", "FLOAT"):
        yield from (entry.min - 1, entry.max + 1)


def test_every_input_of_every_node_refuses_what_it_does_not_offer(node_classes):
    refused = 0
    for node_id, node in node_classes.items():
        for entry, name, call in ports(node):
            for value in wrong_values(entry):
                with pytest.raises(ValueError) as error:
                    run_node(node, **call(value))
                text = str(error.value)
                where = f"{node_id}.{name} with {type(value).__name__}: {text}"
                assert text.isprintable(), where
                if isinstance(value, str) and getattr(entry, "takes_others", False):
                    assert re.search(r"; (put|choose|pick|give|upload)", text) and len(text) <= 400, where
                    continue
                assert text.startswith(f"{name} ") and "expected" in text and len(text) <= 400, where
                refused += 1
    assert refused > 1000


def test_a_required_input_is_never_none(node_classes):
    for node in node_classes.values():
        for entry, name, call in ports(node):
            if entry.get_io_type() in OTHERS and not entry.optional and name == entry.id:
                with pytest.raises(ValueError, match=f"^{name} is missing, expected"):
                    run_node(node, **call(None))


def test_an_optional_input_that_is_none_has_its_default(run):
    clip, size = torch.rand(5, 32, 32, 3), {"width": 0, "height": 0, "length": 0}
    plain = run("VDOTControl", frames=clip, **size).args[0]
    same = run("VDOTControl", frames=clip, **size, strength=None, start_frame=None, region=None).args[0]
    assert plain == same


def test_a_mask_of_any_layout_is_one_mask_a_frame(run):
    """[H, W], and channels of one in both places, as other packs give them."""
    clip, mask = torch.rand(5, 32, 32, 3), torch.zeros(5, 32, 32)
    mask[:, 8:24, 8:24] = 1
    size = {"width": 32, "height": 32, "length": 5}
    edit = {"mask_shape": "original", "expand": 0.0, **size}
    calls = (
        ("VDOTMask", {"frames": clip, **edit}, lambda mask: {"mask": mask}, 5),
        ("VDOTLayout", {"boxes": "", **size}, lambda mask: {"masks": {"mask0": mask}}, 5),
        ("VDOTReference", {"images": {"image": clip[:1]}, **size}, lambda mask: {"masks": {"mask": mask}}, 1),
    )
    for node, values, placed, count in calls:
        full = mask[:count]
        for one, other in ((full, full[:, None]), (full, full[..., None]), (full[:1], full[0])):
            plain, same = (run(node, **values, **placed(form)).args[0] for form in (one, other))
            assert plain == same
    with pytest.raises(ValueError, match="mask is a Tensor of shape"):
        run("VDOTMask", frames=clip, mask=clip, **edit)


def test_names_outside_the_model_folders_are_not_even_looked_for(model_folder, monkeypatch):
    """Also where no node stands before it."""
    import folder_paths

    files = submodule("nodes.comfy_files")
    (model_folder.parent / "secret").mkdir(exist_ok=True)
    monkeypatch.setattr(folder_paths, "get_full_path", lambda *names: pytest.fail(f"looked for {names}"))
    for name in ("/etc/", "../secret/", "/etc/passwd", "..", "vdot_meta.safetensors/../../secret/", 5, ""):
        with pytest.raises(ValueError, match="no model '"):
            files.checkpoint_path(name)


def test_numbers_arrive_plain(node_classes):
    """An integer of another type, such as numpy's or a tensor's, becomes an int."""
    guard = submodule("nodes.guard")
    inputs = node_classes["VDOTPasteBack"].define_schema().inputs
    for value in (8, 8.0, torch.tensor(8)):
        checked = guard.checked_inputs(inputs, {"feather_px": value})
        assert checked == {"feather_px": 8} and type(checked["feather_px"]) is int


def test_a_node_shows_progress_and_ends_when_interrupted(run, comfy, monkeypatch):
    import comfy.model_management
    import comfy.utils

    calls = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda count, total, *_, **__: calls.append((count, total))
    )
    inputs = {"frames": torch.rand(5, 32, 32, 3), "mask": torch.ones(5, 32, 32), "mask_shape": "box"}
    inputs |= {"expand": 0.0, "width": 0, "height": 0, "length": 0}
    run("VDOTMask", **inputs)
    assert calls[-1] == (5, 5)
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run("VDOTMask", **inputs)
    run("VDOTMask", **inputs)


def test_a_vae_on_the_cpu_is_not_given_more_than_fits(run, vae, text, monkeypatch):
    """It is estimated by its own width: Wan's would take six times as much."""
    unit = run("VDOTText", width=256, height=256, length=1).args[0]
    inputs = {"positive": text, "vae": vae, "unit": unit, "strength": 1.0}
    needed = vae.memory_used_encode((1, 3, 1, 256, 256), vae.vae_dtype) * vae.first_stage_model.dim / 96
    memory = submodule("vdot_core.memory")
    monkeypatch.setattr(memory, "available_bytes", lambda: 0.9 * needed / memory.USABLE)
    with pytest.raises(ValueError, match=r"256x256 on the CPU needs .*smaller width"):
        run("VDOTEncode", **inputs)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1.1 * needed / memory.USABLE)
    run("VDOTEncode", **inputs)
