"""Causal convolution with a filter as long as the sequence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from helix_core.ops.arrays import blank_padding, cond, valid_steps, zeros
from helix_core.ops.op import Array, Sample, Shape, define_op

GROWTH = 64.0
"""A transform rounds all outputs by the size of the largest input. Beyond so many times the first step's, it must not
span the row: the rounding of later inputs would change earlier outputs."""


def _shapes(
    u: Shape,
    filter: Shape,
    pre: Shape | None,
    post: Shape | None,
    initial_state: Shape | None,
    reset: Shape | None,
    lengths: Shape | None,
) -> tuple[Shape, ...]:
    return (u,)


def _samples(rng: Any) -> Iterator[Sample]:
    for (B, L, D), taps, before in (
        ((2, 9, 5), 9, 3), ((1, 1, 1), 1, 1), ((3, 33, 17), 40, 7), ((2, 20, 3), 6, 30), ((2, 130, 16), 130, 1),
    ):  # fmt: skip
        plain = {"u": rng.normal(size=(B, L, D)), "filter": rng.normal(size=(taps, D))}
        yield Sample(plain)
        gates = {"pre": rng.normal(size=(B, L, D)), "post": rng.normal(size=(B, L, D))}
        yield Sample(plain | gates, label="gates")
        state = {"initial_state": rng.normal(size=(B, before, D))}
        yield Sample(plain | state, label="state")
        ragged = {"reset": rng.random((B, L)) < 0.2, "lengths": rng.integers(L + 1, size=B)}
        yield Sample(plain | gates | ragged, label="reset and padding")
        yield Sample(plain | gates | state | ragged, label="everything")


def long_conv_flops(length: int, taps: int, before: int = 0) -> float:
    """FLOPs of `length` steps of one channel with `before` known ones: sums of products, or two real transforms.

    The filter's own transform does not depend on the input and is not counted. A real transform of n numbers takes
    5/2 n log2 n (the count of Frigo and Johnson's FFTW), the product of two spectra 3 n.
    """
    taps = min(taps, before + length)
    n = before + length + taps
    return min(2.0 * taps * length, 5.0 * n * math.log2(n) + 3.0 * n)


def _flops(u: Shape, filter: Shape, pre: Shape | None, post: Shape | None, before: Shape | None, *rest: Any) -> float:
    return u[0] * u[2] * long_conv_flops(u[1], filter[0], 0 if before is None else before[1])


@define_op(shapes=_shapes, samples=_samples, flops=_flops, no_grad=("reset", "lengths"))
def long_conv(
    xp: Any,
    u: Array,
    filter: Array,
    pre: Array | None = None,
    post: Array | None = None,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
) -> Array:
    """y_t = post_t Σ_{s<=t} filter_s v_{t-s} with v = pre * u, for every channel: u (B, L, D) -> y (B, L, D).

    filter (K, D), of any length; pre, post (B, L, D) are gates, 1 where absent. A skip y_t += D u_t is a number added
    to filter_0. initial_state (B, S, D) holds the values of v before the first step, oldest first.
    reset (B, L) is True where a new document starts: nothing before such a step, initial_state included, is seen at or
    after it. lengths (B,): steps at or beyond a row's length are padding, and their y is 0.

    Computed with FFTs: O(L log L), and O(L log² L) with documents and for rows that grow (`uneven`): so that later
    inputs, NaN and infinities among them, change earlier outputs by no more than rounding of GROWTH times their size.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> v, filter = np.array([1.0, 0.0, 2.0]).reshape(1, 3, 1), np.array([1.0, 0.5, 0.25]).reshape(3, 1)
    >>> F.long_conv(v, filter).round(3).ravel().tolist()
    [1.0, 0.5, 2.25]
    """
    length = u.shape[1]
    valid = None if lengths is None else valid_steps(xp, length, lengths)
    (v,) = blank_padding(xp, valid, u)
    if pre is not None:
        v = v * blank_padding(xp, valid, pre)[0]
    document = None
    if reset is not None:
        document = xp.cumulative_sum(xp.astype(reset, xp.int64), axis=1)
    if initial_state is not None:
        v = xp.concat([initial_state, v], axis=1)
        if document is not None:
            document = xp.concat([zeros(xp, initial_state.shape[:2], document), document], axis=1)
    if document is None:
        y = cond(xp, uneven(xp, v), lambda: in_order(xp, v, filter), lambda: _convolve(xp, v, filter))
    else:
        y = _convolve_documents(xp, v, filter, document)
    y = y[:, y.shape[1] - length :, :]
    if post is not None:
        y = y * blank_padding(xp, valid, post)[0]
    return blank_padding(xp, valid, y)[0]


def uneven(xp: Any, v: Array) -> Array:
    """Whether a row of v (B, L, D) grows to more than GROWTH times its first step, or to what is no number."""
    if 0 in v.shape:
        return xp.zeros((), dtype=xp.bool)
    sizes = xp.max(xp.abs(v), axis=2)
    even = xp.all(xp.max(sizes, axis=1) <= GROWTH * sizes[:, 0])
    # Asked for by itself: the largest of some numbers need not be NaN where one of them is (XLA on processors).
    return xp.logical_not(xp.logical_and(even, xp.all(xp.isfinite(v))))


def in_order(xp: Any, v: Array, filter: Array) -> Array:
    """The convolution of rows v (B, L, D), no output from inputs behind it: as if a document were the whole row."""
    return _convolve_documents(xp, v, filter, xp.zeros_like(v[:, :, 0]))


def _convolve(xp: Any, v: Array, filter: Array) -> Array:
    """With transforms of length L + K - 1 or more, so that nothing wraps around."""
    length = v.shape[1]
    filter = filter[:length, :]
    n = 1 << (length + filter.shape[0] - 2).bit_length()
    spectrum = xp.fft.rfft(v, n=n, axis=1) * xp.fft.rfft(filter, n=n, axis=0)
    return xp.fft.irfft(spectrum, n=n, axis=1)[:, :length, :]


def _convolve_documents(xp: Any, v: Array, filter: Array, document: Array) -> Array:
    """Convolve every document alone; document (B, L) numbers them. Halves are split again and again: what the left half
    of a block adds to its right half is one convolution, of the document in which the right half begins.
    """
    B, length, D = v.shape
    n = 1 << (length - 1).bit_length()
    v = xp.concat([v, zeros(xp, (B, n - length, D), v)], axis=1)
    document = xp.concat([document, zeros(xp, (B, n - length), document) - 1], axis=1)
    filter = xp.concat([filter[:n, :], zeros(xp, (max(n - filter.shape[0], 0), D), filter)], axis=0)
    y = v * filter[0, :]
    half = 1
    while half < n:
        blocks = n // (2 * half)
        numbers = xp.reshape(document, (B, blocks, 2 * half))
        same = (numbers == numbers[:, :, half : half + 1])[..., None]
        left = xp.reshape(v, (B, blocks, 2 * half, D))[:, :, :half, :]
        left = xp.where(same[:, :, :half, :], left, xp.zeros_like(left))
        spectrum = xp.fft.rfft(left, n=2 * half, axis=2) * xp.fft.rfft(filter[: 2 * half, :], n=2 * half, axis=0)
        right = xp.fft.irfft(spectrum, n=2 * half, axis=2)[:, :, half:, :]
        right = xp.where(same[:, :, half:, :], right, xp.zeros_like(right))
        y = y + xp.reshape(xp.concat([xp.zeros_like(left), right], axis=2), (B, n, D))
        half *= 2
    return y[:, :length, :]
