"""The tests with `zygote`."""

from test import _test_multiprocessing

_test_multiprocessing.install_tests_in_module_dict(globals(), "zygote")
