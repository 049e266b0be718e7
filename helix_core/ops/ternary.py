"""Ternary weights of two bits each, as BitNet b1.58 has them: packing and unpacking with NumPy.

The layout is planar and the same for every backend. A row of K weights is P = ceil(K / 4) bytes; byte j holds the
weights j, P + j, 2P + j and 3P + j as codes w + 1 in its bits 0-1, 2-3, 4-5 and 6-7. So neighbouring bytes hold
neighbouring weights, and one shift and one mask of a vector give a run of them. Where K is not a multiple of four, the
last plane ends with codes 1 (a weight of zero). Code 3 is illegal.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from helix_core.errors import UsageError

SMALLEST_SCALE = 1e-5
"""A tensor of zeros has a scale too."""


def pack_ternary(weight: Any, scale: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """weight (N, K) -> uint8 (N, ceil(K / 4)) and the tensor's scale, float32 (): weight is about scale * {-1, 0, 1}.

    The scale is mean |weight|, at least 1e-5, unless given; weights become clip(round(weight / scale), -1, 1), ties to
    even. For weights that are -1, 0 and 1 already, give 1 and use the scale that they came with.

    Source: Ma et al., The Era of 1-bit LLMs, 2024 (BitNet b1.58). Raises UsageError for weights that are not a finite
    matrix and for a scale that is not positive.
    """
    weight = np.asarray(weight)
    if weight.ndim != 2 or 0 in weight.shape:
        raise UsageError(f"a weight of shape {weight.shape} cannot be packed", hint="give a matrix (outputs, inputs)")
    weight = weight.astype(np.float32)
    if not np.isfinite(weight).all():
        raise UsageError("a weight that is NaN or infinite cannot be packed")
    if scale is None:
        scale = max(float(np.abs(weight).mean(dtype=np.float64)), SMALLEST_SCALE)
    elif not (np.isfinite(scale) and scale > 0):
        raise UsageError(f"the scale of ternary weights must be a positive number, not {scale!r}")
    gamma = np.float32(scale)
    rows, columns = weight.shape
    codes = np.ones((rows, 4 * packed_columns(columns)), np.uint8)
    codes[:, :columns] = (np.clip(np.rint(weight / gamma), -1, 1) + 1).astype(np.uint8)
    planes = codes.reshape(rows, 4, -1)
    packed = planes[:, 0] | planes[:, 1] << 2 | planes[:, 2] << 4 | planes[:, 3] << 6
    return packed, np.asarray(gamma)


def unpack_ternary(packed: Any, columns: int) -> np.ndarray:
    """uint8 (N, ceil(columns / 4)) -> the weights -1, 0 and 1, int8 (N, columns).

    Raises UsageError for another dtype or shape, and for a code that no weight has.
    """
    packed = np.asarray(packed)
    if packed.dtype != np.uint8:
        raise UsageError(f"ternary weights are packed into uint8, not {packed.dtype}")
    if packed.ndim != 2 or packed.shape[1] != packed_columns(columns) or columns < 1:
        raise UsageError(
            f"packed weights of shape {packed.shape} are not those of {columns} columns",
            hint=f"{columns} columns are packed into (rows, {packed_columns(columns)})",
        )
    codes = np.concatenate([packed >> shift & 3 for shift in (0, 2, 4, 6)], axis=1)
    illegal = np.argwhere(codes == 3)
    if illegal.size:
        row, column = illegal[0].tolist()
        raise UsageError(
            f"packed weights have {len(illegal)} times the code 3, which no weight has; first in row {row}, "
            f"column {column}",
            hint="the data are damaged, or were packed in another layout",
        )
    return codes[:, :columns].astype(np.int8) - np.int8(1)


def packed_columns(columns: int) -> int:
    """Bytes of a row of `columns` weights."""
    return -(-columns // 4)
