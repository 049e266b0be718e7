"""What recurrences in chunks of time share around their kernels: the way of a launch, and states that are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from helix_plugin_cuda.kernels._tune import Way, chosen, size_class

Arrays = tuple[Tensor | None, ...]


def recurrence(
    op: str,
    ways: Sequence[Way],
    checked: Callable[[Arrays], dict[str, Any]],
    residuals: Callable[..., tuple[tuple[int, ...], ...]],
    run: Callable[..., Arrays],
    run_backward: Callable[..., Arrays],
    states: str | None = None,
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """`forward`, `forward_train` and `backward` of an op whose first input is (B, L, D).

    checked(arrays)                                   the inputs by name, as the kernels read them
    run(given, kept, way, **attrs)                    the outputs; fills `kept`, the one residual, unless it is None
    run_backward(given, grads, kept, way, **attrs)    a gradient for each input, None for absent ones and flags
    states                                            the input (D, N, ...) whose N counts for the choice of a way
    """

    def tuned(which: str, given: dict[str, Any], launched: Callable[[Way], Arrays]) -> Arrays:
        x = next(iter(given.values()))
        if x.shape[1] == 0:
            return launched(ways[0])
        modes = () if states is None else (given[states].shape[1],)
        return launched(chosen(f"{op}{which}", (*map(size_class, x.shape), *modes, x.dtype), ways, launched))

    def forward(*arrays: Tensor | None, **attrs: Any) -> Arrays:
        given = checked(arrays)
        return tuned("", given, lambda way: run(given, None, way, **attrs))

    def forward_train(*arrays: Tensor | None, **attrs: Any) -> tuple[Arrays, Arrays]:
        given = checked(arrays)
        shapes = [None if a is None else tuple(a.shape) for a in given.values()]
        kept = torch.empty(residuals(*shapes)[0], dtype=torch.float32, device=next(iter(given.values())).device)
        return tuned(" train", given, lambda way: run(given, kept, way, **attrs)), (kept,)

    def backward(grads: Arrays, arrays: Arrays, saved: Arrays, **attrs: Any) -> Arrays:
        given = checked(arrays)
        return tuned(" backward", given, lambda way: run_backward(given, grads, saved[0], way, **attrs))

    return forward, forward_train, backward
