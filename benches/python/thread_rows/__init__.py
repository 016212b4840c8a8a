"""The rows of the threads benchmark, a module for each of its tables."""
