"""joblib on juggler's processes: importing this module makes the backend ``"juggler"`` known.

    import joblib, juggler.joblib

    with joblib.parallel_config(backend="juggler", n_jobs=4):
        results = joblib.Parallel()(joblib.delayed(work)(item) for item in items)

The calls are made on a `juggler.futures.ProcessPoolExecutor`, which is kept for later loops of the
same size until the program ends: large arrays travel through shared memory, and a worker that dies
costs the batch that it was working on, where joblib's own backend loses the loop.

Deviations from joblib's default backend: ``inner_max_num_threads`` is not supported,
``max_nbytes``, ``mmap_mode`` and ``temp_folder`` are without effect (no array becomes a file), and
arrays that workers get are theirs to write to.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from joblib import register_parallel_backend
from joblib._parallel_backends import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

from juggler import futures
from juggler._processes import own_pool, processors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["JugglerBackend"]


@functools.lru_cache(maxsize=1)
def _executor(workers: int) -> futures.ProcessPoolExecutor:
    return own_pool(workers)


class JugglerBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """What joblib asks of a backend; made by it.

    Stands in for joblib's own backends; the standard library has no counterpart.
    """

    supports_retrieve_callback = True
    uses_threads = False
    supports_sharedmem = False

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many workers ``n_jobs`` means; negative numbers count back from all processors.

        Raises:
            ValueError: it is 0.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(processors() + 1 + n_jobs, 1)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: Any = None,
        require: Any = None,
        **_: Any,
    ) -> int:
        """Have an executor ready; the number of its workers."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._workers = _executor(n_jobs)
        return n_jobs

    def submit(
        self, func: Callable[[], Any], callback: Callable[[Any], None] | None = None
    ) -> futures.Future[Any]:
        """Have a batch of calls made."""
        future = self._workers.submit(func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, future: futures.Future[Any]) -> Any:
        """The results of a batch, which is done."""
        return future.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stop the workers, and start others if joblib goes on."""
        _executor.cache_clear()
        self._workers.terminate_workers()
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)

    def terminate(self) -> None:
        """The loop has ended; the workers wait for the next one."""
        self.reset_batch_stats()


register_parallel_backend("juggler", JugglerBackend)
