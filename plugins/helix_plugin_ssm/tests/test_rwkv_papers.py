"""RWKV-7 as its authors define it, written out step by step for one row; RWKV-4 as in Hugging Face."""

import numpy as np
import pytest

from helix_core import create
from helix_core.errors import ConfigError
from helix_core.kinds.params import init_params
from helix_plugin_lm.models import LanguageModel, ModelConfig


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def time_mix(p, x, heads, v_first, eps):
    """x (L, D) -> y (L, D), the values of the model's first layer."""
    L, D = x.shape
    N = D // heads
    xx = np.concatenate([np.zeros((1, D)), x[:-1]]) - x
    xr, xw, xk, xv, xa, xg = (x + xx * p[f"x_{c}"] for c in "rwkvag")
    r, k, v = xr @ p["receptance.weight"].T, xk @ p["key.weight"].T, xv @ p["value.weight"].T
    w = -np.log1p(np.exp(-(p["w0"] + np.tanh(xw @ p["w1"]) @ p["w2"]))) - 0.5
    if v_first is None:
        v_first = v
    else:
        v = v + (v_first - v) * sigmoid(p["v0"] + xv @ p["v1"] @ p["v2"])
    a = sigmoid(p["a0"] + xa @ p["a1"] @ p["a2"])
    g = sigmoid(xg @ p["g1"]) @ p["g2"]
    kk = (k * p["k_k"]).reshape(L, heads, N)
    kk = kk / np.linalg.norm(kk, axis=-1, keepdims=True)
    k = k * (1 + (a - 1) * p["k_a"])
    r, k, v, a, w = (z.reshape(L, heads, N) for z in (r, k, v, a, np.exp(-np.exp(w))))
    S, y = np.zeros((heads, N, N)), np.zeros((L, D))  # S: values by keys
    for t in range(L):
        outs = []
        for h in range(heads):
            move = np.outer(S[h] @ -kk[t, h], kk[t, h] * a[t, h])
            S[h] = S[h] * w[t, h] + move + np.outer(v[t, h], k[t, h])
            o = S[h] @ r[t, h]
            o = (o - o.mean()) / np.sqrt(o.var() + eps)
            outs.append((o, (r[t, h] * k[t, h] * p["r_k"][h]).sum() * v[t, h]))
        norm = np.concatenate([o for o, _ in outs]) * p["ln_x.weight"] + p["ln_x.bias"]
        y[t] = (norm + np.concatenate([b for _, b in outs])) * g[t] @ p["output.weight"].T
    return y, v_first.reshape(L, D)


def channel_mix(p, x):
    xx = np.concatenate([np.zeros((1, x.shape[1])), x[:-1]]) - x
    return np.maximum((x + xx * p["x_k"]) @ p["key.weight"].T, 0) ** 2 @ p["value.weight"].T


def rms_norm(x):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)


@pytest.fixture
def F():
    return create("backend", "reference").bind(dtype="float64")


def large(params, rng):
    """Far from the initial values, where every term counts."""
    return {k: v.astype(np.float64) + 0.3 * rng.normal(size=v.shape) for k, v in params.items()}


def test_rwkv7_is_the_authors_time_mix(F, rng):
    layer = create("layer", "rwkv7", d_model=12, head_dim=4)
    params = large(init_params(layer.param_specs(), 0), rng)
    x = rng.normal(size=(1, 20, 12))
    found, _ = layer.apply(F, params, x)
    expected, _ = time_mix(params, x[0], 3, None, 64e-5)
    assert np.allclose(found[0], expected, rtol=1e-9, atol=1e-9 * abs(expected).max())


def test_rwkv7_channel_mix_is_the_authors(F, rng):
    layer = create("layer", "rwkv7_channel_mix", d_model=12)
    params = large(init_params(layer.param_specs(), 0), rng)
    x = rng.normal(size=(1, 20, 12))
    assert np.allclose(layer.apply(F, params, x)[0][0], channel_mix(params, x[0]))


