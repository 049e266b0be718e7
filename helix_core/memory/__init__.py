"""Memories: stores of vectors that a model or a pipeline writes to, queries and lets forget."""

from helix_core.memory.base import Hits, Memory, MemoryConfig, check_keys, check_values

__all__ = ["Hits", "Memory", "MemoryConfig", "check_keys", "check_values"]
