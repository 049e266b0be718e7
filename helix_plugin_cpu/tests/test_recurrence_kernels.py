"""linear_scan, diagonal_ssm and wkv4 on Numba against the oracle: ragged shapes, extremes, strides, repeatability."""

import array_api_compat.torch as xp
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helix_core.ops import OPS, Sample
from helix_plugin_cpu.kernels import table
from helix_testing import BaseKernelTests


def linear_inputs(rng, B, L, D, *, ragged=True):
    arrays = {
        "a": rng.uniform(-1, 1, size=(B, L, D)),
        "x": rng.normal(size=(B, L, D)),
        "initial_state": rng.normal(size=(B, D)),
    }
    if ragged:
        arrays |= {"reset": rng.random((B, L)) < 0.15, "lengths": rng.integers(L + 1, size=B)}
    return arrays


def modes_inputs(rng, B, L, D, N, *, ragged=True):
    log_a = np.stack([-rng.uniform(0.01, 1, (D, N)), rng.uniform(-np.pi, np.pi, (D, N))], -1)
    arrays = {
        "u": rng.normal(size=(B, L, D)),
        "log_a": log_a,
        "c": rng.normal(size=(D, N, 2)),
        "initial_state": rng.normal(size=(B, D, N, 2)),
    }
    if ragged:
        arrays |= {"reset": rng.random((B, L)) < 0.15, "lengths": rng.integers(L + 1, size=B)}
    return arrays


def wkv_inputs(rng, B, L, D, *, ragged=True):
    arrays = {
        "k": rng.normal(size=(B, L, D)),
        "v": rng.normal(size=(B, L, D)),
        "log_decay": -np.exp(rng.uniform(-5, 3, D)),
        "bonus": rng.normal(size=D),
    }
    if ragged:
        arrays |= {"initial_state": rng.normal(size=(B, 2, D))}
        arrays |= {"reset": rng.random((B, L)) < 0.15, "lengths": rng.integers(L + 1, size=B)}
    return arrays


class TestLinearScan(BaseKernelTests):
    kernel, op, backend = "cpu/linear_scan", "linear_scan", "cpu"

    def samples(self, rng):
        for shape in ((2, 70, 65), (1, 33, 16), (9, 5, 130)):
            yield Sample(linear_inputs(rng, *shape), label=f"{shape}")


class TestDiagonalSSM(BaseKernelTests):
    kernel, op, backend = "cpu/diagonal_ssm", "diagonal_ssm", "cpu"

    def samples(self, rng):
        for shape in ((2, 70, 17, 5), (1, 33, 65, 2), (3, 5, 3, 33)):
            yield Sample(modes_inputs(rng, *shape), label=f"{shape}")


class TestWKV4(BaseKernelTests):
    kernel, op, backend = "cpu/wkv4", "wkv4", "cpu"

    def samples(self, rng):
        for shape in ((2, 70, 65), (1, 33, 16), (9, 5, 130)):
            yield Sample(wkv_inputs(rng, *shape), label=f"{shape}")


def both(op, kernel, arrays, rng, **attrs):
    """Outputs and gradients of the oracle in float64 and of the kernel in float32, as pairs by name.

    Of the same inputs, that is of float32 ones: an angle's last bit counts again at every step.
    """
    arrays = {n: np.float64(np.float32(a)) if np.asarray(a).dtype == np.float64 else a for n, a in arrays.items()}
    exact = [None if (a := arrays.get(n)) is None else torch.from_numpy(np.asarray(a)) for n in op.arrays]
    single = [a if a is None or not a.is_floating_point() else a.float() for a in exact]
    leaves = [a.requires_grad_(True) if a is not None and a.is_floating_point() else a for a in exact]
    expected = op.reference(xp, *leaves, **attrs)
    found, residuals = kernel.forward_train(*single, **attrs)
    weights = [torch.from_numpy(rng.normal(size=tuple(e.shape))) for e in expected]
    total = sum((w * e).sum() for w, e in zip(weights, expected, strict=True))
    wanted = [i for i, a in enumerate(leaves) if a is not None and a.requires_grad]
    exact_grads = torch.autograd.grad(total, [leaves[i] for i in wanted], allow_unused=True, materialize_grads=True)
    grads = kernel.backward(tuple(w.float() for w in weights), tuple(single), residuals, **attrs)
    outputs = dict(zip(op.outputs, zip(expected, found, strict=True), strict=True))
    return outputs, {op.arrays[i]: (e, grads[i]) for i, e in zip(wanted, exact_grads, strict=True)}


def relative(found, expected, floor=0.0):
    if expected.numel() == 0:
        return 0.0
    error = (found.double() - expected.detach()).abs().max()
    return float(error / expected.detach().abs().max().clamp(min=max(1e-2, floor)))


def assert_exact(op, kernel, arrays, rng, floor=0.0, forward=2e-6, grad_floor=0.0, **attrs):
    """Errors relative to the largest value, or to a floor: the size of what is summed, where sums may cancel."""
    outputs, grads = both(op, kernel, arrays, rng, **attrs)
    for name, (e, f) in outputs.items():
        assert relative(f, e, floor) < forward, name
    for name, (e, f) in grads.items():
        assert relative(f, e, max(floor, grad_floor)) < 1e-5, name


