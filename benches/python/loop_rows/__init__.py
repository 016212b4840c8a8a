"""The event loop's rows, by what they use of it."""
