"""What travels between processes, what it arrives as, and what an error says."""

import functools
import os
import pickle
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from juggler._processes.exceptions import RemoteError, pack_exception, unpack_exception
from juggler._processes.pickling import dumps, loads

BIG = 1 << 17


def trip(obj: Any, **options: Any) -> Any:
    """There and back, with buffers copied to other memory, as a process finds them."""
    data, buffers = dumps(obj, **options)
    return loads(data, buffers=[bytearray(buffer.raw()) for buffer in buffers])


def refusal(obj: object, **options: Any) -> str:
    with pytest.raises(pickle.PicklingError) as caught:
        dumps(obj, **options)
    return str(caught.value)


# ------------------------------------------------------------------ buffers


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_large_bytes_travel_out_of_band(kind: Any) -> None:
    big = kind(b"x" * BIG)
    for obj in (big, (big,), [big, 1], ((1, big), {"key": big})):
        data, buffers = dumps(obj)
        assert len(data) < 1000 and buffers and all(b.raw().nbytes == BIG for b in buffers)
        assert trip(obj) == obj
    assert type(trip((big,))[0]) is kind
    assert dumps((kind(b"small"),))[1] == []


def test_containers_are_not_changed() -> None:
    inner = [b"x" * BIG]
    obj = (inner, {"a": 1})
    trip(obj)
    assert inner == [b"x" * BIG]


def test_memoryviews_arrive_writable() -> None:
    for view in (
        memoryview(b"read-only"),
        memoryview(bytearray(BIG)),
        memoryview(b"x" * BIG),
        memoryview(bytearray(range(24))).cast("B", (2, 3, 4)),
        memoryview(bytearray(32)).cast("d"),
        memoryview(bytearray(range(10)))[::3],
        memoryview(b""),
        [[[memoryview(b"deep")]]],
    ):
        got: Any = trip(view)
        while type(got) is list:
            got, view = got[0], view[0]  # type: ignore[assignment]
        assert type(got) is memoryview and got == view and not got.readonly
        assert (got.format, got.shape) == (view.format, view.shape)  # type: ignore[union-attr]


def test_numpy_arrays_are_writable_views_on_the_buffers() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(BIG, dtype="f4").reshape(256, -1)
    for sent in (array, array.T, array[10:200]):
        data, buffers = dumps(sent)
        assert len(data) < 1000
        memory = bytearray(buffers[0].raw())
        got = loads(data, buffers=[memory])
        assert (got == sent).all() and got.flags.writeable
        got[0, 0] = -1
        assert numpy.frombuffer(memory, "f4")[0] == -1
    got = trip(array[::2, ::2])
    assert (got == array[::2, ::2]).all() and got.flags.writeable
    assert trip(numpy.array([{1: 2}, None], object)).tolist() == [{1: 2}, None]


def test_pandas_and_arrow_go_out_of_band() -> None:
    pandas = pytest.importorskip("pandas")
    pyarrow = pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"a": range(BIG), "b": [0.5] * BIG})
    table = pyarrow.table({"a": list(range(BIG))})
    for sent in (frame, table):
        data, buffers = dumps(sent)
        assert buffers and len(data) < BIG
        assert trip(sent).equals(sent)


def test_a_threshold_decides() -> None:
    view = pickle.PickleBuffer(bytearray(100))
    assert dumps(view, threshold=101)[1] == []
    assert len(dumps(view, threshold=100)[1]) == 1


# ------------------------------------------------------------------ functions and classes


def test_lambdas_closures_and_local_classes() -> None:
    factor = 3

    class Local:
        def __init__(self, value: int) -> None:
            self.value = value

        def times(self) -> int:
            return self.value * factor

    assert trip(lambda x: x + factor)(1) == 4
    assert trip(Local(5)).times() == 15
    assert type(trip(Local(5))) is Local


