"""The backend opencl beside the backend cpu and transformers; on PoCL all run on the same cores."""

from backend_rows import transformers
from side_by_side.row import Row, Side


def row(shape: list[int]) -> Row:
    work = {"shape": shape, "what": "prefill"}
    beside = transformers(shape, "prefill")
    return Row(
        f"opencl: Mamba 1.8 M, prefill {tuple(shape)}",
        ours=Side("peers.mamba_helix:work", {**work, "backend": "opencl"}),
        peers={"backend cpu": Side("peers.mamba_helix:work", {**work, "backend": "cpu"})} | beside,
        targets={"backend cpu": 1 / 3} | dict.fromkeys(beside, 1.0),
    )


def ternary(rows: int) -> Row:
    options = {"shape": [rows, 2560, 6912], "backend": "opencl"}
    return Row(
        f"opencl: bit_linear {(rows, 2560, 6912)}",
        ours=Side("peers.bit_linear:helix", options),
        peers={
            "linear": Side("peers.bit_linear:helix", {**options, "op": "linear"}, check=False),
            "backend cpu": Side("peers.bit_linear:helix", {**options, "backend": "cpu"}),
        },
        targets={"linear": 1, "backend cpu": 1 / 3},
    )


ROWS = [row([1, 1024]), row([4, 1024]), ternary(1)]
