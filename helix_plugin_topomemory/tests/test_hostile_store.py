"""A store whose hashes are right and whose content is not: refused, or the index built anew; never trusted."""

import struct

import numpy as np
import pytest

from helix_core.errors import MemoryStoreError
from helix_plugin_lm.storage.store import load_store, save_store
from helix_plugin_topomemory.index import GraphIndex, unit
from helix_plugin_topomemory.index_file import is_sound
from helix_plugin_topomemory.memory import TopologicalConfig, TopologicalMemory

DIM, CONNECTIVITY, COUNT = 8, 4, 300
CONFIG = TopologicalConfig(dim=DIM, exact_below=0, connectivity=CONNECTIVITY, expansion_add=16, expansion_search=64)
KEYS = unit(np.random.default_rng(0).standard_normal((COUNT, DIM)).astype(np.float32))
IDS = np.arange(COUNT)
GRAPH = 8 + COUNT * DIM * 4 + 64
"""Where the file's part about the graph begins: size, two connectivities, greatest level, entry."""
NODES = GRAPH + 40 + 2 * COUNT


def index(dtype="f32"):
    made = GraphIndex(DIM, dtype, CONNECTIVITY, 16, 64)
    made.add(IDS, KEYS)
    return made


def sound(data, ids=IDS, dtype="f32"):
    return is_sound(data, ids, dim=DIM, dtype=dtype, connectivity=CONNECTIVITY)


def put(data, at, code, value):
    out = bytearray(data)
    struct.pack_into(code, out, at, value)
    return bytes(out)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "i8"])
def test_what_usearch_writes_is_sound(dtype):
    made = index(dtype)
    assert sound(made.dump(), dtype=dtype)
    made.remove(IDS[5::7])
    left = np.setdiff1d(IDS, IDS[5::7])
    assert sound(made.dump(), left, dtype)
    made.add(np.arange(COUNT, COUNT + 9), KEYS[:9])
    assert sound(made.dump(), np.r_[left, np.arange(COUNT, COUNT + 9)], dtype)
    assert sound(GraphIndex(DIM, dtype, CONNECTIVITY, 16, 64).dump(), IDS[:0], dtype)


