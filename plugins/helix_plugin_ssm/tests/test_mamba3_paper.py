"""Mamba-3 against the paper's recurrence, token by token, with nothing shared with the implementation."""

import math

import numpy as np
import pytest

from helix_core import create
from helix_core.kinds.params import init_params
from helix_plugin_ssm._rotary import total_turns


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(x))


def rms(x, eps=1e-5):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)


def turned(a, angles, interleaved):
    """a (N,) as complex pairs, the first of them turned by `angles`."""
    half = len(a) // 2
    first, second = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(half), slice(half, None))
    z = a[first] + 1j * a[second]
    z[: len(angles)] *= np.exp(1j * angles)
    out = np.empty_like(a)
    out[first], out[second] = z.real, z.imag
    return out


def papers_recurrence(c, p, x):
    """x (L, D) -> y (L, D): equation by equation, angles added up without end."""
    E, N, G, H, R, P, S = c.d_inner, c.d_state, c.n_groups, c.n_heads, c.mimo_rank, c.head_dim, c.n_angles
    cuts = np.cumsum([E, E, N * G * R, N * G * R, H, H, H])
    state, before, angle = np.zeros((H, N, P)), np.zeros((H, N, P)), np.zeros((H, S))
    out = []
    for u in x:
        z, v, B, C, dt, a, lam, theta = np.split(p["in_proj.weight"] @ u, cuts)
        delta = softplus(dt + p["dt_bias"])
        A = -np.maximum(np.where(a >= 0, 1 + a, 1 / (1 - np.minimum(a, 0))), c.A_floor)
        lam = sigmoid(lam)
        angle = angle + math.pi * delta[:, None] * np.tanh(theta)
        B = rms(B.reshape(R, G, N)) * p["B_norm.weight"]
        C = rms(C.reshape(R, G, N)) * p["C_norm.weight"]
        y = np.zeros((H, P))
        for h in range(H):
            g = h // (H // G)
            vh, zh = v[h * P : (h + 1) * P], z[h * P : (h + 1) * P]
            values = [vh * p["mimo_x"][h, r] if R > 1 else vh for r in range(R)]
            now = sum(np.outer(turned(B[r, g] + p["B_bias"][h, r], angle[h], R == 1), values[r]) for r in range(R))
            alpha = math.exp(delta[h] * A[h])
            state[h] = alpha * state[h] + (1 - lam[h]) * delta[h] * alpha * before[h] + lam[h] * delta[h] * now
            before[h] = now
            for r in range(R):
                o = turned(C[r, g] + p["C_bias"][h, r], angle[h], R == 1) @ state[h] + p["D"][h] * values[r]
                if c.out_norm:
                    o = rms(o) * p["norm.weight"][h * P : (h + 1) * P]
                gate = zh * p["mimo_z"][h, r] if R > 1 else zh
                o = o * gate * sigmoid(gate)
                y[h] += o * p["mimo_o"][h, r] if R > 1 else o
        out.append(p["out_proj.weight"] @ y.reshape(E))
    return np.stack(out)


@pytest.mark.parametrize(
    "options",
    [
        {"d_state": 8, "head_dim": 3, "n_groups": 2},
        {"d_state": 6, "head_dim": 4, "rope_fraction": 1.0, "out_norm": True},
        {"d_state": 4, "head_dim": 6, "rope_fraction": 0.0},
        {"d_state": 8, "head_dim": 3, "mimo_rank": 4, "n_groups": 2},
        {"d_state": 10, "head_dim": 12, "mimo_rank": 2, "rope_fraction": 1.0, "out_norm": True},
    ],
    ids=lambda options: ",".join(map(str, options.values())),
)
def test_it_is_the_papers_recurrence(rng, options):
    F = create("backend", "reference").bind(dtype="float64")
    layer = create("layer", "mamba3", d_model=6, **options)
    p = {k: v + 0.3 * rng.normal(size=v.shape) for k, v in init_params(layer.param_specs(), 0).items()}
    p["dt_bias"] = rng.normal(size=p["dt_bias"].shape)
    p["in_proj.weight"] = rng.normal(size=p["in_proj.weight"].shape)
    x = rng.normal(size=(2, 90, 6))
    found, _ = layer.apply(F, p, x)
    for row in range(2):
        expected = papers_recurrence(layer.config, p, x[row])
        assert np.abs(found[row] - expected).max() < 1e-10 * np.abs(expected).max()


def test_angles_between_steps_are_as_exact_late_in_a_long_sequence(rng):
    turns = rng.uniform(-0.25, 0.75, size=(1, 300_001, 2)).astype(np.float32)
    F = create("backend", "reference").bind()
    exact, found = np.cumsum(turns, axis=1, dtype=np.float64), total_turns(F.xp, turns).astype(np.float64)
    for apart in (1, 70, 1000):
        off = (found[:, apart:] - found[:, :-apart]) - (exact[:, apart:] - exact[:, :-apart])
        assert np.abs(off - np.round(off)).max() < 1e-4, "one float32 sum over all steps is off by 4e-3"


def test_it_starts_as_the_authors_code_does():
    layer = create("layer", "mamba3", d_model=512, mimo_rank=4)
    p = init_params(layer.param_specs(), 0)
    assert p["in_proj.weight"].shape == (2 * 1024 + 2 * 128 * 4 + 3 * 16 + 32, 512)
    dt = softplus(p["dt_bias"])
    assert 0.001 * 0.99 < dt.min() < dt.max() < 0.1 * 1.01
    assert (p["B_bias"] == 1).all()
    assert (p["mimo_x"] == 0.25).all()
    assert (p["mimo_z"] == 1).all()
