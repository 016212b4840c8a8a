"""Functions of `__main__` that are called again and again: sent once, and yet as they are now."""

from collections.abc import Callable

_PROGRAM = """
import functools, gc, weakref
from juggler.futures import ProcessPoolExecutor

FACTOR = 1
names = ["one"]
table = ({"a": 1},)

def helper(x):
    return x * FACTOR

def chained(x, plus=0):
    return helper(x) + plus

def listed():
    return list(names), table[0]["a"]

def late():
    return later

def scaled(x, by=[1]):
    return x * by[0]

scale = lambda x: x * FACTOR

def counter():
    count = 0
    def read():
        return count
    def add():
        nonlocal count
        count += 1
    return read, add

with ProcessPoolExecutor(1) as pool:
    def call(function, *args, **named):
        return [pool.submit(function, *args, **named).result() for _ in range(3)]

    print(call(chained, 2), call(chained, 2, plus=1), call(scale, 2))
    FACTOR = 10
    print(call(chained, 2), call(chained, 2, plus=1), call(scale, 2))
    print(call(functools.partial(chained, 3)))
    FACTOR = 1
    print(call(functools.partial(chained, 3)), call(chained, 2))

    def helper(x):
        return -x
    print(call(chained, 2))

    print(call(listed))
    names.append("two")
    table[0]["a"] = 2
    print(call(listed))

    for _ in range(2):
        try:
            call(late)
        except NameError as error:
            print(error)
    later = "there now"
    print(call(late))

    print(call(scaled, 2))

    read, add = counter()
    print(call(read))
    add()
    print(call(read))

    functions = [eval(f"lambda x: x + {number}") for number in range(40)]
    for _ in range(2):
        print(sum(pool.submit(function, 1).result() for function in functions))

    kept = weakref.ref(chained)
    del chained, functions
    gc.collect()
    print(kept())
    print(call(abs, -1), call(int, "7", base=8))
"""

_EXPECTED = """\
[2, 2, 2] [3, 3, 3] [2, 2, 2]
[20, 20, 20] [21, 21, 21] [20, 20, 20]
[30, 30, 30]
[3, 3, 3] [2, 2, 2]
[-2, -2, -2]
[(['one'], 1), (['one'], 1), (['one'], 1)]
[(['one', 'two'], 2), (['one', 'two'], 2), (['one', 'two'], 2)]
name 'later' is not defined
name 'later' is not defined
['there now', 'there now', 'there now']
[2, 2, 2]
[0, 0, 0]
[1, 1, 1]
820
820
None
[1, 1, 1] [7, 7, 7]
"""


def test_a_function_is_called_as_it_is_now(run_program: Callable[..., str]) -> None:
    assert run_program(_PROGRAM) == _EXPECTED
