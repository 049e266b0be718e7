"""A convolution with a long filter, a step at a time, in O(log² K) operations a step: the state of decoding.

Steps are gathered in blocks of BLOCK, those in blocks twice as long, and so on up to a span of K - 1 steps or more.
A block that is complete and the first of a pair adds to the outputs of the second at once, by one transform; a span
adds to those of the next one. Within a block of BLOCK, outputs are sums of products. So every pair of an input and an
output is met exactly once, at the smallest block that holds both.

Every block is an array of its own, so that a step replaces small ones only: that, too, is O(log K) numbers a step.

Source: van der Hoeven, Relax, but Don't be Too Lazy, 2002 (relaxed multiplication); for such models Oncescu et al.,
Flash Inference: Near Linear Time Inference for Long Convolution Sequence Models and Beyond, 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helix_core.kinds.layer import State
from helix_core.ops import OpTable, device_of
from helix_core.ops.long_conv import long_conv_flops

Array = Any

BLOCK = 32


class Online:
    """The state of one convolution with `taps` taps, as a function of the inputs of a row's document.

    recent     (B, BLOCK, C)  the inputs of the block that is not complete, zeros behind them
    ahead      (B, BLOCK, C)  what complete blocks add to its outputs
    inputs.i   (B, U, C)  the last complete block of U = 2^i BLOCK steps, while the other one of its pair is not
               complete; of the largest, the span, the last in any case
    pending.i  (B, U, C)  what it adds to the outputs of the U steps after it
    """

    def __init__(self, taps: int, block: int = BLOCK) -> None:
        self.taps, self.block = taps, block
        self.sizes = [block]
        while self.sizes[-1] < taps - 1:
            self.sizes.append(2 * self.sizes[-1])

    @property
    def span(self) -> int:
        return self.sizes[-1]

    def empty(self, F: OpTable, batch: int, channels: int) -> State:
        """The state before any input."""
        small = {name: F.zeros(batch, self.block, channels) for name in ("recent", "ahead")}
        levels = {
            f"{name}.{i}": F.zeros(batch, size, channels)
            for name in ("inputs", "pending")
            for i, size in enumerate(self.sizes)
        }
        return small | levels

    def step_flops(self) -> float:
        """Of a channel, for one step of very many."""
        *pairs, span = (long_conv_flops(size, min(self.taps, 2 * size), size) / size for size in self.sizes)
        return 2.0 * self.block + sum(pairs) / 2 + span

    def step_traffic(self) -> float:
        """Numbers of a channel's state that one step of very many reads or writes."""
        return 4.0 * self.block + 3.0 * len(self.sizes)

    def step_taps(self) -> float:
        """Taps of a channel that one step of very many reads."""
        return self.block + len(self.sizes) + 1

    # Steps.

    def step(self, F: OpTable, state: State, at: Array, v: Array, filter: Array) -> tuple[Array, State]:
        """One input v (B, 1, C) behind the `at` (B,) others of its row -> its output (B, 1, C), and the state after."""
        xp, size = F.xp, self.block
        places = xp.arange(size, dtype=at.dtype, device=device_of(at))[None, :]
        place = (at % size)[:, None]
        recent = xp.where((places == place)[..., None], xp.astype(v, state["recent"].dtype), state["recent"])
        # Input j of the block meets tap place - j; those to come are zeros.
        near = xp.where(places <= place, place - places, xp.zeros_like(places))
        taps = xp.take(_padded(xp, filter, size), xp.reshape(near, (-1,)), axis=0)
        y = xp.sum(recent * xp.reshape(taps, recent.shape), axis=1, keepdims=True)
        y = y + _at(xp, state["ahead"], place)
        after = {**state, "recent": recent}
        done = (at + 1) % size == 0
        after = F.cond(xp.any(done), lambda: self._close(F, after, at + 1, done, filter), lambda: after)
        return xp.astype(y, v.dtype), after

    def _close(self, F: OpTable, state: State, at: Array, done: Array, filter: Array) -> State:
        """The state at a boundary of blocks, for the rows that are `done` with one, `at` steps into their document."""
        xp = F.xp
        # The largest block that ends here; all smaller ones do, too, and are the second of their pairs.
        level = xp.where(done, xp.zeros_like(at), xp.full_like(at, -1))
        for size in self.sizes[1:]:
            level = level + xp.astype(at % size == 0, at.dtype)
        for i in range(len(self.sizes)):
            ends = level == i
            state = F.cond(
                xp.any(ends),
                lambda i=i, ends=ends, state=state: self._close_level(F, state, i, ends, filter),  # type: ignore[misc]
                lambda state=state: state,  # type: ignore[misc]
            )
        return {**state, "ahead": xp.where(done[:, None, None], self._ahead(xp, state, at), state["ahead"])}

    def _close_level(self, F: OpTable, state: State, level: int, ends: Array, filter: Array) -> State:
        """Make one block of those below, in the rows `ends` (B,)."""
        xp = F.xp
        rows = _Rows(F, ends)
        parts = [state[f"inputs.{i}"] for i in reversed(range(level))] + [state["recent"]]
        block = xp.concat([rows.take(part) for part in parts], axis=1)
        made = {f"inputs.{level}": block, f"pending.{level}": self._coming(F, block, filter)}
        after = {name: rows.put(state[name], value) for name, value in made.items()}
        for name in ["recent", *(f"{kind}.{i}" for kind in ("inputs", "pending") for i in range(level))]:
            after[name] = rows.put(state[name], None)
        return {**state, **after}

    def _coming(self, F: OpTable, block: Array, filter: Array) -> Array:
        """What a block (B, U, C) adds to the U outputs behind it."""
        filter = filter[: 2 * block.shape[1], :]
        return F.long_conv(F.xp.zeros_like(block), filter, initial_state=block)

    def _ahead(self, xp: Any, state: Mapping[str, Array], at: Array) -> Array:
        """What complete blocks add to the outputs of the block that begins at the last boundary up to `at` (B,)."""
        begin = at // self.block * self.block
        places = xp.arange(self.block, dtype=at.dtype, device=device_of(at))[None, :]
        return sum(
            _at(xp, state[f"pending.{i}"], (begin % size)[:, None] + places) for i, size in enumerate(self.sizes)
        )

    # Many steps.

    def history(self, xp: Any, state: Mapping[str, Array], at: Array) -> Array:
        """The last inputs of each row, oldest first, zeros before the document: (B, 2 span, C).

        They are there as far back as the span before the one that is not complete, which is K - 1 steps or more.
        """
        size, span = self.block, self.span
        top = len(self.sizes) - 1
        pool = xp.concat([state[f"inputs.{i}"] for i in range(top, -1, -1)] + [state["recent"]], axis=1)
        asked = at[:, None] - 2 * span + xp.arange(2 * span, dtype=at.dtype, device=device_of(at))[None, :]
        there = xp.logical_and(asked >= 0, asked >= (at // span - 1)[:, None] * span)
        asked = xp.where(there, asked, xp.zeros_like(asked))
        # The highest bit in which two numbers of blocks differ is the level of the pair that separates them.
        apart = xp.bitwise_xor(asked // size, xp.broadcast_to((at // size)[:, None], asked.shape))
        width = xp.full_like(asked, size)
        for larger in self.sizes:
            width = xp.where(apart >= larger // size, xp.full_like(width, 2 * larger), width)
        # In the pool, blocks of U steps are followed by as many steps of smaller ones.
        place = 2 * span - width + asked % xp.where(apart > 0, width // 2, width)
        return xp.where(there[..., None], _at(xp, pool, place), xp.zeros_like(pool[:, :1, :1]))

    def build(self, F: OpTable, history: Array, at: Array, filter: Array) -> State:
        """The state of rows that are `at` (B,) steps into their document, of their last inputs (B, 2 span, C)."""
        xp, size = F.xp, self.block

        def block(begin: Array, length: int, there: Array) -> Array:
            place = begin - at + 2 * self.span
            places = place[:, None] + xp.arange(length, dtype=at.dtype, device=device_of(at))[None, :]
            there = xp.logical_and(there[:, None], xp.logical_and(places >= 0, places < 2 * self.span))
            found = _at(xp, history, xp.where(there, places, xp.zeros_like(places)))
            return xp.where(there[..., None], found, xp.zeros_like(found))

        state = {"recent": block(at // size * size, size, at >= 0)}
        top = len(self.sizes) - 1
        for i, length in enumerate(self.sizes):
            if i == top:
                state[f"inputs.{i}"] = block((at // length - 1) * length, length, at >= length)
            else:
                state[f"inputs.{i}"] = block(at // (2 * length) * (2 * length), length, at // length % 2 == 1)
            state[f"pending.{i}"] = self._coming(F, state[f"inputs.{i}"], filter)
        state["ahead"] = self._ahead(xp, state, at)
        return {name: state[name] for name in ("recent", "ahead", *_levels("inputs", top), *_levels("pending", top))}


def _levels(kind: str, top: int) -> list[str]:
    return [f"{kind}.{i}" for i in range(top + 1)]


class _Rows:
    """Some rows of a batch: taken out where their number is known, else all, of which only these are put back."""

    def __init__(self, F: OpTable, chosen: Array) -> None:
        self._xp, self._chosen = F.xp, chosen
        count = F.concrete(F.xp.sum(F.xp.astype(chosen, F.xp.int32)))
        self._all = count == chosen.shape[0]
        self._index = None
        if count is not None and not self._all:
            order = F.xp.argsort(F.xp.astype(F.xp.logical_not(chosen), F.xp.int32), stable=True)
            self._index = order[:count]

    def take(self, x: Array) -> Array:
        return x if self._index is None else self._xp.take(x, self._index, axis=0)

    def put(self, old: Array, new: Array | None) -> Array:
        """The old values with these rows' new ones, or zeros."""
        xp = self._xp
        if self._all:
            return xp.zeros_like(old) if new is None else xp.astype(new, old.dtype)
        if new is None:
            new = xp.zeros_like(old)
        elif self._index is not None:
            place = xp.cumulative_sum(xp.astype(self._chosen, xp.int64)) - 1
            new = xp.take(new, xp.where(place >= 0, place, xp.zeros_like(place)), axis=0)
        return xp.where(self._chosen[:, None, None], xp.astype(new, old.dtype), old)


def _padded(xp: Any, filter: Array, length: int) -> Array:
    """The first taps of a filter (K, C), with zeros if there are fewer."""
    short = length - filter.shape[0]
    if short <= 0:
        return filter[:length, :]
    return xp.concat([filter, xp.zeros_like(xp.tile(filter[:1, :], (short, 1)))], axis=0)


def _at(xp: Any, x: Array, index: Array) -> Array:
    """x (B, T, C) at index (B, K) along T."""
    return xp.take_along_axis(x, xp.broadcast_to(index[..., None], (*index.shape, x.shape[2])), axis=1)


def position_after(xp: Any, at: Array, length: int, reset: Array | None, lengths: Array | None) -> Array:
    """How many steps rows are into their document after a call of `length` steps: at (B,) -> (B,)."""
    ends = xp.full_like(at, length) if lengths is None else xp.astype(lengths, at.dtype)
    if reset is None:
        return at + ends
    steps = xp.arange(length, dtype=at.dtype, device=device_of(at))[None, :]
    begun = xp.logical_and(reset, steps < ends[:, None])
    last = xp.max(xp.where(begun, steps, xp.full_like(steps, -1)), axis=1)
    return xp.where(last >= 0, ends - last, at + ends)
