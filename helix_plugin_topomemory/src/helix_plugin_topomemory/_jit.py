"""Compiled functions of this plugin: without the GIL, kept on disk where that is possible."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from numba.core import config as numba_config
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher
from numba.core.serialize import dumps

from helix_core.events import emit

config: Any = numba_config
F = TypeVar("F", bound=Callable[..., Any])


class _Sealed(CompileResultCacheImpl):
    """What Numba stores, with a checksum: machine code that a disk has damaged would crash, or compute nonsense."""

    def reduce(self, cres: Any) -> tuple[bytes, bytes]:
        data = dumps(super().reduce(cres))
        return hashlib.sha256(data).digest(), data

    def rebuild(self, target_context: Any, payload: tuple[bytes, bytes]) -> Any:
        checksum, data = payload
        if hashlib.sha256(data).digest() != checksum:
            raise ValueError("damaged machine code")
        return super().rebuild(target_context, pickle.loads(data))


class _Cache(FunctionCache):
    """Numba's cache as what it is, a way to save time: without the part that is damaged or cannot be written."""

    _impl_class = _Sealed

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(sig, target_context)
            if found is not None and tuple(found.signature.args) != tuple(sig):
                raise ValueError("machine code for other arguments")
            return found
        except Exception as error:  # pickle raises anything
            emit("cache_damaged", kernel=self._name, path=self.cache_path, reason=f"{type(error).__name__}: {error}")
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:  # no space, no permission, no folder any more; or a damaged index once again
            emit("cache_unused", kernel=self._name, path=self.cache_path, reason=f"{type(error).__name__}: {error}")


class _Dispatcher(CPUDispatcher):
    """Numba's, which compiles also under NUMBA_DISABLE_JIT: in Python, the arithmetic of 64 bits is another one."""

    _cache: Any

    def compile(self, sig: Any) -> Any:
        with global_compiler_lock:
            disabled, config.DISABLE_JIT = config.DISABLE_JIT, 0
            try:
                return super().compile(sig)
            finally:
                config.DISABLE_JIT = disabled


def compiled(function: F) -> F:
    """What Numba's `njit` returns, with the machine code kept on disk.

    All functions that one kernel is made of stand in one file, so that Numba's cache notices every change.
    """
    found = _Dispatcher(function, targetoptions={"nopython": True, "nogil": True, "error_model": "numpy"})
    # RuntimeError: neither this folder nor the user's cache can be written.
    with suppress(RuntimeError, OSError):
        found._cache = _Cache(function)
    return cast(F, found)
