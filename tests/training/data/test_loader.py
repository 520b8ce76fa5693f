"""Batches read by background processes: the same, in order, with a worker's error, and no process left."""

import multiprocessing
import pickle
import signal
import subprocess

import pytest
import torch

from tests.training.data.test_source import MadeUp, source
from training.data.cache import Cache
from training.data.cache_writer import fill
from training.data.loader import step_batches


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "cache"
    assert fill(folder, MadeUp())
    return Cache(folder)


def assert_equal(one, other):
    assert [batch.ids for batch in one] == [batch.ids for batch in other]
    for a, b in zip(one, other, strict=True):
        assert (a.positions, a.shape, a.context_scale) == (b.positions, b.shape, b.context_scale)
        assert torch.equal(a.text, b.text) and torch.equal(a.latents, b.latents)
        assert torch.equal(a.contexts, b.contexts)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_number_of_workers_changes_nothing(cache, workers):
    expected = source(cache)
    steps = step_batches(source(cache), 3, 10, 1, 2, workers=workers)
    for step, batches in zip(range(3, 10), steps, strict=True):
        assert_equal(batches, expected.batches(step, 1, 2))


def test_a_pickled_copy_gives_the_same_batches(cache):
    """Workers that are started by spawn get one, also after files were opened."""
    opened = source(cache)
    first = opened.batches(0)
    copy = pickle.loads(pickle.dumps(opened))
    assert_equal(copy.batches(0), first)
    assert_equal(opened.batches(0), first)


def test_the_global_generator_is_left_alone(cache):
    before = torch.get_rng_state()
    next(step_batches(source(cache), 0, 2))
    next(step_batches(source(cache), 0, 2, workers=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_worker_keeps_type_and_message(tmp_path, workers):
    folder = tmp_path / "cache"
    assert fill(folder, MadeUp())
    opened = source(Cache(folder), need_latents=False)
    for path in folder.glob("shard-*.safetensors"):
        path.unlink()
    with pytest.raises(RuntimeError, match=r"shard-0000\d\.safetensors was complete at the start"):
        next(step_batches(opened, 0, 4, workers=workers))


def test_no_worker_outlives_its_iterator(cache):
    # A failed test's traceback may still hold an iterator.
    before = set(multiprocessing.active_children())
    steps = step_batches(source(cache), 0, 100, workers=2)
    next(steps)
    started = set(multiprocessing.active_children()) - before
    assert len(started) == 2
    del steps
    for process in started:
        process.join(20)
    assert not any(process.is_alive() for process in started)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="needs Linux's signals")
def test_sigterm_of_a_scheduler_loses_no_batches(cache):
    """It goes to all processes of a run, whose last step needs batches; the run still ends its workers."""
    before = set(multiprocessing.active_children())
    steps = step_batches(source(cache), 0, 12, workers=1)
    batches = [next(steps)]
    (worker,) = set(multiprocessing.active_children()) - before
    subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    batches += [next(steps) for _ in range(9)]
    for step, micro_batches in enumerate(batches):
        assert_equal(micro_batches, source(cache).batches(step))
    worker.terminate()
    worker.join(20)
    assert not worker.is_alive()


def test_numbers_out_of_range_are_refused(cache):
    with pytest.raises(ValueError, match="workers is -1"):
        step_batches(source(cache), 0, 1, workers=-1)
    with pytest.raises(ValueError, match="prefetch 0"):
        step_batches(source(cache), 0, 1, prefetch=0)
