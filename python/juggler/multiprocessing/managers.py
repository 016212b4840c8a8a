"""Objects in a server process: stands in for ``multiprocessing.managers``.

The server, the proxies and the registry are the standard library's; the connections between them
are juggler's, in which most of an operation's time was spent. For that, importing this module puts
them into the standard library's table of serializers: its own managers and every proxy class
derived from its `BaseProxy`, whoever defines it, get them as well. Both kinds of connections
understand each other, so a manager may serve processes without juggler. Where a thread and the
server's thread for it run on one machine and both on juggler, short calls and answers meet in
memory that the two share, and everything else goes through their socket.

The managers here start their server by the start method of `juggler.multiprocessing`.
"""

import os
import threading
import time
from multiprocessing import managers as _stock
from multiprocessing.managers import BaseManager as _StockBaseManager
from multiprocessing.managers import BaseProxy, Token
from multiprocessing.managers import Server as _StockServer
from multiprocessing.managers import SharedMemoryManager as _StockSharedMemoryManager
from multiprocessing.managers import SharedMemoryServer as _StockSharedMemoryServer
from multiprocessing.managers import SyncManager as _StockSyncManager
from typing import TYPE_CHECKING, Any

from juggler.multiprocessing import connection
from juggler.multiprocessing.context import default_context

__all__ = ["BaseManager", "BaseProxy", "SharedMemoryManager", "SyncManager", "Token"]


def _client(address: "Any", authkey: "bytes | None" = None) -> connection.Connection:
    server = connection.Client(address, authkey=authkey)
    server._prospect = connection._EXPECTS
    return server


_stock.listener_client["pickle"] = (connection.Listener, _client)  # type: ignore[attr-defined]


class _Server(_StockServer):
    _spare: int | None

    def serve_forever(self) -> None:
        self._spare = os.open(os.devnull, os.O_RDONLY)
        super().serve_forever()

    def accepter(self) -> None:
        """Give each client a thread, or turn it away at once if there is none for it.

        The system accepts nobody without a free descriptor, and who is not accepted waits for ever.
        So one is kept to let go of; if there is none in its place then, the client is one too many.
        """
        while True:
            try:
                conn = self.listener.accept()  # type: ignore[attr-defined]
            except OSError:
                if self._spare is None:
                    time.sleep(0.01)  # another thread was faster
                else:
                    os.close(self._spare)
                    self._spare = None
                continue
            try:
                if self._spare is None:
                    self._spare = os.open(os.devnull, os.O_RDONLY)
                threading.Thread(target=self.handle_request, args=(conn,), daemon=True).start()
            except (OSError, RuntimeError):  # no descriptor, no thread
                conn.close()

    def serve_client(self, conn: "Any") -> None:
        if isinstance(conn, connection.Connection):
            conn._offer_lanes()
        super().serve_client(conn)


class _SharedMemoryServer(_Server, _StockSharedMemoryServer):
    pass


class BaseManager(_StockBaseManager):
    """Starts a server process and makes objects there; as `multiprocessing.managers.BaseManager`.

    Args:
        address: where the server listens; by default at a new path in a folder of this process.
        authkey: bytes that a client must know; by default the current process's key.
        serializer: `'pickle'` or `'xmlrpclib'`.
        ctx: the context whose processes to use; by default that of `juggler.multiprocessing`.
        shutdown_timeout: seconds to wait for the server's end, before it is terminated and then
            killed.
    """

    _Server = _Server

    def __init__(
        self,
        address: "Any" = None,
        authkey: "bytes | None" = None,
        serializer: str = "pickle",
        ctx: "Any" = None,
        *,
        shutdown_timeout: float = 1.0,
    ) -> None:
        # Not `super()`: where this class is in the place of the standard library's, that one's own
        # subclass calls it.
        _StockBaseManager.__init__(
            self,
            address,
            authkey,
            serializer,
            ctx or default_context.get_context(),
            shutdown_timeout=shutdown_timeout,
        )


class SyncManager(BaseManager, _StockSyncManager):
    """A manager of lists, dictionaries, queues, locks and the like; what `Manager()` makes.

    Stands in for `multiprocessing.managers.SyncManager`. Its arguments are those of `BaseManager`.
    """


class SharedMemoryManager(_StockSharedMemoryManager, BaseManager):
    """A manager of shared memory; as `multiprocessing.managers.SharedMemoryManager`.

    Its arguments are those of `BaseManager`.
    """

    _Server = _SharedMemoryServer

    def __init__(
        self,
        address: "Any" = None,
        authkey: "bytes | None" = None,
        serializer: str = "pickle",
        ctx: "Any" = None,
        *,
        shutdown_timeout: float = 1.0,
    ) -> None:
        ctx = ctx or default_context.get_context()
        super().__init__(address, authkey, serializer, ctx, shutdown_timeout=shutdown_timeout)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # Names of the standard library's module that it does not export.
        return getattr(_stock, name)
