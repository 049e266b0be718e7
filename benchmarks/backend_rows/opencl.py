"""The backend opencl beside the backend cpu and transformers; on PoCL all run on the same cores."""

from side_by_side.row import Row, Side


def row(shape: list[int]) -> Row:
    work = {"shape": shape, "what": "prefill"}
    return Row(
        f"opencl: Mamba 1.8 M, prefill {tuple(shape)}",
        ours=Side("peers.mamba_helix:work", {**work, "backend": "opencl"}),
        peers={
            "backend cpu": Side("peers.mamba_helix:work", {**work, "backend": "cpu"}),
            "transformers": Side("peers.mamba_torch:work", {**work, "library": "transformers"}),
        },
        targets={"backend cpu": 1 / 3, "transformers": 1},
    )


ROWS = [row([1, 1024]), row([4, 1024])]
