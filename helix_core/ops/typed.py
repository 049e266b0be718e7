"""The ops as type checkers and editors see them on a table: the signature of the reference, without its `xp`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from helix_core.ops import (
    activations,
    adamw,
    add_rms_norm,
    attention,
    bit_linear,
    causal_conv1d,
    cross_entropy,
    diagonal_ssm,
    dropout,
    embedding,
    gated_delta_rule,
    gated_linear_attention,
    layer_norm,
    linear,
    linear_cross_entropy,
    linear_scan,
    long_conv,
    rms_norm,
    rwkv7,
    selective_scan,
    ssd,
    swiglu,
    wkv4,
)

P = ParamSpec("P")
R = TypeVar("R")


def _bound(reference: Callable[Concatenate[Any, P], R]) -> staticmethod[P, R]:
    """Declare an op: called on a table, it takes what its reference takes after the namespace."""
    return cast("staticmethod[P, R]", staticmethod(reference))


class TypedOps:
    """What `OpTable` inherits for type checkers alone; at run time, ops are in the table's own dictionary."""

    adamw = _bound(adamw.adamw)
    add_rms_norm = _bound(add_rms_norm.add_rms_norm)
    attention = _bound(attention.attention)
    bit_linear = _bound(bit_linear.bit_linear)
    causal_conv1d = _bound(causal_conv1d.causal_conv1d)
    cross_entropy = _bound(cross_entropy.cross_entropy)
    diagonal_ssm_filter = _bound(diagonal_ssm.diagonal_ssm_filter)
    diagonal_ssm = _bound(diagonal_ssm.diagonal_ssm)
    dropout = _bound(dropout.dropout)
    embedding = _bound(embedding.embedding)
    gated_delta_rule = _bound(gated_delta_rule.gated_delta_rule)
    gated_linear_attention = _bound(gated_linear_attention.gated_linear_attention)
    gelu = _bound(activations.gelu)
    layer_norm = _bound(layer_norm.layer_norm)
    linear = _bound(linear.linear)
    linear_cross_entropy = _bound(linear_cross_entropy.linear_cross_entropy)
    linear_scan = _bound(linear_scan.linear_scan)
    long_conv = _bound(long_conv.long_conv)
    rms_norm = _bound(rms_norm.rms_norm)
    rwkv7 = _bound(rwkv7.rwkv7)
    selective_scan = _bound(selective_scan.selective_scan)
    sigmoid = _bound(activations.sigmoid)
    silu = _bound(activations.silu)
    softmax = _bound(activations.softmax)
    softplus = _bound(activations.softplus)
    ssd = _bound(ssd.ssd)
    swiglu = _bound(swiglu.swiglu)
    wkv4 = _bound(wkv4.wkv4)
