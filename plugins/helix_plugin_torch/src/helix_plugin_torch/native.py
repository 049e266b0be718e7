"""Ops as torch's own functions, which torch differentiates and compiles by itself.

B  sequences            I, O  inputs and outputs of a linear map
L  positions            K     taps of a filter
D  channels             V     tokens of the vocabulary
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as nn

from helix_core.ops import OPS
from helix_core.ops.arrays import blank_padding, valid_steps
from helix_core.ops.indices import out_of_range, within
from helix_core.ops.long_conv import in_order, uneven
from helix_plugin_torch import namespace as xp
from helix_plugin_torch.attention import attention as attention
from helix_plugin_torch.linear_cross_entropy import cross_entropy as cross_entropy
from helix_plugin_torch.linear_cross_entropy import linear_cross_entropy as linear_cross_entropy
from helix_plugin_torch.tracing import known

sigmoid = torch.sigmoid
silu = nn.silu
softplus = nn.softplus


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., I), weight (O, I), bias (O,) -> (..., O), in the dtype of x."""
    if x.dtype != weight.dtype:
        weight = weight.to(x.dtype)
    if bias is not None and x.dtype != bias.dtype:
        bias = bias.to(x.dtype)
    return nn.linear(x, weight, bias)


def gelu(x: Tensor) -> Tensor:
    """x (...) -> (...), in the form with tanh."""
    return nn.gelu(x, approximate="tanh")


def softmax(x: Tensor) -> Tensor:
    """x (..., D) -> shares of 1 (..., D)."""
    return torch.softmax(x, dim=-1)


def embedding(tokens: Tensor, weight: Tensor) -> Tensor:
    """tokens (...), weight (V, D) -> (..., D)."""
    size = weight.shape[0]
    if not tokens.is_cpu or torch.compiler.is_compiling():
        # A graphics card would stop the process at a token outside, and compiled code might read at a negative one.
        inside, counted = within(xp, "embedding: tokens", tokens.long(), size)
        return nn.embedding(inside, weight).masked_fill(~counted[..., None], float("nan"))
    try:
        return nn.embedding(tokens if tokens.dtype in (torch.int32, torch.int64) else tokens.long(), weight)
    except IndexError:
        raise out_of_range("embedding: tokens", int(tokens.min()), int(tokens.max()), size) from None


def rms_norm(x: Tensor, weight: Tensor, *, eps: float = 1e-5) -> Tensor:
    """(..., D) -> (..., D)."""
    return nn.rms_norm(x, weight.shape, weight, eps)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, eps: float = 1e-5) -> Tensor:
    """(..., D) -> (..., D)."""
    return nn.layer_norm(x, weight.shape, weight, bias, eps)


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    activation: str = "none",
) -> tuple[Tensor, Tensor]:
    """x (B, L, D), weight (D, K) -> y (B, L, D) and the last inputs (B, K-1, D).

    torch's grouped conv1d for plain rows; rows with resets or padding go through the reference. Raises ValueError for
    another activation than "none" and "silu".
    """
    if reset is not None or lengths is not None:
        y, last = OPS["causal_conv1d"].reference(
            xp,
            x,
            weight,
            bias=bias,
            initial_state=initial_state,
            reset=reset,
            lengths=lengths,
            activation=activation,
        )
        return y, last
    B, L, D = x.shape
    K = weight.shape[1]
    before = x.new_zeros(B, K - 1, D) if initial_state is None else initial_state
    inputs = torch.cat([before, x], dim=1)
    y = nn.conv1d(inputs.transpose(1, 2), weight[:, None, :], bias, groups=D).transpose(1, 2)
    if activation == "silu":
        y = nn.silu(y)
    elif activation != "none":
        raise ValueError(f"activation must be 'none' or 'silu', not {activation!r}")
    return y, inputs[:, L:].clone()


def long_conv(
    u: Tensor,
    filter: Tensor,
    pre: Tensor | None = None,
    post: Tensor | None = None,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """u (B, L, D), filter (K, D) -> (B, L, D), by FFT; rows with resets, or that grow, go through the reference.

    Compiled and on accelerators, rows that grow are not told apart; a NaN or an infinity still reaches no step before.
    """
    if reset is not None:
        y: Tensor = OPS["long_conv"].reference(
            xp, u, filter, pre=pre, post=post, initial_state=initial_state, reset=reset, lengths=lengths
        )
        return y
    valid = None if lengths is None else valid_steps(xp, u.shape[1], lengths)
    u, *gates = blank_padding(xp, valid, u, *(gate for gate in (pre, post) if gate is not None))
    pre, post = None if pre is None else gates[0], None if post is None else gates[-1]
    v = u if pre is None else u * pre
    if initial_state is not None:
        v = torch.cat([initial_state, v], dim=1)
    if v.numel() == 0:
        return torch.zeros_like(u)
    grows = known(uneven(xp, v.detach()))
    if grows is None:
        lost = ~torch.isfinite(v)
        y = torch.where(lost.cumsum(1) > 0, torch.nan, _by_fft(torch.where(lost, 0.0, v), filter))
    else:
        y = in_order(xp, v, filter) if grows else _by_fft(v, filter)
    y = y[:, v.shape[1] - u.shape[1] :]
    blanked: Tensor = blank_padding(xp, valid, y if post is None else y * post)[0]
    return blanked


def _by_fft(v: Tensor, filter: Tensor) -> Tensor:
    """v (B, L, D) with the filter (K, D), by one Fourier transform of the whole row."""
    length = v.shape[1]
    filter = filter[:length]
    n = 1 << (length + filter.shape[0] - 2).bit_length()
    spectrum = torch.fft.rfft(v.transpose(1, 2), n=n) * torch.fft.rfft(filter.transpose(0, 1), n=n)
    filtered: Tensor = torch.fft.irfft(spectrum, n=n)
    return filtered[..., :length].transpose(1, 2)
