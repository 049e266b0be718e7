"""The few array idioms that references share, on any array-API namespace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Array = Any


def device_of(array: Array) -> Any:
    """Where an array lives; None for arrays that are only traced (XLA places those itself)."""
    return getattr(array, "device", None)


def zeros(xp: Any, shape: tuple[int, ...], like: Array) -> Array:
    """Zeros of `shape` with the dtype and device of `like`."""
    return xp.zeros(shape, dtype=like.dtype, device=device_of(like))


def arange(xp: Any, stop: int, like: Array) -> Array:
    """0, 1, ..., stop-1 with the dtype and device of `like`."""
    return xp.arange(stop, dtype=like.dtype, device=device_of(like))


def scan(
    xp: Any, step: Callable[[Any, tuple[Any, ...]], tuple[Any, Array]], carry: Any, xs: Sequence[Array | None]
) -> tuple[Any, Array]:
    """`carry, y = step(carry, arrays of a step)` over axis 1 of `xs`: the last carry and the ys, stacked on axis 1.

    An absent array is None at every step. There must be at least one step. A namespace that has a loop of its own
    (XLA's compiles to one body, whatever the length) offers it as `xp.helix_scan(step, carry, xs)`.
    """
    if hasattr(xp, "helix_scan"):
        found: tuple[Any, Array] = xp.helix_scan(step, carry, tuple(xs))
        return found
    # `unstack`, because its gradient is one stack: that of a slice is a copy of the whole, for every step.
    cut = [None if a is None else xp.unstack(a, axis=1) for a in xs]
    length = next(len(a) for a in cut if a is not None)
    ys = []
    for t in range(length):
        carry, y = step(carry, tuple(None if a is None else a[t] for a in cut))
        ys.append(y)
    return carry, xp.stack(ys, axis=1)


def valid_steps(xp: Any, length: int, lengths: Array) -> Array:
    """Boolean (B, L): True where step t of row b lies before its right padding."""
    steps = xp.arange(length, dtype=lengths.dtype, device=device_of(lengths))
    return steps[None, :] < lengths[:, None]


def cond(xp: Any, holds: Array, then: Callable[[], Array], otherwise: Callable[[], Array]) -> Array:
    """`then()` if a boolean of no axes holds, else `otherwise()`, which also serves where nobody can tell.

    That is under a compiler that traces. A namespace that can branch there offers `xp.helix_cond(holds, then,
    otherwise)`.
    """
    if hasattr(xp, "helix_cond"):
        return xp.helix_cond(holds, then, otherwise)
    try:
        known = bool(holds)
    except (TypeError, ValueError):  # what namespaces that trace raise (MLX: ValueError)
        known = False
    return then() if known else otherwise()


def blank_padding(xp: Any, valid: Array | None, *arrays: Array) -> list[Array]:
    """Arrays (B, L, ...) with zeros where `valid` (B, L) is False; as they are if there is none.

    What padding holds may be anything. A result that is thrown away behind it still has a gradient, 0, and 0 times NaN
    is NaN: so padding is emptied before anything is computed of it.
    """
    if valid is None:
        return list(arrays)
    spread = [xp.reshape(valid, (*valid.shape, *(1,) * (len(a.shape) - 2))) for a in arrays]
    return [xp.where(here, a, xp.zeros_like(a)) for here, a in zip(spread, arrays, strict=True)]


def last_real(xp: Any, x: Array, lengths: Array | None) -> Array:
    """x (B, L, D), padded on the right -> its last real step (B, 1, D); the first one of a row without any."""
    if lengths is None:
        return x[:, -1:]
    at = xp.maximum(lengths - 1, xp.zeros_like(lengths))[:, None, None]
    return xp.take_along_axis(x, xp.broadcast_to(at, (x.shape[0], 1, x.shape[2])), axis=1)
