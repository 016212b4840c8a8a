"""tools/check_layers.py finds what it is there to find."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "check_layers.py"


@pytest.fixture(scope="module")
def layers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_layers", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def metadata(arrows: dict[str, list[str]]) -> dict[str, Any]:
    """What cargo would say of these packages; those called juggler-* are the workspace's."""
    return {
        "packages": [{"id": f"id-{name}", "name": name} for name in arrows],
        "workspace_members": [f"id-{name}" for name in arrows if name.startswith("juggler-")],
        "resolve": {
            "nodes": [
                {"id": f"id-{name}", "deps": [{"pkg": f"id-{used}"} for used in uses]}
                for name, uses in arrows.items()
            ]
        },
    }


def test_arrows_along_the_layers_pass(layers: ModuleType) -> None:
    arrows = {
        "juggler-sync": ["libc"],
        "juggler-trace": [],
        "juggler-python": ["juggler-sync", "juggler-trace", "pyo3"],
        "libc": [],
        "pyo3": ["libc"],
    }
    assert list(layers.wrong_arrows(metadata(arrows))) == []


def test_engine_that_uses_the_binding_is_found(layers: ModuleType) -> None:
    arrows: dict[str, list[str]] = {"juggler-sync": ["juggler-trace"], "juggler-trace": []}
    assert list(layers.wrong_arrows(metadata(arrows))) == [
        "juggler-sync depends on juggler-trace, against the arrows"
    ]


def test_pyo3_behind_another_crate_is_found(layers: ModuleType) -> None:
    arrows = {"juggler-sync": ["between"], "between": ["pyo3-ffi"], "pyo3-ffi": []}
    assert list(layers.wrong_arrows(metadata(arrows))) == [
        "juggler-sync reaches PyO3: only juggler-python may know Python"
    ]


def test_new_crate_must_be_placed(layers: ModuleType) -> None:
    (problem,) = layers.wrong_arrows(metadata({"juggler-new": []}))
    assert problem.startswith("juggler-new: a new crate")


@pytest.mark.parametrize(
    "line",
    [
        "use std::sync::atomic::AtomicBool;",
        "use core::sync::atomic;",
        "use std::sync::{Arc, atomic::Ordering};",
        "static N: std::sync::atomic::AtomicU32 = todo!();",
    ],
)
def test_atomics_outside_the_facade_are_found(
    layers: ModuleType, tmp_path: Path, line: str
) -> None:
    module = tmp_path / "crates" / "juggler-sync" / "src" / "lock.rs"
    module.parent.mkdir(parents=True)
    module.write_text(line)
    (problem,) = layers.misplaced(tmp_path, "**/*.rs", layers.STD_ATOMICS, {})
    assert problem.startswith("crates/juggler-sync/src/lock.rs: ")


def test_unit_tests_may_use_atomics(layers: ModuleType, tmp_path: Path) -> None:
    module = tmp_path / "crates" / "a" / "src" / "lib.rs"
    module.parent.mkdir(parents=True)
    module.write_text("fn f() {}\n\n#[cfg(test)]\nmod tests { use std::sync::atomic::AtomicU8; }\n")
    assert list(layers.misplaced(tmp_path, "**/*.rs", layers.STD_ATOMICS, {})) == []


def test_list_is_kept_true(layers: ModuleType, tmp_path: Path) -> None:
    module = tmp_path / "crates" / "a" / "src" / "raw.rs"
    module.parent.mkdir(parents=True)
    module.write_text("#![allow(unsafe_code)]\n")
    listed = {"a/src/raw.rs": "needs it", "a/src/gone.rs": "needed it once"}
    (problem,) = layers.misplaced(tmp_path, "**/*.rs", layers.ALLOW_UNSAFE, listed)
    assert problem.startswith("a/src/gone.rs: listed")
    (problem,) = layers.misplaced(tmp_path, "**/*.rs", layers.ALLOW_UNSAFE, {})
    assert "'allow(unsafe_code)' in a module that is not listed" in problem


def test_the_project_itself_passes(
    layers: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT)])
    status = layers.main()
    assert (status, capsys.readouterr().err) == (0, "")