MAIN = '''
"""A program without a guard, and a process that did not run it."""
import abc, collections, dataclasses, enum, functools, struct, subprocess, sys
from juggler._processes import pickling

CONSTANT = 5
counter = None
seen = {}


class Base:
    known = []

    def __init_subclass__(cls):
        Base.known.append(cls)

    class Inner:
        pass


class Leaf(Base):
    def __init__(self, value):
        self.value = value

    def who(self):
        return super().__repr__()[:14], self.value, times(2)


class Slotted:
    __slots__ = ("a",)


class Color(enum.Enum):
    RED = 1


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...


class Square(Shape):
    def area(self):
        return 4


@dataclasses.dataclass
class Point:
    x: int
    rest: list = dataclasses.field(default_factory=list)


Pair = collections.namedtuple("Pair", "a b")


@functools.lru_cache(maxsize=50)
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def logged(function):
    @functools.wraps(function)
    def wrapper(*args):
        return "logged", function(*args)
    return wrapper


@logged
def decorated(x):
    return x + CONSTANT


def times(n):
    return n * CONSTANT


def even(n):
    return n == 0 or odd(n - 1)


def odd(n):
    return n != 0 and even(n - 1)


def initialize(value):
    global counter
    counter = value


def read_counter():
    return counter


def remember(key):
    seen[key] = True
    return sorted(seen)


def same(leaf, color, inner):
    return (
        type(leaf) is Leaf and isinstance(leaf, Base) and color is Color.RED
        and type(inner) is Base.Inner and [c.__name__ for c in Base.known] == ["Leaf"]
    )


WORKER = """
import struct, sys
from juggler._processes import by_value, pickling
by_value.fresh_main()
while head := sys.stdin.buffer.read(8):
    function, args = pickling.loads(sys.stdin.buffer.read(struct.unpack("Q", head)[0]))
    data, _ = pickling.dumps(function(*args), define=False)
    sys.stdout.buffer.write(struct.pack("Q", len(data)) + data)
    sys.stdout.buffer.flush()
"""
worker = subprocess.Popen(
    [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
)


def call(function, *args):
    data, _ = pickling.dumps((function, args))
    worker.stdin.write(struct.pack("Q", len(data)) + data)
    worker.stdin.flush()
    return pickling.loads(worker.stdout.read(*struct.unpack("Q", worker.stdout.read(8))))


def test():
    # classes are the same there, and the sender's own when they return
    assert call(same, Leaf(1), Color.RED, Base.Inner())
    back = call(Leaf, 7)
    assert type(back) is Leaf and back.who()[1:] == (7, 10)
    assert call(Leaf.who, Leaf(3)) == ("<__main__.Leaf", 3, 10)
    assert call(lambda: Color.RED) is Color.RED
    assert call(Point, 1) == Point(1) and type(call(Pair, 1, 2)) is Pair
    assert call(Square().area) == 4 and isinstance(call(Square), Shape)
    assert type(call(Slotted)) is Slotted and type(call(Base.Inner)) is Base.Inner
    assert Base.known == [Leaf], "what came back changed the sender's class"
    # functions
    assert call(fib, 30) == 832040
    assert call(decorated, 1) == ("logged", 6)
    assert call(even, 10) is True
    assert call(functools.partial(times, 3)) == 15
    assert call(lambda: (lambda x: x + CONSTANT))(1) == 6
    # globals: one place for all messages, the sender's news prevail, the worker's own stay
    assert call(read_counter) is None
    call(initialize, "set there")
    assert call(read_counter) == "set there" and call(lambda: counter) == "set there"
    assert call(remember, "a") == ["a"] and call(remember, "b") == ["a", "b"]
    globals()["CONSTANT"] = 6
    assert call(times, 2) == 12 and call(read_counter) == "set there"
    # a definition anew, as in a notebook
    exec("def times(n): return ('new', n, CONSTANT)", globals())
    assert call(times, 2) == ("new", 2, 6) and call(Leaf.who, Leaf(3))[2] == ("new", 2, 6)
    old = Leaf
    exec("class Leaf(Base): fresh = True", globals())
    assert call(Leaf).fresh and type(call(Leaf)) is Leaf
    assert type(call(type, old(1))) is type


try:
    test()
finally:
    worker.stdin.close()
    worker.wait()
    worker.stdout.close()
print("ok")
'''


