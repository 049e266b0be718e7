"""Arguments of linear attention's kernels, in groups: strided arrays, sizes, parameters of heads, gates."""

from __future__ import annotations

from typing import NamedTuple

from helix_plugin_cpu.kernels._jit import inline
from helix_plugin_cpu.kernels._linear_attention_chunk import prepare_head
from helix_plugin_cpu.kernels._memory import FLOAT, get
from helix_plugin_cpu.kernels._storage import size_of


class Strided(NamedTuple):
    """An array (B, L, H, ...): its address, and its strides, in elements, over the first three axes."""

    start: int
    row: int
    step: int
    head: int


class ByHead(NamedTuple):
    """Addresses of parameters (H,), 0 for absent ones."""

    A: int
    bias: int
    D: int


class Sizes(NamedTuple):
    """What the shapes are, and into what pieces the work is cut: see `Plan`."""

    batch: int
    length: int
    heads: int
    groups: int
    share: int
    keys: int
    values: int
    kind: int
    chunk: int
    span: int


class Gates(NamedTuple):
    """How step sizes are made: whether by softplus, and their bounds."""

    soft: int
    low: float
    high: float


@inline
def element(array: Strided, stored: float, row: int, t: int, head: int) -> int:
    """The address of a head's numbers at step t."""
    return int(array.start + size_of(stored) * (row * array.row + t * array.step + head * array.head))


@inline
def number(address: int, index: int, default: float) -> float:
    """A float of an array, or the default if there is no array."""
    return float(get(address + FLOAT * index)) if address != 0 else default


@inline
def prepare_head_at(
    stored: float, g_stored: float, work: int, v: Strided, g: Strided, by_head: ByHead, gates: Gates,
    row: int, t: int, steps: int, head: int, sizes: Sizes, scores: int,
) -> float:  # fmt: skip
    """`prepare_head` for the steps from t of a head."""
    return prepare_head(
        stored, g_stored, work, sizes.chunk, element(v, stored, row, t, head), v.step,
        element(g, g_stored, row, t, head), g.step, number(by_head.A, head, 1.0), number(by_head.bias, head, 0.0),
        gates.soft, gates.low, gates.high, steps, sizes.keys, sizes.values, sizes.kind, scores,
    )  # fmt: skip
