"""The reference backend: every op's own definition on NumPy. Always there, always right, never fast."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from helix_core.kinds.backend import Backend


class ReferenceBackend(Backend):
    """NumPy in float32 or float64 with no kernels at all: the oracle that other backends are compared with.

    >>> import numpy as np
    >>> from helix_core import create
    >>> backend = create("backend", "reference")
    >>> F = backend.bind(dtype="float64")
    >>> F.linear_scan(np.full((1, 3, 1), 0.5), np.ones((1, 3, 1)))[0].ravel().tolist()
    [1.0, 1.5, 1.75]
    """

    name = "reference"
    namespace = "numpy"
    capabilities: ClassVar[frozenset[str]] = frozenset({"float64"})
    use_kernels = False

    @property
    def xp(self) -> Any:
        return np

    def asarray(self, array: np.ndarray, dtype: str | None = None) -> np.ndarray:
        array = np.asarray(array)
        if dtype is not None and np.issubdtype(array.dtype, np.floating):
            return array.astype(dtype, copy=False)
        return array

    def to_numpy(self, array: np.ndarray) -> np.ndarray:
        return np.asarray(array)
