"""Rows of benchmarks/backends.py: a list `ROWS` for each backend."""

from __future__ import annotations

from math import prod

from side_by_side.row import TUNED, Row, Side

TRANSFORMERS = 1024
"""Tokens: its loop over them takes minutes for more."""


def transformers(shape: list[int], what: str) -> dict[str, Side]:
    """The same model as transformers computes it on the CPU, as a peer; none for long shapes."""
    options = {"shape": shape, "what": what, "library": "transformers"}
    return {"transformers": Side("peers.mamba_torch:work", options, TUNED)} if prod(shape) <= TRANSFORMERS else {}


def mamba(backend: str, peer: str, *, train: list[list[int]], prefill: list[list[int]]) -> list[Row]:
    """A Mamba of 1.8 M parameters beside one written by hand, `peers.PEER:work`: at most 5 % slower, or faster.

    train, prefill   shapes (batch, length)
    """
    shapes_of = {"train": train, "prefill": prefill}
    targets = {"hand-written": 0.95, "transformers": 1}
    return [
        Row(
            f"{backend}: Mamba 1.8 M, {'training step' if what == 'train' else what} {tuple(shape)}",
            ours=Side("peers.mamba_helix:work", {"shape": shape, "what": what, "backend": backend}),
            peers=(
                peers := {"hand-written": Side(f"peers.{peer}:work", {"shape": shape, "what": what})}
                | transformers(shape, what)
            ),
            targets={name: targets[name] for name in peers},
        )
        for what, shapes in shapes_of.items()
        for shape in shapes
    ]
