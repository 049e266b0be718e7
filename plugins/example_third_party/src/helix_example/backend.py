"""A backend in a page: NumPy arrays, and whatever kernels this plugin adds for them."""

import numpy as np

from helix_core import Backend


class InplaceBackend(Backend):
    """NumPy on the CPU. Ops without a kernel run as their references."""

    name = "inplace"
    namespace = "numpy"
    capabilities = frozenset({"float64"})

    @property
    def xp(self):
        return np

    def asarray(self, array, dtype=None):
        array = np.asarray(array)
        if dtype is not None and np.issubdtype(array.dtype, np.floating):
            return array.astype(dtype, copy=False)
        return array

    def to_numpy(self, array):
        return np.asarray(array)
