"""The kernel language: a part of WGSL that a few rewritings turn into OpenCL C.

A body uses `let`/`var` with explicit types, C-like `for`/`if` with parentheses, `f32(x)`, `i32(x)`,
`select(if_false, if_true, condition)`, `workgroupBarrier()`, and the functions of a dialect's prelude, whose names end
in "_" (`isnan_(x)`: drivers may take `x != x` for false).
`group` and `lane` are the number of the work-group and of the item in it, `P` holds the integer parameters.
`vec` is a vector of `lanes` floats: `LOADV(buffer, index)`, `STOREV(buffer, index, value);` (with an index that `lanes`
divides), `splat_(x)`, `vec_(x0, x1, ...)`, `at_(v, i)`, `sum_(v)`, `exp_v_(v)`. `dot4_(a, b)` is the sum of four
products of signed bytes in two words, `round_` rounds ties to even.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Binding:
    """A buffer that a program reads or, with `writes`, reads and writes; `stored` is "f32", "i32" or "f16".

    Bytes, "u8", are only read, by `LOADB(buffer, index)`. As "i32" they are words of four, the first one lowest.
    """

    name: str
    stored: str = "f32"
    writes: bool = False


@dataclass(frozen=True)
class Program:
    """A kernel before it is said in a dialect; equal programs are compiled once.

    params   names of the integers in `P`
    width    items of a work-group
    lanes    floats of a `vec`
    shared   (name, "f32" or "i32", count) of arrays that a work-group shares
    """

    name: str
    buffers: tuple[Binding, ...]
    params: tuple[str, ...]
    body: str
    width: int = 1
    lanes: int = 1
    shared: tuple[tuple[str, str, int], ...] = ()
    _hash: int = field(default=0, compare=False, repr=False)

    def __post_init__(self) -> None:
        # Looked up at every launch: hash the text once.
        object.__setattr__(self, "_hash", hash((self.name, self.body, self.width, self.lanes, self.buffers)))

    def __hash__(self) -> int:
        return self._hash


COMMON = """
fn floormod_(a: i32, b: i32) -> i32 {
  let r: i32 = a % b;
  return select(r, r + b, r != 0 && (r < 0) != (b < 0));
}
fn floordiv_(a: i32, b: i32) -> i32 {
  let q: i32 = a / b;
  return select(q, q - 1, q * b != a && (a < 0) != (b < 0));
}
fn clamped_(i: i32, n: i32) -> i32 {
  return max(min(select(i, i + n, i < 0), n - 1), 0);
}
fn max_(a: f32, b: f32) -> f32 {
  return select(select(b, a, a > b), a, isnan_(a));
}
fn min_(a: f32, b: f32) -> f32 {
  return select(select(b, a, a < b), a, isnan_(a));
}
fn sigmoid_(x: f32) -> f32 {
  return 1.0f / (1.0f + exp_(-x));
}
"""
"""Functions of the prelude that every dialect gets in the kernel language."""
