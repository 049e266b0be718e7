"""The gated delta rule against its recurrence, and Gated DeltaNet against Hugging Face's Qwen3-Next."""

import numpy as np
import pytest

from helix_core import create
from helix_core.kinds.params import init_params
from helix_core.ops import OPS


def test_chunks_equal_the_recurrence(rng):
    op = OPS["gated_delta_rule"]
    for sample in op.samples(rng):
        a = {n: sample.arrays.get(n) for n in op.arrays}
        B, L, H, V = a["v"].shape
        shared, K = H // a["q"].shape[2], a["q"].shape[3]
        y, last = np.zeros((B, L, H, V)), np.zeros((B, H, K, V))
        for b in range(B):
            end = L if a["lengths"] is None else a["lengths"][b]
            for h in range(H):
                S = np.zeros((K, V)) if a["initial_state"] is None else a["initial_state"][b, h]
                for t in range(end):
                    if a["reset"] is not None and a["reset"][b, t]:
                        S = np.zeros_like(S)
                    k, beta = a["k"][b, t, h // shared], a["beta"][b, t, h]
                    forget = np.exp(a["log_decay"][b, t, h]) * (np.eye(K) - beta * np.outer(k, k))
                    S = forget @ S + beta * np.outer(k, a["v"][b, t, h])
                    y[b, t, h] = sample.attrs.get("scale", 1.0) * (S.T @ a["q"][b, t, h // shared])
                last[b, h] = S
        found, state = op.reference(np, *a.values(), **sample.attrs)
        assert np.allclose(found, y, rtol=1e-9, atol=1e-11), sample.label
        assert np.allclose(state, last, rtol=1e-9, atol=1e-11), sample.label


@pytest.mark.slow
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 2), (2, 2)])
def test_it_is_hugging_faces_layer(heads, key_heads, rng):
    pytest.importorskip("transformers")
    import torch
    from transformers.models.qwen3_next.configuration_qwen3_next import Qwen3NextConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    config = Qwen3NextConfig(
        hidden_size=24,
        num_hidden_layers=1,
        linear_num_value_heads=heads,
        linear_num_key_heads=key_heads,
        linear_key_head_dim=8,
        linear_value_head_dim=12,
        layer_types=["linear_attention"],
    )
    layer = create("layer", "gated_deltanet", d_model=24, n_heads=heads, n_key_heads=key_heads, d_key=8, d_value=12)
    params = init_params(layer.param_specs(), 0)
    theirs = Qwen3NextGatedDeltaNet(config, 0)
    weights = {k: torch.from_numpy(v) for k, v in params.items()}
    weights["conv1d.weight"] = weights["conv1d.weight"][:, None]
    theirs.load_state_dict(weights)
    x = rng.normal(size=(2, 70, 24)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    F = create("backend", "reference").bind(dtype="float64")
    found, _ = layer.apply(F, {k: v.astype(np.float64) for k, v in params.items()}, x.astype(np.float64))
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
