"""Gated linear attention on the CPU: matrix products within a core's cache, a state carried between chunks.

Memory is O(B L H (K + V)): neither L x L scores nor a state for each step are built. Arrays may be strided as long as
their last axis has unit stride.

Sources: Yang, Wang, Shen, Panda and Kim, Gated Linear Attention Transformers with Hardware-Efficient Training, 2023;
Sun et al., Retentive Network: A Successor to Transformer for Large Language Models, 2023.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from helix_plugin_cpu.kernels import _linear_attention as attention
from helix_plugin_cpu.kernels._arguments import cast_back, check, empty, from_forward
from helix_plugin_cpu.kernels._linear_attention import Inputs, Plan
from helix_plugin_cpu.kernels._linear_attention_parts import EACH_HEAD, EACH_KEY
from helix_plugin_torch.arguments import FLOATS, Shape

NAMES = ("q", "k", "v", "log_decay", "initial_state", "reset", "lengths")


def _plan(q: Shape, v: Shape, log_decay: Shape) -> Plan:
    kind = EACH_HEAD if log_decay[3] == 1 else EACH_KEY
    return Plan(q[0], q[1], q[2], q[2], q[3], v[3], kind)


def residuals(q: Shape, k: Shape, v: Shape, log_decay: Shape, *rest: Any, **attrs: Any) -> tuple[Shape, ...]:
    """The states in front of every span."""
    return (_plan(q, v, log_decay).kept,)


def forward(*arrays: Tensor | None, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """The 7 inputs of the op, in its order -> y (B, L, H, V), last_state (B, H, K, V).

    q, k, v and y are float32 or half precision, log_decay on its own too, the rest float32. Raises TypeError for other
    dtypes, ValueError for shapes that do not fit.
    """
    plan, given = _checked(arrays, scale)
    return attention.forward(plan, given, None)


def forward_train(*arrays: Tensor | None, scale: float = 1.0) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
    """`forward`, with the residuals that `backward` needs."""
    plan, given = _checked(arrays, scale)
    kept = empty(plan.kept)
    return attention.forward(plan, given, kept), (kept,)


def backward(
    grads: tuple[Tensor | None, ...],
    arrays: tuple[Tensor | None, ...],
    saved: tuple[Tensor, ...],
    *,
    scale: float = 1.0,
) -> tuple[Tensor | None, ...]:
    """Gradients of y and last_state (either may be None) -> one per array; None for absent ones and flags."""
    plan, given = _checked(arrays, scale)
    state = (plan.batch, plan.heads, plan.keys, plan.values)
    check(
        "gated_linear_attention's backward",
        {"y": (grads[0], tuple(given.v.shape)), "last_state": (grads[1], state)},
        dtypes=FLOATS,
    )
    kept = from_forward("gated_linear_attention", saved[0], plan.kept)
    found = attention.backward(plan, given, kept, grads[0], grads[1])
    dg = found.g if plan.kind == EACH_KEY else found.g[..., None]
    shared = [axis for axis in range(4) if given.g.shape[axis] == 1 and dg.shape[axis] != 1]
    if shared:
        dg = dg.sum(dim=shared, keepdim=True)
    initial = None if given.initial is None else found.initial
    return cast_back((found.q, found.k, found.v, dg, initial, None, None), arrays)


def _checked(arrays: tuple[Tensor | None, ...], scale: float) -> tuple[Plan, Inputs]:
    given = dict(zip(NAMES, (*arrays, *(None,) * (len(NAMES) - len(arrays))), strict=True))
    q, k, v, g = (given[name] for name in NAMES[:4])
    if q is None or q.ndim != 4:
        raise ValueError(f"gated_linear_attention: q must be (B, L, H, K), not {None if q is None else tuple(q.shape)}")
    if k is None or v is None or g is None or v.ndim != 4 or g.ndim != 4:
        raise ValueError("gated_linear_attention: k, v and log_decay are needed, with four axes each")
    batch, length, heads, keys = q.shape
    values = v.shape[3]
    gate = tuple(1 if found == 1 else size for found, size in zip(g.shape, q.shape, strict=True))
    shapes: tuple[Shape, ...] = (
        (batch, length, heads, keys), (batch, length, heads, keys), (batch, length, heads, values), gate,
        (batch, heads, keys, values), (batch, length), (batch,),
    )  # fmt: skip
    expected = {name: (given[name], shape) for name, shape in zip(NAMES, shapes, strict=True)}
    check("gated_linear_attention", expected, dtypes=FLOATS)
    initial, reset, lengths = (given[name] for name in NAMES[4:])
    return _plan(tuple(q.shape), tuple(v.shape), tuple(g.shape)), Inputs(
        q=q, k=k, v=v, g=g, A=None, bias=None, D=None, initial=initial, reset=reset, lengths=lengths, scale=scale
    )
