"""What `ProcessPoolExecutor.stats` tells."""

from __future__ import annotations

from typing import NamedTuple


class WorkerStatistics(NamedTuple):
    """What a worker has done; see `ProcessPoolExecutor.stats`."""

    pid: int
    busy: bool
    tasks: int
    bytes: int


class ProcessPoolExecutorStatistics(NamedTuple):
    """What a pool is doing at a moment; see `ProcessPoolExecutor.stats`."""

    waiting: int
    deepest: int
    busy: int
    idle: int
    workers: list[WorkerStatistics]


for _field, _doc in {
    "WorkerStatistics.pid": "Its process.",
    "WorkerStatistics.busy": "Whether it makes a call.",
    "WorkerStatistics.tasks": "How many calls it has made.",
    "WorkerStatistics.bytes": "How many bytes their arguments and results had.",
    "ProcessPoolExecutorStatistics.waiting": "How many calls wait for a worker.",
    "ProcessPoolExecutorStatistics.deepest": "The most that ever waited.",
    "ProcessPoolExecutorStatistics.busy": "How many workers make a call.",
    "ProcessPoolExecutorStatistics.idle": "How many workers wait for one.",
    "ProcessPoolExecutorStatistics.workers": "What each of them has done.",
}.items():
    _class, _, _name = _field.partition(".")
    getattr(globals()[_class], _name).__doc__ = _doc
