"""The rows of the processes' tables."""
