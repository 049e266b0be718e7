"""flash-linear-attention's functions: its names, arguments and layouts (https://github.com/fla-org), on Helix's ops.

    B  rows                 H   heads             K  width of a head's keys
    T  steps of a row       HV  heads of values   V  width of a head's values
    N  sequences: those that `cu_seqlens` makes of a row, else B

In all of them q, k are (B, T, H, K), v (B, T, H, V), states (N, H, K, V) or, with `state_v_first`, (N, H, V, K), and
`scale` is by default K^-0.5. They return (o (B, T, H, V) in the dtype of v, final state or None).

`cu_seqlens` (N + 1,) cuts a single row (B = 1) into N sequences, each with a state of its own; `cu_seqlens_cpu` is a
copy of it in main memory. What only tunes the authors' kernels (`chunk_size`, `chunk_indices`, `safe_gate`,
`lower_bound`, `disable_recompute`) changes no result, and has no effect here. `cp_context` raises UsageError.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from helix_core.errors import UsageError
from helix_plugin_torch.dtypes import wide
from helix_plugin_torch.functional._layouts import promoted, refuse, sizes
from helix_plugin_torch.functional._ops import FUNCTIONS

Recurrence = Callable[..., tuple[Tensor, Tensor]]


def chunk_gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    use_beta_sigmoid_in_kernel: bool = False,
    allow_neg_eigval: bool = False,
    state_v_first: bool = False,
    cu_seqlens: Tensor | None = None,
    cu_seqlens_cpu: Tensor | None = None,
    chunk_indices: Tensor | None = None,
    cp_context: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Gated delta rule: S_t = exp(g_t) (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ, o_t = scale S_tᵀ q_t.

    g, beta (B, T, HV); v (B, T, HV, V), HV a multiple of H: consecutive heads share queries and keys.
    use_qk_l2norm_in_kernel     q and k are divided by their norms first
    use_beta_sigmoid_in_kernel  β = sigmoid(beta), with `allow_neg_eigval` 2 sigmoid(beta)
    use_gate_in_kernel          the decay is -exp(A_log) softplus(g + dt_bias); A_log, dt_bias (HV,) by keyword

    Raises TypeError for another keyword, UsageError for what the module names and for sizes that disagree.
    Source: Yang, Kautz and Hatamizadeh, Gated Delta Networks: Improving Mamba2 with Delta Rule, 2024.

    >>> import torch
    >>> from helix_plugin_torch import functional
    >>> q, k, v = (torch.ones(2, 7, 4, 8) for _ in range(3))
    >>> g, beta = -torch.ones(2, 7, 4), torch.full((2, 7, 4), 0.5)
    >>> o, state = functional.chunk_gated_delta_rule(q, k, v, g, beta, output_final_state=True)
    >>> o.shape, state.shape
    (torch.Size([2, 7, 4, 8]), torch.Size([2, 4, 8, 8]))
    """
    name = "chunk_gated_delta_rule"
    gated, A_log, dt_bias = (kwargs.pop(key, None) for key in ("use_gate_in_kernel", "A_log", "dt_bias"))
    _refuse_unknown(name, kwargs)
    refuse(name, cp_context=cp_context)
    v_heads = {"g": (g, "B T HV"), "beta": (beta, "B T HV"), "A_log": (A_log, "HV"), "dt_bias": (dt_bias, "HV")}
    found = sizes(name, {"q": (q, "B T H K"), "k": (k, "B T H K"), "v": (v, "B T HV V"), **v_heads})
    if not found["H"] or found["HV"] % found["H"]:
        raise UsageError(f"{name}: {found['HV']} heads of values cannot share {found['H']} of keys evenly")
    if gated:
        if A_log is None:
            raise UsageError(f"{name}: use_gate_in_kernel needs A_log")
        g, A_log, dt_bias = promoted(wide(v), g, A_log, dt_bias)
        g = -A_log.exp() * softplus(g if dt_bias is None else g + dt_bias)
    elif A_log is not None or dt_bias is not None:
        raise UsageError(f"{name}: A_log and dt_bias need use_gate_in_kernel=True")
    if allow_neg_eigval and not use_beta_sigmoid_in_kernel:
        raise UsageError(f"{name}: allow_neg_eigval needs use_beta_sigmoid_in_kernel=True")
    if use_beta_sigmoid_in_kernel:
        beta = beta.sigmoid() * (2 if allow_neg_eigval else 1)
    if use_qk_l2norm_in_kernel:
        q, k = _l2_normalized(q), _l2_normalized(k)
    return _run(
        name,
        _scaled("gated_delta_rule", scale, k),
        (q, k, v, g, beta),
        v=v,
        initial_state=initial_state,
        output_final_state=output_final_state,
        state_v_first=state_v_first,
        boundaries=_boundaries(name, q, cu_seqlens, cu_seqlens_cpu, chunk_indices),
    )


