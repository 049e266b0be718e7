"""Depthwise causal convolution with a fused SiLU on the CPU: forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from helix_plugin_cpu.kernels._conv_jobs import conv_backward_jobs, conv_forward_jobs
from helix_plugin_cpu.kernels._inputs import dense, flags_and_ends, rows, vector
from helix_plugin_cpu.kernels._threads import run_jobs
from helix_plugin_cpu.kernels.selective_scan import blocked

GROUP = 64

Shape = tuple[int, ...]


def residuals(*shapes: Any, activation: str = "none") -> tuple[Shape, ...]:
    """None: the backward recomputes what is in front of the activation from its inputs."""
    return ()


def forward(*arrays: Tensor | None, activation: str = "none") -> tuple[Tensor, Tensor]:
    """(x, weight, bias, initial_state, reset, lengths) -> y (B, L, D), last_state (B, K-1, D).

    Raises TypeError for arrays that are not float32, ValueError for shapes or activations that do not fit.
    """
    x, weight, bias, h0, reset, lengths = _check(arrays, activation)
    assert x is not None
    assert weight is not None
    batch, length, channels = x.shape
    K = weight.shape[1]
    y, last = torch.empty(batch, length, channels), torch.empty(batch, K - 1, channels)
    source, w, bias_v, h0_d = rows(x), blocked(weight.detach()), vector(bias, channels), dense(h0)
    resets, ends = flags_and_ends(reset, lengths, batch, length)

    def job(start: int, stop: int) -> None:
        conv_forward_jobs(
            start,
            stop,
            GROUP,
            *source.parts,
            w.data_ptr(),
            bias_v.data_ptr(),
            h0_d.numpy(),
            y.data_ptr(),
            last.numpy(),
            resets,
            ends,
            length,
            channels,
            K,
            activation == "silu",
        )

    run_jobs(job, batch * -(-channels // GROUP), 4 * batch * length * channels)
    return y, last


def forward_train(*arrays: Tensor | None, activation: str = "none") -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
    """`forward`; the backward needs nothing more than the inputs."""
    return forward(*arrays, activation=activation), ()


def backward(
    grads: tuple[Tensor | None, ...],
    arrays: tuple[Tensor | None, ...],
    saved: tuple[Tensor, ...],
    *,
    activation: str = "none",
) -> tuple[Tensor | None, ...]:
    """Gradients of y and last_state (either may be None) -> one gradient or None per array."""
    x, weight, bias, h0, reset, lengths = _check(arrays, activation)
    assert x is not None
    assert weight is not None
    batch, length, channels = x.shape
    K = weight.shape[1]
    dy = torch.zeros(batch, length, channels) if grads[0] is None else grads[0]
    dx = torch.empty(batch, length, channels)
    dw, dbias = torch.empty(batch, channels, K), torch.empty(batch, channels)
    dh0 = torch.empty(batch, K - 1, channels)
    source, upstream = rows(x), rows(dy)
    w, bias_v, h0_d, dlast = blocked(weight.detach()), vector(bias, channels), dense(h0), dense(grads[1])
    resets, ends = flags_and_ends(reset, lengths, batch, length)

    def job(start: int, stop: int) -> None:
        conv_backward_jobs(
            start,
            stop,
            GROUP,
            *source.parts,
            *upstream.parts,
            w.data_ptr(),
            bias_v.data_ptr(),
            h0_d.numpy(),
            dlast.numpy(),
            dx.data_ptr(),
            dw.numpy(),
            dbias.numpy(),
            dh0.numpy(),
            resets,
            ends,
            length,
            channels,
            K,
            activation == "silu",
        )

    run_jobs(job, batch * -(-channels // GROUP), 12 * batch * length * channels)
    return (
        dx,
        dw.sum(0),
        None if bias is None else dbias.sum(0),
        None if h0 is None else dh0,
        None,
        None,
    )


def _check(arrays: tuple[Tensor | None, ...], activation: str) -> tuple[Tensor | None, ...]:
    given = (*arrays, *(None,) * (6 - len(arrays)))
    x, weight, bias, h0, reset, lengths = given
    assert x is not None
    assert weight is not None
    batch, length, channels = x.shape
    K = weight.shape[1]
    expected = {
        "weight": (weight, (channels, K)),
        "bias": (bias, (channels,)),
        "initial_state": (h0, (batch, K - 1, channels)),
        "reset": (reset, (batch, length)),
        "lengths": (lengths, (batch,)),
    }
    for name, (array, shape) in expected.items():
        if array is not None and tuple(array.shape) != shape:
            raise ValueError(f"causal_conv1d: {name} has shape {tuple(array.shape)}, expected {shape}")
    for name, array in (("x", x), ("weight", weight), ("bias", bias), ("initial_state", h0)):
        if array is not None and array.dtype != torch.float32:
            raise TypeError(f"causal_conv1d: {name} is {array.dtype}; this kernel takes float32")
    if activation not in ("none", "silu"):
        raise ValueError(f"activation must be 'none' or 'silu', not {activation!r}")
    return given