@pytest.mark.parametrize("how", ["file", "-c"])
def test_main_is_mirrored_in_a_process_that_did_not_run_it(how: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(MAIN)
    arguments = [str(program)] if how == "file" else ["-c", MAIN]
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0 and done.stdout == "ok\n", done.stderr


# ------------------------------------------------------------------ what can't travel


class Holder:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Slots:
    __slots__ = ("inner",)


def test_an_error_names_the_way_to_the_culprit() -> None:
    names = {"what": "the argument", "root": ("args", "kwargs")}
    with socket.socket() as sock, open(__file__) as file:
        holder = Holder(session=Holder(sock=sock))
        holder.session.me = holder
        why = "a socket.socket (TypeError: cannot pickle 'socket' object)"
        expected = f"cannot send the argument: args[0].session.sock is {why}"
        assert refusal(((holder,), {}), **names) == expected
        assert f"kwargs['key'][1].sock is {why}" in refusal(
            ((), {"key": [1, holder.session]}), **names
        )
        assert f"args[0].args[0].sock is {why}" in refusal(
            ((functools.partial(print, holder.session),), {}), **names
        )
        assert f"args[0].__closure__['holder'].session.sock is {why}" in refusal(
            ((lambda: holder,), {}), **names
        )
        slots = Slots()
        slots.inner = sock  # type: ignore[attr-defined]
        assert f"object.inner is {why}" in refusal(slots)
        assert "object is an _io.TextIOWrapper" in refusal(file)
    assert "object[0] is a generator" in refusal([(item for item in "a")])
    assert "object['a'] is a _thread.lock" in refusal({"a": threading.Lock()})


def test_whatever_an_object_does_the_error_is_a_pickling_error() -> None:
    class Broken:
        def __getattribute__(self, name: str) -> Any:
            raise ValueError("nothing here")

    class Raises:
        def __reduce__(self) -> Any:
            raise ZeroDivisionError("no")

    assert "ValueError" in refusal([Broken()])
    assert "object[0] is a" in refusal([Raises()]) and "ZeroDivisionError: no" in refusal(Raises())
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert "cannot send the object" in refusal(deep)


def test_a_generator_deep_in_a_large_object_is_reported_without_a_path() -> None:
    huge = [[i] for i in range(200_000)]
    assert refusal([huge, (i for i in "a")]).startswith("cannot send the object: TypeError")


# ------------------------------------------------------------------ exceptions


class TwoArgumentsError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class BadReduceError(Exception):
    def __reduce__(self) -> Any:
        raise ValueError("no")


class BadResultError(Exception):
    def __reduce__(self) -> Any:
        return int, ("x",)


class OwnError(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(2, "not there", path)


class Group(ExceptionGroup[Exception]):
    pass


class UnsendableError(Exception):
    def __reduce__(self) -> Any:
        raise ValueError("no")

    def __getattribute__(self, name: str) -> Any:
        if name in ("args", "__dict__"):
            raise ValueError("nor this")
        return super().__getattribute__(name)


def raised(error: BaseException) -> BaseException:
    """The exception as it arrives."""
    try:
        raise error
    except BaseException as caught:
        return unpack_exception(pack_exception(caught))


@pytest.mark.parametrize(
    "error",
    [
        TwoArgumentsError(1, "a"),
        BadReduceError("q"),
        BadResultError("r"),
        OwnError("path"),
        FileNotFoundError(2, "no", "f"),
        UnicodeDecodeError("utf8", b"a", 0, 1, "bad"),
        StopIteration(4),
        SystemExit(3),
        KeyboardInterrupt(),
        ImportError("x", name="n", path="p"),
        SyntaxError("m", ("f", 1, 2, "t", 1, 3)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_arrive_as_they_were(error: BaseException) -> None:
    got = raised(error)
    assert type(got) is type(error)
    assert got.args == error.args and str(got) == str(error) and got.__dict__ == error.__dict__
    for name in ("filename", "value", "code", "name", "path", "reason", "lineno"):
        assert getattr(got, name, None) == getattr(error, name, None)


def test_what_an_exception_can_not_take_along_is_left_out() -> None:
    error = TwoArgumentsError(1, "a")
    error.add_note("a note")
    with socket.socket() as sock:
        error.sock = sock  # type: ignore[attr-defined]
        got = raised(error)
        assert got.__dict__ == {"code": 1, "__notes__": ["a note"]}
        got = raised(ValueError(sock, 1))
        assert got.args == (str(sock), 1)


def test_an_exception_that_can_not_be_rebuilt_says_what_it_was() -> None:
    got = raised(UnsendableError("lost"))
    assert type(got) is RemoteError and "UnsendableError" in str(got) and "nor this" in str(got)


def test_causes_and_contexts_are_kept_and_the_traceback_is_the_last_cause() -> None:
    from concurrent.futures.process import _RemoteTraceback  # type: ignore[attr-defined]

    def fail(argument: int) -> None:
        local = argument
        try:
            {}[local]  # a comment
        except KeyError as error:
            raise TwoArgumentsError(1, "a") from error

    try:
        fail(3)
    except TwoArgumentsError as error:
        got = unpack_exception(pack_exception(error))
    assert repr(got.__cause__) == "KeyError(3)" and got.__context__ is got.__cause__
    text = got.__cause__.__cause__
    assert type(text) is _RemoteTraceback
    shown = str(text)
    assert "{}[local]  # a comment" in shown and "in fail" in shown
    assert "    locals: argument, local" in shown and __file__ in shown

    own = unpack_exception(pack_exception(ValueError(1)), RemoteError)
    assert type(own.__cause__) is RemoteError


def test_groups_keep_their_class_and_members() -> None:
    inner = ValueError("v")
    inner.__cause__ = KeyError("k")
    got = raised(Group("two", [inner, ExceptionGroup("one", [TwoArgumentsError(1, "a")])]))
    assert type(got) is Group and got.message == "two"
    first, second = got.exceptions
    assert repr(first) == "ValueError('v')" and repr(first.__cause__) == "KeyError('k')"
    assert isinstance(second, ExceptionGroup) and type(second.exceptions[0]) is TwoArgumentsError


def test_circles_of_contexts_arrive() -> None:
    one, two = ValueError(1), KeyError(2)
    one.__context__, two.__context__ = two, one
    got = unpack_exception(pack_exception(one))
    assert repr(got.__context__) == "KeyError(2)" and got.__context__.__context__ is got


class Refuses:
    def __reduce__(self) -> Any:
        raise RuntimeError("only for children")


def test_an_error_of_the_programs_own_stays_and_gets_the_path() -> None:
    with pytest.raises(RuntimeError, match="only for children") as raised:
        dumps({"key": [Refuses()]}, root="item")
    assert any("item['key'][0]" in note for note in raised.value.__notes__)
