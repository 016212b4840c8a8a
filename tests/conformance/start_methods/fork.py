"""The tests with `fork`."""

from test import _test_multiprocessing

_test_multiprocessing.install_tests_in_module_dict(globals(), "fork")
