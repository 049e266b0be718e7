"""Backends: where arrays live and which kernels serve them."""

from helix_core.backends.base import Backend

__all__ = ["Backend"]
