"""A watchdog for one call: its time, its memory, and the words in which it refuses."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# One of them is in every refusal: what to do, or what was expected.
CURES = (
    "download", "give", "check the path", "try again", "save", "update", "remove", "expected", "leave",
    "load", "incomplete file", "rename", "put ", "likely cause", "convert", "changed after writing", "use ",
    "damaged", "not read", "are read", "not a wan",
)  # fmt: skip
FOREIGN = ("Traceback", "alloc", "out of memory", "weights_only", "<class", "object at 0x")


@contextmanager
def watchdog(seconds: float = 20, num_bytes: int = 2**30) -> Iterator[None]:
    """Let a block allocate at most so many bytes more, and end it with TimeoutError after so many seconds."""
    import resource  # absent on Windows, where the tests that need it are skipped

    def expire(*_):
        raise TimeoutError(f"still running after {seconds} s")

    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    previous = signal.signal(signal.SIGALRM, expire)
    resource.setrlimit(resource.RLIMIT_AS, (size + num_bytes, hard))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert growth < num_bytes, f"the peak of memory grew by {growth / 1e6:.0f} MB"


def check_refusal(sentence: str) -> None:
    """A refusal is one printable line of at most 400 characters that says what to do."""
    assert 20 < len(sentence) <= 400, f"{len(sentence)} characters: {sentence}"
    assert sentence.isprintable(), sentence
    assert not any(word in sentence for word in FOREIGN), sentence
    assert any(cure in sentence.lower() for cure in CURES), sentence


def outcome(call: Callable[[], object]) -> str:
    """'read', or 'refused' in words; anything else is raised."""
    with watchdog():
        try:
            call()
        except ValueError as error:
            check_refusal(str(error))
            return "refused"
    return "read"
