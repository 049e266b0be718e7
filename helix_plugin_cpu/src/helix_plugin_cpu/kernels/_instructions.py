"""The instructions of a recorded program, each declared once: `pack` writes their words, step functions read them.

`NORM.code` is an instruction's number and `NORM.x` the index of the word that holds its field `x`: to a kernel, both
are constants. Fields are addresses, strides in bytes, sizes and flags.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from helix_plugin_cpu.kernels._jit import inline
from helix_plugin_cpu.kernels._memory import get_int

WORDS = 32
"""int64 words of an instruction; the first is its code."""


def _declare(code: int, name: str, fields: str) -> Any:
    """The layout of an instruction; its fields follow the code."""
    names = fields.split()
    assert len(names) < WORDS
    make: Any = namedtuple  # a type checker wants literal fields
    return make(name, ["code", *names])(code, *range(1, len(names) + 1))


LINEAR = _declare(0, "LINEAR", "kind x x_row batch inputs w w_row bias y y_row contents")
"""y = x (batch, inputs) times the transpose of a stored matrix; equal `contents` for the same numbers in x."""
POINTWISE = _declare(
    1, "POINTWISE", "function out_rows first_rows first_step second_rows second_step columns by_rows rows out_step"
)
"""A function of one or two arrays, whose rows start where tables of addresses say; jobs are of rows or columns."""
REDUCE = _declare(2, "REDUCE", "function out_rows rows step columns")
"""A reduction of the rows of an array."""
NORM = _declare(3, "NORM", "centred x x_row residual residual_row weight bias eps y y_row sums sums_row channels")
"""rms_norm, or layer_norm if `centred`, of x plus a residual; `eps` is the address of a float."""
CONV = _declare(4, "CONV", "batch taps channels x x_row weight bias before after y y_row silu")
"""A step of a causal convolution; weight (taps, channels), states before and after (batch, taps - 1, channels), perhaps
the same."""
SCAN = _declare(
    5,
    "SCAN",
    "batch d_state channels u u_row delta delta_row A B B_row C C_row skip z z_row bias before after y y_row softplus",
)
"""A step of a selective scan, its D as `skip`; A (channels, d_state) carries a factor log2 e, states are
(batch, channels, d_state)."""
GATHER = _declare(6, "GATHER", "kind tokens w w_row channels y y_row")
"""Rows of a stored table."""
ATTEND = _declare(
    7,
    "ATTEND",
    "groups heads d_key d_value size scale position q q_row q_head k k_row k_head v v_row v_head keys values y y_row",
)
"""A step of attention, whose key and value go into a cache (batch, size, groups, ...) that is read as far as it is
filled; jobs are groups of heads of a row. `heads` is how many read a group, `scale` the address of a float."""


def pack(layout: Any, **fields: int) -> list[int]:
    """The words of an instruction. Raises TypeError unless every field is given, and no other."""
    names = layout._fields[1:]
    if fields.keys() != set(names):
        wrong = sorted(fields.keys() ^ set(names))
        raise TypeError(f"{type(layout).__name__} has the fields {', '.join(names)}: see {', '.join(wrong)}")
    return [layout.code, *(fields[name] for name in names)]


@inline
def word(instruction: int, index: int) -> Any:
    """A word of an instruction at an address."""
    return get_int(instruction + 8 * index)
