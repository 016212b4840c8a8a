"""How what lies in shared memory is found by another process.

Locks, values and arrays lie in segments, which are anonymous memory files: nothing has a name, and
nothing is left behind. A forked child inherits the mappings. Any other child is sent the segment's
descriptor, once for all that lies in it, and the offset.
"""

from __future__ import annotations

import os
from multiprocessing import context, reduction
from weakref import WeakValueDictionary

from juggler._juggler import SharedBlock, SharedSegment

TYPE_CHECKING = False  # importing `typing` costs more than this whole module
if TYPE_CHECKING:
    from typing import Any, Protocol

    class _Placed(Protocol):
        def _place(self) -> tuple[SharedSegment, int]: ...


__all__ = ["SharedBlock", "SharedSegment", "place_of"]

# By descriptor: the same object for the same segment, which the pickler then sends once only.
_segments: WeakValueDictionary[int, SharedSegment] = WeakValueDictionary()


def place_of(primitive: _Placed) -> tuple[SharedSegment, int]:
    """Where a primitive lies, in a form that can be pickled while a child is being started.

    Raises:
        RuntimeError: no child is being started.
    """
    context.assert_spawning(primitive)
    segment, offset = primitive._place()
    return _segments.setdefault(segment.fileno(), segment), offset


def _open_segment(duplicate: Any) -> SharedSegment:
    fd = duplicate.detach()
    try:
        return SharedSegment(fd)
    finally:
        os.close(fd)


def _reduce_segment(segment: SharedSegment) -> tuple[Any, ...]:
    context.assert_spawning(segment)
    return _open_segment, (reduction.DupFd(segment.fileno()),)


def _open_block(size: int, place: tuple[SharedSegment, int]) -> SharedBlock:
    return SharedBlock(size, at=place)


def _reduce_block(block: SharedBlock) -> tuple[Any, ...]:
    return _open_block, (block.size, place_of(block))


reduction.ForkingPickler.register(SharedSegment, _reduce_segment)
reduction.ForkingPickler.register(SharedBlock, _reduce_block)
