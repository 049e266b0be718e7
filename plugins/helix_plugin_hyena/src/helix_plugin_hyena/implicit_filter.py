"""Filters as functions of time: a small network from a position's embedding to a value for every channel."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

from helix_core.kinds.layer import Params
from helix_core.kinds.params import ParamSpec, constant, fan_in, uniform
from helix_core.ops import OpTable, device_of

Array = Any


def spaced(xp: Any, start: float, stop: float, count: int, like: Array) -> Array:
    """`count` numbers from start to stop, both included, with the dtype and device of `like`."""
    steps = xp.arange(count, dtype=like.dtype, device=device_of(like))
    return start + steps * ((stop - start) / max(count - 1, 1))


def embedding(xp: Any, longest: int, length: int, width: int, like: Array) -> Array:
    """Time from 0 to 1 over `longest` steps, then cosines and sines of (width - 1) / 2 frequencies: (length, width)."""
    bands = (width - 1) // 2
    steps = spaced(xp, 0, length - 1, length, like)[:, None]
    phase = steps * spaced(xp, 1e-4, bands - 1, bands, like)[None, :] * (2 * math.pi / longest)
    return xp.concat([steps / (longest - 1), xp.cos(phase), -xp.sin(phase)], axis=1)


def window(xp: Any, time: Array, channels: int, fast: float, slow: float, target: float) -> Array:
    """exp(-a t): falls to `target` at t = `slow` in the first channel, `fast` in the last: (K, 1) -> (K, channels)."""
    rates = -spaced(xp, math.log(target) / slow, math.log(target) / fast, channels, time)
    return xp.exp(-time * rates[None, :])


def mlp_params(width: int, inputs: int, inner: int, outputs: int, frequency: float) -> dict[str, ParamSpec]:
    """Linear maps with sines between them, all of one trained frequency per unit; the last map has no bias."""
    specs = {"filter.freq": ParamSpec((width,), constant(frequency), weight_decay=False)}
    for i in range(inner + 1):
        columns = inputs if i == 0 else width
        specs[f"filter.layers.{i}.weight"] = ParamSpec((width, columns), fan_in(), weight_decay=False)
        specs[f"filter.layers.{i}.bias"] = ParamSpec((width,), uniform(1 / math.sqrt(columns)), weight_decay=False)
    specs["filter.out.weight"] = ParamSpec((outputs, width), fan_in(), weight_decay=False)
    return specs


def mlp(F: OpTable, p: Params, z: Array, inner: int) -> Array:
    """Embeddings (K, inputs) -> (K, outputs)."""
    for i in range(inner + 1):
        weight, bias = p[f"filter.layers.{i}.weight"], p[f"filter.layers.{i}.bias"]
        z = F.xp.sin(p["filter.freq"] * (z @ F.xp.matrix_transpose(weight) + bias))
    return z @ F.xp.matrix_transpose(p["filter.out.weight"])


class Kept:
    """A value computed from parameters, kept while these are the same arrays with the same contents.

    Contents count as the same only where the framework counts writes to an array (torch does, except in its
    inference mode); elsewhere every call computes anew.
    """

    def __init__(self) -> None:
        self._key: list[tuple[weakref.ref[Any], int]] = []
        self._value: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Kept:
        return Kept()

    def get(self, arrays: list[Array], compute: Callable[[], Any]) -> Any:
        """`compute()`, or what it returned before."""
        try:
            versions = [array._version for array in arrays]
        except (AttributeError, RuntimeError):
            return compute()
        known = len(self._key) == len(arrays) and all(
            ref() is array and version == now
            for (ref, version), array, now in zip(self._key, arrays, versions, strict=True)
        )
        if not known:
            self._value = compute()
            self._key = [(weakref.ref(array), now) for array, now in zip(arrays, versions, strict=True)]
        return self._value
