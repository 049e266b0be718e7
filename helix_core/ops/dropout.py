"""Dropout whose random numbers are a function of a key and of each element's place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from helix_core.ops.arrays import device_of
from helix_core.ops.op import Array, Sample, Shape, define_op


def _shapes(x: Shape, key: Shape, *, rate: float) -> tuple[Shape, ...]:
    return (x,)


def _samples(rng: Any) -> Iterator[Sample]:
    import numpy as np

    for shape, rate in (((2, 5, 8), 0.5), ((1, 1, 1), 0.1), ((3, 7, 33), 0.9), ((4, 1, 1), 0.25)):
        yield Sample({"x": rng.normal(size=shape), "key": rng.integers(1 << 31, size=1)}, {"rate": rate})
    yield Sample({"x": rng.normal(size=(2, 9)), "key": np.array([7])}, label="rate 0")


@define_op(shapes=_shapes, samples=_samples, no_grad=("key",))
def dropout(xp: Any, x: Array, key: Array, *, rate: float = 0.0) -> Array:
    """Each element becomes 0 with probability `rate`, else x / (1 - rate): (...) -> (...).

    key (1,), an integer below 2^31: equal keys drop the same elements, on every backend and in every dtype.

    Source: Srivastava et al., Dropout, 2014; the random bits are those of the integer hash `lowbias32` of Wellons.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> y = F.dropout(np.ones((2, 500)), np.array([7]), rate=0.5)
    >>> sorted(set(y.ravel().tolist()))
    [0.0, 2.0]
    """
    if not rate:
        return x
    size = 1
    for n in x.shape:
        size *= n
    place = xp.arange(size, dtype=xp.int32, device=device_of(x))
    bits = mix(mix(place) ^ xp.astype(key, xp.int32))
    kept = xp.reshape(_shifted(bits, 1) >= int(rate * 2**31), x.shape)
    return xp.where(kept, x * (1 / (1 - rate)), xp.zeros_like(x))


def fold(xp: Any, key: Array, number: int) -> Array:
    """A key (1,) of its own for the `number`-th use of `key`."""
    return mix(xp.astype(key, xp.int32) ^ _signed((number + 1) * 0x9E3779B9))


def mix(x: Array) -> Array:
    """An int32 array scattered one to one over all of int32, whose products wrap."""
    x = x ^ _shifted(x, 16)
    x = x * 0x7FEB352D
    x = x ^ _shifted(x, 15)
    x = x * _signed(0x846CA68B)
    return x ^ _shifted(x, 16)


def _shifted(x: Array, by: int) -> Array:
    """To the right, filled up with zeros."""
    return (x >> by) & ((1 << (32 - by)) - 1)


def _signed(number: int) -> int:
    """The int32 of the same low 32 bits."""
    return (number + 2**31) % 2**32 - 2**31
