"""The op's own signature, for whatever computes it: calls have one normal form, whichever kernel serves them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from inspect import Parameter
from types import FunctionType
from typing import Any
from weakref import WeakSet

from helix_core.ops.op import Op

_made: WeakSet[FunctionType] = WeakSet()


def as_op(op: Op, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with the signature of the op's reference: arguments by position or keyword, TypeError for others.

    `function` gets every array by position, absent ones as None, and every attribute by keyword, so that no kernel has
    to sort arguments itself.
    """
    if isinstance(function, FunctionType) and function in _made:
        return function
    needed = frozenset(name for name, default in op.attrs.items() if default is Parameter.empty)
    factory = _factory(op.name, op.arrays, op.optional, tuple(op.attrs), needed)
    named: FunctionType = factory(function, *op.attrs.values())
    named.__doc__ = op.reference.__doc__
    named.__module__ = op.reference.__module__
    named.__qualname__ = op.name
    _, *annotations = op.reference.__annotations__.items()  # the first is that of the namespace
    named.__annotations__ = dict(annotations)
    _made.add(named)
    return named


@functools.cache
def _factory(
    name: str, arrays: tuple[str, ...], optional: frozenset[str], attrs: tuple[str, ...], needed: frozenset[str]
) -> Any:
    """`(function, *defaults of attrs) -> function`, made of source: Python's own call sorts fastest."""
    marker = ["*"] if attrs else []
    taken = [f"{a}=None" if a in optional else a for a in arrays]
    taken += marker + [a if a in needed else f"{a}={a}" for a in attrs]
    passed = [*arrays, *(f"{a}={a}" for a in attrs)]
    source = (
        f"def factory({', '.join(['function_', *attrs])}):\n"
        f"    def {name}({', '.join(taken)}):\n"
        f"        return function_({', '.join(passed)})\n"
        f"    return {name}\n"
    )
    scope: dict[str, Any] = {"__name__": __name__}
    exec(compile(source, f"<signature of {name}>", "exec"), scope)
    return scope["factory"]