def small_model():
    return LanguageModel(
        ModelConfig.model_validate(
            {
                "vocab_size": 16,
                "d_model": 8,
                "n_layers": 3,
                "mixer": {"name": "rwkv7", "head_dim": 4, "value_residual": True, "value_rank": 3},
                "mlp": {"name": "rwkv7_channel_mix"},
            }
        )
    )


def test_a_model_blends_the_values_of_its_first_layer_in(F, rng):
    model = small_model()
    params = large(model.init(0), rng)
    tokens = rng.integers(16, size=(1, 15))
    found, _ = model.apply(F, params, tokens)
    x, v_first = params["embedding.weight"][tokens[0]], None
    for i in range(3):
        p = {k.removeprefix(f"blocks.{i}."): v for k, v in params.items() if k.startswith(f"blocks.{i}.")}
        mixer = {k.removeprefix("mixer."): v for k, v in p.items() if k.startswith("mixer.")}
        mlp = {k.removeprefix("mlp."): v for k, v in p.items() if k.startswith("mlp.")}
        y, v_first = time_mix(mixer, rms_norm(x) * p["mixer_norm.weight"], 2, v_first, 64e-5)
        x = x + y
        x = x + channel_mix(mlp, rms_norm(x) * p["mlp_norm.weight"])
    expected = rms_norm(x) * params["norm.weight"] @ params["embedding.weight"].T
    assert np.allclose(found[0], expected, rtol=1e-9, atol=1e-9 * abs(expected).max())


def test_the_blend_is_the_same_step_by_step(F, rng):
    model = small_model()
    params = large(model.init(0), rng)
    tokens = rng.integers(16, size=(2, 15))
    whole, _ = model.apply(F, params, tokens)
    state, steps = model.init_state(F, 2), []
    for t in range(15):
        y, state = model.apply(F, params, tokens[:, t : t + 1], state=state)
        steps.append(y)
    assert np.allclose(np.concatenate(steps, 1), whole, rtol=1e-9, atol=1e-9)


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="multiple of head_dim"):
        create("layer", "rwkv7", d_model=12, head_dim=5)


def test_wkv4_is_the_papers_sum(F, rng):
    k, v = 3 * rng.normal(size=(2, 1, 25, 6))
    w, u = -np.exp(rng.uniform(-4, 2, 6)), rng.normal(size=6)
    y, _ = F.wkv4(k, v, w, u)
    for t in range(25):
        weights = np.exp(k[0, : t + 1] + np.array([[(t - 1 - s) * w for s in range(t)] + [u]])[0])
        expected = (weights * v[0, : t + 1]).sum(0) / weights.sum(0)
        assert np.allclose(y[0, t], expected, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["attention", "feed_forward"])
def test_rwkv4_is_hugging_faces(part, F, rng):
    modeling = pytest.importorskip("transformers.models.rwkv.modeling_rwkv")
    import torch
    from transformers.models.rwkv.configuration_rwkv import RwkvConfig

    config = RwkvConfig(hidden_size=12, num_hidden_layers=2, attention_hidden_size=20, intermediate_size=30)
    if part == "attention":
        theirs = modeling.RwkvSelfAttention(config, 0)
        layer = create("layer", "rwkv4", d_model=12, d_attention=20)
    else:
        theirs = modeling.RwkvFeedForward(config, 0)
        layer = create("layer", "rwkv4_channel_mix", d_model=12, expand=2.5)
    params = large(init_params(layer.param_specs(), 0), rng)
    shapes = {k: v.shape for k, v in theirs.state_dict().items()}
    theirs.load_state_dict({k: torch.from_numpy(v).float().reshape(shapes[k]) for k, v in params.items()})
    x = rng.normal(size=(2, 40, 12))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x).float())[0].numpy()
    found, _ = layer.apply(F, params, x)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
