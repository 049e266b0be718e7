"""The Numba kernels against the float64 oracle: ragged shapes, extremes, strides, threads, forks, repeatability."""

import threading

import array_api_compat.torch as xp
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helix_core.ops import OPS, Sample
from helix_plugin_cpu.kernels import table
from helix_testing import BaseKernelTests

SCAN, CONV = OPS["selective_scan"], OPS["causal_conv1d"]


def scan_inputs(rng, B, L, D, N, *, optional=True, ragged=True):
    arrays = {
        "u": rng.normal(size=(B, L, D)),
        "delta": rng.normal(size=(B, L, D)),
        "A": -rng.uniform(0.1, 16, size=(D, N)),
        "B": rng.normal(size=(B, L, N)),
        "C": rng.normal(size=(B, L, N)),
    }
    if optional:
        arrays |= {
            "D": rng.normal(size=D),
            "z": rng.normal(size=(B, L, D)),
            "delta_bias": rng.normal(size=D),
            "initial_state": rng.normal(size=(B, D, N)),
        }
    if ragged:
        arrays |= {"reset": rng.random((B, L)) < 0.15, "lengths": rng.integers(L + 1, size=B)}
    return arrays


def conv_inputs(rng, B, L, D, K, *, ragged=True):
    arrays = {
        "x": rng.normal(size=(B, L, D)),
        "weight": rng.normal(size=(D, K)),
        "bias": rng.normal(size=D),
        "initial_state": rng.normal(size=(B, K - 1, D)),
    }
    if ragged:
        arrays |= {"reset": rng.random((B, L)) < 0.15, "lengths": rng.integers(L + 1, size=B)}
    return arrays


class TestSelectiveScan(BaseKernelTests):
    kernel, op, backend = "cpu/selective_scan", "selective_scan", "cpu"

    def samples(self, rng):
        for shape in ((2, 33, 65, 16), (1, 17, 16, 33), (9, 5, 3, 1), (1, 48, 130, 16), (2, 16, 1, 256)):
            yield Sample(scan_inputs(rng, *shape), {"delta_softplus": True}, f"{shape}")


class TestCausalConv1d(BaseKernelTests):
    kernel, op, backend = "cpu/causal_conv1d", "causal_conv1d", "cpu"

    def samples(self, rng):
        for shape in ((2, 130, 65, 4), (1, 200, 16, 2), (3, 3, 7, 7)):
            yield Sample(conv_inputs(rng, *shape), {"activation": "silu"}, f"{shape}")


class TestRMSNorm(BaseKernelTests):
    kernel, op, backend = "cpu/rms_norm", "rms_norm", "cpu"

    def samples(self, rng):
        for shape in ((200, 192), (3, 70, 31), (1, 1, 257), (0, 8), (130, 16)):
            yield Sample({"x": rng.normal(size=shape), "weight": rng.normal(size=shape[-1])}, label=f"{shape}")


def both(op, kernel, arrays, attrs, weights=None, rng=None):
    """Outputs and gradients of the oracle in float64 and of the kernel in float32."""
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
    names = [op.arrays[i] for i in wanted]
    return (
        expected,
        found,
        dict(zip(names, zip(exact_grads, (grads[i] for i in wanted), strict=True), strict=True)),
    )


SHARED = ("weight", "bias", "A", "D", "delta_bias")
"""Parameters: their gradients are sums over all steps, and may cancel."""


def relative(found, expected, summed=0):
    """The largest error over the largest value, or over a tenth of what so many terms of size one come to."""
    if expected.numel() == 0:
        return 0.0
    error = (found.double() - expected.detach()).abs().max()
    return float(error / expected.detach().abs().max().clamp(min=max(1e-2, 0.1 * summed**0.5)))


