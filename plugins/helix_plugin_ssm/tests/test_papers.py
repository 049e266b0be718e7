"""Mamba and S4D against independent computations of what the papers define."""

import math

import numpy as np
import pytest
import scipy.signal

from helix_core import create
from helix_core.kinds.params import init_params


@pytest.fixture(scope="module")
def F():
    return create("backend", "reference").bind(dtype="float64")


def draw(layer, seed=0):
    return {k: v.astype(np.float64) for k, v in init_params(layer.param_specs(), seed).items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_mamba_is_the_papers_block(F, rng):
    """Token by token with explicit sums, nothing shared with the implementation."""
    layer = create("layer", "mamba", d_model=6, d_state=5, d_conv=4)
    p, x = draw(layer), rng.normal(size=(2, 11, 6))
    E, N, R = 12, 5, 1
    expected = np.zeros_like(x)
    for b in range(2):
        h = np.zeros((E, N))
        inner = x[b] @ p["in_proj.weight"].T
        u, z = inner[:, :E], inner[:, E:]
        for t in range(11):
            mixed = p["conv1d.bias"].copy()
            for lag in range(4):
                if t - lag >= 0:
                    mixed += p["conv1d.weight"][:, 3 - lag] * u[t - lag]
            v = mixed * sigmoid(mixed)
            projected = p["x_proj.weight"] @ v
            delta = np.log1p(np.exp(p["dt_proj.weight"] @ projected[:R] + p["dt_proj.bias"]))
            B, C = projected[R : R + N], projected[R + N :]
            for e in range(E):
                for n in range(N):
                    h[e, n] = math.exp(-delta[e] * math.exp(p["A_log"][e, n])) * h[e, n] + delta[e] * B[n] * v[e]
            y = (h @ C + p["D"] * v) * (z[t] * sigmoid(z[t]))
            expected[b, t] = p["out_proj.weight"] @ y
    found, _ = layer.apply(F, p, x)
    assert np.allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_mamba_starts_as_the_paper_says():
    layer = create("layer", "mamba", d_model=64)
    p = draw(layer)
    dt = np.log1p(np.exp(p["dt_proj.bias"]))
    assert 0.001 * 0.99 < dt.min() < 0.005
    assert 0.05 < dt.max() < 0.1 * 1.01
    assert np.allclose(np.exp(p["A_log"]), np.arange(1, 17), rtol=1e-6)
    assert (p["D"] == 1).all()
    assert layer.config.rank == 4


def modes(layer, p):
    """A (D, N) complex, Δ (D,), C (D, N) complex."""
    real = -np.exp(p["A_log"])
    A = real + 1j * p["A_imag"] if "A_imag" in p else real + 0j
    C = p["C"][..., 0] + 1j * p["C"][..., 1] if "A_imag" in p else p["C"] + 0j
    return A, np.exp(p["log_dt"]), C


@pytest.mark.parametrize("init", ["lin", "inv", "real"])
@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_s4d_discretises_as_scipy_does(F, init, rule):
    layer = create("layer", "s4d", d_model=3, d_state=8, init=init, discretization=rule)
    p = draw(layer)
    A, dt, C = modes(layer, p)
    log_a, c = layer.discretize(F, p)
    found_a = np.exp(log_a[..., 0] + 1j * log_a[..., 1])
    found_c = c[..., 0] + 1j * c[..., 1]
    for d in range(3):
        # scipy takes real systems: the conjugate pair as a 2x2 rotation for each mode.
        for n in range(A.shape[1]):
            a = A[d, n]
            real_A = np.array([[a.real, -a.imag], [a.imag, a.real]])
            real_B = np.array([[1.0], [0.0]])
            Ad, Bd, *_ = scipy.signal.cont2discrete((real_A, real_B, np.eye(2), np.zeros((2, 1))), dt[d], method=rule)
            assert np.isclose(Ad[0, 0] + 1j * Ad[1, 0], found_a[d, n], rtol=1e-8)
            b = Bd[0, 0] + 1j * Bd[1, 0]
            # scipy's bilinear rule keeps the input's half step in C and D; the S4 papers put B̄ = Δ/(1 - ΔA/2).
            if rule == "bilinear":
                b = dt[d] / (1 - dt[d] * a / 2)
            assert np.isclose(C[d, n] * b, found_c[d, n], rtol=1e-8)


@pytest.mark.parametrize("init", ["lin", "inv", "real"])
def test_s4d_starts_from_the_papers_spectra(init):
    layer = create("layer", "s4d", d_model=2, d_state=8, init=init)
    A, dt, _ = modes(layer, draw(layer))
    n = np.arange(A.shape[1])
    expected = {
        "lin": -0.5 + 1j * math.pi * n,
        "inv": -0.5 + 1j * (8 / math.pi) * (8 / (2 * n + 1) - 1),
        "real": -(n + 1.0) + 0j,
    }[init]
    assert np.allclose(A, expected, rtol=1e-6)
    assert ((dt >= 0.001 * 0.999) & (dt <= 0.1 * 1.001)).all()


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_s4d_filter_is_the_impulse_response_of_its_recurrence(F, rule):
    layer = create("layer", "s4d", d_model=4, d_state=8, discretization=rule)
    log_a, c = layer.discretize(F, draw(layer))
    impulse = np.zeros((1, 100, 4))
    impulse[:, 0] = 1
    response, _ = F.diagonal_ssm(impulse, log_a, c)
    assert np.allclose(F.diagonal_ssm_filter(log_a, c, length=100), response[0], rtol=1e-9, atol=1e-12)


def test_s4d_zoh_samples_the_continuous_system_exactly(F):
    """For a step input, zero-order hold is exact: y(t) = 2 Re Σ C (e^{tA} - 1)/A."""
    layer = create("layer", "s4d", d_model=2, d_state=8)
    p = draw(layer)
    A, dt, C = modes(layer, p)
    log_a, c = layer.discretize(F, p)
    y, _ = F.diagonal_ssm(np.ones((1, 50, 2)), log_a, c)
    for d in range(2):
        t = dt[d] * np.arange(1, 51)
        exact = 2 * np.real(np.sum(C[d] * np.expm1(t[:, None] * A[d]) / A[d], axis=1))
        assert np.allclose(y[0, :, d], exact, rtol=1e-8, atol=1e-10)


def test_odd_state_sizes_are_refused():
    from helix_core.errors import ConfigError

    with pytest.raises(ConfigError, match="even"):
        create("layer", "s4d", d_model=4, d_state=7)


def test_bilinear_real_modes_survive_where_their_decay_is_zero(F):
    """ΔA = -2 exactly: Ā = 0, whose logarithm is infinite."""
    layer = create("layer", "s4d", d_model=2, d_state=4, init="real", discretization="bilinear")
    p = draw(layer)
    p["A_log"] = np.full_like(p["A_log"], math.log(2.0))
    p["log_dt"] = np.zeros(2)
    y, _ = layer.apply(F, p, np.random.default_rng().normal(size=(1, 20, 2)))
    assert np.isfinite(y).all()
