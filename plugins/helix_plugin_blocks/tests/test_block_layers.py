"""The layer kit on every layer of this plugin."""

from helix_testing import BaseLayerTests


class TestAttention(BaseLayerTests):
    layer = "attention"
    mixing_is_counted = False
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
