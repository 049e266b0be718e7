"""The model in MLX, by hand as MLX models are: decays and inputs of all steps at once, then a loop over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peers import mamba
from side_by_side.row import NotHere


def work(shape: list[int], what: str) -> Callable[[], Any]:
    try:
        import mlx.core as mx
        import mlx.nn as nn
    except ImportError as error:
        raise NotHere("mlx is not installed") from error

    def mixer(p: Any, x: Any) -> Any:
        E, N = p["A_log"].shape
        R = p["dt_proj.weight"].shape[1]
        u, z = mx.split(x @ p["in_proj.weight"].T, 2, axis=-1)
        K = p["conv1d.weight"].shape[1]
        padded = mx.pad(u, [(0, 0), (K - 1, 0), (0, 0)])
        L = u.shape[1]
        u = nn.silu(sum(padded[:, k : k + L] * p["conv1d.weight"][:, k] for k in range(K)) + p["conv1d.bias"])
        dbc = u @ p["x_proj.weight"].T
        delta = nn.softplus(dbc[..., :R] @ p["dt_proj.weight"].T + p["dt_proj.bias"])
        B, C = dbc[..., R : R + N], dbc[..., R + N :]
        A = -mx.exp(p["A_log"])
        decay = mx.exp(delta[..., None] * A)
        added = (delta * u)[..., None] * B[:, :, None, :]
        h, states = mx.zeros((u.shape[0], E, N)), []
        for a, b in zip(mx.unstack(decay, axis=1), mx.unstack(added, axis=1), strict=True):
            h = a * h + b
            states.append(h)
        y = (mx.stack(states, axis=1) @ C[..., None])[..., 0]
        return ((y + p["D"] * u) * nn.silu(z)) @ p["out_proj.weight"].T

    def features(params: Any, tokens: Any) -> Any:
        x = params["embedding.weight"][tokens]
        for i in range(mamba.LAYERS):
            start = f"blocks.{i}.mixer."
            p = {name.removeprefix(start): a for name, a in params.items() if name.startswith(start)}
            x = x + mixer(p, mx.fast.rms_norm(x, params[f"blocks.{i}.mixer_norm.weight"], mamba.EPS))
        return mx.fast.rms_norm(x, params["norm.weight"], mamba.EPS)

    params = {name: mx.array(a) for name, a in mamba.params().items()}
    tokens, targets = (mx.array(a) for a in mamba.tokens(shape))
    if what == "prefill":

        def last() -> Any:
            logits = features(params, tokens)[:, -1] @ params["embedding.weight"].T
            mx.eval(logits)
            return logits

        return last

    def loss(params: Any, tokens: Any, targets: Any) -> Any:
        logits = features(params, tokens) @ params["embedding.weight"].T
        return nn.losses.cross_entropy(logits, targets, reduction="mean")

    step = mx.value_and_grad(loss)

    def train() -> Any:
        value, grads = step(params, tokens, targets)
        mx.eval(value, grads)
        return [value, *(grads[name] for name in mamba.WATCHED)]

    return train
