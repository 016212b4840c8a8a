"""What the zygote and its parent say to each other, and what a child finds of it.

Apart, because the zygote's start is on the way to a pool's first result: it imports little.
"""

import struct

# The header's length; which standard streams come (1, 2 or their sum); whether there is no tracker.
REQUEST = struct.Struct("=qi?")
# The child's number, or an errno negated.
ANSWER = struct.Struct("=i")
# As `Popen.returncode`.
STATUS = struct.Struct("=i")

# The kernel passes so many in a message; of ours, six are no payload's.
DESCRIPTORS = 253
MOST_INHERITED = DESCRIPTORS - 6

# In a child of the zygote: the descriptors that came with its payload.
inherited: list[int] = []


class Inherited:
    """A descriptor that travels with the request, by its place there: a `DupFd`."""

    def __init__(self, index: int) -> None:
        self._index = index

    def detach(self) -> int:
        """The descriptor, in the child."""
        return inherited[self._index]
