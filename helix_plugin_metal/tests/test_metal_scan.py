"""The scans: by the kernel kit, over many chunks, and at extremes."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from helix_core import create
from helix_core.ops import OPS, Sample
from helix_plugin_metal.kernels import selective_scan as module
from helix_testing import BaseKernelTests
from helix_testing.levels.base import assert_close

OP = OPS["selective_scan"]


def inputs(rng, batch, length, channels, states, decay=1.0):
    shape = (batch, length, channels)
    return {
        "u": rng.normal(size=shape),
        "delta": rng.uniform(0, 0.3, size=shape) * decay,
        "A": -rng.uniform(0.1, 2, size=(channels, states)),
        "B": rng.normal(size=(batch, length, states)),
        "C": rng.normal(size=(batch, length, states)),
    }


class TestSelectiveScan(BaseKernelTests):
    kernel, op, backend = "metal/selective_scan", "selective_scan", "metal"

    def samples(self, rng):
        yield Sample(inputs(rng, 2, 150, 3, 4), label="several chunks")
        yield Sample(inputs(rng, 1, 20, 2, 3, decay=1e4), label="decays to nothing")
        ragged = {"reset": rng.random((2, 150)) < 0.1, "lengths": np.array([97, 0])}
        yield Sample(inputs(rng, 2, 150, 3, 4) | ragged, label="documents and padding over chunks")
        yield Sample(inputs(rng, 2, 0, 3, 4), label="no steps")


class TestLinearScan(BaseKernelTests):
    kernel, op, backend = "metal/linear_scan", "linear_scan", "metal"

    def samples(self, rng):
        plain = {"a": rng.uniform(0, 1, size=(2, 150, 7)), "x": rng.normal(size=(2, 150, 7))}
        yield Sample(plain, label="many steps")
        yield Sample(plain | {"reset": rng.random((2, 150)) < 0.1, "initial_state": rng.normal(size=(2, 7))})
        yield Sample({"a": np.ones((1, 20, 3)), "x": np.zeros((1, 20, 3))}, label="nothing happens")
        yield Sample({"a": np.ones((1, 0, 3)), "x": np.zeros((1, 0, 3))}, label="no steps")


def test_a_document_does_not_hear_of_a_nan_before_it(rng):
    a, x = rng.uniform(0, 1, size=(1, 9, 2)), rng.normal(size=(1, 9, 2))
    x[0, 2, 0] = np.nan
    reset = np.arange(9)[None] == 5
    F = create("backend", "metal").bind()
    y, last = F.linear_scan(mx.array(a, mx.float32), mx.array(x, mx.float32), None, mx.array(reset))
    assert np.isnan(np.array(y)[0, 2:5, 0]).all()
    assert np.isfinite(np.array(y)[0, 5:]).all()
    assert np.isfinite(np.array(last)).all()


def on_mlx(arrays):
    return [None if arrays.get(n) is None else mx.array(np.asarray(arrays[n], np.float32)) for n in OP.arrays]


@pytest.fixture(params=["NumPy", "MLX"])
def forwards(request, monkeypatch):
    """Both forward passes there are on MLX's CPU device; compiled functions run MLX's."""
    if request.param == "MLX":
        monkeypatch.setattr(module.host_scan, "numbers", lambda *arrays: None)


@pytest.mark.usefixtures("forwards")
@pytest.mark.parametrize("shape", [(2, 300, 7, 5), (1, 129, 64, 16), (3, 64, 1, 1)])
def test_it_is_as_exact_as_float32_allows(rng, shape):
    arrays = {k: v.astype(np.float32).astype(np.float64) for k, v in inputs(rng, *shape).items()}
    for found, expected in zip(module.selective_scan(*on_mlx(arrays)), OP.reference(np, **arrays), strict=True):
        assert_close(np.array(found), expected, 2e-6, "an output")


@pytest.mark.usefixtures("forwards")
def test_its_gradient_is_that_of_the_reference_on_mlx(rng):
    backend = create("backend", "metal")
    reference = backend.bind(pins={"selective_scan": "core/reference"})
    arrays = {"initial_state": rng.normal(size=(2, 3, 4)), **inputs(rng, 2, 140, 3, 4)}
    arrays["reset"] = rng.random((2, 140)) < 0.1
    given = on_mlx(arrays)
    reset = mx.array(arrays["reset"])
    of = [OP.arrays.index(n) for n in ("u", "delta", "A", "B", "C", "initial_state")]
    weight = mx.array(rng.normal(size=(2, 140, 3)).astype(np.float32))

    def value(run, *moving):
        filled = list(given)
        for place, a in zip(of, moving, strict=True):
            filled[place] = a
        filled[OP.arrays.index("reset")] = reset
        y, last = run(*filled)
        return (y * weight).sum() + last.sum()

    moving = [given[i] for i in of]
    every = tuple(range(len(of)))
    found = mx.grad(lambda *m: value(module.selective_scan, *m), every)(*moving)
    expected = mx.grad(lambda *m: value(reference.selective_scan, *m), every)(*moving)
    for name, a, b in zip(of, found, expected, strict=True):
        assert np.abs(np.array(a) - np.array(b)).max() <= 1e-5 * max(1, np.abs(np.array(b)).max()), OP.arrays[name]


def test_a_gradient_does_not_need_the_memory_of_every_state(rng):
    length, channels, states = 4096, 128, 16
    given = [a for a in on_mlx(inputs(rng, 1, length, channels, states)) if a is not None]
    gradient = mx.grad(lambda *a: module.selective_scan(*a)[0].sum(), tuple(range(len(given))))
    mx.eval(given)
    mx.synchronize()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(gradient(*given))
    assert mx.get_peak_memory() - before < 0.5 * 4 * length * channels * states


@pytest.mark.usefixtures("forwards")
def test_nan_goes_on_to_the_end_of_its_row_and_no_further(rng):
    arrays = inputs(rng, 2, 70, 3, 4)
    arrays["u"][0, 10, 1] = np.nan
    y, last = (np.array(a) for a in module.selective_scan(*on_mlx(arrays)))
    assert np.isnan(y[0, 10:, 1]).all()
    assert np.isnan(last[0, 1]).all()
    assert np.isnan(y).sum() == 60


@pytest.mark.usefixtures("forwards")
def test_padding_may_hold_anything(rng):
    """Values and gradients of a row do not depend on what its padding holds, not even on NaN."""
    arrays = inputs(rng, 1, 20, 3, 4)
    arrays["lengths"] = np.array([12])
    dirty = {k: v.copy() for k, v in arrays.items()}
    for name in ("u", "delta", "B", "C"):
        dirty[name][:, 12:] = np.nan
    results = []
    for given in (on_mlx(arrays), on_mlx(dirty)):
        given[OP.arrays.index("lengths")] = mx.array([12])
        run = mx.value_and_grad(lambda u, given=given: module.selective_scan(u, *given[1:])[0].sum())
        results.append(run(given[0]))
    assert results[0][0].item() == results[1][0].item()
    assert mx.array_equal(results[0][1], results[1][1])
