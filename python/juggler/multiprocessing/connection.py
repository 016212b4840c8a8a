"""Connections between processes: stands in for ``multiprocessing.connection``.

`Connection` is native and speaks the standard library's format over the same descriptors: a peer
may use either. `Pipe`, `Client` and `Listener` are the standard library's but for the class of the
connections they make; authentication is its own code. `wait` is the standard library's.

Where the two ends of a pipe speak in turn, they soon share some memory besides, in which a short
message meets a `recv` that is under way; everything else goes through the descriptor, which so
tells `select`, `poll`, `wait` and others who use it all that it would tell without.

Deviations:

* A peer that is gone in the middle of a message is an `EOFError`, not an `OSError`.
* A length that no message can have is an `OSError`, as one above ``maxlength`` is, and nothing more
  can be received.
* ``send`` takes functions and classes that plain pickle refuses (lambdas, closures), by value. For
  what can't travel at all, the standard library's exception has a note that names the path to it.
"""

from __future__ import annotations

import io
import os
import pickle
import socket
from multiprocessing import connection as _stock  # its names may become ours
from multiprocessing import reduction
from multiprocessing.connection import Client as _StockClient
from multiprocessing.connection import Connection as _StockConnection
from multiprocessing.connection import Listener as _StockListener
from multiprocessing.connection import wait

from juggler import _juggler

TYPE_CHECKING = False  # importing `typing` costs more than this whole module
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

__all__ = ["Client", "Connection", "Listener", "Pipe", "wait"]


# What a connection does once its sides speak in turn: offer its peer memory in which messages may
# lie, or take what is offered.
_OFFERS, _EXPECTS = 1, 2


@_juggler._own_methods
class Connection(_juggler.Connection, _StockConnection):
    """One end of a pipe or a socket, which sends and receives objects and bytes.

    Stands in for `multiprocessing.connection.Connection`, and is one; see the module for the
    deviations. What is there already is received, and what the system's buffer has room for is
    sent, without giving the GIL up; everything else waits without the GIL, and signal handlers run
    meanwhile.

    Not for several threads at a time in the same direction. In a forked child it is the same
    connection; otherwise it reaches another process by being pickled: as an argument of a new
    process, or sent over a connection.

    Args:
        handle: the descriptor, which belongs to the connection from now on.
        readable: whether it receives.
        writable: whether it sends.
    """

    if TYPE_CHECKING:

        def __enter__(self) -> Self: ...


def _adopt(connection: Any) -> Any:
    """Our connection in place of the standard library's, which lets go of its descriptor."""
    if type(connection) is not _StockConnection:
        return connection  # a wrapper that speaks another format
    ours = Connection(connection.fileno(), connection.readable, connection.writable)
    connection._handle = None  # type: ignore[attr-defined]
    return ours


def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:  # noqa: N802
    """Make two connections, the ends of a pipe; as `multiprocessing.Pipe`.

    Args:
        duplex: True makes both ends send and receive (over a pair of sockets). False makes the
            first end receive and the second send (over a pipe).
    """
    if duplex:
        one, other = socket.socketpair()
        # Whatever the default timeout of sockets is.
        one.setblocking(True)
        other.setblocking(True)
        ours, theirs = Connection(one.detach()), Connection(other.detach())
        ours._prospect, theirs._prospect = _OFFERS, _EXPECTS
        return ours, theirs
    reader, writer = os.pipe()
    return Connection(reader, writable=False), Connection(writer, readable=False)


class Listener(_StockListener):
    """Waits for connections at an address; as `multiprocessing.connection.Listener`.

    Args:
        address: a pair of host and port, or the path of a socket; by default a new path in a folder
            of this process.
        family: `'AF_INET'` or `'AF_UNIX'`; by default what the address looks like.
        backlog: how many connections the system holds ready.
        authkey: bytes that a client must know; None asks for nothing.
    """

    def accept(self) -> Connection:
        """Wait for a client and return the connection with it.

        Raises:
            AuthenticationError: the client does not know the key.
            OSError: the listener is closed.
        """
        # Not `super()`: where this class is in the place of the standard library's, that one's own
        # subclasses call it with listeners that are none of this class.
        connection: Connection = _adopt(_StockListener.accept(self))
        return connection


def Client(  # noqa: N802
    address: Any, family: str | None = None, authkey: bytes | None = None
) -> Connection:
    """Connect with a `Listener`; as `multiprocessing.connection.Client`.

    Args:
        address: the listener's.
        family: by default what the address looks like.
        authkey: bytes that the listener must know; None asks for nothing.

    Raises:
        AuthenticationError: the listener does not know the key.
    """
    connection: Connection = _adopt(_StockClient(address, family, authkey))
    return connection


def _rebuild(handle: Any, readable: bool, writable: bool, prospect: int) -> Connection:
    connection = Connection(handle.detach(), readable, writable)
    connection._prospect = prospect
    return connection


def _reduce(connection: Connection) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    handle = reduction.DupFd(connection.fileno())
    return _rebuild, (handle, connection.readable, connection.writable, connection._prospect)


reduction.register(Connection, _reduce)


def _dumps(obj: object, threshold: int) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """Pickle what is not plain: by the standard library's pickler, then by juggler's own.

    Buffers of `threshold` bytes or more are not in the message.
    """
    buffers: list[pickle.PickleBuffer] = []

    def in_band(buffer: pickle.PickleBuffer) -> bool:
        if memoryview(buffer).nbytes < threshold:
            return True
        buffers.append(buffer)
        return False

    message = io.BytesIO()
    try:
        reduction.ForkingPickler(message, 5, True, in_band).dump(obj)
        return message.getvalue(), buffers
    except (pickle.PicklingError, AttributeError, TypeError) as refused:
        try:
            from juggler._processes import by_value, pickling  # noqa: F401

            return pickling.dumps(obj, threshold=threshold)
        except ImportError:  # cloudpickle is not there
            raise refused from None
        except pickle.PicklingError as error:
            refused.add_note(str(error))
            raise refused from None


_juggler._set_channel_dumps(_dumps)

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # Names of the standard library's module that it does not export.
        return getattr(_stock, name)
