"""The rows of the loop benchmark, a module for each of its tables."""
