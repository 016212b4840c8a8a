"""The process pool's Python side: what travels between processes, the workers, the executor."""
