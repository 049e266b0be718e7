"""Dropout whose random numbers are a function of a key and of each element's place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from helix_core.ops._array import device_of
from helix_core.ops.op import Array, Sample, Shape, define_op

MASK = 0xFFFFFFFF


def _shapes(x: Shape, key: Shape, *, rate: float) -> tuple[Shape, ...]:
    return (x,)


def _samples(rng: Any) -> Iterator[Sample]:
    for shape, rate in (((2, 5, 8), 0.5), ((1, 1, 1), 0.1), ((3, 7, 33), 0.9), ((4, 1, 1), 0.25)):
        yield Sample({"x": rng.normal(size=shape), "key": rng.integers(1 << 32, size=1)}, {"rate": rate})
    yield Sample({"x": rng.normal(size=(2, 9)), "key": np.array([7])}, label="rate 0")


@define_op(shapes=_shapes, samples=_samples, no_grad=("key",))
def dropout(xp: Any, x: Array, key: Array, *, rate: float = 0.0) -> Array:
    """Each element becomes 0 with probability `rate`, else x / (1 - rate): (...) -> (...).

    key (1,), an integer below 2^32: equal keys drop the same elements, on every backend and in every dtype.

    Source: Srivastava et al., Dropout, 2014; the random bits are those of the integer hash `lowbias32` of Wellons.
    """
    if not rate:
        return x
    size = 1
    for n in x.shape:
        size *= n
    place = xp.arange(size, dtype=xp.int64, device=device_of(x))
    bits = mix(mix(place) ^ key)
    kept = xp.reshape(bits >= int(rate * 2**32), x.shape)
    return xp.where(kept, x * (1 / (1 - rate)), xp.zeros_like(x))


def fold(key: Array, number: int) -> Array:
    """A key (1,) of its own for the `number`-th use of `key`."""
    return mix(key ^ ((number + 1) * 0x9E3779B9 & MASK))


def mix(x: Array) -> Array:
    """Integers below 2^32 of an int64 array, scattered one to one over that range."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & MASK
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & MASK  # beyond 2^63 the product wraps, and its low bits are right all the same
    return x ^ (x >> 16)
