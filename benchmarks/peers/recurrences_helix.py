"""Recurrences of the cpu backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from helix_core import create


def helix(name: str, backward: bool) -> Any:
    # Before torch is imported, which reads the backend's settings when it loads.
    op = getattr(create("backend", "cpu").bind(mode="train" if backward else "infer"), name)
    return lambda *arrays, **attrs: op(*arrays, **attrs)[0]


def linear(shape: list[int], backward: bool) -> Callable[[], Any]:
    op = helix("linear_scan", backward)
    from peers import recurrences

    return recurrences.run(op, recurrences.linear_inputs(*shape), backward)


def modes(shape: list[int], backward: bool) -> Callable[[], Any]:
    op = helix("diagonal_ssm", backward)
    from peers import recurrences

    return recurrences.run(op, recurrences.modes_inputs(*shape), backward)


def delta(shape: list[int], backward: bool) -> Callable[[], Any]:
    op = helix("rwkv7", backward)
    from peers import recurrences

    return recurrences.run(op, recurrences.delta_inputs(*shape), backward)


def gated_delta(shape: list[int], backward: bool) -> Callable[[], Any]:
    op = helix("gated_delta_rule", backward)
    from peers import recurrences

    def scaled(*arrays: Any) -> Any:
        return op(*arrays, scale=shape[3] ** -0.5)

    return recurrences.run(scaled, recurrences.gated_delta_inputs(*shape), backward)
