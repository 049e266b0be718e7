"""Recurrences: linear_scan (minGRU, minLSTM), diagonal_ssm (S4D with a state), rwkv7 and gated_delta_rule."""

from side_by_side.row import TUNED, Limit, Row, Side


def linear(B: int, L: int, D: int, backward: bool) -> Row:
    options = {"shape": [B, L, D], "backward": backward}
    # Forward reads two arrays and writes one; backward reads three and writes two.
    return Row(
        f"linear_scan {'forward + backward' if backward else 'forward'} {(B, L, D)}",
        ours=Side("peers.recurrences_helix:linear", options),
        peers={"torch loop": Side("peers.recurrences:linear_loop", options, TUNED)},
        targets={"best": 1},
        limit=Limit(bytes=4.0 * B * L * D * (8 if backward else 3)),
    )


def modes(B: int, L: int, D: int, N: int, backward: bool) -> Row:
    options = {"shape": [B, L, D, N], "backward": backward}
    # Multiply-adds for a mode and sixteen channels: 6 forward, 4 to compute the states again and 12 back.
    count = (22 if backward else 6) * B * L * D * N / 16
    return Row(
        f"diagonal_ssm {'forward + backward' if backward else 'forward'} {(B, L, D, N)}",
        ours=Side("peers.recurrences_helix:modes", options),
        peers={"torch loop": Side("peers.recurrences:modes_loop", options, TUNED)},
        targets={"best": 1},
        limit=Limit(multiplies=count),
    )


def delta(name: str, B: int, L: int, H: int, K: int, V: int, backward: bool) -> Row:
    options = {"shape": [B, L, H, K, V], "backward": backward}
    # For an entry of the state, sixteen values wide: 5 products forward; 4 to compute it again, and 10 back.
    count = (19 if backward else 5) * B * L * H * K * V / 16
    kind = "delta" if name == "rwkv7" else "gated_delta"
    peer = (
        {"torch loop": Side("peers.recurrences:delta_loop", options, TUNED)}
        if name == "rwkv7"
        else {"transformers, chunked": Side("peers.recurrences:gated_delta_transformers", options, TUNED)}
    )
    return Row(
        f"{name} {'forward + backward' if backward else 'forward'} {(B, L, H, K, V)}",
        ours=Side(f"peers.recurrences_helix:{kind}", options),
        peers=peer,
        targets={"best": 3},
        limit=Limit(multiplies=count),
    )


ROWS = [
    *(linear(4, 1024, 512, backward) for backward in (False, True)),
    *(modes(4, 1024, 256, 16, backward) for backward in (False, True)),
    *(delta(name, 4, 1024, 8, 64, 64, b) for name in ("rwkv7", "gated_delta_rule") for b in (False, True)),
]