@given(
    B=st.integers(1, 3),
    L=st.integers(1, 70),
    D=st.integers(1, 40),
    N=st.sampled_from([1, 2, 15, 16, 17, 32]),
    softplus=st.booleans(),
    optional=st.booleans(),
    ragged=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_scan_on_any_shape(B, L, D, N, softplus, optional, ragged, seed):
    rng = np.random.default_rng(seed)
    arrays = scan_inputs(rng, B, L, D, N, optional=optional, ragged=ragged)
    if not softplus:
        arrays["delta"] = np.abs(arrays["delta"])
        arrays.pop("delta_bias", None)
    expected, found, grads = both(SCAN, table.selective_scan, arrays, {"delta_softplus": softplus}, rng=rng)
    for e, f in zip(expected, found, strict=True):
        assert relative(f, e) < 2e-6
    for name, (e, f) in grads.items():
        assert relative(f, e, B * L if name in SHARED else 0) < 1e-5, name


@given(
    B=st.integers(1, 3),
    L=st.integers(1, 150),
    D=st.integers(1, 40),
    K=st.integers(1, 6),
    activation=st.sampled_from(["none", "silu"]),
    ragged=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_conv_on_any_shape(B, L, D, K, activation, ragged, seed):
    rng = np.random.default_rng(seed)
    arrays = conv_inputs(rng, B, L, D, K, ragged=ragged)
    expected, found, grads = both(CONV, table.causal_conv1d, arrays, {"activation": activation}, rng=rng)
    for e, f in zip(expected, found, strict=True):
        assert relative(f, e) < 2e-6
    for name, (e, f) in grads.items():
        assert relative(f, e, B * L if name in SHARED else 0) < 1e-5, name


def tensors(op, arrays):
    made = {n: torch.from_numpy(np.asarray(a)) for n, a in arrays.items()}
    return [made[n].float() if n in made and made[n].is_floating_point() else made.get(n) for n in op.arrays]


def test_exp_softplus_and_sigmoid_to_the_last_bits():
    """Through the kernels: y = Δ u for one step without state, and SiLU of the convolution."""
    x = torch.cat([torch.linspace(-85, 85, 20001), torch.logspace(-30, 1.9, 3001), -torch.logspace(-30, 1.9, 3001)])
    D, one = x.numel(), torch.ones(1, 1, 1)
    soft, _ = table.selective_scan.forward(
        torch.ones(1, 1, D), x.view(1, 1, D), -torch.ones(D, 1), one, one, delta_softplus=True
    )
    silu, _ = table.causal_conv1d.forward(x.view(1, 1, D), torch.ones(D, 1), activation="silu")
    exact = x.double()
    for found, expected in (
        (soft, torch.nn.functional.softplus(exact, threshold=1e9)),
        (silu, exact * exact.sigmoid()),
    ):
        ulps = (found.view(-1).double() - expected).abs() / (expected.abs() * 2**-23)
        assert float(ulps.max()) < 4, float(x[ulps.argmax()])


@pytest.mark.parametrize("what", ["huge delta", "tiny delta", "zeros", "denormals", "large inputs"])
def test_scan_extremes(what, rng):
    arrays = scan_inputs(rng, 2, 40, 20, 16, ragged=False)
    if what == "huge delta":
        arrays["delta"] = arrays["delta"] * 0 + 500.0
    elif what == "tiny delta":
        arrays["delta"] = arrays["delta"] * 0 - 60.0
    elif what == "zeros":
        arrays = {k: v * 0 for k, v in arrays.items()}
    elif what == "denormals":
        # What is left is the decaying initial state; slow decays, whose exponents float32 can hold.
        arrays["u"], arrays["A"] = arrays["u"] * 1e-40, arrays["A"] / 16
    else:
        arrays["u"] = arrays["u"] * 1e15
    expected, found, grads = both(SCAN, table.selective_scan, arrays, {"delta_softplus": True}, rng=rng)
    for e, f in zip(expected, found, strict=True):
        assert relative(f, e) < 2e-6
    for name, (e, f) in grads.items():
        assert torch.isfinite(f).all(), name
        assert relative(f, e) < 1e-5, name


@pytest.mark.parametrize("name", ["u", "delta", "B", "C", "z"])
def test_nan_in_the_scan_reaches_what_depends_on_it_and_nothing_else(name, rng):
    arrays = scan_inputs(rng, 2, 40, 20, 16, ragged=False)
    arrays[name][0, 10, 3] = np.nan
    y, last = table.selective_scan.forward(*tensors(SCAN, arrays), delta_softplus=True)
    exact, exact_last = SCAN.reference(np, *(arrays.get(n) for n in SCAN.arrays), delta_softplus=True)
    assert np.array_equal(np.isnan(y.numpy()), np.isnan(exact))
    assert np.array_equal(np.isnan(last.numpy()), np.isnan(exact_last))


def test_nan_does_not_survive_a_reset(rng):
    arrays = scan_inputs(rng, 1, 40, 20, 16, ragged=False)
    arrays["u"][0, 5, :] = np.nan
    arrays["reset"] = np.zeros((1, 40), bool)
    arrays["reset"][0, 20] = True
    given_tensors = tensors(SCAN, arrays)
    (y, last), residuals = table.selective_scan.forward_train(*given_tensors, delta_softplus=True)
    assert torch.isnan(y[:, 5:20]).all()
    assert torch.isfinite(y[:, 20:]).all()
    assert torch.isfinite(last).all()
    du = table.selective_scan.backward(
        (torch.ones_like(y), None), tuple(given_tensors), residuals, delta_softplus=True
    )[0]
    assert torch.isfinite(du[:, 20:]).all()


def test_strided_inputs_are_read_in_place(rng):
    B, L, D, N = 2, 37, 24, 16
    wide = torch.randn(B, L, 2 * D)
    rest = torch.randn(B, L, 3 + 2 * N)
    u, z = wide[..., :D], wide[..., D:]
    Bm, C = rest[..., 3 : 3 + N], rest[..., 3 + N :]
    delta, A = torch.rand(B, L, D), -torch.rand(D, N)
    found = table.selective_scan.forward(u, delta, A, Bm, C, None, z)
    dense = table.selective_scan.forward(
        u.contiguous(), delta, A, Bm.contiguous(), C.contiguous(), None, z.contiguous()
    )
    assert all(torch.equal(a, b) for a, b in zip(found, dense, strict=True))
    transposed = torch.randn(B, D, L).transpose(1, 2)
    assert torch.equal(
        table.selective_scan.forward(transposed, delta, A, Bm, C)[0],
        table.selective_scan.forward(transposed.contiguous(), delta, A, Bm, C)[0],
    )
    weight = torch.randn(D, 4)
    assert torch.equal(
        table.causal_conv1d.forward(u, weight)[0], table.causal_conv1d.forward(u.contiguous(), weight)[0]
    )


def test_chunks_equal_the_whole_to_the_last_bit(rng):
    arrays = scan_inputs(rng, 2, 64, 20, 16, ragged=False)
    whole = tensors(SCAN, arrays)
    y, last = table.selective_scan.forward(*whole, delta_softplus=True)
    state, parts = whole[8], []
    for t in range(0, 64, 16):
        cut = [a[:, t : t + 16] if a is not None and i in (0, 1, 3, 4, 6) else a for i, a in enumerate(whole)]
        cut[8] = state
        part, state = table.selective_scan.forward(*cut, delta_softplus=True)
        parts.append(part)
    assert torch.equal(torch.cat(parts, 1), y)
    assert torch.equal(state, last)


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3)])
def test_nothing_in_nothing_out(shape):
    B, L, D = shape
    u, h = torch.zeros(B, L, D), torch.randn(B, D, 4)
    inputs = (u, u, -torch.ones(D, 4), torch.zeros(B, L, 4), torch.zeros(B, L, 4), None, None, None, h)
    (y, last), residuals = table.selective_scan.forward_train(*inputs)
    assert y.shape == shape
    assert torch.equal(last, h)
    grads = table.selective_scan.backward((None, torch.ones_like(h)), (*inputs, None, None), residuals)
    assert grads[0].shape == shape
    assert torch.equal(grads[8], torch.ones_like(h))
    y, _ = table.causal_conv1d.forward(u, torch.zeros(D, 4))
    assert y.shape == shape


