"""The part of ``juggler run`` that lives in the program's own process."""

import os
import sys
import time

from juggler import _import_hooks, _substitution

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


# What the children of this program are told, in addition to being on juggler.
detecting = False


def begin(*, detect: bool, report: "str | None", report_file: "str | None") -> None:
    """Put juggler in place, before the program starts.

    Args:
        detect: Whether a deadlock raises.
        report: The form of the report at the end, ``"table"`` or ``"json"``, or none.
        report_file: Where the report goes; standard error by default.
    """
    global detecting
    detecting = detect

    def start_trace(execute: "Callable[[], None]") -> None:
        execute()
        sys.modules["juggler._juggler"].trace_start(report=report is not None, detect=detect)

    if detect or report:
        _import_hooks.around_import("juggler._juggler", start_trace)

    def record_checks(execute: "Callable[[], None]") -> None:
        execute()
        sys.modules["juggler.asyncio._checks"].record()

    if report:
        _import_hooks.around_import("juggler.asyncio._checks", record_checks)
        _report_at_exit(report, report_file)
    _substitution.install()


def begin_child(settings: "dict[str, bool]") -> None:
    """Put juggler in place in a child that was not forked from the program itself.

    Args:
        settings: What `child_settings` gave in the parent.
    """
    if not _substitution.is_installed():
        begin(detect=settings["detect"], report=None, report_file=None)


def child_settings() -> "dict[str, bool] | None":
    """What a child needs to be on juggler as this process is; nothing if it is not."""
    return {"detect": detecting} if _substitution.is_installed() else None


def _report_at_exit(form: str, path: "str | None") -> None:
    # The first function registered is the last called: after the program's own, which come after
    # the end of its threads. A forked child that exits normally would report a second time.
    import atexit

    started = time.monotonic()
    process = os.getpid()

    def report() -> None:
        if os.getpid() != process:
            return
        seconds = time.monotonic() - started
        native = sys.modules.get("juggler._juggler")
        rows = native.trace_report() if native is not None else []
        checks = sys.modules.get("juggler.asyncio._checks")
        findings = checks.findings() if checks is not None else []
        from juggler._report import write_report

        write_report(rows, findings, seconds=seconds, form=form, path=path)

    atexit.register(report)
