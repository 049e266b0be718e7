"""Arrays out of a file, checked before anything computes with them: compiled loops trust their indices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def checked(
    arrays: Mapping[str, np.ndarray], name: str, kind: Any, *, shape: tuple[int, ...], least: float, most: float
) -> np.ndarray:
    """An array of this dtype and shape whose values all lie in least..most. Raises ValueError if it is another."""
    if name not in arrays:
        raise ValueError(f"it has no {name}")
    array = arrays[name]
    if array.dtype != np.dtype(kind) or array.shape != shape:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not {np.dtype(kind)} {shape}")
    # Written so that NaN is refused.
    if not ((array >= least) & (array <= most)).all():
        raise ValueError(f"{name} has values that are not in {least:g}..{most:g}")
    return array
