"""The backend opencl beside the backend cpu, a pass over tokens; on PoCL both run on the same cores."""

from side_by_side.row import Row, Side

ROWS = [
    Row(
        f"opencl: Mamba 1.8 M, prefill {tuple(shape)}",
        ours=Side("peers.mamba_helix:work", {"shape": shape, "what": "prefill", "backend": "opencl"}),
        peers={"backend cpu": Side("peers.mamba_helix:work", {"shape": shape, "what": "prefill", "backend": "cpu"})},
        targets={"backend cpu": 1 / 3},
    )
    for shape in ([1, 1024], [4, 1024])
]
