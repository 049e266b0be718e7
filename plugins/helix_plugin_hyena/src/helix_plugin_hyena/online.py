"""A convolution with a long filter, one step at a time, in O(log² K) operations a step on average: relaxed, by blocks.

Wanted is y[t] = sum of filter[k] v[t - k] over k < K, where v[t] is known only after y[t - 1]. A transform takes many
inputs at once, so each pair of an input s and an output t > s is left to the smallest block of steps that holds both:

1. Steps are cut into blocks of BLOCK, the blocks of level 0. Two of level i make one of level i + 1, up to the span,
   the level whose blocks are K - 1 steps or longer.
2. Within a block of level 0, outputs are sums of products (`_within_block`).
3. Where a block is complete and the first of its pair, one transform gives what it adds to the outputs of the second
   (`_complete`). A span adds to the next span in the same way; no filter reaches further.
4. Where a block of level 0 begins, what the levels add to its outputs is summed (`_from_levels`): a step reads one row
   of that.

So a step is `step`, a boundary of blocks is `_at_boundary`. After many inputs at once, which take one long convolution
with the inputs of `history` before them, `build` makes the state anew.

Every block is an array of its own, so that a step replaces small ones only: that, too, is O(log K) numbers a step.

B rows, C channels, K taps, U steps of a block of one level, N steps asked for, T steps of any array. A row is at the
position p (B,) if p inputs of its document came before.

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
"""Steps of a block of level 0: so many products are as fast as one transform."""


class Online:
    """The state of one convolution with `taps` taps, as a function of the inputs of a row's document.

    recent     (B, BLOCK, C)  the inputs of the block of level 0 that is not complete, zeros behind them
    ahead      (B, BLOCK, C)  what complete blocks add to its outputs
    inputs.i   (B, U, C)  the last complete block of level i, U = 2^i BLOCK steps, while the other one of its pair is
               not complete; of the largest, the span, the last in any case
    pending.i  (B, U, C)  what it adds to the outputs of the U steps after it
    """

    def __init__(self, taps: int, block: int = BLOCK) -> None:
        self.taps, self.block = taps, block
        self.sizes = [block]  # U of each level
        while self.sizes[-1] < taps - 1:
            self.sizes.append(2 * self.sizes[-1])

    @property
    def span(self) -> int:
        """Steps of a block of the last level, which are K - 1 or more."""
        return self.sizes[-1]

    def empty(self, F: OpTable, batch: int, channels: int) -> State:
        """The state before any input."""
        small = {name: F.zeros(batch, self.block, channels) for name in ("recent", "ahead")}
        levels = {
            f"{name}.{level}": F.zeros(batch, size, channels)
            for name in ("inputs", "pending")
            for level, size in enumerate(self.sizes)
        }
        return small | levels

    # One step.

    def step(self, F: OpTable, state: State, position: Array, v: Array, filter: Array) -> tuple[Array, State]:
        """One input v (B, 1, C) at the position (B,) of its row -> its output (B, 1, C), and the state after."""
        xp, size = F.xp, self.block
        offset = (position % size)[:, None]
        offsets = _arange(xp, size, position)
        recent = xp.where((offsets == offset)[..., None], xp.astype(v, state["recent"].dtype), state["recent"])
        y = self._within_block(xp, recent, offset, offsets, filter)
        y = y + _at(xp, state["ahead"], offset)
        after = {**state, "recent": recent}
        done = (position + 1) % size == 0
        after = F.cond(xp.any(done), lambda: self._at_boundary(F, after, position + 1, done, filter), lambda: after)
        return xp.astype(y, v.dtype), after

    def _within_block(self, xp: Any, recent: Array, offset: Array, offsets: Array, filter: Array) -> Array:
        """What the inputs of a block of level 0 add to its output at offset (B, 1): (B, 1, C)."""
        # Input j of the block meets tap offset - j; those to come are zeros.
        lag = xp.where(offsets <= offset, offset - offsets, xp.zeros_like(offsets))
        taps = xp.take(_padded(xp, filter, self.block), xp.reshape(lag, (-1,)), axis=0)
        return xp.sum(recent * xp.reshape(taps, recent.shape), axis=1, keepdims=True)

    def _at_boundary(self, F: OpTable, state: State, position: Array, done: Array, filter: Array) -> State:
        """The state where the rows `done` (B,) are at a boundary of blocks: the blocks that end there are complete."""
        xp = F.xp
        ending = self._largest_ending(xp, position, done)
        for level in range(len(self.sizes)):
            state = self._complete_any(F, state, level, ending == level, filter)
        ahead = self._from_levels(xp, state, position)
        return {**state, "ahead": xp.where(done[:, None, None], ahead, state["ahead"])}

    def _largest_ending(self, xp: Any, position: Array, done: Array) -> Array:
        """The level of the largest block that ends at a boundary, -1 for rows that are at none: (B,).

        All smaller blocks end there, too, and are the second of their pairs.
        """
        level = xp.where(done, xp.zeros_like(position), xp.full_like(position, -1))
        for size in self.sizes[1:]:
            level = level + xp.astype(position % size == 0, position.dtype)
        return level

    def _complete_any(self, F: OpTable, state: State, level: int, rows: Array, filter: Array) -> State:
        """`_complete`, unless it concerns no row."""
        after: State = F.cond(F.xp.any(rows), lambda: self._complete(F, state, level, rows, filter), lambda: state)
        return after

    def _complete(self, F: OpTable, state: State, level: int, rows: Array, filter: Array) -> State:
        """Join the blocks of smaller levels to one of this level, in the rows (B,) that are True."""
        selected = _Rows(F, rows)
        parts = [state[f"inputs.{smaller}"] for smaller in reversed(range(level))] + [state["recent"]]
        block = F.xp.concat([selected.take(part) for part in parts], axis=1)
        made = {f"inputs.{level}": block, f"pending.{level}": _contribution(F, block, filter)}
        joined = ["recent", *_names("inputs", level), *_names("pending", level)]
        after = {name: selected.put(state[name], value) for name, value in made.items()}
        cleared = {name: selected.put(state[name], None) for name in joined}
        return {**state, **after, **cleared}

    def _from_levels(self, xp: Any, state: Mapping[str, Array], position: Array) -> Array:
        """What complete blocks add to the outputs of the block of level 0 at a position (B,): (B, BLOCK, C)."""
        begin = position // self.block * self.block
        offsets = _arange(xp, self.block, position)
        return sum(
            _at(xp, state[f"pending.{level}"], (begin % size)[:, None] + offsets)
            for level, size in enumerate(self.sizes)
        )

    # Many steps.

    def history(self, xp: Any, state: Mapping[str, Array], position: Array) -> Array:
        """The last inputs of each row, oldest first, zeros before the document: (B, 2 span, C).

        They are there as far back as the span before the one that is not complete, which is K - 1 steps or more.
        """
        span, top = self.span, len(self.sizes) - 1
        blocks = xp.concat([state[f"inputs.{level}"] for level in range(top, -1, -1)] + [state["recent"]], axis=1)
        step = position[:, None] - 2 * span + _arange(xp, 2 * span, position)
        kept = xp.logical_and(step >= 0, step >= (position // span - 1)[:, None] * span)
        index = self._index_in_blocks(xp, xp.where(kept, step, xp.zeros_like(step)), position)
        return xp.where(kept[..., None], _at(xp, blocks, index), xp.zeros_like(blocks[:, :1, :1]))

    def _index_in_blocks(self, xp: Any, step: Array, position: Array) -> Array:
        """Where the inputs of steps (B, N) lie in the blocks of all levels, largest first and `recent` last: (B, N)."""
        size = self.block
        # The highest bit in which two numbers of blocks differ is the level of the pair that separates them.
        apart = xp.bitwise_xor(step // size, xp.broadcast_to((position // size)[:, None], step.shape))
        # Blocks of U steps are followed by as many steps of smaller ones: they begin 2 U before the end.
        from_end = xp.full_like(step, size)
        for larger in self.sizes:
            from_end = xp.where(apart >= larger // size, xp.full_like(from_end, 2 * larger), from_end)
        return 2 * self.span - from_end + step % xp.where(apart > 0, from_end // 2, from_end)

    def build(self, F: OpTable, history: Array, position: Array, filter: Array) -> State:
        """The state of rows at a position (B,) in their document, of their last inputs (B, 2 span, C)."""
        xp, size = F.xp, self.block
        recent = self._cut(xp, history, position, position // size * size, size, position >= 0)
        inputs, pending = {}, {}
        for level, length in enumerate(self.sizes):
            if length == self.span:
                begin, complete = (position // length - 1) * length, position >= length
            else:  # the first of a pair whose second is not complete
                begin, complete = position // (2 * length) * (2 * length), position // length % 2 == 1
            block = self._cut(xp, history, position, begin, length, complete)
            inputs[f"inputs.{level}"], pending[f"pending.{level}"] = block, _contribution(F, block, filter)
        return {"recent": recent, "ahead": self._from_levels(xp, pending, position), **inputs, **pending}

    def _cut(self, xp: Any, history: Array, position: Array, begin: Array, length: int, complete: Array) -> Array:
        """Inputs of `length` steps from begin (B,) on, zeros where there are none yet: (B, length, C)."""
        index = (begin - position + 2 * self.span)[:, None] + _arange(xp, length, position)
        known = xp.logical_and(complete[:, None], xp.logical_and(index >= 0, index < 2 * self.span))
        inputs = _at(xp, history, xp.where(known, index, xp.zeros_like(index)))
        return xp.where(known[..., None], inputs, xp.zeros_like(inputs))

    # What a step costs, in the mean of very many.

    def step_flops(self) -> float:
        """Operations of a channel."""
        *pairs, span = (long_conv_flops(size, min(self.taps, 2 * size), size) / size for size in self.sizes)
        return 2.0 * self.block + sum(pairs) / 2 + span

    def step_traffic(self) -> float:
        """Numbers of a channel's state that are read or written."""
        return 4.0 * self.block + 3.0 * len(self.sizes)

    def step_taps(self) -> float:
        """Taps of a channel that are read."""
        return self.block + len(self.sizes) + 1