def chunk_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    cu_seqlens: Tensor | None = None,
    cu_seqlens_cpu: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Delta rule: S_t = (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ, o_t = scale S_tᵀ q_t; beta (B, T, H).

    Raises TypeError for another keyword, UsageError for what the module names and for sizes that disagree.
    Source: Yang, Wang, Zhang, Shen and Kim, Parallelizing Linear Transformers with the Delta Rule over Sequence Length,
    2024.

    >>> import torch
    >>> from helix_plugin_torch import functional
    >>> q, k, v = (torch.ones(2, 7, 4, 8) for _ in range(3))
    >>> o, state = functional.chunk_delta_rule(q, k, v, torch.full((2, 7, 4), 0.5), output_final_state=True)
    >>> o.shape, state.shape
    (torch.Size([2, 7, 4, 8]), torch.Size([2, 4, 8, 8]))
    """
    name = "chunk_delta_rule"
    _refuse_unknown(name, kwargs)
    sizes(name, {"q": (q, "B T H K"), "k": (k, "B T H K"), "v": (v, "B T H V"), "beta": (beta, "B T H")})
    if use_qk_l2norm_in_kernel:
        q, k = _l2_normalized(q), _l2_normalized(k)
    return _run(
        name,
        _scaled("gated_delta_rule", scale, k),
        (q, k, v, torch.zeros_like(beta), beta),
        v=v,
        initial_state=initial_state,
        output_final_state=output_final_state,
        boundaries=_boundaries(name, q, cu_seqlens, cu_seqlens_cpu),
    )


def chunk_gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    state_v_first: bool = False,
    cu_seqlens: Tensor | None = None,
    cu_seqlens_cpu: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Gated linear attention: S_t = diag(exp(g_t)) S_{t-1} + k_t v_tᵀ, o_t = scale S_tᵀ q_t; g (B, T, H, K).

    Raises UsageError for what the module names and for sizes that disagree.
    Source: Yang, Wang, Shen, Panda and Kim, Gated Linear Attention Transformers with Hardware-Efficient Training, 2023.

    >>> import torch
    >>> from helix_plugin_torch import functional
    >>> q, k, v = (torch.ones(2, 7, 4, 8) for _ in range(3))
    >>> o, state = functional.chunk_gla(q, k, v, -torch.ones(2, 7, 4, 8), output_final_state=True)
    >>> o.shape, state.shape
    (torch.Size([2, 7, 4, 8]), torch.Size([2, 4, 8, 8]))
    """
    name = "chunk_gla"
    sizes(name, {"q": (q, "B T H K"), "k": (k, "B T H K"), "v": (v, "B T H V"), "g": (g, "B T H K")})
    return _run(
        name,
        _scaled("gated_linear_attention", scale, k),
        (q, k, v, g),
        v=v,
        initial_state=initial_state,
        output_final_state=output_final_state,
        state_v_first=state_v_first,
        boundaries=_boundaries(name, q, cu_seqlens, cu_seqlens_cpu),
    )


def chunk_simple_gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    g_gamma: Tensor | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    state_v_first: bool = False,
    cu_seqlens: Tensor | None = None,
    cu_seqlens_cpu: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Linear attention with one decay per head: exp(g), g (B, T, H), or exp(g_gamma), g_gamma (H,), or none.

    Raises TypeError for another keyword, UsageError for g beside g_gamma, for what the module names and for sizes that
    disagree. Source: Dao and Gu, Transformers are SSMs, 2024, as flash-linear-attention has it.

    >>> import torch
    >>> from helix_plugin_torch import functional
    >>> q, k, v = (torch.ones(2, 7, 4, 8) for _ in range(3))
    >>> o, state = functional.chunk_simple_gla(q, k, v, -torch.ones(2, 7, 4), output_final_state=True)
    >>> o.shape, state.shape
    (torch.Size([2, 7, 4, 8]), torch.Size([2, 4, 8, 8]))
    """
    name = "chunk_simple_gla"
    _refuse_unknown(name, kwargs)
    if g is not None and g_gamma is not None:
        raise UsageError(f"{name}: pass g or g_gamma, not both")
    shared = {"q": (q, "B T H K"), "k": (k, "B T H K"), "v": (v, "B T H V")}
    sizes(name, {**shared, "g": (g, "B T H"), "g_gamma": (g_gamma, "H")})
    if g is not None:
        decay = g[..., None]
    else:
        decay = (v.new_zeros(v.shape[2]) if g_gamma is None else g_gamma)[None, None, :, None]
    return _run(
        name,
        _scaled("gated_linear_attention", scale, k),
        (q, k, v, decay),
        v=v,
        initial_state=initial_state,
        output_final_state=output_final_state,
        state_v_first=state_v_first,
        boundaries=_boundaries(name, q, cu_seqlens, cu_seqlens_cpu),
    )


def chunk_retention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """RetNet's retention: `chunk_simple_gla` with the decay 1 - 2^(-5 - h) of head h.

    Raises TypeError for another keyword, UsageError for what the module names and for sizes that disagree.
    Source: Sun et al., Retentive Network: A Successor to Transformer for Large Language Models, 2023.

    >>> import torch
    >>> from helix_plugin_torch import functional
    >>> q, k, v = (torch.ones(2, 7, 4, 8) for _ in range(3))
    >>> o, state = functional.chunk_retention(q, k, v, output_final_state=True)
    >>> o.shape, state.shape
    (torch.Size([2, 7, 4, 8]), torch.Size([2, 4, 8, 8]))
    """
    _refuse_unknown("chunk_retention", kwargs)
    heads = None if q.ndim != 4 else torch.arange(q.shape[2], dtype=wide(v), device=q.device)
    return chunk_simple_gla(
        q,
        k,
        v,
        g_gamma=None if heads is None else torch.log1p(-torch.exp2(-5 - heads)),
        scale=scale,
        initial_state=initial_state,
        output_final_state=output_final_state,
        cu_seqlens=cu_seqlens,
    )


def chunk_rwkv7(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    scale: float = 1.0,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: Tensor | None = None,
    cu_seqlens_cpu: Tensor | None = None,
    safe_gate: bool = False,
    chunk_size: int | None = None,
    disable_recompute: bool = False,
    cp_context: Any = None,
    lower_bound: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """RWKV-7: S_t = diag(exp(w_t)) S_{t-1} + b_t (S_{t-1}ᵀ a_t)ᵀ + k_t v_tᵀ, o_t = scale S_tᵀ r_t.

    r, w (the logarithm of the decay), k, a, b (B, T, H, K), v (B, T, H, V). Raises TypeError for another keyword,
    UsageError for what the module names and for sizes that disagree.
    Source: Peng et al., RWKV-7 "Goose" with Expressive Dynamic State Evolution, 2025.

    >>> import torch
    >>> from helix_plugin_torch import functional
    >>> r, k, v, a, b = (torch.full((2, 7, 4, 8), 0.5) for _ in range(5))
    >>> o, state = functional.chunk_rwkv7(r, -torch.ones(2, 7, 4, 8), k, v, -a, b, output_final_state=True)
    >>> o.shape, state.shape
    (torch.Size([2, 7, 4, 8]), torch.Size([2, 4, 8, 8]))
    """
    name = "chunk_rwkv7"
    _refuse_unknown(name, kwargs)
    refuse(name, cp_context=cp_context)
    keys = {key: (value, "B T H K") for key, value in {"r": r, "w": w, "k": k, "a": a, "b": b}.items()}
    sizes(name, {**keys, "v": (v, "B T H V")})
    return _run(
        name,
        FUNCTIONS["rwkv7"],
        (r if scale == 1.0 else r * scale, w, k, v, a, b),
        v=v,
        initial_state=initial_state,
        output_final_state=output_final_state,
        boundaries=_boundaries(name, r, cu_seqlens, cu_seqlens_cpu),
    )


def _refuse_unknown(name: str, kwargs: dict[str, Any]) -> None:
    """Raise TypeError for a keyword that the authors' function does not have or Helix does not serve."""
    for key in kwargs:
        if key == "chunk_size":
            continue
        if key == "transpose_state_layout":
            raise TypeError(f"{name}(): transpose_state_layout is called state_v_first now")
        if key == "head_first":
            raise TypeError(f"{name}(): head_first is gone; tensors are (B, T, H, ...)")
        raise TypeError(f"{name}() got an unexpected keyword argument {key!r}")


def _l2_normalized(x: Tensor) -> Tensor:
    """Vectors of norm 1, as the authors' `l2norm` makes them."""
    (long,) = promoted(wide(x), x)
    unit: Tensor = long * torch.rsqrt(long.square().sum(-1, keepdim=True) + 1e-6)
    return unit.to(x.dtype)


def _scaled(op: str, scale: float | None, k: Tensor) -> Recurrence:
    """An op with its scale, by default one over the root of the keys' width."""
    return partial(FUNCTIONS[op], scale=float(k.shape[-1] ** -0.5 if scale is None else scale))


def _boundaries(
    name: str, q: Tensor, cu_seqlens: Tensor | None, cu_seqlens_cpu: Tensor | None, chunk_indices: Tensor | None = None
) -> list[int] | None:
    """Where sequences begin and end in a single row."""
    if cu_seqlens is None:
        refuse(
            name,
            hint="it goes with cu_seqlens, which was not given",
            cu_seqlens_cpu=cu_seqlens_cpu,
            chunk_indices=chunk_indices,
        )
        return None
    boundaries: list[int] = (cu_seqlens if cu_seqlens_cpu is None else cu_seqlens_cpu).tolist()
    if q.shape[0] != 1:
        raise UsageError(f"{name}: cu_seqlens cuts a single row, and there are {q.shape[0]}")
    if len(boundaries) < 2 or boundaries[0] != 0 or boundaries[-1] != q.shape[1] or sorted(boundaries) != boundaries:
        raise UsageError(f"{name}: cu_seqlens must rise from 0 to the length {q.shape[1]}, not {boundaries}")
    return boundaries


def _run(
    name: str,
    recurrence: Recurrence,
    arrays: tuple[Tensor, ...],
    *,
    v: Tensor,
    initial_state: Tensor | None,
    output_final_state: bool,
    boundaries: list[int] | None,
    state_v_first: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """`recurrence(*arrays, initial_state=..., reset=...)` over whole rows, or over the sequences of a single one."""
    batch, length, heads, values = v.shape
    sequences = batch if boundaries is None else len(boundaries) - 1
    keys = arrays[0].shape[3]
    if initial_state is not None:
        if state_v_first:
            initial_state = initial_state.transpose(-1, -2)
        if tuple(initial_state.shape) != (sequences, heads, keys, values):
            raise UsageError(
                f"{name}: initial_state holds {(sequences, heads, keys, values)} as (sequences, heads, keys, values), "
                f"and got {tuple(initial_state.shape)}"
            )
    arrays = tuple(promoted(v.dtype, *arrays))
    (state,) = promoted(wide(v), initial_state)
    if boundaries is None:
        o, last = recurrence(*arrays, initial_state=state)
    elif state is None and not output_final_state:
        reset = torch.zeros(1, length, dtype=torch.bool, device=v.device)
        reset[0, [start for start in boundaries[1:] if start < length]] = True
        o, last = recurrence(*arrays, reset=reset)
    else:  # each sequence has states of its own, which one call for the row cannot take or return
        parts = [
            recurrence(
                *(a[:, start:end] if a.shape[1] == length else a for a in arrays),
                initial_state=None if state is None else state[n : n + 1],
            )
            for n, (start, end) in enumerate(pairwise(boundaries))
        ]
        o, last = (torch.cat([part[i] for part in parts], axis) for i, axis in ((0, 1), (1, 0)))
    if not output_final_state:
        return o.to(v.dtype), None
    return o.to(v.dtype), last.transpose(-1, -2) if state_v_first else last