def wrong_indices():
    data = index().dump()
    levels = np.frombuffer(data, "<i2", COUNT, GRAPH + 40)
    (entry,) = struct.unpack_from("<Q", data, GRAPH + 32)
    flat = int(np.flatnonzero(levels == 0)[0])
    sizes = 10 + 4 * (1 + 2 * CONNECTIVITY) + 4 * (1 + CONNECTIVITY) * levels.astype(int)
    node = NODES + int(sizes[:entry].sum())  # it has neighbours on several levels
    above = node + 10 + 4 * (1 + 2 * CONNECTIVITY)
    yield "nothing", b""
    yield "half", data[: len(data) // 2]
    yield "a byte more", data + b"\0"
    for at, code, value, what in (
        (0, "<I", 2**32 - 1, "rows"),
        (4, "<I", 2**31, "bytes per row"),
        (GRAPH - 64, "<B", 0, "magic"),
        (GRAPH - 51, "<B", ord("c"), "metric"),
        (GRAPH - 47, "<Q", 2**63, "vectors present"),
        (GRAPH - 31, "<Q", DIM + 1, "dimensions"),
        (GRAPH, "<Q", 2**40, "size"),
        (GRAPH + 8, "<Q", 2**33, "connectivity"),
        (GRAPH + 24, "<Q", 30_000, "greatest level"),
        (GRAPH + 32, "<Q", COUNT, "entry"),
        (GRAPH + 32, "<Q", flat, "entry on a lower level"),
        (GRAPH + 40 + 2 * entry, "<h", 30_000, "a level"),
        (GRAPH + 40 + 2 * entry, "<h", -1, "a negative level"),
        (NODES, "<Q", COUNT + 5, "a key"),
        (NODES, "<Q", 1, "a key twice"),
        (node + 8, "<h", 0, "a node's own level"),
        (node + 10, "<I", 2 * CONNECTIVITY + 1, "number of neighbours"),
        (node + 14, "<I", COUNT, "a neighbour that is not"),
        (above, "<I", 2**31, "number of neighbours above"),
        (above + 4, "<I", flat, "a neighbour that is not on this level"),
    ):
        changed = put(data, at, code, value)
        if what == "a neighbour that is not on this level":
            changed = put(changed, above, "<I", 1)
        yield what, changed


@pytest.mark.parametrize(("what", "data"), list(wrong_indices()), ids=lambda v: v if isinstance(v, str) else "")
def test_an_index_that_is_not_sound_is_built_anew(what, data):
    assert not sound(data)
    again = GraphIndex(DIM, "f32", CONNECTIVITY, 16, 64)
    again.restore(data, IDS, KEYS)
    assert len(again) == COUNT
    assert np.mean(again.search(KEYS, 1)[:, 0] == IDS) > 0.95


def test_an_index_of_other_items_is_built_anew():
    assert not sound(index().dump(), IDS + 1)
    assert not sound(index().dump(), IDS[:-1])
    assert not sound(index("f16").dump())


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    memory = TopologicalMemory(CONFIG)
    memory.add(KEYS)
    for _ in range(8):
        memory.associate(IDS[:-1], IDS[1:])
    memory.query(KEYS[:2], 2)
    memory.consolidate()
    memory.save(folder)
    return load_store(folder)[:2]


def changed(arrays, name, at, value):
    array = arrays[name].copy()
    array[at] = value
    return {**arrays, name: array}


HOSTILE = {
    "a link to a node that is not": ("links", lambda a: changed(a, "b", 0, len(a["row"]))),
    "a link from nowhere": ("links", lambda a: changed(a, "a", 0, -5)),
    "a state that is none": ("links", lambda a: changed(a, "state", 0, 4)),
    "a stability of NaN": ("links", lambda a: changed(a, "s", 0, np.nan)),
    "a count without end": ("links", lambda a: changed(a, "n", 0, np.inf)),
    "a pair twice": ("links", lambda a: changed(changed(a, "a", 1, a["a"][0]), "b", 1, a["b"][0])),
    "a node never seen": ("links", lambda a: changed(a, "row", slice(None), 0)),
    "fewer nodes": ("links", lambda a: {**a, "row": a["row"][:2], "col": a["col"][:2]}),
    "columns of two lengths": ("links", lambda a: {**a, "n": a["n"][:-1]}),
    "another dtype": ("links", lambda a: {**a, "a": a["a"].astype(np.int64)}),
    "no totals": ("links", lambda a: {k: v for k, v in a.items() if k != "totals"}),
    "a scalar": ("links", lambda a: {**a, "a": np.array(3, np.int32)}),
    "a key of NaN": ("items", lambda a: changed(a, "keys", 3, np.nan)),
    "a key of another width": ("items", lambda a: {**a, "keys": a["keys"][:, :-1]}),
    "ids that fall": ("items", lambda a: {**a, "id": a["id"][::-1].copy()}),
    "an id not given out": ("items", lambda a: changed(a, "id", -1, 2**40)),
    "a negative age": ("items", lambda a: changed(a, "age", 0, -1)),
    "a stability above 1": ("items", lambda a: changed(a, "stability", 0, 7)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_arrays_are_checked_before_they_are_computed_with(name, parts, tmp_path):
    part, change = HOSTILE[name]
    whole, metadata = parts
    save_store(tmp_path, {**whole, part: change(whole[part])}, metadata)
    memory = TopologicalMemory(CONFIG)
    memory.add(KEYS[:5])
    with pytest.raises(MemoryStoreError, match="is damaged"):
        memory.load(tmp_path)
    assert len(memory) == 5, "the content is kept"


@pytest.mark.parametrize(
    "wrong",
    [
        {"next_id": "3"},
        {"next_id": -1},
        {"next_id": 2**70},
        {"sleeps": 1.5},
        {"config": None},
        {"config": {"dim": []}},
    ],
)
def test_facts_are_checked(wrong, parts, tmp_path):
    whole, metadata = parts
    save_store(tmp_path, whole, {**metadata, **wrong})
    with pytest.raises(MemoryStoreError):
        TopologicalMemory(CONFIG).load(tmp_path)


def test_a_long_life_costs_no_memory(parts, tmp_path):
    """Ids only rise; nothing is as long as the greatest of them."""
    whole, metadata = parts
    stability = {}
    for last in (COUNT, 2**50):  # neither has links
        items = changed(whole["items"], "id", -1, last)
        save_store(tmp_path, {"items": items, "links": whole["links"]}, {**metadata, "next_id": last + 1})
        memory = TopologicalMemory(CONFIG)
        memory.load(tmp_path)
        memory.consolidate()
        (stability[last],) = memory.stability([last])
    assert stability[2**50] == stability[COUNT] > whole["items"]["stability"][-1]