class _Rows:
    """The rows of a batch where `selected` (B,) is True.

    Where their number is known only they are taken out, else all rows are; either way only they are put back.
    """

    def __init__(self, F: OpTable, selected: Array) -> None:
        self._xp, self._selected = F.xp, selected
        count = F.concrete(F.xp.sum(F.xp.astype(selected, F.xp.int32)))
        self._all = count == selected.shape[0]
        self._index = None
        if count is not None and not self._all:
            order = F.xp.argsort(F.xp.astype(F.xp.logical_not(selected), F.xp.int32), stable=True)
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
            index = xp.cumulative_sum(xp.astype(self._selected, xp.int64)) - 1
            new = xp.take(new, xp.where(index >= 0, index, xp.zeros_like(index)), axis=0)
        return xp.where(self._selected[:, None, None], xp.astype(new, old.dtype), old)


def _contribution(F: OpTable, block: Array, filter: Array) -> Array:
    """What the inputs of a block (B, U, C) add to the U outputs behind it, by one transform: (B, U, C)."""
    filter = filter[: 2 * block.shape[1], :]
    return F.long_conv(F.xp.zeros_like(block), filter, initial_state=block)


def _names(kind: str, levels: int) -> list[str]:
    """The names of one kind of array in the state, of so many levels from 0 on."""
    return [f"{kind}.{level}" for level in range(levels)]


