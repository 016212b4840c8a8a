"""What type checkers make of the package: sample programs, exports, and the stub."""

from __future__ import annotations

import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from mypy.build import build
from mypy.modulefinder import BuildSource
from mypy.options import Options

import juggler

HERE = Path(__file__).parent
SAMPLES = HERE / "samples"
CONFIG = HERE.parents[1] / "pyproject.toml"
MODULES = ["threading", "queue", "futures", "multiprocessing", "policy"]


def mypy(*args: str | Path, cache: Path) -> str:
    """What mypy prints, whether it found errors or not."""
    command = [sys.executable, "-m", "mypy", f"--config-file={CONFIG}", f"--cache-dir={cache}"]
    done = subprocess.run([*command, *args], cwd=HERE.parents[1], capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14", "3.15"])
def test_samples_are_well_typed_on_every_version(version: str, cache: Path) -> None:
    output = mypy(
        "--strict", "--no-incremental", f"--python-version={version}", SAMPLES, cache=cache
    )
    assert output.startswith("Success"), output


@pytest.mark.parametrize("sample", ["threads", "queues", "pools", "processes", "policies"])
def test_samples_run_as_they_are_typed(sample: str) -> None:
    runpy.run_path(str(SAMPLES / f"{sample}.py"), run_name="__main__")


@pytest.mark.parametrize("name", MODULES)
def test_type_checkers_see_the_names_that_are_exported(name: str) -> None:
    options = Options()
    options.python_version = sys.version_info[:2]
    options.implicit_reexport = False
    options.incremental = False
    options.mypy_path = [str(Path(juggler.__file__).parents[1])]
    module = f"juggler.{name}"
    tree = build([BuildSource(None, module)], options).files[module]
    seen = {name for name, node in tree.names.items() if node.module_public}
    assert seen - {"__all__", "__doc__", "__file__", "__name__", "__package__", "__path__"} == set(
        importlib.import_module(module).__all__
    )


@pytest.mark.parametrize("name", [name for name in MODULES if name != "policy"])
def test_nothing_of_the_standard_library_is_missing(name: str) -> None:
    ours = importlib.import_module(f"juggler.{name}")
    theirs = importlib.import_module("concurrent.futures" if name == "futures" else name)
    assert set(theirs.__all__) <= set(ours.__all__)
    assert len(ours.__all__) == len(set(ours.__all__))


def test_types_are_shipped() -> None:
    package = Path(juggler.__file__).parent
    assert (package / "py.typed").exists()
    assert (package / "_juggler.pyi").exists()


def test_stub_says_what_the_module_has() -> None:
    modules = ["juggler._juggler", *(f"juggler.{name}" for name in MODULES)]
    allowed = HERE / "stubtest-allowlist.txt"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy.stubtest", *modules, f"--allowlist={allowed}"),
            "--ignore-unused-allowlist",  # an entry is for some versions
        ],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
