"""mamba-ssm's functions: its names, arguments and layouts (https://github.com/state-spaces/mamba), on Helix's ops.

B  sequences; also the input matrix of a state space, as C is its output matrix
L  positions                 N  states per channel
D  channels; also the skip   G  groups that share B and C
H  heads                     P  channels of a head
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from helix_core.errors import UsageError
from helix_plugin_torch.dtypes import wide
from helix_plugin_torch.functional._layouts import promoted, refuse, sizes, starts
from helix_plugin_torch.functional._ops import FUNCTIONS

_selective_scan, _ssd = FUNCTIONS["selective_scan"], FUNCTIONS["ssd"]


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Any:
    """Mamba's selective scan as `mamba_ssm.ops.selective_scan_interface` has it -> y (B, D, L) in the dtype of u.

    u, delta, z (B, D, L); A (D, N), real; B, C (B, N, L) or (B, G, N, L), a group of D / G channels each; D,
    delta_bias (D,). With `return_last_state`, (y, state (B, D, N)); gradients flow through both.

    Raises UsageError for complex A, for B or C that are the same at all steps, (D, N), and for sizes that disagree.
    Source: Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, 2023.

    >>> import torch
    >>> from helix_plugin_torch import functional
    >>> u, delta, A = torch.ones(2, 8, 7), torch.full((2, 8, 7), 0.1), -torch.ones(8, 4)
    >>> B, C = torch.ones(2, 4, 7), torch.ones(2, 4, 7)
    >>> y, state = functional.selective_scan_fn(u, delta, A, B, C, return_last_state=True)
    >>> y.shape, state.shape
    (torch.Size([2, 8, 7]), torch.Size([2, 8, 4]))
    """
    y, last = _scan(
        "selective_scan_fn",
        u,
        delta,
        A,
        B,
        C,
        D=D,
        z=z,
        delta_bias=delta_bias,
        delta_softplus=delta_softplus,
    )
    return (y, last) if return_last_state else y


def _scan(
    function: str,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y (B, D, L) in the dtype of u and the last state (B, D, N): the op, once for each group of channels."""
    if A.is_complex() or B.is_complex() or C.is_complex():
        raise UsageError(f"{function}: A, B and C must be real", hint="the layers S4 and S4D have complex states")
    if B.ndim == 2 or C.ndim == 2:
        raise UsageError(f"{function}: B and C must be given for every step, (batch, dstate, length)")
    B, C = (a[:, None] if a.ndim == 3 else a for a in (B, C))
    axes = sizes(
        function,
        {
            "u": (u, "batch dim length"),
            "delta": (delta, "batch dim length"),
            "A": (A, "dim dstate"),
            "B": (B, "batch groups_of_B dstate length"),
            "C": (C, "batch groups_of_C dstate length"),
            "D": (D, "dim"),
            "z": (z, "batch dim length"),
            "delta_bias": (delta_bias, "dim"),
        },
    )
    groups = max(B.shape[1], C.shape[1])
    if not {B.shape[1], C.shape[1]} <= {1, groups} or axes["dim"] % max(groups, 1) or not groups:
        raise UsageError(f"{function}: {B.shape[1]} groups of B and {C.shape[1]} of C for {axes['dim']} channels")
    steps = [None if a is None else a.transpose(1, 2) for a in promoted(u.dtype, u, delta, z)]
    B, C = (a.transpose(2, 3) for a in promoted(u.dtype, B, C))
    channels = promoted(wide(u), A, D, delta_bias)
    (state,) = promoted(wide(u), state)
    width = axes["dim"] // groups
    ys, lasts = [], []
    for g in range(groups):
        group = slice(g * width, (g + 1) * width)
        u_g, delta_g, z_g = (None if a is None else a[:, :, group] for a in steps)
        A_g, D_g, bias_g = (None if a is None else a[group] for a in channels)
        B_g, C_g = (a[:, g if a.shape[1] > 1 else 0] for a in (B, C))
        state_g = None if state is None else state[:, group]
        y, last = _selective_scan(
            u_g,
            delta_g,
            A_g,
            B_g,
            C_g,
            D=D_g,
            z=z_g,
            delta_bias=bias_g,
            initial_state=state_g,
            delta_softplus=bool(delta_softplus),
        )
        ys.append(y)
        lasts.append(last)
    y = ys[0] if groups == 1 else torch.cat(ys, 2)
    return y.transpose(1, 2).to(u.dtype), lasts[0] if groups == 1 else torch.cat(lasts, 1)


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    state_batch_indices: Tensor | None = None,
) -> Tensor:
    """One step of the selective scan, which writes the next state into `state` -> y, shaped as x.

    state (B, D, N); x, dt, z (B, D); A (D, N); B, C (B, N); D, dt_bias (D,). Or with heads: state (B, H, P, N); x, dt,
    z (B, H, P); A (H, P, N); B, C (B, G, N), G a divisor of H; D, dt_bias (H, P).

    Raises UsageError for `state_batch_indices` and for sizes that disagree.

    >>> import torch
    >>> from helix_plugin_torch import functional
    >>> state, x, dt = torch.zeros(2, 8, 4), torch.ones(2, 8), torch.full((2, 8), 0.1)
    >>> B, C = torch.ones(2, 4), torch.ones(2, 4)
    >>> y = functional.selective_state_update(state, x, dt, -torch.ones(8, 4), B, C)
    >>> y.shape, round(float(state[0, 0, 0]), 3)
    (torch.Size([2, 8]), 0.1)
    """
    function = "selective_state_update"
    refuse(function, hint="pass state[indices], and write it back", state_batch_indices=state_batch_indices)
    heads = "nheads dim" if state.ndim == 4 else "dim"
    groups = "batch ngroups dstate" if B.ndim == 3 else "batch dstate"
    axes = sizes(
        function,
        {
            "state": (state, f"batch {heads} dstate"),
            "x": (x, f"batch {heads}"),
            "dt": (dt, f"batch {heads}"),
            "A": (A, f"{heads} dstate"),
            "B": (B, groups),
            "C": (C, groups),
            "D": (D, heads),
            "z": (z, f"batch {heads}"),
            "dt_bias": (dt_bias, heads),
        },
    )
    if axes.get("nheads", 1) % axes.get("ngroups", 1):
        raise UsageError(f"{function}: {axes['nheads']} heads cannot share {axes['ngroups']} groups evenly")
    batch, states = axes["batch"], axes["dstate"]
    D, dt_bias = (None if a is None else a.reshape(-1) for a in (D, dt_bias))
    y, last = _scan(
        function,
        x.reshape(batch, -1, 1),
        dt.reshape(batch, -1, 1),
        A.reshape(-1, states),
        B[..., None],
        C[..., None],
        D=D,
        z=None if z is None else z.reshape(batch, -1, 1),
        delta_bias=dt_bias,
        delta_softplus=dt_softplus,
        state=state.reshape(batch, -1, states),
    )
    with torch.no_grad():
        state.copy_(last.reshape(state.shape))
    return y.reshape(x.shape)


