"""A forked child: that of ``multiprocessing.popen_fork``, which leaves nothing open if there is none."""

import os
from multiprocessing import popen_fork as _stock
from types import FunctionType
from typing import Any

__all__ = ["Popen"]


class _System:
    """The module `os`, with an account of the pipes that were made."""

    def __init__(self) -> None:
        self.ends: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        self.ends += ends
        return ends


class Popen(_stock.Popen):
    """The parent's hold on a forked child."""

    def _launch(self, process_obj: Any) -> None:
        system = _System()
        # It is another one in each version of Python, so it is run as it is, on this `os`.
        code = _stock.Popen._launch.__code__
        try:
            FunctionType(code, {**vars(_stock), "os": system})(self, process_obj)
        except BaseException:
            if not hasattr(self, "pid"):  # a pipe or the fork has failed
                for end in system.ends:
                    os.close(end)
            raise
