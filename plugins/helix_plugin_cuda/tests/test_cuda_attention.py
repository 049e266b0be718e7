"""Recurrences with a matrix as their state, against the float64 oracle."""

from helix_core.testing import BaseKernelTests


class TestGatedLinearAttention(BaseKernelTests):
    kernel, op, backend = "cuda/gated_linear_attention", "gated_linear_attention", "cuda"


class TestSSD(BaseKernelTests):
    kernel, op, backend = "cuda/ssd", "ssd", "cuda"


class TestGatedDeltaRule(BaseKernelTests):
    kernel, op, backend = "cuda/gated_delta_rule", "gated_delta_rule", "cuda"
