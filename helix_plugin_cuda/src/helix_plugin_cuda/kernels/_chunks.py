"""Recurrences in chunks of time: when one program a channel would leave the card idle, chunks run side by side.

Every chunk is first run from nothing (its end state and the product of its decays), then one pass carries states from
chunk to chunk, and every chunk is run from the state that enters it. The adjoint goes the same way, backwards.

B sequences, L positions, D channels, M states of a row.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from helix_plugin_cuda.kernels._launch import INTERPRETED, blocks, launch, processors, wide

TILE = 8
"""Steps between states kept for the backward, which holds so many in registers."""
SHORTEST = 2 * TILE if INTERPRETED else 128
"""Fewest steps of a chunk."""


def split(length: int, programs: int, device: torch.device, tile: int = TILE) -> tuple[int, int]:
    """Number of chunks, and steps of each (so many tiles), for a recurrence with so many programs without chunks."""
    wanted = blocks(8 * processors(device.index), max(programs, 1))
    chunks = max(1, min(wanted, length // SHORTEST))
    steps = blocks(blocks(length, chunks), tile) * tile
    return max(1, blocks(length, steps)), steps


def unroll(length: int) -> int:
    """How many steps of a loop over so many are written out; one where they are few.

    Of a single step Triton knows that the unrolled part is never run, and its compiler for AMD may then fail.
    """
    return 4 if length >= 4 else 1


@triton.jit
def place(L, D, chunks, steps, BLOCK: tl.constexpr):
    """Row, chunk, channels, first step and end of this program's work."""
    pieces = tl.cdiv(D, BLOCK)
    program = wide(tl.program_id(0))
    chunk = program // pieces % chunks
    first = chunk * steps
    d = (program % pieces) * BLOCK + tl.arange(0, BLOCK)
    return program // (pieces * chunks), chunk, d, first, tl.minimum(first + steps, L)


@triton.jit
def limit(lengths, b, L):
    """Where the row ends."""
    if lengths is not None:
        return wide(tl.load(lengths + b))
    return wide(L)


@triton.jit
def fresh(reset, b, t, L, real):
    """Whether a new document starts at step t."""
    if reset is not None:
        return tl.load(reset + b * L + t, mask=real, other=0) != 0
    return tl.full([], 0, tl.int1)


@triton.jit
def _carry(ends, decays, initial, enter, last, chunks, M, SHARE: tl.constexpr, REVERSE: tl.constexpr,
           BLOCK: tl.constexpr):  # fmt: skip
    """state of chunk c+1 = decay of chunk c * state entering chunk c + what chunk c adds; decays are M / SHARE wide."""
    pieces = tl.cdiv(M, BLOCK)
    row = wide(tl.program_id(0)) // pieces
    m = (tl.program_id(0) % pieces) * BLOCK + tl.arange(0, BLOCK)
    inside = m < M
    state = tl.zeros([BLOCK], tl.float32)
    if initial is not None:
        state = tl.load(initial + row * M + m, mask=inside, other=0.0).to(tl.float32)
    for k in range(chunks):
        c = row * chunks + (chunks - 1 - k if REVERSE else k)
        tl.store(enter + c * M + m, state, mask=inside)
        decay = tl.load(decays + c * (M // SHARE) + m // SHARE, mask=inside, other=0.0)
        # What a new document drops stays dropped, were it infinite.
        kept = tl.where(decay == 0.0, 0.0, decay * state)
        state = kept + tl.load(ends + c * M + m, mask=inside, other=0.0)
    if last is not None:
        tl.store(last + row * M + m, state, mask=inside)


def carry(
    ends: Tensor, decays: Tensor, initial: Tensor | None, last: Tensor | None, *, reverse: bool = False
) -> Tensor:
    """ends (R, C, M), decays (R, C, M or M / share), initial (R, M) -> the states entering chunks (R, C, M).

    `last` (R, M) is filled with the state behind the last chunk (in front of the first one if `reverse`).
    """
    rows, chunks, M = ends.shape
    enter = torch.empty_like(ends)
    block = 256
    launch(
        _carry, (rows * blocks(M, block),), ends, decays, initial, enter, last, chunks, M,
        SHARE=M // max(decays.shape[2], 1), REVERSE=reverse, BLOCK=block,
    )  # fmt: skip
    return enter
