"""Kernels that work on rows and elements, against the float64 oracle."""

import numpy as np

from helix_core.ops import Sample
from helix_core.testing import BaseKernelTests


class TestRMSNorm(BaseKernelTests):
    kernel, op, backend = "cuda/rms_norm", "rms_norm", "cuda"

    def samples(self, rng):
        for shape in ((37, 192), (3, 7, 31), (1, 1, 257), (0, 8), (13, 16), (2, 1025)):
            yield Sample({"x": rng.normal(size=shape), "weight": rng.normal(size=shape[-1])}, label=f"{shape}")


class TestAddRMSNorm(BaseKernelTests):
    kernel, op, backend = "cuda/add_rms_norm", "add_rms_norm", "cuda"

    def samples(self, rng):
        for shape in ((37, 192), (1, 1, 257), (0, 8)):
            arrays = {name: rng.normal(size=shape) for name in ("x", "residual")}
            yield Sample({**arrays, "weight": rng.normal(size=shape[-1])}, label=f"{shape}")


class TestSwiGLU(BaseKernelTests):
    kernel, op, backend = "cuda/swiglu", "swiglu", "cuda"

    def samples(self, rng):
        for shape in ((1025,), (3, 700), (0, 4)):
            yield Sample({name: rng.normal(size=shape) for name in ("gate", "x")}, label=f"{shape}")


class TestCrossEntropy(BaseKernelTests):
    kernel, op, backend = "cuda/cross_entropy", "cross_entropy", "cuda"

    def samples(self, rng):
        for rows, V in ((5, 1000), (2, 20000), (0, 5)):
            logits, targets = rng.normal(size=(rows, V)) * 5, rng.integers(V, size=rows)
            yield Sample({"logits": logits, "targets": targets}, label=f"{rows} of {V}")
        low = np.full((3, 9), -1e30)
        low[np.arange(3), [0, 4, 8]] = 2.0
        yield Sample({"logits": low, "targets": np.array([0, 4, 8])}, label="one class has it all")
