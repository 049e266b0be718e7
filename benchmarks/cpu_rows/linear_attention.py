"""Mamba-2's state-space duality and gated linear attention as ops."""

import math

from side_by_side.row import TUNED, Limit, Row, Side

# B, L, heads, width of a value, of a key: mamba2-130m has 24 heads of 64 with 128 states.
SSD = [[4, 1024, 16, 64, 128], [1, 4096, 24, 64, 128], [4, 1024, 8, 64, 64]]
# B, L, heads, width of a key, of a value: GLA with d_model 1024 and 256.
GLA = [[4, 1024, 4, 128, 256], [4, 1024, 4, 32, 64]]


def limit(shape: list[int], backward: bool) -> Limit:
    """Products with the state alone: into it and out of it; back, both once more, and the gradients of q and k."""
    return Limit(flops=2 * math.prod(shape) * (6 if backward else 2))


def row(name: str, shape: list[int], backward: bool) -> Row:
    options = {"name": name, "shape": shape, "backward": backward}
    peers = {"torch, chunked": Side("peers.ssd_torch:op", options, TUNED)}
    if name == "ssd":
        peers["transformers"] = Side("peers.ssd_torch:op", {**options, "how": "ssd_transformers"}, TUNED)
    return Row(
        f"{name} {'forward + backward' if backward else 'forward'} {tuple(shape)}",
        ours=Side("peers.ssd_helix:op", options),
        peers=peers,
        targets={"best": 2.5 if name == "ssd" and backward else 4},
        limit=limit(shape, backward),
    )


ROWS = [
    row(name, shape, backward)
    for name, shapes in (("ssd", SSD), ("gated_linear_attention", GLA))
    for backward in (False, True)
    for shape in shapes
]
ROWS.append(
    Row(
        "ssd one step (1, 24, 64, 128)",
        ours=Side("peers.ssd_helix:step", {"shape": [1, 24, 64, 128]}),
        peers={"torch": Side("peers.ssd_torch:step", {"shape": [1, 24, 64, 128]}, TUNED)},
        targets={"best": 1},
    )
)
