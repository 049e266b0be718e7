"""BitNet's linear map: ternary weights beside torch's linear maps of whole weights."""

from peers.bit_linear import MATRICES
from side_by_side.row import TUNED, Limit, Row, Side


def row(rows: int, columns: int, outputs: int) -> Row:
    options = {"shape": [rows, columns, outputs]}
    linear = {
        f"torch {dtype}": Side("peers.bit_linear:torch_linear", {**options, "dtype": dtype}, TUNED, check=False)
        for dtype in ("float32", "bfloat16")
    }
    return Row(
        f"bit_linear {(rows, columns, outputs)}",
        ours=Side("peers.bit_linear:helix", options),
        peers={**linear, "transformers": Side("peers.bit_linear:transformers", options, TUNED)},
        targets={"torch float32": 5, "torch bfloat16": 2, "transformers": 5}
        if rows == 1
        else {"torch float32": 1, "torch bfloat16": 1, "transformers": 5},
        limit=Limit(bytes=MATRICES * outputs * columns / 4),
    )


ROWS = [row(1, 2560, 6912), row(16, 2560, 6912)]
