"""Rows of benchmarks/backends.py: a list `ROWS` for each backend."""

from __future__ import annotations

from side_by_side.row import Row, Side


def mamba(backend: str, peer: str, *, train: list[list[int]], prefill: list[list[int]]) -> list[Row]:
    """A Mamba of 1.8 M parameters beside one written by hand, `peers.PEER:work`: at most 5 % slower, or faster.

    train, prefill   shapes (batch, length)
    """
    shapes_of = {"train": train, "prefill": prefill}
    return [
        Row(
            f"{backend}: Mamba 1.8 M, {'training step' if what == 'train' else what} {tuple(shape)}",
            ours=Side("peers.mamba_helix:work", {"shape": shape, "what": what, "backend": backend}),
            peers={"hand-written": Side(f"peers.{peer}:work", {"shape": shape, "what": what})},
            targets={"hand-written": 0.95},
        )
        for what, shapes in shapes_of.items()
        for shape in shapes
    ]
