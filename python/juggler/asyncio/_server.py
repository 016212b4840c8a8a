"""What servers lack before 3.13: to know their clients, and to close them."""

from __future__ import annotations

import asyncio
import sys
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_Base: Any = asyncio.base_events.Server

if sys.version_info >= (3, 13):

    def attach(server: Any, transport: Any) -> None:
        """Tell a server of a client's transport."""
        server._attach(transport)

else:

    class Server(_Base):  # type: ignore[misc]
        """A server of TCP or Unix connections, with what 3.13's has.

        Stands in for `asyncio.Server`, and is a subclass of it.
        """

        _clients: weakref.WeakSet[Any]

        def close_clients(self) -> None:
            """Close the clients' transports; what is buffered is sent first."""
            for transport in self._clients.copy():
                transport.close()

        def abort_clients(self) -> None:
            """Close the clients' transports at once; what is buffered is lost."""
            for transport in self._clients.copy():
                transport.abort()

    def attach(server: Any, transport: Any) -> None:
        """Tell a server of a client's transport."""
        server._attach()
        if isinstance(server, Server):
            server._clients.add(transport)


def knowing_its_clients(server: Any) -> None:
    """Have a server that the standard library has made know its clients."""
    if sys.version_info < (3, 13) and type(server) is _Base:
        server.__class__ = Server
        server._clients = weakref.WeakSet()
