"""The tests with `zygote`."""

from importlib import import_module
from typing import Any

tests: Any = import_module("test._test_multiprocessing")
tests.install_tests_in_module_dict(globals(), "zygote")