def mamba_chunk_scan_combined(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    return_final_states: bool = False,
    return_varlen_states: bool = False,
    state_dtype: torch.dtype | None = None,
) -> Any:
    """Mamba-2's scan as `mamba_ssm.ops.triton.ssd_combined` has it -> y (B, L, H, P) in the dtype of x.

    x, z (B, L, H, P); dt (B, L, H); A, dt_bias (H,); B, C (B, L, G, N); D (H,) or (H, P); initial_states (B, H, P, N);
    seq_idx (B, L), numbers of documents that stand one after another, a number that has ended not coming again; the
    initial state belongs to number 0. With `return_final_states`, (y, states (B, H, P, N)).

    `chunk_size` is how mamba-ssm cuts its work, and changes no result: Helix's kernels cut theirs themselves. Raises
    UsageError for `cu_seqlens` and `return_varlen_states`, for a `state_dtype` that is not the one that states have
    here (float32 beside half precision), and for sizes that disagree.
    Source: Dao and Gu, Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State
    Space Duality, 2024.

    >>> import torch
    >>> from helix_plugin_torch import functional
    >>> x, dt, A = torch.ones(2, 7, 4, 8), torch.full((2, 7, 4), 0.1), -torch.ones(4)
    >>> B, C = torch.ones(2, 7, 1, 16), torch.ones(2, 7, 1, 16)
    >>> y, states = functional.mamba_chunk_scan_combined(x, dt, A, B, C, chunk_size=64, return_final_states=True)
    >>> y.shape, states.shape
    (torch.Size([2, 7, 4, 8]), torch.Size([2, 4, 8, 16]))
    """
    function = "mamba_chunk_scan_combined"
    refuse(
        function,
        hint="number the documents with `seq_idx`, or pass each in a row of its own",
        cu_seqlens=cu_seqlens,
        return_varlen_states=return_varlen_states,
    )
    if state_dtype not in (None, wide(x)):
        raise UsageError(f"{function}: states are {wide(x)} here, not {state_dtype}")
    if chunk_size < 1:
        raise UsageError(f"{function}: chunk_size must be positive, not {chunk_size}")
    axes = sizes(
        function,
        {
            "x": (x, "batch seqlen nheads headdim"),
            "dt": (dt, "batch seqlen nheads"),
            "A": (A, "nheads"),
            "B": (B, "batch seqlen ngroups dstate"),
            "C": (C, "batch seqlen ngroups dstate"),
            "D": (D, "nheads" if D is not None and D.ndim == 1 else "nheads headdim"),
            "z": (z, "batch seqlen nheads headdim"),
            "dt_bias": (dt_bias, "nheads"),
            "initial_states": (initial_states, "batch nheads headdim dstate"),
            "seq_idx": (seq_idx, "batch seqlen"),
        },
    )
    if not axes["ngroups"] or axes["nheads"] % axes["ngroups"]:
        raise UsageError(f"{function}: {axes['nheads']} heads cannot share {axes['ngroups']} groups evenly")
    dt, B, C, z = promoted(x.dtype, dt, B, C, z)
    A, D, dt_bias, initial_states = promoted(wide(x), A, D, dt_bias, initial_states)
    per_head = D is None or D.ndim == 1
    least, most = dt_limit
    y, last = _ssd(
        x,
        dt,
        A,
        B,
        C,
        D=D if per_head else None,
        dt_bias=dt_bias,
        initial_state=None if initial_states is None else initial_states.transpose(2, 3),
        reset=None if seq_idx is None else starts(seq_idx),
        dt_softplus=bool(dt_softplus),
        dt_min=float(least),
        dt_max=float(most),
    )
    if D is not None and not per_head:
        y = y + D * x
    if z is not None:
        y = y * silu(z)
    y = y.to(x.dtype)
    return (y, last.transpose(2, 3)) if return_final_states else y
