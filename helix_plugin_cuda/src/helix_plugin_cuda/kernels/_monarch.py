"""Long convolutions on tensor cores: a transform is two products with small DFT matrices.

A transform of n = N1 N2 points has a twiddle between the two, and the convolution of a sequence stays in one program,
from its load to its store.

Two rows of a channel are the real and the imaginary part of one sequence: a real filter keeps them apart. Frequencies
are stored as the products leave them, (N1, N2) with k = k1 + N1 k2. As with any transform, errors are in proportion to
the largest values of a row, those of TF32 where inputs have half precision.

B sequences, D channels.

Source: Fu, Kumbong, Nguyen and Ré, FlashFFTConv: Efficient Convolutions for Long Sequences with Tensor Cores, 2023.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from helix_plugin_cuda.kernels._launch import blocks, launch, wide

SHORTEST, LONGEST = 256, 4096
"""Points of a transform: sides of at least 16 for products, and what one program holds."""


@triton.jit
def _load(x, row, length, real, ROWS: tl.constexpr, N2: tl.constexpr):
    """Row `row` of (rows, length) as (ROWS, N2); 0 behind its end, and if it is not `real`."""
    t = tl.arange(0, ROWS)[:, None] * N2 + tl.arange(0, N2)[None, :]
    return tl.load(x + row * length + t, mask=t < tl.where(real, length, 0), other=0.0)


@triton.jit
def _store(x, row, length, real, v, ROWS: tl.constexpr, N2: tl.constexpr):
    t = tl.arange(0, ROWS)[:, None] * N2 + tl.arange(0, N2)[None, :]
    tl.store(x + row * length + t, v, mask=t < tl.where(real, length, 0))


@triton.jit
def _matrix(x, M: tl.constexpr, N: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr):
    """The first M rows and N columns of a complex matrix: SIZE real parts in rows of WIDTH, then the imaginary ones."""
    at = tl.arange(0, M)[:, None] * WIDTH + tl.arange(0, N)[None, :]
    return tl.load(x + at), tl.load(x + SIZE + at)


@triton.jit
def _times(a_re, a_im, b_re, b_im):
    return a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re


@triton.jit
def _dot(a_re, a_im, b_re, b_im, PRECISION: tl.constexpr):
    re = tl.dot(a_re, b_re, input_precision=PRECISION) - tl.dot(a_im, b_im, input_precision=PRECISION)
    im = tl.dot(a_re, b_im, input_precision=PRECISION) + tl.dot(a_im, b_re, input_precision=PRECISION)
    return re, im


@triton.jit
def _transform(
    re, im, left, twiddle, right, PRECISION: tl.constexpr, ROWS: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr
):  # fmt: skip
    """(ROWS, N2) in time, further rows being 0 -> (N1, N2) frequencies."""
    f_re, f_im = _matrix(left, N1, ROWS, N1 * N1, N1)
    re, im = _dot(f_re, f_im, re, im, PRECISION)
    t_re, t_im = _matrix(twiddle, N1, N2, N1 * N2, N2)
    re, im = _times(re, im, t_re, t_im)
    f_re, f_im = _matrix(right, N2, N2, N2 * N2, N2)
    return _dot(re, im, f_re, f_im, PRECISION)


@triton.jit
def _inverse(
    re, im, left, twiddle, right, PRECISION: tl.constexpr, ROWS: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr
):  # fmt: skip
    """(N1, N2) frequencies -> the first ROWS rows in time."""
    f_re, f_im = _matrix(right, N2, N2, N2 * N2, N2)
    re, im = _dot(re, im, f_re, -f_im, PRECISION)
    t_re, t_im = _matrix(twiddle, N1, N2, N1 * N2, N2)
    re, im = _times(re, im, t_re, -t_im)
    f_re, f_im = _matrix(left, ROWS, N1, N1 * N1, N1)
    re, im = _dot(f_re, -f_im, re, im, PRECISION)
    return re / (N1 * N2), im / (N1 * N2)


@triton.jit
def spectrum_kernel(
    x, out, left, twiddle, right, length,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr,
):  # fmt: skip
    """x (D, length) -> its frequencies (D, 2, N1, N2)."""
    d = wide(tl.program_id(0))
    re = _load(x, d, length, True, ROWS, N2)
    re, im = _transform(re, tl.zeros_like(re), left, twiddle, right, PRECISION, ROWS, N1, N2)
    _store(out, 2 * d, N1 * N2, True, re, N1, N2)
    _store(out, 2 * d + 1, N1 * N2, True, im, N1, N2)


@triton.jit
def convolve_kernel(
    x, spectrum, out, left, twiddle, right, B, D, length,
    ADJOINT: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr,
):  # fmt: skip
    """x (B, D, length) filtered, or by the filter read backwards (ADJOINT), two rows in a program."""
    program = wide(tl.program_id(0))
    d, b = program % D, program // D * 2
    both = b + 1 < B
    re, im = _load(x, b * D + d, length, True, ROWS, N2), _load(x, (b + 1) * D + d, length, both, ROWS, N2)
    re, im = _transform(re, im, left, twiddle, right, PRECISION, ROWS, N1, N2)
    h_re, h_im = _matrix(spectrum + d * 2 * N1 * N2, N1, N2, N1 * N2, N2)
    re, im = _times(re, im, h_re, -h_im if ADJOINT else h_im)
    re, im = _inverse(re, im, left, twiddle, right, PRECISION, ROWS, N1, N2)
    _store(out, b * D + d, length, True, re, ROWS, N2)
    _store(out, (b + 1) * D + d, length, both, im, ROWS, N2)


@triton.jit
def correlate_kernel(
    x, slope, out, left, twiddle, right, B, D, length, taps,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr,
):  # fmt: skip
    """Σ_b Σ_t slope_t x_{t-s} of x, slope (B, D, length): out (D, taps), a channel in a program."""
    d = wide(tl.program_id(0))
    sum_re, sum_im = tl.zeros([N1, N2], tl.float32), tl.zeros([N1, N2], tl.float32)
    for b in range(0, B, 2):
        one, other, both = wide(b) * D + d, wide(b + 1) * D + d, b + 1 < B
        re, im = _load(x, one, length, True, ROWS, N2), _load(x, other, length, both, ROWS, N2)
        x_re, x_im = _transform(re, im, left, twiddle, right, PRECISION, ROWS, N1, N2)
        re, im = _load(slope, one, length, True, ROWS, N2), _load(slope, other, length, both, ROWS, N2)
        re, im = _transform(re, im, left, twiddle, right, PRECISION, ROWS, N1, N2)
        re, im = _times(re, im, x_re, -x_im)
        sum_re += re
        sum_im += im
    re, _ = _inverse(sum_re, sum_im, left, twiddle, right, PRECISION, ROWS, N1, N2)
    _store(out, d, taps, True, re, ROWS, N2)


class Transforms:
    """Convolutions of sequences of `length` steps with filters of as many taps or fewer, by transforms of n points.

    Sequences are (B, D, length) float32, contiguous; filters (D, taps).
    """

    def __init__(self, n: int, length: int, precision: str, warps: int, device: torch.device) -> None:
        N1, N2 = _sides(n)
        self.n, self.length = n, length
        self.tables = _tables(n, device)
        rows = N1 // 2 if N1 >= 32 and 2 * length <= n else N1
        self.meta: dict[str, Any] = {
            "PRECISION": precision,
            "ROWS": rows,
            "N1": N1,
            "N2": N2,
            "num_warps": warps,
            "num_stages": 1,
        }

    def spectrum(self, taps: Tensor) -> Tensor:
        """The frequencies of filters."""
        D, length = taps.shape
        out = torch.empty(D, 2, self.n, dtype=torch.float32, device=taps.device)
        launch(spectrum_kernel, (D,), taps, out, *self.tables, length, **self.meta)
        return out

    def convolve(self, x: Tensor, spectrum: Tensor, *, adjoint: bool = False) -> Tensor:
        """Sequences filtered; with `adjoint`, what that does to gradients."""
        B, D, length = x.shape
        out = torch.empty_like(x)
        launch(
            convolve_kernel, (blocks(B, 2) * D,), x, spectrum, out, *self.tables, B, D, length,
            ADJOINT=adjoint, **self.meta,
        )  # fmt: skip
        return out

    def correlate(self, x: Tensor, slope: Tensor, taps: int) -> Tensor:
        """The gradient of filters from those of filtered sequences: (D, taps)."""
        B, D, length = x.shape
        out = torch.empty(D, taps, dtype=torch.float32, device=x.device)
        launch(correlate_kernel, (D,), x, slope, out, *self.tables, B, D, length, taps, **self.meta)
        return out


def _sides(n: int) -> tuple[int, int]:
    """N1 <= N2, powers of two."""
    first = 1 << ((n.bit_length() - 1) // 2)
    return first, n // first


@cache
def _tables(n: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The DFT matrix of N1 points, the twiddles (N1, N2), the DFT matrix of N2 points: real parts, then imaginary."""
    N1, N2 = _sides(n)

    def roots(rows: int, columns: int, points: int) -> Tensor:
        row, column = (torch.arange(size, dtype=torch.int64, device="cpu") for size in (rows, columns))
        turns = torch.outer(row, column).remainder(points).double()
        angle = -2 * torch.pi * turns / points
        return torch.stack([angle.cos(), angle.sin()]).float().to(device)

    return roots(N1, N1, N1), roots(N1, N2, n), roots(N2, N2, N2)
