import multiprocessing as _stock
from collections.abc import Callable, Iterable
from ctypes import Array as _CArray
from ctypes import _CData
from multiprocessing import reduction as reducer
from multiprocessing.context import (
    AuthenticationError,
    BaseContext,
    BufferTooShort,
    ProcessError,
    TimeoutError,
)
from multiprocessing.process import active_children, current_process, parent_process
from typing import Any, Literal, TypeAlias, TypeVar, overload, type_check_only

from juggler._juggler import OwnerDied
from juggler.multiprocessing import queues, synchronize
from juggler.multiprocessing.connection import Connection
from juggler.multiprocessing.context import (
    ForkContext,
    ForkServerContext,
    Process,
    SpawnContext,
    ZygoteContext,
)
from juggler.multiprocessing.managers import SyncManager
from juggler.multiprocessing.pool import Pool as _Pool
from juggler.multiprocessing.sharedctypes import SynchronizedArray, _SynchronizedNumber

__all__ = [
    "Array",
    "AuthenticationError",
    "Barrier",
    "BoundedSemaphore",
    "BufferTooShort",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Manager",
    "OwnerDied",
    "Pipe",
    "Pool",
    "Process",
    "ProcessError",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "Semaphore",
    "SimpleQueue",
    "TimeoutError",
    "Value",
    "active_children",
    "allow_connection_pickling",
    "cpu_count",
    "current_process",
    "freeze_support",
    "get_all_start_methods",
    "get_context",
    "get_logger",
    "get_start_method",
    "log_to_stderr",
    "parent_process",
    "reducer",
    "set_executable",
    "set_forkserver_preload",
    "set_start_method",
]

SUBDEBUG: int
SUBWARNING: int

_C = TypeVar("_C", bound=_CData)
_Integers: TypeAlias = Literal["b", "B", "h", "H", "i", "I", "l", "L", "q", "Q"]
_Floats: TypeAlias = Literal["f", "d"]
_Lock: TypeAlias = synchronize.Lock | synchronize.RLock

@type_check_only
class _Integer(_SynchronizedNumber):
    value: int
    def load(self) -> int: ...
    def store(self, value: int) -> None: ...

@type_check_only
class _Float(_SynchronizedNumber):
    value: float
    def load(self) -> float: ...
    def store(self, value: float) -> None: ...

@overload
def Value(
    typecode_or_type: _Integers, *args: int, lock: _Lock | Literal[True] = True
) -> _Integer: ...
@overload
def Value(
    typecode_or_type: _Floats, *args: float, lock: _Lock | Literal[True] = True
) -> _Float: ...
@overload
def Value(typecode_or_type: str | type[_CData], *args: Any, lock: _Lock | bool = True) -> Any: ...
@overload
def Array(
    typecode_or_type: _Integers | _Floats,
    size_or_initializer: int | Iterable[Any],
    *,
    lock: _Lock | Literal[True] = True,
) -> SynchronizedArray: ...
@overload
def Array(
    typecode_or_type: str | type[_CData],
    size_or_initializer: int | Iterable[Any],
    *,
    lock: _Lock | bool = True,
) -> Any: ...
def RawValue(typecode_or_type: str | type[_CData], *args: Any) -> Any: ...
@overload
def RawArray(
    typecode_or_type: type[_C], size_or_initializer: int | Iterable[Any]
) -> _CArray[_C]: ...
@overload
def RawArray(typecode_or_type: str, size_or_initializer: int | Iterable[Any]) -> Any: ...
def Lock() -> synchronize.Lock: ...
def RLock() -> synchronize.RLock: ...
def Semaphore(value: int = 1) -> synchronize.Semaphore: ...
def BoundedSemaphore(value: int = 1) -> synchronize.BoundedSemaphore: ...
def Condition(lock: _Lock | None = None) -> synchronize.Condition: ...
def Event() -> synchronize.Event: ...
def Barrier(
    parties: int, action: Callable[[], object] | None = None, timeout: float | None = None
) -> synchronize.Barrier: ...
def Queue(maxsize: int = 0) -> queues.Queue: ...
def JoinableQueue(maxsize: int = 0) -> queues.JoinableQueue: ...
def SimpleQueue() -> queues.SimpleQueue: ...
def Pipe(duplex: bool = True) -> tuple[Connection, Connection]: ...
def Manager() -> SyncManager: ...
def Pool(
    processes: int | None = None,
    initializer: Callable[..., object] | None = None,
    initargs: Iterable[Any] = (),
    maxtasksperchild: int | None = None,
) -> _Pool: ...
@overload
def get_context(method: Literal["zygote"]) -> ZygoteContext: ...
@overload
def get_context(method: Literal["fork"]) -> ForkContext: ...
@overload
def get_context(method: Literal["spawn"]) -> SpawnContext: ...
@overload
def get_context(method: Literal["forkserver"]) -> ForkServerContext: ...
@overload
def get_context(method: str | None = None) -> BaseContext: ...
def get_all_start_methods() -> list[str]: ...
@overload
def get_start_method(allow_none: Literal[False] = False) -> str: ...
@overload
def get_start_method(allow_none: bool) -> str | None: ...
def set_start_method(method: str | None, force: bool = False) -> None: ...

# What the standard library's context does for ours, too.
allow_connection_pickling = _stock.allow_connection_pickling
cpu_count = _stock.cpu_count
freeze_support = _stock.freeze_support
get_logger = _stock.get_logger
log_to_stderr = _stock.log_to_stderr
set_executable = _stock.set_executable
set_forkserver_preload = _stock.set_forkserver_preload
