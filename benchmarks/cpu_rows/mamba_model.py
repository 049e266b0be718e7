"""A Mamba language model of 1.8 M parameters: d_model 256, 4 layers, bytes, float32."""

from side_by_side.row import TUNED, Limit, Row, Side

PER_TOKEN = 4 * 2 * (256 * 1024 + 512 * 48 + 16 * 512 + 512 * 256) + 2 * 256 * 256
"""Floating-point operations of the matrix products of a forward pass."""


def side(library: str, shape: list[int], what: str) -> Side:
    options = {"shape": shape, "what": what}
    if library == "jax":
        return Side("peers.mamba_jax:work", options)
    return Side("peers.mamba_torch:work", {**options, "library": library}, TUNED)


def row(what: str, shape: list[int], targets: dict[str, float], memory: dict[str, float], peers: list[str]) -> Row:
    B, L = shape
    products = 3 * PER_TOKEN if what == "train" else PER_TOKEN - 2 * 256 * 256
    return Row(
        f"Mamba 1.8 M, {'training step' if what == 'train' else 'prefill'} {tuple(shape)}",
        ours=Side("peers.mamba_helix:work", {"shape": shape, "what": what}),
        peers={name: side(name, shape, what) for name in peers},
        targets=targets,
        memory=memory,
        limit=Limit(flops=B * L * products),
    )


MEMORY = {"mambapy": 6, "jax": 2.5}
ROWS = [
    row("train", [2, 256], {"jax": 6, "mambapy": 7, "transformers": 50}, {}, ["jax", "mambapy", "transformers"]),
    row("train", [4, 1024], {"jax": 7, "mambapy": 9}, MEMORY, ["jax", "mambapy"]),
    row("train", [1, 4096], {"jax": 15, "mambapy": 15}, MEMORY, ["jax", "mambapy"]),
    row("prefill", [1, 4096], {"best": 9}, {}, ["jax", "mambapy", "transformers with mambapy"]),
]
