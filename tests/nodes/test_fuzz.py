"""No call of a node ends in anything but a result or a short sentence, whatever comes over its links."""

import signal

import pytest

from tests.nodes import fuzz
from tests.support.comfy import ROOT
from tests.support.pack import submodule


@pytest.fixture(scope="module")
def fuzzer(pack, tmp_path_factory):
    import folder_paths

    memory = submodule("vdot_core.memory")
    free, temp, alarm = (
        memory.available_bytes,
        folder_paths.get_temp_directory(),
        signal.getsignal(signal.SIGALRM),
    )
    folders = dict(folder_paths.folder_names_and_paths)
    # The same files whatever other tests left in theirs: a seed means the same cases every time.
    for name in ("diffusion_models", "loras", "unet_gguf"):
        if name in folders:
            folder_paths.folder_names_and_paths[name] = ([str(ROOT / "assets")], folders[name][1])
    folder_paths.filename_list_cache.clear()
    yield fuzz.prepare(str(tmp_path_factory.mktemp("temp")))
    folder_paths.folder_names_and_paths.update(folders)
    folder_paths.filename_list_cache.clear()
    memory.available_bytes = free
    folder_paths.set_temp_directory(temp)
    signal.signal(signal.SIGALRM, alarm)


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="the time of a call is watched by SIGALRM")
@pytest.mark.parametrize("seed", range(2))
def test_every_node_answers_or_refuses_in_a_short_sentence(fuzzer, seed, fuzz_cases):
    outcomes = fuzzer.run(fuzz_cases(120), seed)
    assert sum(outcomes[key] for key in outcomes if key[1] == "result") > 20
    assert sum(outcomes[key] for key in outcomes if key[1] == "refused") > 20


def test_the_watch_sees_what_it_is_for(fuzzer, monkeypatch):
    """A foreign error, a long sentence, one without advice, and memory."""
    import torch

    def fails(error):
        def execute(cls, **values):
            raise error

        return execute

    node = type(fuzzer.nodes["VDOTText"].__name__, (fuzzer.nodes["VDOTText"],), {})
    monkeypatch.setitem(fuzzer.nodes, "VDOTText", node)
    size = {"width": 64, "height": 64, "length": 5}
    for error in (
        IndexError("x"),
        ValueError("give " * 100),
        ValueError("a sentence that helps no one"),
        KeyError(1),
    ):
        node.execute = classmethod(fails(error))
        with pytest.raises((AssertionError, IndexError, KeyError)):
            fuzzer.call("VDOTText", size)

    def hungry(cls, **values):
        torch.ones(300_000_000)
        raise ValueError("give this sentence a reason")

    node.execute = classmethod(hungry)
    with pytest.raises(AssertionError, match="GB more memory"):
        fuzzer.call("VDOTText", size)
