"""causal-conv1d's functions: its names, arguments and layouts (https://github.com/Dao-AILab/causal-conv1d).

B sequences, D channels, L positions, W taps, S inputs that a state keeps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from helix_core.errors import UsageError
from helix_plugin_torch.dtypes import wide
from helix_plugin_torch.functional._layouts import promoted, refuse, sizes, starts
from helix_plugin_torch.functional._ops import FUNCTIONS

_causal_conv1d = FUNCTIONS["causal_conv1d"]


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Any:
    """Depthwise causal convolution over time -> y (B, D, L) in the dtype of x.

    x (B, D, L); weight (D, W); bias (D,); initial_states (B, D, W-1), the inputs before x; seq_idx (B, L), numbers of
    documents that stand one after another, negative for padding, whose outputs are 0; activation None, "silu" or
    "swish". With `return_final_states`, (y, the last inputs (B, D, W-1)), written into `final_states_out` if given.

    Raises UsageError for another activation, for `seq_idx` beside states, as causal-conv1d does, for
    `final_states_out` without `return_final_states`, and for sizes that disagree.

    >>> import torch
    >>> from helix_plugin_torch import functional
    >>> x, weight = torch.ones(2, 8, 7), torch.full((8, 4), 0.25)
    >>> y, states = functional.causal_conv1d_fn(x, weight, return_final_states=True)
    >>> y[0, 0].tolist(), states.shape
    ([0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0], torch.Size([2, 8, 3]))
    """
    function = "causal_conv1d_fn"
    axes = sizes(
        function,
        {
            "x": (x, "batch dim seqlen"),
            "weight": (weight, "dim width"),
            "bias": (bias, "dim"),
            "seq_idx": (seq_idx, "batch seqlen"),
        },
    )
    shape = (axes["batch"], axes["dim"], axes["width"] - 1)
    for name, states in (("initial_states", initial_states), ("final_states_out", final_states_out)):
        if states is not None and tuple(states.shape) != shape:
            raise UsageError(f"{function}: {name} is (batch, dim, width - 1) = {shape}, and got {tuple(states.shape)}")
    if seq_idx is not None and (initial_states is not None or return_final_states):
        raise UsageError(f"{function}: seq_idx goes with neither initial_states nor return_final_states")
    if final_states_out is not None and not return_final_states:
        raise UsageError(f"{function}: final_states_out is written to with return_final_states=True only")
    y, last = _convolved(
        function, x, weight, bias=bias, initial_states=initial_states, seq_idx=seq_idx, activation=activation
    )
    if not return_final_states:
        return y
    if final_states_out is None:
        return y, last
    return y, final_states_out.copy_(last)


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """One step or a few of the convolution, which moves the inputs into `conv_state` -> y, shaped as x.

    x (B, D) or (B, D, L); conv_state (B, D, S), the last S >= W-1 inputs; weight (D, W); bias (D,); activation None,
    "silu" or "swish". Raises UsageError for `cache_seqlens` (a circular state), for `conv_state_indices`, and for sizes
    that disagree.

    >>> import torch
    >>> from helix_plugin_torch import functional
    >>> state = torch.zeros(2, 8, 3)
    >>> y = functional.causal_conv1d_update(torch.ones(2, 8), state, torch.full((8, 4), 0.25))
    >>> y.shape, state[0, 0].tolist()
    (torch.Size([2, 8]), [0.0, 0.0, 1.0])
    """
    function = "causal_conv1d_update"
    refuse(
        function,
        hint="states here are in the order of time, a row of x each",
        cache_seqlens=cache_seqlens,
        conv_state_indices=conv_state_indices,
    )
    steps = x[..., None] if x.ndim == 2 else x
    axes = sizes(
        function,
        {
            "x": (steps, "batch dim seqlen"),
            "conv_state": (conv_state, "batch dim state_len"),
            "weight": (weight, "dim width"),
            "bias": (bias, "dim"),
        },
    )
    kept, needed = axes["state_len"], axes["width"] - 1
    if kept < needed:
        raise UsageError(f"{function}: conv_state has {kept} inputs, and {axes['width']} taps need {needed}")
    y, _ = _convolved(
        function, steps, weight, bias=bias, initial_states=conv_state[..., kept - needed :], activation=activation
    )
    with torch.no_grad():
        conv_state.copy_(torch.cat([conv_state, steps.to(conv_state.dtype)], -1)[..., axes["seqlen"] :])
    return y.reshape(x.shape)


def _convolved(
    function: str,
    x: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None,
    initial_states: Tensor | None,
    activation: str | None,
    seq_idx: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y (B, D, L) and the last inputs (B, D, W-1), in the dtype of x."""
    if activation not in (None, "silu", "swish"):
        raise UsageError(f"{function}: activation must be None, 'silu' or 'swish', not {activation!r}")
    weight, bias, initial_states = promoted(wide(x), weight, bias, initial_states)
    y, last = _causal_conv1d(
        x.transpose(1, 2),
        weight,
        bias=bias,
        initial_state=None if initial_states is None else initial_states.transpose(1, 2),
        reset=None if seq_idx is None else starts(seq_idx),
        activation="none" if activation is None else "silu",
    )
    y = y.transpose(1, 2)
    if seq_idx is not None:
        y = y.masked_fill(seq_idx[:, None] < 0, 0.0)
    return y.to(x.dtype), last.transpose(1, 2).to(x.dtype)
