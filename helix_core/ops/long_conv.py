"""Causal convolution with a filter as long as the sequence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from helix_core.ops.op import Array, Sample, Shape, define_op


def _shapes(u: Shape, filter: Shape) -> tuple[Shape, ...]:
    return (u,)


def _samples(rng: Any) -> Iterator[Sample]:
    for (B, L, D), taps in (((2, 9, 5), 9), ((1, 1, 1), 1), ((3, 33, 7), 33), ((2, 20, 3), 6)):
        yield Sample({"u": rng.normal(size=(B, L, D)), "filter": rng.normal(size=(taps, D))})


@define_op(shapes=_shapes, samples=_samples)
def long_conv(xp: Any, u: Array, filter: Array) -> Array:
    """y_t = Σ_{s<=t} filter_s u_{t-s} for every channel: u (B, L, D), filter (K, D), K <= L -> (B, L, D).

    Computed with FFTs of length L + K - 1 or more, so that nothing wraps around: O(L log L).
    """
    length = u.shape[1]
    n = 1 << (length + filter.shape[0] - 2).bit_length()
    spectrum = xp.fft.rfft(u, n=n, axis=1) * xp.fft.rfft(filter, n=n, axis=0)
    return xp.fft.irfft(spectrum, n=n, axis=1)[:, :length, :]
