"""S4 against HiPPO's closed form, a dense float64 simulation, and the paper's generating function."""

import numpy as np
import pytest

from helix_core import create
from helix_core.kinds.params import init_params
from helix_plugin_ssm._hippo_dplr import hippo_dplr, hippo_legs
from helix_plugin_ssm.s4 import Chunk


@pytest.fixture
def F():
    return create("backend", "reference").bind(dtype="float64")


def layer_and_params(d_state, rng, noise=0.0):
    layer = create("layer", "s4", d_model=3, d_state=d_state)
    params = {k: v.astype(np.float64) for k, v in init_params(layer.param_specs(), 0).items()}
    return layer, {k: v + noise * rng.normal(size=v.shape) for k, v in params.items()}


def test_hippo_is_its_closed_form():
    A, B = hippo_legs(5)
    for n in range(5):
        assert B[n] == (2 * n + 1) ** 0.5
        for k in range(5):
            expected = -(((2 * n + 1) * (2 * k + 1)) ** 0.5) if n > k else -(n + 1.0) if n == k else 0.0
            assert np.isclose(A[n, k], expected)


@pytest.mark.parametrize("N", [2, 8, 64])
def test_the_low_rank_form_is_hippo_in_another_basis(N):
    """Equal for every resolvent (s - A)⁻¹ between B and B, and in its spectrum's trace: what a basis leaves alone."""
    A, B = hippo_legs(N)
    pairs, low_rank = hippo_dplr(N)
    full = np.diag(np.concatenate([pairs, pairs.conj()])) - np.outer(*[np.concatenate([low_rank, low_rank])] * 2)
    inputs = np.sqrt(2) * np.concatenate([low_rank, low_rank])
    assert np.isclose(np.trace(full), np.trace(A))
    for s in (0.5, 1 + 2j, 30.0, 100j):
        expected = B @ np.linalg.solve(s * np.eye(N) - A, B)
        found = inputs @ np.linalg.solve(s * np.eye(N) - full, inputs)
        assert np.isclose(found, expected, rtol=1e-8)


def dense(params, channel):
    """A, B, C and Δ of one channel over all N complex states."""
    z = {k: params[k][channel, :, 0] + 1j * params[k][channel, :, 1] for k in "PBC"}
    pairs = -np.exp(params["A_log"][channel]) + 1j * params["A_imag"][channel]
    P, B, C = (np.concatenate([v, v.conj()]) for v in (z["P"], z["B"], z["C"]))
    A = np.diag(np.concatenate([pairs, pairs.conj()])) - np.outer(P, P.conj())
    return A, B, C, np.exp(params["log_dt"][channel])


@pytest.mark.parametrize("length", [1, 2, 37, 64])
def test_filter_and_state_are_those_of_a_dense_bilinear_simulation(F, rng, length):
    layer, params = layer_and_params(8, rng, noise=0.1)
    u, h = rng.normal(size=(2, length, 3)), rng.normal(size=(2, 3, 8))
    chunk = Chunk(F, layer.system(F, params), length)
    response, last = chunk.response(h, None), chunk.last_state(u, h, None, None)
    for d in range(3):
        A, B, C, dt = dense(params, d)
        M = np.linalg.inv(np.eye(8) - dt / 2 * A)
        step, into = M @ (np.eye(8) + dt / 2 * A), M @ B * dt
        kernel = [(C @ np.linalg.matrix_power(step, i) @ into).real for i in range(length)]
        assert np.allclose(chunk.filter[:, d], kernel, rtol=1e-9, atol=1e-11)
        for row in range(2):
            x = h[row, d, :4] + 1j * h[row, d, 4:]
            x = np.concatenate([x, x.conj()])
            for t in range(length):
                assert np.isclose(response[row, t, d], (C @ np.linalg.matrix_power(step, t + 1) @ x).real)
            for t in range(length):
                x = step @ x + into * u[row, t, d]
            assert np.allclose(last[row, d], np.concatenate([x[:4].real, x[:4].imag]))


def test_the_filter_is_the_papers_generating_function(F, rng):
    """Cauchy kernels at the roots of unity, Woodbury's identity, C̃ = C (1 - Āᴸ), and an inverse transform."""
    length, N = 48, 16
    layer, params = layer_and_params(N, rng)
    found = Chunk(F, layer.system(F, params), length).filter
    for d in range(3):
        A, B, C, dt = dense(params, d)
        P = np.concatenate([v := params["P"][d] @ [1, 1j], v.conj()])
        poles = np.diag(A) + P * P.conj()
        step = np.linalg.solve(np.eye(N) - dt / 2 * A, np.eye(N) + dt / 2 * A)
        truncated = C @ (np.eye(N) - np.linalg.matrix_power(step, length))
        z = np.exp(-2j * np.pi * np.arange(length) / length) * (1 + 1e-13)
        g = 2 / dt * (1 - z) / (1 + z)
        cauchy = {
            (a, b): (left * right / (g[:, None] - poles)).sum(-1)
            for a, left in (("C", truncated), ("P", P.conj()))
            for b, right in (("B", B), ("P", P))
        }
        spectrum = cauchy["C", "B"] - cauchy["C", "P"] * cauchy["P", "B"] / (1 + cauchy["P", "P"])
        expected = np.fft.ifft(2 / (1 + z) * spectrum).real
        # The node at z = -1, where g is infinite, is kept finite by a shift of 1e-13.
        assert np.allclose(found[:, d], expected, rtol=1e-6, atol=1e-8 * abs(expected).max() + 1e-10)


def test_float32_keeps_its_precision_at_small_steps(rng):
    """Steps of 0.001, 512 of them: Ā is close to 1, and its powers must not add up what rounding it costs."""
    layer = create("layer", "s4", d_model=3, d_state=64, dt_min=0.001, dt_max=0.0011)
    params = init_params(layer.param_specs(), 0)
    filters = {}
    for dtype in ("float32", "float64"):
        F = create("backend", "reference").bind(dtype=dtype)
        given = {k: v.astype(dtype) for k, v in params.items()}
        filters[dtype] = Chunk(F, layer.system(F, given), 512).filter
    exact = filters["float64"]
    assert abs(filters["float32"] - exact).max() < 1e-5 * abs(exact).max()
