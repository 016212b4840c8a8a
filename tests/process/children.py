"""Child processes of a test."""

from collections.abc import Callable, Iterator
from typing import Any

Start = Callable[..., Any]


def starter(context: Any) -> Iterator[Start]:
    """Starts children, as `context.Process` takes them; all are gone at the end."""
    children: list[Any] = []

    def start(target: Callable[..., object], *args: object) -> Any:
        child = context.Process(target=target, args=args)
        children.append(child)
        child.start()
        return child

    yield start
    for child in children:
        child.kill()
        child.join()
        child.close()
