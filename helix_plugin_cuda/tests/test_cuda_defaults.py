"""torch's default dtype and device are the user's: the kernels' results do not depend on them."""

import numpy as np
import pytest
import torch

from helix_core import create
from helix_core.ops import OPS


def both_ways(backend, F, name):
    """Outputs and gradients of an op's first sample."""
    op = OPS[name]
    sample = next(iter(op.samples(np.random.default_rng(0))))
    arrays = {n: backend.asarray(np.asarray(a), "float32") for n, a in sample.arrays.items()}
    for n, a in arrays.items():
        a.requires_grad_(a.is_floating_point() and n not in op.no_grad)
    result = getattr(F, name)(*(arrays.get(n) for n in op.arrays), **sample.attrs)
    outputs = [result] if isinstance(result, torch.Tensor) else list(result)
    used = [a for a in outputs if a.requires_grad]
    leaves = [a for a in arrays.values() if a.requires_grad]
    slopes = [torch.cos(a.detach()) for a in used]
    grads = torch.autograd.grad(used, leaves, slopes, materialize_grads=True) if used else ()
    return [a.detach() for a in (*outputs, *grads)]


@pytest.fixture
def set_default():
    """Set a default of torch by name; the ordinary ones come back."""

    def ordinary():
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)

    def change(name):
        ordinary()
        if name == "meta":
            torch.set_default_device(name)
        else:
            torch.set_default_dtype(getattr(torch, name))

    yield change
    ordinary()


@pytest.mark.slow
@pytest.mark.parametrize("name", OPS)
def test_results_do_not_depend_on_defaults(name, set_default):
    backend = create("backend", "cuda")
    F = backend.bind()
    expected = both_ways(backend, F, name)
    for default in ("float64", "bfloat16", "meta"):
        set_default(default)
        for a, b in zip(both_ways(backend, F, name), expected, strict=True):
            assert (a.dtype, a.device) == (b.dtype, b.device), default
            assert torch.equal(a, b), default
