"""Pause of Python's cyclic garbage collector while many records are read, none of which has cycles."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


def without_gc(function: Callable[Arguments, Value]) -> Callable[Arguments, Value]:
    """Return ``function`` during which the collector is paused: it would visit all records again and again.

    Objects without cycles are still freed at once.
    """

    @wraps(function)
    def paused(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Value:
        enabled = gc.isenabled()
        gc.disable()
        try:
            return function(*args, **kwargs)
        finally:
            if enabled:
                gc.enable()

    return paused
