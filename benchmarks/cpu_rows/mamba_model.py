"""A Mamba language model of 1.8 M parameters: d_model 256, 4 layers, bytes, float32."""

from cpu_rows.scan import BACKWARD, FORWARD
from cpu_rows.scan import limit as scans
from side_by_side.row import TUNED, Limit, Row, Side

PER_TOKEN = 4 * 2 * (256 * 1024 + 512 * 48 + 16 * 512 + 512 * 256) + 2 * 256 * 256
"""Floating-point operations of the matrix products of a forward pass."""


def side(library: str, shape: list[int], what: str) -> Side:
    options = {"shape": shape, "what": what}
    if library == "jax":
        return Side("peers.mamba_jax:work", options)
    return Side("peers.mamba_torch:work", {**options, "library": library}, TUNED)


def limit(what: str, shape: list[int]) -> Limit:
    """The matrix products, and after them the scans: the same cores do both."""
    B, L = shape
    products = 3 * PER_TOKEN if what == "train" else PER_TOKEN - 2 * 256 * 256
    scan = scans([B, L, 512, 16], FORWARD, *([BACKWARD] if what == "train" else []))
    return Limit(seconds=lambda rates: B * L * products / rates["gemm_flops_per_s"] + 4 * scan.at(rates))


def row(
    what: str,
    shape: list[int],
    targets: dict[str, float],
    memory: dict[str, float],
    peers: list[str],
    dtype: str = "float32",
) -> Row:
    half = dtype != "float32"
    return Row(
        f"Mamba 1.8 M, {'training step' if what == 'train' else 'prefill'} {tuple(shape)}"
        + (f", ours in {dtype}" if half else ""),
        ours=Side("peers.mamba_helix:work", {"shape": shape, "what": what, "dtype": dtype}),
        peers={name: side(name, shape, what) for name in peers},
        targets=targets,
        memory=memory,
        limit=None if half else limit(what, shape),
        tolerance=0.1 if half else 1e-4,
    )


MEMORY = {"mambapy": 6, "jax": 2.5}
ROWS = [
    row("train", [2, 256], {"jax": 6, "mambapy": 7, "transformers": 50}, {}, ["jax", "mambapy", "transformers"]),
    row("train", [4, 1024], {"jax": 7, "mambapy": 9}, MEMORY, ["jax", "mambapy"]),
    row("train", [1, 4096], {"jax": 15, "mambapy": 15}, MEMORY, ["jax", "mambapy"]),
    row("prefill", [1, 4096], {"best": 9}, {}, ["jax", "mambapy", "transformers with mambapy"]),
    row("train", [2, 256], {"jax": 6, "mambapy": 7}, {}, ["jax", "mambapy"], "bfloat16"),
    row("train", [4, 1024], {"jax": 7, "mambapy": 9}, {}, ["jax", "mambapy"], "bfloat16"),
    row("train", [1, 4096], {"jax": 15, "mambapy": 15}, {}, ["jax", "mambapy"], "bfloat16"),
    row("prefill", [1, 4096], {"best": 9}, {}, ["jax"], "bfloat16"),
]
