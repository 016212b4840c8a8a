"""Before CPython 3.14, what may run Python code is called through a wrapper (`unwind/mod.rs`)."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from juggler import _juggler

LIST = Path(__file__).parents[2] / "crates/juggler-python/src/unwind/calls.rs"

# What never runs Python code, and so never waits for the GIL; attaching is guarded by PyO3.
LEAVES = re.compile(
    r"""_?Py(
    .*_(Type|Check)|_AddPendingCall|Exc_.*|_\w+Struct|_GetVersion|_NewReference|_IsInitialized|_?_IsFinalizing|
    Buffer_IsContiguous|ByteArray_(AsString|FromStringAndSize|Size)|Bytes_\w+|CFunction_GetSelf|Callable_Check|
    Context_(Enter|Exit)|
    Descr_NewMethod|Dict_(Next|Size)|
    Err_(ExceptionMatches|Fetch|GetRaisedException|Occurred)|
    Eval_(GetBuiltins|GetFrame|GetGlobals|RestoreThread|SaveThread)|Exception_(GetTraceback|SetCause)|
    Float_(AsDouble|FromDouble)|Frame_Get\w+|GILState_(Ensure|Release)|Import_AddModule(Ref)?|
    Long_\w+|ModuleDef_Init|Module_GetNameObject|Object_(GC_((Un)?[Tt]rack|IsFinalized)|Generic[GS]etDict)|
    ThreadState_(Get|UncheckedGet)|Tuple_GetItem|Type_(Get\w+|IsSubtype|Modified)|
    Unicode_(AsUTF8AndSize|CompareWithASCIIString|DecodeUTF8|EqualToUTF8AndSize|GetLength)|
    Unicode_(FromStringAndSize|InternInPlace)|
    InterpreterState_Main|Runtime|Set_Size|_Version|_?Weakref_\w+Type|Weakref_(GetObject|GetRef|NewRef|RefType)
    )""",
    re.VERBOSE,
)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="CPython hangs such threads itself")
@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm, of the binutils")
def test_every_call_that_may_run_python_is_guarded() -> None:
    command = ["nm", "--dynamic", "--undefined-only", "--format=posix", _juggler.__file__]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    called = {name for name in output.split() if re.match("_?Py", name)}
    listed = re.findall(r"^    (\w+)\(", LIST.read_text(), re.MULTILINE)
    guarded = {"PyVectorcall_Function", *listed}
    assert "PyObject_Vectorcall" in called & guarded
    assert {name for name in called if not LEAVES.fullmatch(name)} <= guarded