def _padded(xp: Any, filter: Array, length: int) -> Array:
    """The first taps of a filter (K, C), with zeros if there are fewer."""
    short = length - filter.shape[0]
    if short <= 0:
        return filter[:length, :]
    return xp.concat([filter, xp.zeros_like(xp.tile(filter[:1, :], (short, 1)))], axis=0)


def _at(xp: Any, x: Array, index: Array) -> Array:
    """x (B, T, C) at index (B, N) along T: (B, N, C)."""
    return xp.take_along_axis(x, xp.broadcast_to(index[..., None], (*index.shape, x.shape[2])), axis=1)


def _arange(xp: Any, length: int, like: Array) -> Array:
    """0, 1, ... (1, length), of the dtype and on the device of another array."""
    return xp.arange(length, dtype=like.dtype, device=device_of(like))[None, :]


def position_after(xp: Any, position: Array, length: int, reset: Array | None, lengths: Array | None) -> Array:
    """How many steps rows are into their document after a call of `length` steps: position (B,) -> (B,)."""
    ends = xp.full_like(position, length) if lengths is None else xp.astype(lengths, position.dtype)
    if reset is None:
        return position + ends
    steps = _arange(xp, length, position)
    begun = xp.logical_and(reset, steps < ends[:, None])
    last = xp.max(xp.where(begun, steps, xp.full_like(steps, -1)), axis=1)
    return xp.where(last >= 0, ends - last, position + ends)
