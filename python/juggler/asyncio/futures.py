"""Futures: stands in for the standard library's ``asyncio.futures``. See `juggler.asyncio`."""

from __future__ import annotations

from asyncio.futures import isfuture, wrap_future

from juggler.asyncio._primitives import Future

__all__ = ["Future", "isfuture", "wrap_future"]
