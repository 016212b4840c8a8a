"""The standard library under another name: what run.py is validated with (`--baseline`)."""
