"""Mamba's selective scan as an op: B = 4, D = 512, N = 16."""

from side_by_side.row import TUNED, Limit, Row, Side

FORWARD = {"multiplies": 9, "vector_ops": 13}
"""For sixteen updates: one product for the exponent, two operations to split it, five multiply-adds of the polynomial,
two integer operations to scale, two products for the state, one for the output."""
BACKWARD = {"multiplies": 17, "vector_ops": 21}
"""The states again (8 and 12), then nine multiply-adds: into y, the gradients of B, C, A, u, delta and of the state."""

SHAPES = [[4, 256, 512, 16], [4, 1024, 512, 16], [4, 4096, 512, 16]]


def limit(shape: list[int], *parts: dict[str, int]) -> Limit:
    B, L, D, N = shape
    return Limit(**{name: sum(part[name] for part in parts) * B * L * D * N / 16 for name in FORWARD})


def row(shape: list[int], backward: bool) -> Row:
    options = {"shape": shape, "backward": backward}
    peers = {
        "jax scan": Side("peers.scan_jax:op", {**options, "checkpoint": False}),
        "jax scan, recomputed": Side("peers.scan_jax:op", {**options, "checkpoint": True}),
        "torch.compile'd step": Side("peers.scan_torch:op", {**options, "how": "compiled"}, TUNED),
        "torch loop": Side("peers.scan_torch:op", {**options, "how": "loop"}, TUNED),
        "mambapy": Side("peers.scan_torch:op", {**options, "how": "mambapy"}, TUNED),
    }
    if not backward:
        peers.pop("jax scan, recomputed")
    return Row(
        f"selective scan {'forward + backward' if backward else 'forward'} {tuple(shape)}",
        ours=Side("peers.scan_helix:op", options),
        peers=peers,
        targets={"best": 10 if backward else 15},
        limit=limit(shape, FORWARD, *([BACKWARD] if backward else [])),
        limit_target=None if backward else 0.75,
    )


ROWS = [row(shape, backward) for backward in (False, True) for shape in SHAPES]
ROWS.append(
    Row(
        f"selective scan backward alone {tuple(SHAPES[1])}",
        ours=Side("peers.scan_helix:backward_kernel", {"shape": SHAPES[1]}),
        limit=limit(SHAPES[1], BACKWARD),
        limit_target=0.45,
    )
)
