"""CPython's tests of multiprocessing, one module a start method: children import them by name."""
