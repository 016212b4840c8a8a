"""Mistakes that a type checker must find; one that it does not makes its comment an error."""

import queue as stdlib

from juggler import futures, multiprocessing, policy, queue, threading

threading.Lokc()  # type: ignore[attr-defined]
threading.Lock("name")  # type: ignore[call-arg]
threading.Lock().acquire(timeout="1")  # type: ignore[arg-type]
threading.Semaphore(value="1")  # type: ignore[arg-type]
threading.Event(True)  # type: ignore[call-arg]
threading.Barrier()  # type: ignore[call-arg]
threading.Lock().statistics().waiting = 1  # type: ignore[misc]
threading.Condition(3)  # type: ignore[arg-type]
threading.Condition().wait_for(3)  # type: ignore[arg-type]
threading.acquire_all(3)  # type: ignore[arg-type]
queue.Queue[int]().put("text")  # type: ignore[arg-type]
queue.Queue[int]().mutex = threading.Lock()  # type: ignore[misc]
queue.PriorityQueue[object]()  # type: ignore[type-var]
ours: queue.Queue[int] = stdlib.Queue()  # type: ignore[assignment]
futures.ThreadPoolExecutor().submit(len)  # type: ignore[call-arg]
futures.Future[int]().set_result("text")  # type: ignore[arg-type]
futures.ThreadPoolExecutor(initializer=len)  # type: ignore[arg-type]
futures.ProcessPoolExecutor().submit(len)  # type: ignore[call-arg]
futures.ProcessPoolExecutor().options(retry=1)  # type: ignore[call-arg]
multiprocessing.Value("q").value = "1"  # type: ignore[assignment]
multiprocessing.Queue("1")  # type: ignore[arg-type]
multiprocessing.Lokc()  # type: ignore[attr-defined]
policy.rate(20)  # type: ignore[arg-type]
policy.retry(on="ConnectionError")  # type: ignore[arg-type]
policy.retry(3).__enter__()  # type: ignore[attr-defined]
policy.limit(1)(len)(3)  # type: ignore[arg-type]
policy.limit(1) | 3  # type: ignore[operator]
policy.exponential(jitter="some")  # type: ignore[arg-type]
policy.timeout(1, on="threads")  # type: ignore[arg-type]


class Mine(threading.Lock):  # type: ignore[misc]
    pass
