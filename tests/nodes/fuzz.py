"""Random calls of every node: each gives a result, or one short sentence that says what to do.

python -m tests.nodes.fuzz 1000 SEED       collects what fails, by node and error
"""

import logging
import random
import re
import signal
import sys
import traceback
from collections import Counter, defaultdict

import torch

from tests.nodes.fuzz_values import Values
from tests.nodes.names import foreign_names, inputs_of, parameters
from tests.support.memory import Resident
from tests.support.pack import load_nodes, run_node, submodule

CURES = (
    "give", "expected", "connect", "pick", "choose", "use ", "load ", "move ", "set ", "write", "divide",
    "remove", "crop", "convert", "change", "repaint one", "take ", "mark", "make ", "repair", "install",
    "fill", "keep ", "put ", "look at", "ask for", "find them", "needs", "drop", "empty the one", "paint",
    "update", "run ",
)  # fmt: skip
PYTHON = re.compile(r"(?<!is a )(?<!--)\b(None|NoneType|dict|tensor|tuple|sequence|dtype|VCU)\b|\[F, H|\w=")
FREE_BYTES, GROWTH_BYTES, CASE_S = 3e8, 1e9, 60


class Fuzzer:
    """The nodes, loaded once, with little memory to use."""

    def __init__(self):
        self.nodes = load_nodes()
        self.values = Values(*submodule("nodes.comfy_demo").load_demo())
        self.resident = Resident()
        self.known = parameters().union(*map(inputs_of, self.nodes.values()))

    def run(self, count: int, seed: int) -> Counter:
        """Make so many calls; (node, 'result' or 'refused') counted. Whatever else happens is raised."""
        outcomes: Counter = Counter()
        for number in range(count):
            node_id, values = self.case(seed * 1_000_003 + number)
            try:
                outcomes[node_id, self.call(node_id, values)] += 1
            except Exception as error:
                raise AssertionError(f"case {number} of seed {seed}: {described(node_id, values)}") from error
        return outcomes

    def collect(self, count: int, seed: int) -> dict:
        """As `run`, but all failures, by node, error and place."""
        failures = defaultdict(list)
        for number in range(count):
            node_id, values = self.case(seed * 1_000_003 + number)
            try:
                self.call(node_id, values)
            except Exception as error:
                frames = traceback.extract_tb(error.__traceback__)
                place = next(
                    (f for f in reversed(frames) if "vdot_core" in f.filename or "/nodes/" in f.filename),
                    frames[-1],
                )
                key = node_id, type(error).__name__, f"{place.filename[-40:]}:{place.lineno}"
                failures[key].append((number, str(error)[:500], described(node_id, values)))
        return failures

    def case(self, seed: int) -> tuple[str, dict]:
        rng = random.Random(seed)
        torch.manual_seed(rng.randrange(2**31))
        node_id = rng.choice(sorted(self.nodes))
        self.values.start(rng)
        values = {}
        for entry in self.nodes[node_id].define_schema().inputs:
            if hasattr(entry, "template"):
                inner, names = (
                    entry.template.input,
                    [f"{entry.template.input.id}{i}" for i in range(rng.randint(0, 3))],
                )
                values[entry.id] = {name: self.values.draw(inner) for name in names}
            elif not entry.optional or rng.random() < 0.4:
                values[entry.id] = self.values.draw(entry)
        return node_id, values

    def call(self, node_id: str, values: dict) -> str:
        """'result' or 'refused'; AssertionError for a bad sentence, result, or too much memory or time."""
        self.resident.start()
        signal.alarm(CASE_S)
        try:
            outputs = run_node(self.nodes[node_id], **values).args
        except ValueError as refusal:
            check_sentence(str(refusal))
            foreign = foreign_names(str(refusal), self.nodes[node_id], self.known)
            assert not foreign, f"names that are none of its inputs, {foreign}: {refusal}"
            return "refused"
        finally:
            signal.alarm(0)
            grown = self.resident.grown_bytes()
            assert grown < GROWTH_BYTES, f"{grown / 1e9:.1f} GB more memory"
        for kind, value in zip(self.nodes[node_id].GET_SCHEMA().outputs, outputs, strict=False):
            self.check_output(kind.get_io_type(), value)
        return "result"

    def check_output(self, kind: str, value) -> None:
        if kind in ("IMAGE", "MASK"):
            low, high = (float(bound) for bound in value.aminmax())
            assert value.dtype == torch.float32 and 0 <= low <= high <= 1, (value.dtype, low, high)
        small = kind != "VDOT_VCU" or value.frames.numel() < 2e6
        if small:
            self.values.keep(kind, value)


def check_sentence(text: str) -> None:
    """A refusal is short, printable, says what to do, and nothing that only a programmer understands."""
    assert 20 < len(text) <= 400, f"{len(text)} characters: {text[:600]}"
    assert text.isprintable(), f"not printable: {text!r}"
    assert not PYTHON.search(text), f"words of Python: {text}"
    assert any(cure in text.lower() for cure in CURES), f"no cure: {text}"


def described(node_id: str, values: dict) -> str:
    """A call in an error."""

    def short(value):
        if isinstance(value, dict):
            return {key: short(item) for key, item in list(value.items())[:8]}
        if isinstance(value, torch.Tensor):
            return f"{value.dtype} {list(value.shape)}"
        try:
            return repr(value)[:80]
        except ValueError:
            return "a long number"

    return f"{node_id} with {short(values)}"


def expired(*_):
    raise TimeoutError(f"a call took more than {CASE_S} s")


def prepare(temp_folder: str) -> Fuzzer:
    """A fuzzer whose nodes have `FREE_BYTES` to use, and write previews into a folder."""
    fuzzer = Fuzzer()
    import folder_paths

    folder_paths.set_temp_directory(temp_folder)
    folder_paths.set_output_directory(temp_folder)
    logging.getLogger("vdot").setLevel(logging.WARNING)
    signal.signal(signal.SIGALRM, expired)
    submodule("vdot_core.memory").available_bytes = lambda: FREE_BYTES
    return fuzzer


def main(count: int, seed: int) -> None:
    import tempfile
    import time

    with tempfile.TemporaryDirectory() as folder:
        fuzzer = prepare(folder)
        start = time.perf_counter()
        failures = fuzzer.collect(count, seed)
        seconds, num_failures = time.perf_counter() - start, sum(map(len, failures.values()))
        print(f"{count} cases of seed {seed} in {seconds:.0f} s, {num_failures} fail")
    for key, cases in sorted(failures.items(), key=lambda item: -len(item[1])):
        print(len(cases), *key, "\n    ", *map(str, cases[0]), sep="  ")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
