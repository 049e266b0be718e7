"""Recurrences along channels, against the float64 oracle."""

from helix_core.ops import Sample
from helix_core.testing import BaseKernelTests


class TestLinearScan(BaseKernelTests):
    kernel, op, backend = "cuda/linear_scan", "linear_scan", "cuda"

    def samples(self, rng):
        for B, L, D in ((1, 70, 3), (2, 33, 17), (1, 0, 4)):
            arrays = {"a": rng.uniform(-1, 1, size=(B, L, D)), "x": rng.normal(size=(B, L, D))}
            arrays |= {"initial_state": rng.normal(size=(B, D)), "reset": rng.random((B, L)) < 0.1}
            yield Sample(arrays, label=f"{(B, L, D)}")


class TestSelectiveScan(BaseKernelTests):
    kernel, op, backend = "cuda/selective_scan", "selective_scan", "cuda"


class TestCausalConv1d(BaseKernelTests):
    kernel, op, backend = "cuda/causal_conv1d", "causal_conv1d", "cuda"

    def samples(self, rng):
        for B, L, D, K in ((2, 70, 130, 4), (3, 3, 7, 7), (1, 40, 3, 2), (2, 0, 3, 4)):
            arrays = {"x": rng.normal(size=(B, L, D)), "weight": rng.normal(size=(D, K)), "bias": rng.normal(size=D)}
            arrays |= {"initial_state": rng.normal(size=(B, K - 1, D)), "reset": rng.random((B, L)) < 0.15}
            arrays |= {"lengths": rng.integers(L + 1, size=B)}
            yield Sample(arrays, {"activation": "silu"}, f"{(B, L, D, K)}")
