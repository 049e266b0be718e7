"""Kernels registered with torch.library: schemas, shapes and gradients as torch's own checks want them."""

import re

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helix_core import create
from helix_core.ops import OPS

CASES = [("selective_scan", {"delta_softplus": True}), ("causal_conv1d", {"activation": "silu"})]
FUSED = [("embedding", {}), ("cross_entropy", {"ignore_index": 1}), ("swiglu", {}), ("add_rms_norm", {"eps": 1e-5})]


def inputs(op, rng, label):
    samples = list(OPS[op].samples(rng))
    sample = next((s for s in samples if label in s.label), samples[0])
    arrays = [sample.arrays.get(name) for name in OPS[op].arrays]
    tensors = [None if a is None else torch.from_numpy(np.asarray(a)) for a in arrays]
    return [t.float() if t is not None and t.is_floating_point() else t for t in tensors]


@pytest.fixture(scope="module", autouse=True)
def bound():
    """Binding registers the kernels."""
    return create("backend", "cpu").bind(mode="train")


@pytest.mark.parametrize(("op", "attrs"), CASES + FUSED)
@pytest.mark.parametrize("suffix", ["", "_train"])
def test_opcheck(op, attrs, suffix, rng):
    args = inputs(op, rng, "state")
    if suffix:
        args = [a.requires_grad_(True) if a is not None and a.is_floating_point() else a for a in args]
    (name,) = {
        n for n in torch._C._dispatch_get_all_op_names() if re.fullmatch(f"helix::cpu_{op}{suffix}(_[0-9a-f]{{8}})?", n)
    }
    torch.library.opcheck(
        getattr(torch.ops.helix, name.removeprefix("helix::")).default,
        (*args, *attrs.values()),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@pytest.mark.parametrize(("op", "attrs"), CASES)
def test_nothing_is_kept_for_a_backward_that_will_not_come(op, attrs, rng, bound):
    args = inputs(op, rng, "state")
    y, _ = getattr(bound, op)(*args, **attrs)
    assert not y.requires_grad
    args[0].requires_grad_(True)
    y, _ = getattr(bound, op)(*args, **attrs)
    assert y.requires_grad
    with torch.no_grad():
        assert not getattr(bound, op)(*args, **attrs)[0].requires_grad


def test_a_gradient_reaches_only_what_asks_for_it(rng, bound):
    args = inputs("selective_scan", rng, "state")
    args[0].requires_grad_(True)
    args[8].requires_grad_(True)
    _, last = bound.selective_scan(*args, delta_softplus=True)
    du, dh = torch.autograd.grad(last.sum(), [args[0], args[8]])
    assert du.shape == args[0].shape
    assert dh.shape == args[8].shape
    assert (dh > 0).all(), "a state decays and does not vanish"


def test_binding_twice_registers_once():
    first, second = (create("backend", "cpu").bind(mode="train") for _ in range(2))
    assert first.selective_scan is second.selective_scan


class Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def test_a_mode_sees_operators_and_nothing_changes(rng, bound):
    args = [a if a is None else a.requires_grad_(True) for a in inputs("causal_conv1d", rng, "state")]
    leaves = [a for a in args if a is not None]

    def run():
        y, last = bound.causal_conv1d(*args, activation="silu")
        return [y, last, *torch.autograd.grad(y.sum() + 2 * last.sum(), leaves)]

    plain = run()
    with Seen() as seen:
        dispatched = run()
    assert [n for n in seen.names if "cpu_causal_conv1d_train" in n]
    assert [n for n in seen.names if "cpu_causal_conv1d_backward" in n]
    assert all(torch.equal(a, b) for a, b in zip(plain, dispatched, strict=True))
