"""Recurrences as a plain loop over steps in torch, and the inputs that every side gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from peers import inputs
from side_by_side.row import NotHere

Op = Callable[..., Any]


def run(op: Op, arrays: dict[str, Any], backward: bool) -> Callable[[], Any]:
    """The op's first output; with gradients of all inputs but the last, which is the gradient of y."""
    *given, dy = (torch.from_numpy(a) for a in arrays.values())
    if not backward:

        def forward() -> Any:
            with torch.no_grad():
                return op(*given)

        return forward
    leaves = [a.requires_grad_(True) for a in given]

    def train() -> Any:
        y = op(*leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, dy)]

    return train


def linear_inputs(B: int, L: int, D: int) -> dict[str, Any]:
    r = inputs.rng("linear_scan", B, L, D)
    draw = {"a": r.uniform(0, 1, (B, L, D)), "x": r.normal(size=(B, L, D)), "dy": r.normal(size=(B, L, D))}
    return {name: a.astype("float32") for name, a in draw.items()}


def modes_inputs(B: int, L: int, D: int, N: int) -> dict[str, Any]:
    import numpy as np

    r = inputs.rng("diagonal_ssm", B, L, D, N)
    draw = {
        "u": r.normal(size=(B, L, D)),
        "log_a": np.stack([-r.uniform(0.01, 1, (D, N)), r.uniform(0, 3, (D, N))], -1),
        "c": r.normal(size=(D, N, 2)),
        "dy": r.normal(size=(B, L, D)),
    }
    return {name: a.astype("float32") for name, a in draw.items()}


def delta_inputs(B: int, L: int, H: int, K: int, V: int) -> dict[str, Any]:
    """r, log_decay, k, v, a, b as RWKV-7 has them, and the gradient of y."""
    import numpy as np

    r = inputs.rng("rwkv7", B, L, H, K, V)
    key = r.normal(size=(B, L, H, K))
    key = key / np.linalg.norm(key, axis=-1, keepdims=True)
    draw = {
        "r": r.normal(size=(B, L, H, K)),
        "log_decay": -0.606531 / (1 + np.exp(-r.normal(size=(B, L, H, K)))),
        "k": r.normal(size=(B, L, H, K)) / np.sqrt(K),
        "v": r.normal(size=(B, L, H, V)),
        "a": -key,
        "b": key * r.uniform(size=(B, L, H, K)),
        "dy": r.normal(size=(B, L, H, V)),
    }
    return {name: a.astype("float32") for name, a in draw.items()}


def gated_delta_inputs(B: int, L: int, H: int, K: int, V: int) -> dict[str, Any]:
    """q, k of unit norm, v, log_decay, beta, and the gradient of y."""
    import numpy as np

    r = inputs.rng("gated_delta_rule", B, L, H, K, V)
    q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in r.normal(size=(2, B, L, H, K)))
    draw = {
        "q": q,
        "k": k,
        "v": r.normal(size=(B, L, H, V)),
        "log_decay": -r.exponential(0.1, size=(B, L, H)),
        "beta": r.uniform(size=(B, L, H)),
        "dy": r.normal(size=(B, L, H, V)),
    }
    return {name: a.astype("float32") for name, a in draw.items()}


def delta_loop(shape: list[int], backward: bool) -> Callable[[], Any]:
    def loop(*arrays: torch.Tensor) -> torch.Tensor:
        r, log_decay, k, v, a, b = arrays
        S, steps = torch.zeros(r.shape[0], r.shape[2], r.shape[3], v.shape[3]), []
        for r_t, w_t, k_t, v_t, a_t, b_t in zip(*(x.unbind(1) for x in (r, log_decay.exp(), k, v, a, b)), strict=True):
            moved = a_t[..., None, :] @ S
            S = w_t[..., None] * S + b_t[..., None] * moved + k_t[..., None] * v_t[..., None, :]
            steps.append((r_t[..., None, :] @ S)[..., 0, :])
        return torch.stack(steps, 1)

    return run(loop, delta_inputs(*shape), backward)


def gated_delta_transformers(shape: list[int], backward: bool) -> Callable[[], Any]:
    """transformers' own chunked path for Qwen3-Next, with its keys' norm and scale as ours."""
    try:
        from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule
    except ImportError as error:
        raise NotHere("transformers with Qwen3-Next is not installed") from error

    def chunked(q: Any, k: Any, v: Any, log_decay: Any, beta: Any) -> torch.Tensor:
        # It divides the queries by the root of their width itself.
        return torch_chunk_gated_delta_rule(q, k, v, log_decay, beta)[0]

    return run(chunked, gated_delta_inputs(*shape), backward)


def linear_loop(shape: list[int], backward: bool) -> Callable[[], Any]:
    def loop(a: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        h, steps = torch.zeros_like(x[:, 0]), []
        for a_t, x_t in zip(a.unbind(1), x.unbind(1), strict=True):
            h = a_t * h + x_t
            steps.append(h)
        return torch.stack(steps, 1)

    return run(loop, linear_inputs(*shape), backward)


def modes_loop(shape: list[int], backward: bool) -> Callable[[], Any]:
    def loop(u: torch.Tensor, log_a: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        a, weight = torch.exp(torch.view_as_complex(log_a)), torch.view_as_complex(c)
        h, steps = torch.zeros((u.shape[0], *a.shape), dtype=a.dtype), []
        for u_t in u.unbind(1):
            h = a * h + u_t[..., None]
            steps.append(2 * (weight * h).real.sum(-1))
        return torch.stack(steps, 1)

    return run(loop, modes_inputs(*shape), backward)
