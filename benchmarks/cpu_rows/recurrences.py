"""First-order recurrences: linear_scan (minGRU, minLSTM) and diagonal_ssm (S4D with a state)."""

from side_by_side.row import TUNED, Limit, Row, Side


def linear(B: int, L: int, D: int, backward: bool) -> Row:
    options = {"shape": [B, L, D], "backward": backward}
    # Forward reads two arrays and writes one; backward reads three and writes two.
    return Row(
        f"linear_scan {'forward + backward' if backward else 'forward'} {(B, L, D)}",
        ours=Side("peers.recurrences:linear_helix", options),
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
        ours=Side("peers.recurrences:modes_helix", options),
        peers={"torch loop": Side("peers.recurrences:modes_loop", options, TUNED)},
        targets={"best": 1},
        limit=Limit(multiplies=count),
    )


ROWS = [
    *(linear(4, 1024, 512, backward) for backward in (False, True)),
    *(modes(4, 1024, 256, 16, backward) for backward in (False, True)),
]
