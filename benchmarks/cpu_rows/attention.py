"""What mixes over time in a layer of width 512: the selective scan of a Mamba block beside causal attention."""

from side_by_side.row import TUNED, Row, Side


def row(length: int, backward: bool, target: float) -> Row:
    return Row(
        f"mixing over {length} steps, d_model 512, {'training' if backward else 'forward'}",
        ours=Side("peers.scan_helix:op", {"shape": [1, length, 1024, 16], "backward": backward}),
        peers={"torch SDPA": Side("peers.attention:op", {"length": length, "backward": backward}, TUNED, check=False)},
        targets={"torch SDPA": target},
    )


ROWS = [row(4096, False, 15), row(16384, False, 40), row(4096, True, 8), row(16384, True, 20)]
