"""Kernels of other packages as candidates of the op table: mamba-ssm, causal-conv1d and flash-linear-attention.

Each is an op with its own axes and without resets or padding; those inputs go to the Triton kernel of this plugin. They
rank below ours, and a pin (HELIX_KERNEL_SELECTIVE_SCAN=cuda/mamba_ssm_selective_scan) takes them. Arrays have the
axes and names of the op (`helix explain op selective_scan`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from helix_core.errors import UsageError
from helix_core.ops import OPS
from helix_plugin_torch.library import as_torch_function


def _own_kernel(op: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """This plugin's kernel of an op, as the backend binds it."""
    from helix_plugin_cuda.kernels import table
    from helix_plugin_cuda.kernels._launch import INTERPRETED

    return as_torch_function(OPS[op], getattr(table, op), f"cuda_{op}", ("cpu" if INTERPRETED else "cuda",))


def mamba_ssm_selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    delta_softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """`selective_scan_fn`: channels before time, parameters in float32, no state to begin with, up to 256 states.

    Its backward drops the gradient of the last state: asking for that one raises UsageError.
    """
    served = initial_state is None and reset is None and lengths is None
    if not served or not u.shape[1] or A.shape[1] > 256:
        return _own_kernel("selective_scan")(
            u, delta, A, B, C, D=D, z=z, delta_bias=delta_bias, initial_state=initial_state, reset=reset,
            lengths=lengths, delta_softplus=delta_softplus,
        )  # fmt: skip
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    def flipped(a: Tensor | None) -> Tensor | None:
        return None if a is None else a.transpose(1, 2).contiguous().to(u.dtype)

    def single(a: Tensor | None) -> Tensor | None:
        return None if a is None else a.float()

    y, last = selective_scan_fn(
        flipped(u), flipped(delta), single(A), flipped(B), flipped(C), single(D), flipped(z), single(delta_bias),
        delta_softplus=delta_softplus, return_last_state=True,
    )  # fmt: skip
    last = last.float()
    if last.requires_grad:
        last = last.view_as(last)  # a node of its own, which runs only for a gradient of this output
        last.register_hook(_refuse)
    return y.transpose(1, 2), last


def _refuse(gradient: Tensor) -> None:
    raise UsageError(
        "mamba-ssm's selective scan has no gradient of its last state",
        hint="unset HELIX_KERNEL_SELECTIVE_SCAN: this plugin's own kernel has it",
    )


def mamba_ssm_ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    dt_softplus: bool = False,
    dt_min: float = 0.0,
    dt_max: float = math.inf,
) -> tuple[Tensor, Tensor]:
    """`mamba_chunk_scan_combined`: its states have the width before the states."""
    if reset is not None or lengths is not None or not x.shape[1]:
        return _own_kernel("ssd")(
            x, dt, A, B, C, D=D, dt_bias=dt_bias, initial_state=initial_state, reset=reset, lengths=lengths,
            dt_softplus=dt_softplus, dt_min=dt_min, dt_max=dt_max,
        )  # fmt: skip
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    y, last = mamba_chunk_scan_combined(
        x, dt, A.float(), B.to(x.dtype), C.to(x.dtype), 256, D=D, dt_bias=dt_bias,
        initial_states=None if initial_state is None else initial_state.transpose(2, 3).contiguous(),
        dt_softplus=dt_softplus, dt_limit=(dt_min, dt_max), return_final_states=True,
    )  # fmt: skip
    return y, last.float().transpose(2, 3)


def dao_causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    activation: str = "none",
) -> tuple[Tensor, Tensor]:
    """`causal_conv1d_fn`: channels before time, eights of channels that lie side by side, two to four taps."""
    (_, L, D), earlier = x.shape, weight.shape[1] - 1
    if reset is not None or lengths is not None or not 1 <= earlier <= min(3, L) or D % 8:
        return _own_kernel("causal_conv1d")(
            x, weight, bias=bias, initial_state=initial_state, reset=reset, lengths=lengths, activation=activation
        )
    from causal_conv1d import causal_conv1d_fn

    if x.stride(2) != 1 or x.stride(0) % 8 or x.stride(1) % 8:
        x = x.contiguous()
    state = None if initial_state is None else initial_state.to(x.dtype).contiguous().transpose(1, 2)
    y = causal_conv1d_fn(
        x.transpose(1, 2), weight.to(x.dtype), None if bias is None else bias.to(x.dtype), initial_states=state,
        activation=None if activation == "none" else activation,
    )  # fmt: skip
    return y.transpose(1, 2), x[:, L - earlier :].float()


def fla_gated_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """`chunk_gla` with a gate for each key, `chunk_simple_gla` with one for each head."""
    if reset is not None or lengths is not None or not v.shape[1]:
        return _own_kernel("gated_linear_attention")(
            q, k, v, log_decay, initial_state=initial_state, reset=reset, lengths=lengths, scale=scale
        )
    gates = log_decay.expand(*v.shape[:3], log_decay.shape[3])
    state = {"scale": scale, **_state(initial_state)}
    if gates.shape[3] == 1:
        from fla.ops.simple_gla import chunk_simple_gla

        return _floated(chunk_simple_gla(q, k, v, gates[..., 0].float(), **state))
    from fla.ops.gla import chunk_gla

    return _floated(chunk_gla(q, k, v, gates.contiguous(), **state))


def fla_gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """`chunk_gated_delta_rule`, with a copy of queries and keys for every head."""
    if reset is not None or lengths is not None or not v.shape[1]:
        return _own_kernel("gated_delta_rule")(
            q, k, v, log_decay, beta, initial_state=initial_state, reset=reset, lengths=lengths, scale=scale
        )
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    shared = v.shape[2] // q.shape[2]
    if shared > 1:
        q, k = q.repeat_interleave(shared, dim=2), k.repeat_interleave(shared, dim=2)
    return _floated(chunk_gated_delta_rule(q, k, v, log_decay.float(), beta, scale=scale, **_state(initial_state)))


def fla_rwkv7(
    r: Tensor,
    log_decay: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`chunk_rwkv7`, whose chunks hold quotients of decays: for those that RWKV-7 has, not for any."""
    if reset is not None or lengths is not None or not v.shape[1]:
        return _own_kernel("rwkv7")(r, log_decay, k, v, a, b, initial_state=initial_state, reset=reset, lengths=lengths)
    from fla.ops.rwkv7 import chunk_rwkv7

    return _floated(chunk_rwkv7(r, log_decay, k, v, a, b, scale=1.0, **_state(initial_state)))


def _state(initial_state: Tensor | None) -> dict[str, Any]:
    """How fla's functions are given a state, in float32, and asked for the last one."""
    return {"initial_state": None if initial_state is None else initial_state.float(), "output_final_state": True}


def _floated(outputs: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    return outputs[0], outputs[1].to(torch.float32)