@given(
    B=st.integers(1, 3), L=st.integers(1, 100), D=st.integers(1, 80), ragged=st.booleans(), seed=st.integers(0, 2**32)
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_linear_scan_on_any_shape(B, L, D, ragged, seed):
    rng = np.random.default_rng(seed)
    assert_exact(OPS["linear_scan"], table.linear_scan, linear_inputs(rng, B, L, D, ragged=ragged), rng)


@given(
    B=st.integers(1, 3),
    L=st.integers(1, 70),
    D=st.integers(1, 40),
    N=st.sampled_from([1, 2, 3, 16, 33]),
    ragged=st.booleans(),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_diagonal_ssm_on_any_shape(B, L, D, N, ragged, seed):
    rng = np.random.default_rng(seed)
    arrays = modes_inputs(rng, B, L, D, N, ragged=ragged)
    # The rounding of a decay and an angle counts again at every step.
    assert_exact(OPS["diagonal_ssm"], table.diagonal_ssm, arrays, rng, forward=4e-6)


@given(
    B=st.integers(1, 3), L=st.integers(1, 100), D=st.integers(1, 80), ragged=st.booleans(), seed=st.integers(0, 2**32)
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_wkv4_on_any_shape(B, L, D, ragged, seed):
    rng = np.random.default_rng(seed)
    arrays = wkv_inputs(rng, B, L, D, ragged=ragged)
    # The gradient of a decay sums over all steps, with signs; the reference in float32 is as far from the exact one.
    assert_exact(OPS["wkv4"], table.wkv4, arrays, rng, floor=1.0, forward=4e-6, grad_floor=float(B * L))


@pytest.mark.parametrize("size", [80.0, 1e4, 1e30])
def test_wkv4_survives_any_keys(size, rng):
    arrays = wkv_inputs(rng, 2, 60, 20)
    arrays["k"] *= size
    arrays["log_decay"][:5] = -1e4
    y, last = table.wkv4.forward(*tensors(OPS["wkv4"], arrays))
    assert torch.isfinite(y).all()
    assert torch.isfinite(last).all()
    outside = y.abs().max() > 1.001 * max(abs(arrays["v"]).max(), abs(arrays["initial_state"]).max())
    assert not outside, "an average of values"


def case(name, rng):
    """The op, its kernel and inputs for a few documents."""
    if name == "linear_scan":
        return OPS[name], table.linear_scan, linear_inputs(rng, 3, 300, 200)
    if name == "wkv4":
        return OPS[name], table.wkv4, wkv_inputs(rng, 3, 300, 200)
    return OPS[name], table.diagonal_ssm, modes_inputs(rng, 3, 100, 100, 6)


def tensors(op, arrays):
    made = {n: torch.from_numpy(np.asarray(a)) for n, a in arrays.items()}
    return [made[n].float() if n in made and made[n].is_floating_point() else made.get(n) for n in op.arrays]


CASES = pytest.mark.parametrize("name", ["linear_scan", "diagonal_ssm", "wkv4"])


@CASES
def test_results_do_not_depend_on_the_number_of_threads(name, rng):
    op, kernel, arrays = case(name, rng)
    given_ = tensors(op, arrays)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            outputs, saved = kernel.forward_train(*given_)
            grads = kernel.backward(tuple(torch.ones_like(o) for o in outputs), tuple(given_), saved)
            results.append([*outputs, *(g for g in grads if g is not None)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@CASES
def test_strided_rows_are_read_in_place_and_other_layouts_copied(name, rng):
    op, kernel, arrays = case(name, rng)
    plain = tensors(op, arrays)
    expected = kernel.forward(*plain)
    where = op.arrays.index({"linear_scan": "x", "diagonal_ssm": "u", "wkv4": "v"}[name])
    for view in (
        torch.cat([plain[where], plain[where]], -1)[..., : plain[where].shape[-1]],
        plain[where].transpose(1, 2).contiguous().transpose(1, 2),
    ):
        given_ = [*plain[:where], view, *plain[where + 1 :]]
        assert all(torch.equal(a, b) for a, b in zip(kernel.forward(*given_), expected, strict=True))


@CASES
def test_nan_and_infinity_reach_what_depends_on_them_and_nothing_else(name, rng):
    op, kernel, arrays = case(name, rng)
    for value in (np.nan, np.inf):
        arrays[op.arrays[0]][0, 10, 3] = value
        y, last = kernel.forward(*tensors(op, arrays))
        with np.errstate(invalid="ignore"):
            exact, exact_last = op.reference(np, *(arrays.get(n) for n in op.arrays))
        assert np.array_equal(np.isfinite(y.numpy()), np.isfinite(exact))
        assert np.array_equal(np.isfinite(last.numpy()), np.isfinite(exact_last))


@CASES
def test_wrong_inputs_are_named(name, rng):
    op, kernel, arrays = case(name, rng)
    good = tensors(op, arrays)
    with pytest.raises(TypeError, match="float64"):
        kernel.forward(good[0].double(), *good[1:])
    with pytest.raises(ValueError, match="initial_state"):
        kernel.forward(*[g[:, :1] if n == "initial_state" else g for n, g in zip(op.arrays, good, strict=True)])
