"""The first-party components of this version and the distributions that have them.

Only this list makes an error say `pip install ...`: a name somebody mistyped must never become a package to
install.
"""

from __future__ import annotations

_CATALOGUE: dict[tuple[str, str], str] = {
    ("backend", "cpu/cpu"): "helix-plugin-cpu",
    ("backend", "cuda/cuda"): "helix-plugin-cuda",
    ("backend", "jax/jax"): "helix-plugin-jax",
    ("backend", "metal/metal"): "helix-plugin-metal",
    ("backend", "opencl/opencl"): "helix-plugin-opencl",
    ("backend", "webgpu/webgpu"): "helix-plugin-webgpu",
    ("command", "training/train"): "helix-plugin-training",
    ("command", "training/eval"): "helix-plugin-training",
    ("command", "lm/generate"): "helix-plugin-lm",
    ("command", "testing/new"): "helix-testing",
    ("command", "huggingface/import"): "helix-plugin-huggingface",
    ("command", "huggingface/export"): "helix-plugin-huggingface",
    ("command", "synthetic/data"): "helix-plugin-synthetic",
    ("command", "bench/bench"): "helix-plugin-bench",
    ("optimizer", "training/adamw"): "helix-plugin-training",
    ("optimizer", "training/lion"): "helix-plugin-training",
    ("optimizer", "training/sgd"): "helix-plugin-training",
    ("lr_schedule", "training/constant"): "helix-plugin-training",
    ("lr_schedule", "training/cosine"): "helix-plugin-training",
    ("lr_schedule", "training/linear"): "helix-plugin-training",
    ("lr_schedule", "training/wsd"): "helix-plugin-training",
    ("layer", "blocks/attention"): "helix-plugin-blocks",
    ("layer", "blocks/geglu"): "helix-plugin-blocks",
    ("layer", "blocks/gelu_mlp"): "helix-plugin-blocks",
    ("layer", "blocks/moe"): "helix-plugin-blocks",
    ("layer", "blocks/swiglu"): "helix-plugin-blocks",
    ("layer", "hyena/hyena"): "helix-plugin-hyena",
    ("layer", "hyena/hyena_recurrent"): "helix-plugin-hyena",
    ("layer", "ssm/mamba"): "helix-plugin-ssm",
    ("layer", "ssm/mamba2"): "helix-plugin-ssm",
    ("layer", "ssm/mamba3"): "helix-plugin-ssm",
    ("layer", "ssm/gated_deltanet"): "helix-plugin-ssm",
    ("layer", "ssm/mingru"): "helix-plugin-ssm",
    ("layer", "ssm/minlstm"): "helix-plugin-ssm",
    ("layer", "ssm/s4"): "helix-plugin-ssm",
    ("layer", "ssm/s4d"): "helix-plugin-ssm",
    ("layer", "ssm/rwkv4"): "helix-plugin-ssm",
    ("layer", "ssm/rwkv4_channel_mix"): "helix-plugin-ssm",
    ("layer", "ssm/rwkv7"): "helix-plugin-ssm",
    ("layer", "ssm/rwkv7_channel_mix"): "helix-plugin-ssm",
    ("layer", "ssm/retnet"): "helix-plugin-ssm",
    ("layer", "ssm/gla"): "helix-plugin-ssm",
    **{
        ("generator", f"synthetic/{name}"): "helix-plugin-synthetic"
        for name in (
            "arma",
            "associative-recall",
            "barabasi-albert",
            "copying",
            "dyck",
            "erdos-renyi",
            "fractals",
            "grammar-text",
            "induction-heads",
            "listops",
            "markov",
            "modular-arithmetic",
            "parity",
            "pcfg",
            "power-law-noise",
            "regime-shifts",
            "scenes",
            "selective-copying",
            "shapes",
            "stochastic-block",
            "templates",
            "textures",
            "trend-seasonality",
            "watts-strogatz",
            "zipf",
        )
    },
    ("generator", "bench/digits"): "helix-plugin-bench",
    ("generator", "hyena/masked-spans"): "helix-plugin-hyena",
    ("layer", "topomemory/memory_read"): "helix-plugin-topomemory",
    ("memory", "topomemory/topological"): "helix-plugin-topomemory",
}


def distribution_of(kind: str, name: str) -> str | None:
    """The first-party distribution that provides `plugin/name` or `name`, or None."""
    for (known, full_name), distribution in _CATALOGUE.items():
        if kind == known and name in (full_name, _short(full_name)):
            return distribution
    return None


def catalogued(kind: str) -> list[str]:
    """The short names of first-party components of a kind."""
    return [_short(full_name) for known, full_name in _CATALOGUE if known == kind]


def _short(full_name: str) -> str:
    return full_name.partition("/")[2]
