"""Mamba-2, RetNet and GLA against independent statements of what the papers define, and Hugging Face's Mamba-2."""

import math

import numpy as np
import pytest

from helix_core import create
from helix_core.kinds.params import init_params


@pytest.fixture(scope="module")
def F():
    return create("backend", "reference").bind(dtype="float64")


def draw(layer, seed=0):
    return {k: v.astype(np.float64) for k, v in init_params(layer.param_specs(), seed).items()}


def silu(x):
    return x / (1 + np.exp(-x))


def test_mamba2_is_the_papers_block(F, rng):
    """Token by token with explicit sums, nothing shared with the implementation."""
    layer = create("layer", "mamba2", d_model=6, d_state=5, head_dim=3, n_groups=2, time_step_limit=(0.002, 0.05))
    p, x = draw(layer), rng.normal(size=(2, 11, 6))
    E, N, G, H, P = 12, 5, 2, 4, 3
    expected = np.zeros_like(x)
    for b in range(2):
        S = np.zeros((H, N, P))
        inner = x[b] @ p["in_proj.weight"].T
        z, xbc, dt = inner[:, :E], inner[:, E : 2 * E + 2 * G * N], inner[:, 2 * E + 2 * G * N :]
        for t in range(11):
            mixed = p["conv1d.bias"].copy()
            for lag in range(min(t + 1, 4)):
                mixed += p["conv1d.weight"][:, 3 - lag] * xbc[t - lag]
            mixed = silu(mixed)
            B, C = mixed[E : E + G * N].reshape(G, N), mixed[E + G * N :].reshape(G, N)
            y = np.zeros((H, P))
            for h in range(H):
                delta = np.clip(np.log1p(np.exp(dt[t, h] + p["dt_bias"][h])), 0.002, 0.05)
                u, group = mixed[h * P : (h + 1) * P], h // 2
                S[h] = math.exp(-delta * math.exp(p["A_log"][h])) * S[h] + delta * np.outer(B[group], u)
                y[h] = C[group] @ S[h] + p["D"][h] * u
            gated = (y.reshape(E) * silu(z[t])).reshape(G, E // G)
            normed = gated / np.sqrt((gated**2).mean(axis=1, keepdims=True) + 1e-5)
            expected[b, t] = p["out_proj.weight"] @ (p["norm.weight"] * normed.reshape(E))
    found, _ = layer.apply(F, p, x)
    assert np.allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_mamba2_starts_as_the_paper_says():
    layer = create("layer", "mamba2", d_model=512)
    p = draw(layer)
    dt = np.log1p(np.exp(p["dt_bias"]))
    assert p["A_log"].shape == (16,)
    assert 0.001 * 0.99 < dt.min() < dt.max() < 0.1 * 1.01
    assert 1 <= np.exp(p["A_log"]).min() < np.exp(p["A_log"]).max() <= 16 * (1 + 1e-6)
    assert (p["D"] == 1).all()
    assert p["in_proj.weight"].shape == (2 * 1024 + 2 * 128 + 16, 512)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["core/reference", "cpu/cpu"])
