"""Pytrees of nested dicts, lists and tuples: all that states and parameters are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def tree_map(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Apply `function` to corresponding leaves of one or more trees of equal structure."""
    if isinstance(tree, dict):
        return {key: tree_map(function, value, *(other[key] for other in rest)) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(tree_map(function, *items) for items in zip(tree, *rest, strict=True))
    return None if tree is None else function(tree, *rest)


def tree_items(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves with their dotted paths, in order."""
    if isinstance(tree, dict):
        pairs: Any = tree.items()
    elif isinstance(tree, list | tuple):
        pairs = enumerate(tree)
    else:
        if tree is not None:
            yield prefix, tree
        return
    for key, value in pairs:
        yield from tree_items(value, f"{prefix}.{key}" if prefix else str(key))
