"""`juggler.map` in the cells of a notebook, run by a real kernel."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from jupyter_client.manager import start_new_kernel


class Output(NamedTuple):
    """What came of a cell.

    Attributes:
        text: what it printed.
        shown: each thing that was displayed, as it looks in the end.
        drawn: how often that was drawn.
        errors: the kind of each error that was shown.
    """

    text: str
    shown: dict[str, str]
    drawn: int
    errors: list[str]


class Notebook:
    """A kernel that runs one cell after the other."""

    def __init__(self) -> None:
        self._manager, self._client = start_new_kernel(kernel_name="python3")

    def run(self, cell: str, interrupt_at: str | None = None) -> Output:
        """Run a cell to its end; interrupt it when it has printed this."""
        request = self._client.execute(cell)
        text, drawn, shown, errors = "", 0, {}, []
        while True:
            message = self._client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                text += content["text"]
                if interrupt_at is not None and interrupt_at in text:
                    interrupt_at = None
                    self._manager.interrupt_kernel()
            elif kind in ("display_data", "update_display_data"):
                drawn += 1
                assert set(content["data"]) == {"text/plain", "text/html"}
                name = content["transient"].get("display_id", f"display {drawn}")
                shown[name] = content["data"]["text/plain"]
            elif kind == "error":
                errors.append(content["ename"])
            elif kind == "status" and content["execution_state"] == "idle":
                return Output(text, shown, drawn, errors)

    def close(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel()


@pytest.fixture(scope="module")
def notebook() -> Iterator[Notebook]:
    notebook = Notebook()
    notebook.run("import asyncio, itertools, time, juggler")
    notebook.run("def square(number):\n    time.sleep(0.01)\n    return number * number")
    notebook.run(
        "async def later(number):\n    await asyncio.sleep(0.01)\n    return number * number"
    )
    yield notebook
    notebook.close()


@pytest.mark.parametrize(
    ("on", "fn"),
    [
        ("threads", "square"),
        ("processes", "square"),
        ("processes", "lambda number: number * number"),
        ("auto", "square"),
        ("loop", "later"),
    ],
)
@pytest.mark.parametrize("loop", ["for", "async for"])
def test_results_and_one_bar_that_is_drawn_anew(
    notebook: Notebook, on: str, fn: str, loop: str
) -> None:
    call = f"juggler.map({fn}, range(60), on={on!r}, limit=4, progress=True)"
    cell = f"list({call})" if loop == "for" else f"[result async for result in {call}]"
    output = notebook.run(f"print({cell})")
    assert output.errors == []
    assert output.text == f"{[n * n for n in range(60)]}\n"
    (bar,) = output.shown.values()
    assert 2 <= output.drawn < 60
    note, *_, row = bar.splitlines()  # it may have chosen again
    assert "at once: " in note
    assert "━" in row and "60 of 60 in " in row


def test_stages_with_one_name_have_a_row_each(notebook: Notebook) -> None:
    output = notebook.run(
        "reports = juggler.pipeline(range(5)).map(square, on='threads').map(square, on='serial')"
        ".run(progress=True)"
    )
    assert (output.text, output.errors) == ("", [])
    (bar,) = output.shown.values()
    assert [line.partition(" ")[0] for line in bar.splitlines() if "5 in " in line] == [
        "square"
    ] * 2


@pytest.mark.parametrize("on", ["threads", "processes", "serial", "auto", "loop"])
def test_an_interrupt_stops_a_map_and_the_kernel_goes_on(notebook: Notebook, on: str) -> None:
    sleeper = "asyncio.sleep" if on == "loop" else "time.sleep"
    output = notebook.run(
        "print('begun', flush=True)\n"
        f"list(juggler.map({sleeper}, itertools.repeat(600), on={on!r}, progress=True))",
        interrupt_at="begun",
    )
    assert output.errors == ["KeyboardInterrupt"]
    assert output.text == "begun\n"
    assert notebook.run("print(6 * 7)") == Output("42\n", {}, 0, [])
