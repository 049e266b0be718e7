"""The layer kit on every layer of this plugin."""

import numpy as np

from helix_core import create
from helix_testing import BaseLayerTests
from helix_testing.layer_case import Case


class TestAttention(BaseLayerTests):
    layer = "attention"
    configs = (
        {"d_model": 8, "n_heads": 2, "max_length": 150},
        {"d_model": 12, "n_heads": 4, "n_kv_heads": 2, "head_dim": 6, "window": 9, "qk_norm": True},
        {"d_model": 8, "n_heads": 4, "n_kv_heads": 1, "window": 30, "rope": False, "o_bias": True},
        {
            "d_model": 8,
            "n_heads": 1,
            "window": 100,
            "rope_fraction": 0.5,
            "qkv_bias": True,
            "rope_theta": 100.0,
            "gate": True,
            "qk_norm": "zero_centered",
        },
    )

    def test_its_cost_is_what_it_computes(self, config):
        """A score and a weighted value, two FLOPs a number each, for every step that an output is seen to depend on."""
        case, length = Case("attention", config, "reference"), 40
        x = np.random.default_rng(0).normal(size=(1, length, config["d_model"]))
        y, seen = case.exact(x), np.zeros((length, length), bool)
        for s in range(length):
            changed = x.copy()
            changed[:, s] += 1.0
            seen[:, s] = (case.exact(changed) != y).any(axis=(0, 2))
        layer = create("layer", "attention", **config)
        weights = sum(a.size for name, a in case.params.items() if name.endswith("proj.weight"))
        width = config.get("head_dim", config["d_model"] // config["n_heads"])
        pair = 2 * 2 * config["n_heads"] * width
        for n in (1, 24, length):
            assert layer.cost(n).forward_flops == 2 * weights + pair * seen[:n].sum() / n, f"{n} tokens at once"
        for before in (1, 8, 9, length - 1):
            assert layer.cost(before).step_flops == 2 * weights + pair * seen[before].sum(), f"a token after {before}"


class TestSwiGLU(BaseLayerTests):
    layer = "swiglu"
    configs = ({"d_model": 8}, {"d_model": 5, "d_ff": 7, "bias": True})


class TestGeGLU(BaseLayerTests):
    layer = "geglu"
    configs = ({"d_model": 8}, {"d_model": 5, "d_ff": 7, "bias": True})


class TestGeluMLP(BaseLayerTests):
    layer = "gelu_mlp"
    configs = ({"d_model": 8}, {"d_model": 5, "d_ff": 7, "bias": False})


class TestMoE(BaseLayerTests):
    layer = "moe"
    configs = (
        {"d_model": 8, "n_experts": 3, "expert": {"name": "swiglu", "d_ff": 8}},
        {"d_model": 5, "n_experts": 2, "top_k": 1, "expert": {"name": "gelu_mlp", "d_ff": 4}},
        {"d_model": 5, "n_experts": 3, "top_k": 3, "normalize": False, "expert": {"name": "geglu", "d_ff": 4}},
        {
            "d_model": 5,
            "n_experts": 3,
            "expert": {"name": "swiglu", "d_ff": 4},
            "shared_expert": {"name": "gelu_mlp", "d_ff": 3},
        },
    )
