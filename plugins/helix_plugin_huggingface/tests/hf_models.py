"""Randomly initialised models of transformers, of several shapes."""

MAMBA = {"vocab_size": 61, "hidden_size": 24, "state_size": 5, "num_hidden_layers": 2}
MAMBA2 = {**MAMBA, "num_heads": 6, "head_dim": 8, "n_groups": 2, "chunk_size": 16}

RWKV = {"vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 2}
QWEN = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "linear_key_head_dim": 6,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 12,
    "shared_expert_intermediate_size": 10,
    "max_position_embeddings": 256,
}
LINEAR = {"num_hidden_layers": 2, "layer_types": ["linear_attention"] * 2, "num_experts": 0}

SHAPES = {
    "mamba": ("mamba", MAMBA),
    "mamba-untied": ("mamba", {**MAMBA, "tie_word_embeddings": False, "expand": 3, "conv_kernel": 3}),
    "mamba-biases": ("mamba", {**MAMBA, "use_bias": True, "time_step_rank": 4, "state_size": 16}),
    "mamba-plain-conv": ("mamba", {**MAMBA, "use_conv_bias": False, "layer_norm_epsilon": 1e-3, "expand": 1}),
    "mamba-wide": ("mamba", {**MAMBA, "hidden_size": 40, "num_hidden_layers": 3, "conv_kernel": 2}),
    "falcon-mamba": ("falcon_mamba", {**MAMBA, "mixer_rms_eps": 1e-4, "use_bias": True}),
    "mamba2": ("mamba2", MAMBA2),
    "mamba2-tied": ("mamba2", {**MAMBA2, "tie_word_embeddings": True, "n_groups": 1, "state_size": 16}),
    "mamba2-biases": ("mamba2", {**MAMBA2, "use_bias": True, "num_heads": 3, "head_dim": 16, "n_groups": 3}),
    "mamba2-plain-conv": (
        "mamba2",
        {**MAMBA2, "use_conv_bias": False, "expand": 1, "num_heads": 4, "head_dim": 6, "time_step_limit": [0.01, 0.05]},
    ),
    "rwkv": ("rwkv", RWKV),
    "rwkv-tied": ("rwkv", {**RWKV, "tie_word_embeddings": True, "hidden_size": 40}),
    "rwkv-widths": (
        "rwkv",
        {**RWKV, "attention_hidden_size": 16, "intermediate_size": 37, "num_hidden_layers": 3, "rescale_every": 2},
    ),
    "qwen3-next": ("qwen3_next", {**QWEN, "num_hidden_layers": 2, "full_attention_interval": 2}),
    "qwen3-next-linear": ("qwen3_next", {**QWEN, **LINEAR, "tie_word_embeddings": True}),
    "qwen3-next-mixed": (
        "qwen3_next",
        {
            **QWEN,
            "layer_types": ["full_attention", "linear_attention", "linear_attention", "full_attention"],
            "mlp_only_layers": [1],
            "norm_topk_prob": False,
            "attention_bias": True,
            "linear_num_key_heads": 4,
            "linear_conv_kernel_dim": 3,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
        },
    ),
}


def random_model(name, seed=0, dtype=None, **more):
    """A model whose every tensor is random, biases and norms too."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, options = SHAPES[name]
    torch.manual_seed(seed)
    config = AutoConfig.for_model(kind, bos_token_id=0, eos_token_id=None, pad_token_id=0, **(options | more))
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "A_log" not in key:
                value.add_(torch.randn_like(value) * (0.3 if value.ndim == 1 else 0.1))
    return model.to(dtype) if dtype else model
