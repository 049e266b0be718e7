"""The backend webgpu beside transformers; on lavapipe both run on the same cores."""

from backend_rows import transformers
from side_by_side.row import Row, Side

SHAPE = [1, 1024]
ROWS = [
    Row(
        f"webgpu: Mamba 1.8 M, prefill {tuple(SHAPE)}",
        ours=Side("peers.mamba_helix:work", {"shape": SHAPE, "what": "prefill", "backend": "webgpu"}),
        peers=transformers(SHAPE, "prefill"),
        targets={"transformers": 1},
    )
]
