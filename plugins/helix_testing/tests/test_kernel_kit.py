"""The kernel kit finds what is wrong, and passes what is right."""

import inspect

import pytest

from helix_core.plugin_system import Registry, create, use_registry
from helix_core.plugin_system.settings import Settings
from helix_testing import BaseKernelTests

pytest.importorskip("torch")

SILU = {
    "writesgradient": "test_two_calls_do_not_disturb_each_other",
    "widens": "test_it_equals_the_oracle",
    "swallowsnan": "test_nan_comes_out_where_it_counts",
    "swallowsnanoflater": "test_nan_comes_out_where_it_counts",
    "swallowsnangradient": "test_two_calls_do_not_disturb_each_other",
    "writes": "test_it_repeats_bit_by_bit_and_keeps_to_itself",
    "reusesoutput": "test_it_repeats_bit_by_bit_and_keeps_to_itself",
    "keepsthelast": "test_two_calls_do_not_disturb_each_other",
    "readspacked": "test_it_repeats_bit_by_bit_and_keeps_to_itself",
    "readspackedgradient": "test_two_calls_do_not_disturb_each_other",
    "wrongfortraining": "test_its_gradient_equals_the_oracles",
}
CONV = {
    "aliases": "test_it_repeats_bit_by_bit_and_keeps_to_itself",
    "takesmissingforones": "test_two_calls_do_not_disturb_each_other",
}
ALL = [("silu", name) for name in ("right", *SILU)] + [("causal_conv1d", name) for name in ("right", *CONV)]


@pytest.fixture
def wrong(site):
    """Everything installed, and the kernels of `wrong_kernels`."""
    rows = ", ".join(
        f"KernelDescriptor(name='{op}_{name}', target='wrong_kernels:{op}_{name}', summary='', op='{op}',"
        " namespace='torch', dtypes=('float32', 'float64'), gradient='vjp', priority=-100)"
        for op, name in ALL
    )
    site.plugin("wrong", f"@hookimpl\ndef helix_kernels():\n    return [{rows}]\n")
    with use_registry(Registry(Settings())):
        yield


def failures(op, name, rng):
    """Which of the kit's tests fail for a kernel on the cpu backend."""
    kit = type("Kit", (BaseKernelTests,), {"kernel": f"wrong/{op}_{name}", "op": op, "backend": "cpu/cpu"})()
    backend, failed = create("backend", "cpu/cpu"), set()
    for label in (label for label in dir(kit) if label.startswith("test_")):
        test = getattr(kit, label)
        try:
            test(backend, rng) if "rng" in inspect.signature(test).parameters else test(backend)
        except AssertionError:
            failed.add(label)
    return failed


@pytest.mark.parametrize("op", ["silu", "causal_conv1d"])
def test_a_right_kernel_passes(wrong, rng, op):
    assert failures(op, "right", rng) == set()


@pytest.mark.parametrize(
    ("op", "name", "found_by"),
    [(op, n, by) for op, kit in (("silu", SILU), ("causal_conv1d", CONV)) for n, by in kit.items()],
)
def test_each_fault_is_found(wrong, rng, op, name, found_by):
    assert found_by in failures(op, name, rng)
