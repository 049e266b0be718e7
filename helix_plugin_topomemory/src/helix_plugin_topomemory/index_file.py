"""What usearch writes, checked before usearch reads it: its own loader trusts every number and crashes on wrong ones.

A file is a matrix of vectors (u32 rows, u32 bytes per row), 64 bytes that say what it is of, 40 bytes about the graph,
the level of every node, and the nodes: key, level, and the neighbours at each level with their number in front.
"""

from __future__ import annotations

import struct

import numpy as np

SCALARS = {"f32": (11, 4), "f16": (12, 2), "bf16": (4, 2), "i8": (23, 1)}
"""usearch's number of a type of vectors, and its bytes."""
INNER_PRODUCT, KEY_U64, SLOT_U32 = ord("i"), 14, 15
NODES = 1 << 16
"""Nodes looked at together."""


def is_sound(data: bytes, ids: np.ndarray, *, dim: int, dtype: str, connectivity: int) -> bool:
    """Whether a file is of an index of these options and ids (N,), and all it refers to is in it.

    False too for a layout of a later usearch, which this does not know.
    """
    code, width = SCALARS[dtype]
    try:
        rows, row_bytes = struct.unpack_from("<II", data)
        if row_bytes != dim * width:
            return False
        at = 8 + rows * row_bytes
        magic, metric, scalar, key, slot, present, deleted, columns, multi = struct.unpack_from("<7s6x4B3QB", data, at)
        kinds = (magic, metric, scalar, key, slot, columns, multi)
        if kinds != (b"usearch", INNER_PRODUCT, code, KEY_U64, SLOT_U32, dim, 0):
            return False
        size, most, most_base, top, entry = struct.unpack_from("<5Q", data, at + 64)
        levels = np.frombuffer(data, "<i2", size, at + 104).astype(np.int64)
    except (struct.error, ValueError, OverflowError):  # it is shorter than that
        return False
    if (size, size) != (rows, present + deleted) or (most, most_base) != (connectivity, 2 * connectivity):
        return False
    if not size:
        return len(ids) == 0
    if levels.min() < 0 or entry >= size or not top == levels.max() == levels[entry]:
        return False
    base, upper = 10 + 4 * (1 + most_base), 4 * (1 + most)
    ends = np.cumsum(base + upper * levels)
    nodes = np.frombuffer(data, np.uint8, offset=at + 104 + 2 * size)
    if len(nodes) != ends[-1]:
        return False
    starts = ends - (base + upper * levels)
    keys = np.empty(size, np.uint64)
    for begin in range(0, size, NODES):
        part = slice(begin, begin + NODES)
        head = _fields(nodes, starts[part], 10)
        keys[part] = head[:, :8].copy().view("<u8")[:, 0]
        if (head[:, 8:].copy().view("<i2")[:, 0] != levels[part]).any():
            return False
        for level in range(int(levels[part].max()) + 1):
            some = starts[part][levels[part] >= level]
            first = some + 10 if level == 0 else some + base + (level - 1) * upper
            if not _are_neighbours(_fields(nodes, first, base - 10 if level == 0 else upper), levels, level):
                return False
    live = np.sort(keys[keys != np.iinfo(np.uint64).max])  # removed nodes have that key
    return len(live) == present and np.array_equal(live, ids.astype(np.uint64))


def _fields(nodes: np.ndarray, starts: np.ndarray, size: int) -> np.ndarray:
    """The bytes (N, size) from each start."""
    return nodes[starts[:, None] + np.arange(size)]


def _are_neighbours(lists: np.ndarray, levels: np.ndarray, level: int) -> bool:
    """Whether lists (N, bytes) of neighbours hold as many nodes as they say, and nodes that are at this level."""
    numbers = lists.view("<u4").astype(np.int64)
    counts, slots = numbers[:, 0], numbers[:, 1:]
    if counts.max(initial=0) > slots.shape[1]:
        return False
    there = slots[np.arange(slots.shape[1]) < counts[:, None]]
    return bool((there < len(levels)).all() and (levels[there] >= level).all())
