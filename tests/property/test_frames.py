"""What arrives from another process may be anything: frames of connections and of exceptions."""

import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from juggler._processes.exceptions import pack_exception, unpack_exception
from juggler.multiprocessing import _wire, connection, zygote

# A length as a peer gone wrong may say it.
LENGTHS = st.one_of(
    st.integers(-1, 40), st.integers(-(1 << 31), (1 << 31) - 1), st.sampled_from([-2, 1 << 30])
)
HEADERS = st.one_of(
    st.binary(max_size=12),
    LENGTHS.map(lambda length: struct.pack("!i", length)),
    st.one_of(st.integers(0, 40), st.integers(0, (1 << 64) - 1)).map(
        lambda length: struct.pack("!iQ", -1, length)
    ),
)


def first_frame(data: bytes) -> tuple[int, int] | None:
    """Where the first message begins, and how long it says it is; None: it does not say."""
    if len(data) < 4:
        return None
    (length,) = struct.unpack("!i", data[:4])
    if length != -1:
        return 4, length
    return (12, struct.unpack("!Q", data[4:12])[0]) if len(data) >= 12 else None


@settings(deadline=None, max_examples=300)
@given(HEADERS, st.binary(max_size=60), st.sampled_from([None, 8, 1 << 20]))
def test_a_connection_that_gets_anything(header: bytes, rest: bytes, limit: int | None) -> None:
    data = header + rest
    reader, writer = os.pipe()
    with connection.Connection(reader, writable=False) as ours:
        os.write(writer, data)
        os.close(writer)
        frame = first_frame(data)
        try:
            message = ours.recv_bytes(limit)
        except (OSError, EOFError):  # EOFError for what ends too early
            assert (
                frame is None
                or frame[0] == 12  # the long form, for a length that the short one can tell
                or not 0 <= frame[1] <= len(data) - frame[0]
                or (limit is not None and frame[1] > limit)
            )
        else:
            assert frame is not None
            assert message == data[frame[0] : sum(frame)]


def _raised() -> BaseException:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ExceptionGroup("outer", [ValueError(1), OSError(2, "two")]) from inner
    except ExceptionGroup as error:
        return error


def test_an_exception_that_is_cut_off_is_an_error() -> None:
    data = pack_exception(_raised())
    assert isinstance(unpack_exception(data), ExceptionGroup)
    for length in range(len(data)):
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever pickle says of its end
            unpack_exception(data[:length])


@settings(deadline=None)
@given(st.binary(max_size=20))
def test_a_zygote_that_answers_anything(answer: bytes) -> None:
    import socket

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.send(answer)
        with pytest.raises((OSError, zygote.ProcessError, struct.error)):
            zygote._receive(ours)  # there is no descriptor with it


def test_requests_and_answers_have_one_length() -> None:
    # Both sides unpack what they get with these; another length is refused before.
    for form in _wire.REQUEST, _wire.ANSWER, _wire.STATUS:
        with pytest.raises(struct.error):
            form.unpack(bytes(form.size - 1))
