"""Objects in a server process: stands in for ``multiprocessing.managers``.

The server, the proxies and the registry are the standard library's; the connections between them
are juggler's, in which most of an operation's time was spent. For that, importing this module puts
them into the standard library's table of serializers: its own managers and every proxy class
derived from its `BaseProxy`, whoever defines it, get them as well. Both kinds of connections
understand each other, so a manager may serve processes without juggler.

The managers here start their server by the start method of `juggler.multiprocessing`.
"""

from multiprocessing import managers as _stock
from multiprocessing.managers import BaseProxy, Token
from typing import TYPE_CHECKING, Any

from juggler.multiprocessing import connection, context

__all__ = ["BaseManager", "BaseProxy", "SharedMemoryManager", "SyncManager", "Token"]

_stock.listener_client["pickle"] = (connection.Listener, connection.Client)  # type: ignore[attr-defined]


class BaseManager(_stock.BaseManager):
    """Starts a server process and makes objects there; as `multiprocessing.managers.BaseManager`.

    Args:
        address: where the server listens; by default at a new path in a folder of this process.
        authkey: bytes that a client must know; by default the current process's key.
        serializer: `'pickle'` or `'xmlrpclib'`.
        ctx: the context whose processes to use; by default that of `juggler.multiprocessing`.
        shutdown_timeout: seconds to wait for the server's end, before it is terminated and then
            killed.
    """

    def __init__(
        self,
        address: "Any" = None,
        authkey: "bytes | None" = None,
        serializer: str = "pickle",
        ctx: "Any" = None,
        *,
        shutdown_timeout: float = 1.0,
    ) -> None:
        super().__init__(
            address,
            authkey,
            serializer,
            ctx or context.default_context.get_context(),
            shutdown_timeout=shutdown_timeout,
        )


class SyncManager(BaseManager, _stock.SyncManager):
    """A manager of lists, dictionaries, queues, locks and the like; what `Manager()` makes."""


class SharedMemoryManager(BaseManager, _stock.SharedMemoryManager):
    """A manager of shared memory; as `multiprocessing.managers.SharedMemoryManager`."""


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # Names of the standard library's module that it does not export.
        return getattr(_stock, name)
