"""Completes `test` in every interpreter that a suite of processes starts; see run.py."""

import os

import overlay

overlay.add_tests(os.environ["CONFORMANCE_TESTS"].split(os.pathsep))
