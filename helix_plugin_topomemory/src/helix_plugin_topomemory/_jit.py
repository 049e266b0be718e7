"""Compiled functions of this plugin: without the GIL, kept on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Numba's `njit` with an on-disk cache.

    All functions that one kernel is made of stand in one file, so that Numba's cache notices every change.
    """
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return cast(F, njit(cache=True, **options)(function))
    except RuntimeError:  # neither this folder nor the user's cache can be written
        return cast(F, njit(**options)(function))
