"""Launching Triton kernels: on the right card, with the options that every kernel shares."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from helix_plugin_cuda.probe import interpreting

INTERPRETED = interpreting(os.environ)
"""Triton decides this once, when it is imported."""

listeners: list[Callable[..., None]] = []
"""Called with (kernel, arguments, meta) before every launch: what tests compile for cards that are not here."""


def launch(
    kernel: Any, grid: tuple[int, ...], *args: Any, num_warps: int = 4, num_stages: int = 2, **meta: Any
) -> None:
    """Run a kernel over a grid; an empty grid is no work. `meta` are its constexpr arguments."""
    if 0 in grid:
        return
    for listener in listeners:
        listener(kernel, args, {**meta, "num_warps": num_warps, "num_stages": num_stages})
    if INTERPRETED:
        with np.errstate(all="ignore"):  # a card does not report overflows either
            kernel[grid](*args, **meta)
        return
    device = next(a.device for a in args if isinstance(a, Tensor))
    with torch.cuda.device(device):
        # Contracting a product and a sum into one instruction is what every kernel here is tested with.
        kernel[grid](*args, **meta, num_warps=num_warps, num_stages=num_stages, enable_fp_fusion=True)


@triton.jit
def wide(n):
    """A number of 64 bits: what steps, rows and programs are multiplied by strides as."""
    return tl.cast(n, tl.int64)


@triton.jit
def lanes(d, D, wanted):
    """Where the channels d lie within 0..D-1; nowhere unless the scalar `wanted` holds."""
    return d < tl.where(wanted, D, 0)


def power(n: int, least: int = 1) -> int:
    """The smallest power of two that is at least n and `least`: sizes of Triton's blocks."""
    return max(least, int(triton.next_power_of_2(max(n, 1))))


def blocks(n: int, size: int) -> int:
    """How many blocks of `size` cover n."""
    return -(-n // size)


@functools.cache
def processors(index: int | None) -> int:
    """Multiprocessors of a card; two for the interpreter, so that tests see work that is split."""
    return 2 if INTERPRETED else torch.cuda.get_device_properties(index).multi_processor_count


def precision(*arrays: Tensor | None) -> str:
    """How `tl.dot` multiplies: exactly for float32 inputs, ten bits of mantissa where the inputs have no more.

    Always from float32 registers, so no product of float16 overflows.
    """
    if INTERPRETED or torch.version.hip:
        return "ieee"
    half = any(a is not None and a.dtype in (torch.bfloat16, torch.float16) for a in arrays)
    return "tf32" if half else "tf32x3"
