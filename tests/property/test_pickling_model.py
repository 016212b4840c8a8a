"""Random objects arrive as they were, whatever of them travels out of band."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from juggler._processes.exceptions import pack_exception, unpack_exception
from juggler._processes.pickling import dumps, loads

_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.binary(max_size=40),
    st.binary(max_size=40).map(bytearray),
    st.binary(max_size=40).map(memoryview),
    st.just("__main__"),
)
_OBJECTS = st.recursive(
    _LEAVES,
    lambda items: st.one_of(
        st.lists(items, max_size=5),
        st.lists(items, max_size=5).map(tuple),
        st.dictionaries(st.text(max_size=5), items, max_size=5),
    ),
    max_leaves=20,
)


def _shape(obj: Any) -> Any:
    """The object with every container's and leaf's type beside it: `1 == True` won't do."""
    if type(obj) in (list, tuple):
        return type(obj), [_shape(item) for item in obj]
    if type(obj) is dict:
        return dict, [(key, _shape(item)) for key, item in obj.items()]
    return type(obj), bytes(obj) if type(obj) is memoryview else obj


@given(_OBJECTS, st.integers(0, 40))
@settings(deadline=None, max_examples=300)
def test_objects_arrive_as_they_were(obj: Any, threshold: int) -> None:
    data, buffers = dumps(obj, threshold=threshold)
    assert all(buffer.raw().nbytes >= threshold for buffer in buffers)
    got = loads(data, buffers=[bytearray(buffer.raw()) for buffer in buffers])
    assert _shape(got) == _shape(obj)


class RemembersError(Exception):
    def __init__(self, one: object, two: object) -> None:
        super().__init__(one)
        self.two = two


@given(_OBJECTS, _OBJECTS, st.booleans())
@settings(deadline=None, max_examples=100)
def test_exceptions_arrive_as_they_were(one: Any, two: Any, lock: bool) -> None:
    error = RemembersError(one, two)
    if lock:
        error.lock = (item for item in ())  # type: ignore[attr-defined]
    got = unpack_exception(pack_exception(error))
    assert type(got) is RemembersError
    assert _shape(got.args) == _shape(error.args) and _shape(got.two) == _shape(two)
    assert not hasattr(got, "lock")
