"""What the levels share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helix_core.kinds.backend import Backend
from helix_testing.levels import NOT_IMPLEMENTED

TOLERANCE = {"float64": 1e-10, "float32": 2e-5, "bfloat16": 4e-2, "float16": 8e-3}
"""Largest error relative to the largest value, by dtype."""


def require(backend: Backend, capability: str) -> None:
    """Skip the test, as not implemented, unless the backend declares a capability."""
    if capability not in backend.capabilities:
        pytest.skip(f"{NOT_IMPLEMENTED}: {backend.name} does not declare {capability!r}")


def assert_close(found: Any, expected: np.ndarray, tolerance: float, what: str) -> None:
    """Equal up to `tolerance` times the largest expected value, or times 0.1 where sums of size one cancelled."""
    found = np.asarray(found)
    assert found.shape == expected.shape, f"{what} has shape {found.shape}, expected {expected.shape}"
    if expected.size == 0:
        return
    assert np.isfinite(found).all() or not np.isfinite(expected).all(), f"{what} is not finite"
    error = float(np.max(np.abs(found.astype(np.float64) - expected)))
    scale = max(float(np.max(np.abs(expected))), 0.1)
    assert error <= tolerance * scale, f"{what} is off by {error / scale:.2e} of its scale; allowed {tolerance:.0e}"


def as_tuple(value: Any) -> tuple[Any, ...]:
    """An op's outputs as a tuple."""
    return value if isinstance(value, tuple) else (value,)
