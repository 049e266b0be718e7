"""The conformance kit on the cpu backend."""

import torch

from helix_core import create
from helix_testing import BaseBackendTests


class TestCpu(BaseBackendTests):
    backend = "cpu"


def test_its_kernels_are_bound_for_training_and_inference():
    for mode in ("train", "infer"):
        trail = create("backend", "cpu").bind(mode=mode).trail
        assert trail["selective_scan"].chosen == "cpu/selective_scan"
        assert trail["causal_conv1d"].chosen == "cpu/causal_conv1d"


def test_float64_goes_to_torch_and_says_why():
    trail = create("backend", "cpu").bind(dtype="float64").trail
    assert trail["causal_conv1d"].chosen == "torch/causal_conv1d"
    assert trail["selective_scan"].chosen == "core/reference"
    reasons = {r.kernel: r.reason for r in trail["selective_scan"].refused}
    assert reasons["cpu/selective_scan"] == "takes float32, bfloat16, float16, not float64"


def test_it_says_where_it_runs():
    facts = create("backend", "cpu").describe()
    assert facts["device"] == "cpu"
    assert facts["threads"] == torch.get_num_threads()
    assert {"torch", "numba"} <= set(facts)