def test_wrong_inputs_are_named():
    u, A, B = torch.zeros(1, 4, 3), torch.zeros(3, 2), torch.zeros(1, 4, 2)
    with pytest.raises(TypeError, match=r"u is torch\.float64"):
        table.selective_scan.forward(u.double(), u, A, B, B)
    with pytest.raises(TypeError, match=r"C is torch\.float64"):
        table.selective_scan.forward(u, u, A, B, B.double())
    with pytest.raises(ValueError, match=r"C has shape \(1, 4, 3\), expected \(1, 4, 2\)"):
        table.selective_scan.forward(u, u, A, B, u)
    with pytest.raises(ValueError, match=r"weight has shape"):
        table.causal_conv1d.forward(u, torch.zeros(4, 4))
    with pytest.raises(ValueError, match="activation"):
        table.causal_conv1d.forward(u, torch.zeros(3, 4), activation="relu")


def big_case(seed):
    torch.manual_seed(seed)
    B, L, D, N = 4, 256, 96, 16
    return (
        torch.randn(B, L, D), torch.randn(B, L, D), -torch.rand(D, N), torch.randn(B, L, N), torch.randn(B, L, N),
        torch.randn(D), torch.randn(B, L, D), torch.randn(D),
    )  # fmt: skip


def run_big_case(inputs):
    (y, last), residuals = table.selective_scan.forward_train(*inputs, delta_softplus=True)
    grads = table.selective_scan.backward((y, last), (*inputs, None, None, None), residuals, delta_softplus=True)
    return [y, last, *(g for g in grads if g is not None)]


def test_results_do_not_depend_on_the_number_of_threads():
    before, inputs = torch.get_num_threads(), big_case(0)
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(run_big_case(inputs))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_two_python_threads_at_once():
    cases = {seed: big_case(seed) for seed in (1, 2)}
    expected = {seed: run_big_case(inputs) for seed, inputs in cases.items()}
    wrong = []

    def work(seed):
        for _ in range(10):
            if not all(torch.equal(a, b) for a, b in zip(run_big_case(cases[seed]), expected[seed], strict=True)):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def test_no_states_tensor_is_built():
    """What a training forward keeps grows with L D, not with L D N."""
    for N in (16, 256):
        shapes = table.selective_scan.residuals((2, 1024, 64), None, (64, N))
        kept = sum(int(np.prod(shape)) for shape in shapes)
        assert kept <= 2 * 1024 * 64 * N / 16