@pytest.mark.parametrize(
    ("d_model", "head_dim", "n_groups", "d_state", "length"),
    [(32, 8, 1, 16, 50), (32, 8, 4, 16, 300), (48, 16, 2, 128, 257), (64, 64, 1, 64, 1)],
)
def test_mamba2_is_hugging_faces(rng, backend, d_model, head_dim, n_groups, d_state, length):
    transformers = pytest.importorskip("transformers")
    import torch

    config = transformers.Mamba2Config(
        hidden_size=d_model,
        num_heads=2 * d_model // head_dim,
        head_dim=head_dim,
        n_groups=n_groups,
        state_size=d_state,
        num_hidden_layers=2,
        vocab_size=100,
        chunk_size=64,
    )
    torch.manual_seed(length)
    model = transformers.Mamba2ForCausalLM(config).eval()
    theirs = model.backbone.layers[1].mixer
    with torch.no_grad():
        for value in theirs.parameters():
            value.add_(0.1 * torch.randn_like(value))
    layer = create("layer", "mamba2", d_model=d_model, head_dim=head_dim, n_groups=n_groups, d_state=d_state)
    backend = create("backend", backend)
    F = backend.bind(mode="infer")
    weights = {name: value.detach().numpy() for name, value in theirs.named_parameters()}
    weights["conv1d.weight"] = weights["conv1d.weight"][:, 0]
    assert {name: value.shape for name, value in weights.items()} == {
        name: spec.shape for name, spec in layer.param_specs().items()
    }
    x = rng.normal(size=(2, length, d_model)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    with backend.inference():
        params = {name: backend.asarray(value) for name, value in weights.items()}
        found = backend.to_numpy(layer.apply(F, params, backend.asarray(x))[0])
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_retention_is_the_papers_parallel_form(F, rng):
    """(Q Kᵀ ⊙ D) V with complex rotations e^(inθ), as the paper's equation 5 has it."""
    layer = create("layer", "retnet", d_model=12, n_heads=2)
    p, x = draw(layer), rng.normal(size=(1, 40, 12))
    p["group_norm.weight"], p["group_norm.bias"] = rng.normal(size=24), rng.normal(size=24)
    H, K, V, L = 2, 6, 12, 40
    n = np.arange(L)
    theta = 10000.0 ** -np.array([0, 0.5, 1])
    out = []
    for h in range(H):
        q, k = (x[0] @ p[f"{name}_proj.weight"][h * K : (h + 1) * K].T for name in "qk")
        q, k = ((a[:, :3] + 1j * a[:, 3:]) * np.exp(1j * n[:, None] * theta) for a in (q, k))
        gamma = 1 - 2.0 ** (-5 - h)
        D = np.where(n[:, None] >= n, gamma ** np.maximum(n[:, None] - n, 0.0), 0)
        o = (np.real(q @ np.conj(k).T) / math.sqrt(K) * D) @ (x[0] @ p["v_proj.weight"][h * V : (h + 1) * V].T)
        o = (o - o.mean(axis=1, keepdims=True)) / np.sqrt(o.var(axis=1, keepdims=True) + 1e-5)
        out.append(o)
    o = np.concatenate(out, axis=1) * p["group_norm.weight"] + p["group_norm.bias"]
    expected = (o * silu(x[0] @ p["g_proj.weight"].T)) @ p["out_proj.weight"].T
    found, _ = layer.apply(F, p, x)
    assert np.allclose(found[0], expected, rtol=1e-9, atol=1e-11)


def test_retention_forgets_where_it_stands(rng):
    """Far behind the start of a sequence, float32 still tells neighbours apart: positions do not enter the state."""
    layer = create("layer", "retnet", d_model=8, n_heads=1)
    backend = create("backend", "reference")
    F, F32 = backend.bind(dtype="float64"), backend.bind()
    p, x = draw(layer), rng.normal(size=(1, 3000, 8))
    expected, _ = layer.apply(F, p, x)
    found, _ = layer.apply(F32, {k: v.astype(np.float32) for k, v in p.items()}, x.astype(np.float32))
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()  # the norm enlarges what nearly cancels


def test_gla_is_the_papers_recurrence(F, rng):
    layer = create("layer", "gla", d_model=8, n_heads=2)
    p, x = draw(layer), rng.normal(size=(1, 30, 8))
    p["g_norm.weight"], p["g_proj.bias"] = rng.normal(size=4), rng.normal(size=8)
    S, expected = np.zeros((2, 2, 4)), np.zeros((30, 8))
    for t, u in enumerate(x[0]):
        q, k, v = (p[f"{name}_proj.weight"] @ u for name in "qkv")
        gate = p["gk_proj.1.weight"] @ (p["gk_proj.0.weight"] @ u) + p["gk_proj.1.bias"]
        alpha = (1 / (1 + np.exp(-gate))) ** (1 / 16)
        o = np.zeros((2, 4))
        for h in range(2):
            at = slice(2 * h, 2 * h + 2)
            S[h] = alpha[at, None] * S[h] + np.outer(k[at], v[4 * h : 4 * h + 4])
            o[h] = q[at] @ S[h] / math.sqrt(2)
        o = o / np.sqrt((o**2).mean(axis=1, keepdims=True) + 1e-5) * p["g_norm.weight"]
        expected[t] = p["o_proj.weight"] @ (o.reshape(8) * silu(p["g_proj.weight"] @ u + p["g_proj.bias"]))
    found, _ = layer.apply(F, p, x)
    assert np.allclose(found[0], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        ("mamba2", {"d_model": 10, "head_dim": 3}, "head_dim must divide"),
        ("mamba2", {"d_model": 12, "head_dim": 3, "n_groups": 3}, "n_groups must divide"),
        ("mamba2", {"d_model": 32, "time_step_limit": (0.2, 0.1)}, "low <= high"),
        ("retnet", {"d_model": 6, "n_heads": 2}, "twice the number of heads"),
        ("gla", {"d_model": 6}, "multiple of n_heads"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(layer, options, message):
    from helix_core.errors import ConfigError

    with pytest.raises(ConfigError, match=message):
        create("layer", layer, **options)
