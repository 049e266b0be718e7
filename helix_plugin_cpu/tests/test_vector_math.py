"""Exponentials on sixteen floats to the last bits, and the cache of machine code."""

import math
import os
import subprocess
import sys

import pytest
import torch

from helix_plugin_cpu.kernels._jit import kernel
from helix_plugin_cpu.kernels._math import EXP2_WITHIN, exp, exp2, exp2_within, softplus
from helix_plugin_cpu.kernels._simd import load, store


@kernel
def _apply(which, source, target, count):
    for i in range(0, 4 * count, 64):
        x = load(source + i)
        if which == 0:
            y = exp2(x)
        elif which == 1:
            y = exp(x)
        elif which == 2:
            y = softplus(x)
        else:
            y = exp2_within(x)
        store(target + i, y)


@pytest.mark.parametrize(
    ("which", "reference", "low", "high", "most"),
    [
        (0, torch.exp2, -126, 127.9, 2.2),
        (1, torch.exp, -87, 88.5, 2.7),
        (2, None, -86, 88, 4.0),
        (3, torch.exp2, -EXP2_WITHIN, EXP2_WITHIN, 2.2),
    ],
)
def test_functions_are_within_a_few_ulp(which, reference, low, high, most):
    x = torch.cat([torch.linspace(low, high, 1 << 19), torch.linspace(-1, 1, 1 << 19)])
    y = torch.empty_like(x)
    _apply(which, x.data_ptr(), y.data_ptr(), len(x))
    expected = torch.logaddexp(x.double(), torch.zeros(1).double()) if which == 2 else reference(x.double())
    ulp = torch.nextafter(expected.float(), torch.tensor(torch.inf)).double() - expected.float().double()
    assert float(((y - expected).abs() / ulp).max()) < most


def test_exp2_at_the_edges():
    x = torch.tensor([0.0, -0.0, -127.0, -126.0, -1e30, 128.0, 1e30, math.nan, math.inf, -math.inf] + [1.0] * 6)
    y = torch.empty_like(x)
    _apply(0, x.data_ptr(), y.data_ptr(), len(x))
    assert torch.equal(y[[0, 1, 2, 4, 5, 6, 8, 9]], torch.tensor([1, 1, 0, 0, math.inf, math.inf, math.inf, 0]))
    assert y[3] == 2.0**-126
    assert y[7].isnan()


def test_unwritable_cache(tmp_path):
    """No writable directory for machine code: the kernels compile anew and work."""
    code = (
        "import numba.core.caching as c\n"
        "def refuse(self): raise OSError\n"
        "c._CacheLocator.ensure_cache_path = refuse\n"
        "import torch\n"
        "from helix_plugin_cpu.kernels import selective_scan as s\n"
        "a = torch.ones(1, 2, 1)\n"
        "print(s.forward(a, a, -torch.ones(1, 1), a, a)[0].shape)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert "[1, 2, 1]" in done.stdout
