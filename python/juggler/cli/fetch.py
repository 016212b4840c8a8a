"""``juggler fetch``: files from the web, and none of them ever wrong.

The command is native (``crates/juggler-fetch-cli``). What is installed as ``juggler`` becomes it
without Python; this is its door where Python runs already.
"""

from juggler._juggler import fetch_command


def main(words: "list[str]") -> int:
    """Fetch what the command line `words` says.

    Args:
        words: The words after ``juggler fetch``.

    Returns:
        The exit status.
    """
    return fetch_command(words)
