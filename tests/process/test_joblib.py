"""joblib's loops on juggler's processes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import joblib
import pytest

import juggler.joblib
from juggler import futures


@pytest.fixture(autouse=True)
def _workers_end() -> Iterator[None]:
    yield
    # They would wait for the next loop until the program ends.
    juggler.joblib._executor(2).shutdown()
    juggler.joblib._executor.cache_clear()


def test_a_loop_runs_in_other_processes_and_keeps_its_order() -> None:
    with joblib.parallel_config(backend="juggler", n_jobs=2):
        results = joblib.Parallel()(
            joblib.delayed(lambda number: (number * 2, os.getpid()))(number)
            for number in range(200)
        )
    assert [double for double, _ in results] == list(range(0, 400, 2))
    assert os.getpid() not in {pid for _, pid in results}


def test_later_loops_have_the_same_workers() -> None:
    with joblib.parallel_config(backend="juggler", n_jobs=2):
        before, after = (
            set(joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(100)))
            for _ in range(2)
        )
    assert len(before | after) <= 2


def test_an_exception_comes_out_of_the_loop_and_the_next_loop_runs() -> None:
    with joblib.parallel_config(backend="juggler", n_jobs=2):
        with pytest.raises(ZeroDivisionError):
            joblib.Parallel()(joblib.delayed(divmod)(1, number) for number in range(50))
        assert joblib.Parallel()(joblib.delayed(abs)(-number) for number in range(3)) == [0, 1, 2]


def test_a_worker_that_dies_is_told_and_the_next_loop_runs() -> None:
    with joblib.parallel_config(backend="juggler", n_jobs=2):
        with pytest.raises(futures.WorkerDied, match="exited with status 7"):
            joblib.Parallel()(joblib.delayed(os._exit)(7) for _ in range(1))
        assert joblib.Parallel()(joblib.delayed(abs)(-number) for number in range(3)) == [0, 1, 2]


def test_one_job_needs_no_process() -> None:
    with joblib.parallel_config(backend="juggler", n_jobs=1):
        assert joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(2)) == [os.getpid()] * 2


def test_no_jobs_mean_nothing() -> None:
    with joblib.parallel_config(backend="juggler", n_jobs=0):
        with pytest.raises(ValueError, match="n_jobs == 0"):
            joblib.Parallel()(joblib.delayed(abs)(1) for _ in range(2))
